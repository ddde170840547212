"""From the returns of one thing to a whole object: class, and an oriented box with its unseen side.

A scan shows at most two sides of a vehicle. The rectangle around the returns is grown, away from
the sensor and behind whatever stands in front, to the size that its class usually has.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from amodal_core.geometry.classification import (
    CAR,
    CLASSES,
    CYCLIST,
    NOTHING,
    OTHER,
    PEDESTRIAN,
    TRUCK,
    allowed_error,
    classify,
    hidden,
)
from amodal_core.geometry.config import GeometricConfig, Size, SizesConfig
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.footprints import Footprint
from amodal_core.geometry.ground import Ground, height_under
from amodal_core.geometry.lshape import Pair
from amodal_core.geometry.scalars import quantile, within

VAN = len(CLASSES)  # a size that is no class of `classify`


@njit(cache=True)
def complete(
    footprints: np.ndarray, xy: np.ndarray, heights: np.ndarray, ground: Ground, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The objects that K things' returns are part of.

    Args:
        footprints: (K,) see `Footprints`, as what follows.
        xy: (N, 2) float32 metres.
        heights: (N,) float32 metres above the ground.
        ground: the ground's shape.
        values: `GeometricConfig.objects`.

    Returns:
        (K,) int64, indices into `classification.CLASSES`, NOTHING where a thing is no object: pole,
        wall or foliage; (K, 7) float64, see `completed`; (K,) float64, scores 0-1.
    """
    kinds, scores = np.zeros(len(footprints), np.int64), np.zeros(len(footprints))
    boxes = np.zeros((len(footprints), 7))
    v, begin = values[0], 0
    for k in range(len(footprints)):
        f = footprints[k]
        own = slice(begin, begin + f.kept)
        begin += f.kept
        kinds[k] = classify(f, xy[own], heights[own], v) if f.usable else NOTHING
        if kinds[k] != NOTHING:
            completed(kinds[k], f, xy[own], ground, v, boxes[k])
            scores[k] = _score(kinds[k], f, v)
    return kinds, boxes, scores


@njit(cache=True)
def completed(
    kind: int, f: Footprint, xy: np.ndarray, ground: Ground, v: GeometricConfig, box: np.ndarray
) -> None:
    """Fill in the (7,) box of the whole object, see `boxes3d`, standing on the ground.

    Args:
        kind: its class, an index into `classification.CLASSES`, or VAN.
        f: what of it was seen.
        xy: (N, 2) float32 metres, its returns.
        ground: the ground's shape.
        v: what is decided by.
        box: gets it.
    """
    yaw, low, high = _grow(kind, f, xy, v)
    length, width = high[0] - low[0], high[1] - low[1]
    along, across = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = c * along - s * across, s * along + c * across
    height = f.top
    if kind != OTHER:
        usual = _usual(kind, width, f, v).height
        height = within(max(height, usual[0]) if f.cut else height, usual[1], usual[2])
    box[0], box[1], box[2] = x, y, height_under(ground, x, y) + height / 2
    box[3], box[4], box[5], box[6] = length, width, height, yaw


@njit(cache=True)
def _grow(kind: int, f: Footprint, xy: np.ndarray, v: GeometricConfig) -> tuple[float, Pair, Pair]:
    """Heading and extent along it: the first axis is the length's."""
    growth, r = v.growth, f.rectangle
    yaw, low, high = r.yaw, (r.low[0], r.low[1]), (r.high[0], r.high[1])
    # Which side is the length.
    long_first = high[0] - low[0] >= high[1] - low[1]
    vehicle = is_vehicle(kind)
    size = size_of(kind, v.sizes)
    if vehicle and r.length < growth.end_width * size.width[2]:
        # The longer visible side is too short to be the length: it is the front or rear. Of two
        # sides alike, traffic's usual direction decides.
        alike = r.width > growth.alike * r.length
        long_first = yaw < np.pi / 4 if alike else not long_first
    if not long_first:
        # The same rectangle with its axes turned by 90 degrees.
        yaw, low, high = yaw - np.pi / 2, (-high[1], low[0]), (-low[1], high[0])
    if vehicle:
        left, right = _without_mirrors(xy, yaw, low[1], high[1], size.width[0], growth.mirrors)
        low, high = (low[0], left), (high[0], right)
    # How much of it is not seen.
    length, width = high[0] - low[0], high[1] - low[1]
    if kind == OTHER:
        least = v.shape.other_least
        wanted = max(length, least), max(width, least)
    else:
        size = _usual(kind, width, f, v)
        behind = hidden(f.context) > growth.hidden
        # From straight behind, only returns through the glass tell of the length.
        ahead, aside = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
        end_on = abs(aside) < np.tan(np.radians(growth.end_on)) * abs(ahead)
        wanted = (
            _wanted(length, size.length, behind or end_on),
            _wanted(width, size.width, behind),
        )
    ends = _beyond(yaw, low, high, f.context, growth.beyond)
    back, front = _extended(low[0], high[0], wanted[0], ends[0])
    left, right = _extended(low[1], high[1], wanted[1], ends[1])
    return yaw, (back, left), (front, right)


@njit(cache=True)
def is_vehicle(kind: int) -> bool:
    """Whether it is a car, a van or a truck: the first of the classes, and VAN."""
    return kind <= TRUCK or kind == VAN


@njit(cache=True)
def size_of(kind: int, sizes: SizesConfig) -> Size:
    """What a class measures; things of none are no smaller than what is seen of them."""
    if kind == CAR:
        return sizes.car
    if kind == VAN:
        return sizes.van
    if kind == PEDESTRIAN:
        return sizes.pedestrian
    return sizes.cyclist if kind == CYCLIST else sizes.truck


@njit(cache=True)
def _usual(kind: int, width: float, f: Footprint, v: GeometricConfig) -> Size:
    """What the class measures; trucks no wider than vans measure what vans do."""
    narrow = v.sizes.van.width[1] < width < v.growth.van_width
    van = kind == TRUCK and hidden(f.context) < v.growth.van_hidden and narrow
    return size_of(VAN if van else kind, v.sizes)


@njit(cache=True)
def _without_mirrors(
    xy: np.ndarray, yaw: float, low: float, high: float, usual: float, share: float
) -> tuple[float, float]:
    """Extent across a vehicle's heading, less the few returns by which it exceeds the usual."""
    if high - low <= usual:
        return low, high
    c, s = np.cos(yaw), np.sin(yaw)
    across = np.empty(len(xy))
    for i in range(len(xy)):
        across[i] = xy[i, 1] * c - xy[i, 0] * s
    left, right = quantile(across, share), quantile(across, 1 - share)
    kept = within((usual - (right - left)) / max(high - low - (right - left), 1e-6), 0.0, 1.0)
    return left + kept * (low - left), right + kept * (high - right)


@njit(cache=True)
def _wanted(visible: float, size: tuple[float, float, float], unseen: bool) -> float:
    usual, least = size[0], size[1]
    if visible >= least and not unseen:
        return visible
    return max(visible, usual)


@njit(cache=True)
def _extended(low: float, high: float, wanted: float, end: int) -> Pair:
    """Grow an extent along an axis to the wanted size.

    Away from the sensor, which stands at 0, or over the end (-1 low, 1 high) at which the scan's
    field of view cuts it off; 0 for neither.
    """
    missing = max(wanted - (high - low), 0.0)
    if end > 0 or (end == 0 and low > 0):
        return low, high + missing
    if end < 0 or high < 0:
        return low - missing, high
    return low - missing / 2, high + missing / 2


@njit(cache=True)
def _beyond(
    yaw: float, low: Pair, high: Pair, context: ClusterContext, least: float
) -> tuple[int, int]:
    """For each axis the end of it (-1 low, 1 high) that the field of view cuts off, 0 for none."""
    if max(context.beyond_left, context.beyond_right) < least:
        return 0, 0
    # The face towards which the cut rows' ends lie: leftmost or rightmost as seen from the sensor.
    c, s = np.cos(yaw), np.sin(yaw)
    ahead, aside = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    x, y = c * ahead - s * aside, s * ahead + c * aside
    way = max(np.hypot(x, y), 1e-6)
    left = -y / way, x / way
    if context.beyond_right > context.beyond_left:
        left = -left[0], -left[1]
    along, across = c * left[0] + s * left[1], c * left[1] - s * left[0]
    # The longer side counts for more: what is cut is cut along its length.
    if abs(across) * (high[1] - low[1]) > abs(along) * (high[0] - low[0]):
        return 0, 1 if across > 0 else -1
    return 1 if along > 0 else -1, 0


@njit(cache=True)
def _score(kind: int, f: Footprint, v: GeometricConfig) -> float:
    score = v.score
    returns = 1.0 - np.exp(-f.returns / score.returns)
    allowed = allowed_error(f.rectangle, f.context, v.shape)
    fit = np.exp(-score.error * f.rectangle.error / allowed)
    if kind != PEDESTRIAN and kind != CYCLIST:
        fit *= min(1.0, f.context.smooth / score.smooth)
    base = score.other if kind == OTHER else 1.0
    proved = score.unproved + (1 - score.unproved) * returns
    return within(base * proved * fit, 0.01, 0.99)
