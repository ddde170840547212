"""From the returns of one thing to a whole object: class, and an oriented box with its unseen side.

A scan shows at most two sides of a vehicle. The rectangle around the returns is grown, away from
the sensor and behind whatever stands in front, to the size that its class usually has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.geometry.classification import VEHICLES, Footprint, allowed_error, classify
from amodal_core.geometry.config import DEFAULTS, GeometricConfig, Size
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.ground import Ground
from amodal_core.geometry.lshape import heading, longest_side, rectangle_at
from amodal_core.geometry.scalars import quantile, within


@dataclass(frozen=True, eq=False)
class Candidate:
    """An object of a scan.

    Attributes:
        name: one of `classification.CLASSES`.
        box: (7,) float64, see `amodal_core.geometry.boxes3d`, standing on the ground.
        score: 0-1.
        cut_above: the scan ends below the object's top, so that its height is a guess.
    """

    name: str
    box: np.ndarray
    score: float
    cut_above: bool


def complete(
    points: np.ndarray,
    heights: np.ndarray,
    context: ClusterContext,
    ground: Ground,
    config: GeometricConfig = DEFAULTS,
) -> Candidate | None:
    """The object that a cluster's returns are part of.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        heights: (N,) float32, metres above the ground.
        context: where the cluster's ends are its own.
        ground: the ground's shape.
        config: sizes, and what tells the classes.

    Returns:
        None where the cluster is no object: too large, too flat, pole, wall or foliage.
    """
    footprint = measured(points, heights, context, config)
    if footprint is None:
        return None
    name = classify(footprint)
    if name is None:
        return None
    box = completed(name, footprint, ground)
    return Candidate(name, box, _score(name, len(points), footprint), footprint.cut)


def measured(
    points: np.ndarray,
    heights: np.ndarray,
    context: ClusterContext,
    config: GeometricConfig = DEFAULTS,
) -> Footprint | None:
    """What the returns of one thing measure, as `complete`; None where it is flat or too large."""
    shape, longest = config.shape, config.sizes.truck.length[2]
    step = -(-len(points) // shape.enough)
    xy = np.ascontiguousarray(points[::step, :2], np.float32)
    heights = np.ascontiguousarray(heights[::step], np.float32)
    at = int(shape.top_quantile * (len(heights) - 1))
    top = float(np.partition(heights, at)[at])
    if top < shape.lowest_top or longest_side(xy) > longest:
        return None
    rectangle = rectangle_at(xy, heading(xy, config.rectangle), config.rectangle)
    cut = context.cut_above > shape.cut
    return Footprint(rectangle, xy, heights, top, cut, context, config)


def completed(name: str, footprint: Footprint, ground: Ground) -> np.ndarray:
    """The (7,) box of the whole object, standing on the ground.

    Args:
        name: its class, one of `classification.CLASSES`, or "van".
        footprint: what of it was seen.
        ground: the ground's shape.
    """
    yaw, low, high = _grow(name, footprint)
    size = high - low
    centre = (low + high) / 2
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = c * centre[0] - s * centre[1], s * centre[0] + c * centre[1]
    height = footprint.top
    if name != "other":
        usual, least, most = _usual(name, size[1], footprint).height
        height = within(max(height, usual) if footprint.cut else height, least, most)
    z = float(ground.at(np.array([[x, y]], np.float32))[0])
    return np.array([x, y, z + height / 2, size[0], size[1], height, yaw])


def _grow(name: str, f: Footprint) -> tuple[float, np.ndarray, np.ndarray]:
    """Heading and extent along it: the first axis is the length's."""
    growth, sizes = f.config.growth, f.config.sizes
    yaw, low, high = f.rectangle.yaw, f.rectangle.low.copy(), f.rectangle.high.copy()
    # Which side is the length.
    extent = high - low
    long_first = extent[0] >= extent[1]
    vehicle = name == "van" or name in VEHICLES
    if vehicle and extent.max() < growth.end_width * getattr(sizes, name).width[2]:
        # The longer visible side is too short to be the length: it is the front or rear. Of two
        # sides alike, traffic's usual direction decides.
        alike = extent.min() > growth.alike * extent.max()
        long_first = yaw < np.pi / 4 if alike else not long_first
    if not long_first:
        yaw, low, high = _quarter_turn(yaw, low, high)
    if vehicle:
        usual = getattr(sizes, name).width[0]
        low[1], high[1] = _without_mirrors(f.xy, yaw, low[1], high[1], usual, growth.mirrors)
    # How much of it is not seen.
    extent = high - low
    if name == "other":
        wanted = np.maximum(extent, f.config.shape.other_least)
    else:
        size = _usual(name, extent[1], f)
        hidden = f.hidden > growth.hidden
        # From straight behind, only returns through the glass tell of the length.
        ahead = (low + high) / 2
        end_on = abs(ahead[1]) < np.tan(np.radians(growth.end_on)) * abs(ahead[0])
        wanted = np.array(
            [
                _wanted(extent[0], size.length, hidden or end_on),
                _wanted(extent[1], size.width, hidden),
            ]
        )
    return yaw, *_extend(yaw, low, high, wanted, f)


def _usual(name: str, width: float, f: Footprint) -> Size:
    """What the class measures; trucks no wider than vans measure what vans do."""
    growth, sizes = f.config.growth, f.config.sizes
    narrow = sizes.van.width[1] < width < growth.van_width
    van = name == "truck" and f.hidden < growth.van_hidden and narrow
    size: Size = sizes.van if van else getattr(sizes, name)
    return size


def _without_mirrors(
    xy: np.ndarray, yaw: float, low: float, high: float, usual: float, share: float
) -> tuple[float, float]:
    """Extent across a vehicle's heading, less the few returns by which it exceeds the usual."""
    if high - low <= usual:
        return low, high
    across = xy[:, 1] * np.cos(yaw) - xy[:, 0] * np.sin(yaw)
    left, right = quantile(across, share), quantile(across, 1 - share)
    kept = within((usual - (right - left)) / max(high - low - (right - left), 1e-6), 0.0, 1.0)
    return left + kept * (low - left), right + kept * (high - right)


def _wanted(visible: float, size: tuple[float, float, float], hidden: bool) -> float:
    usual, least, _ = size
    if visible >= least and not hidden:
        return visible
    return max(visible, usual)


def _extend(
    yaw: float, low: np.ndarray, high: np.ndarray, wanted: np.ndarray, f: Footprint
) -> tuple[np.ndarray, np.ndarray]:
    """Grow [low, high] to the wanted sizes.

    Away from the sensor, which stands at 0, or over the end of the scan's field of view.
    """
    beyond = _beyond(yaw, low, high, f.context, f.config.growth.beyond)
    low, high = low.copy(), high.copy()
    for k in range(2):
        missing = max(wanted[k] - (high[k] - low[k]), 0.0)
        if beyond == (k, 0):
            low[k] -= missing
        elif beyond == (k, 1) or low[k] > 0:
            high[k] += missing
        elif high[k] < 0:
            low[k] -= missing
        else:
            low[k] -= missing / 2
            high[k] += missing / 2
    return low, high


def _beyond(
    yaw: float, low: np.ndarray, high: np.ndarray, context: ClusterContext, least: float
) -> tuple[int, int] | None:
    """Axis, and end of it (0 low, 1 high), that the scan's field of view cuts off."""
    if max(context.beyond_left, context.beyond_right) < least:
        return None
    # The face towards which the cut rows' ends lie: leftmost or rightmost as seen from the sensor.
    c, s = np.cos(yaw), np.sin(yaw)
    centre = (low + high) / 2
    middle = np.array([c * centre[0] - s * centre[1], s * centre[0] + c * centre[1]])
    left = np.array([-middle[1], middle[0]]) / max(float(np.hypot(*middle)), 1e-6)
    if context.beyond_right > context.beyond_left:
        left = -left
    along = np.array([c * left[0] + s * left[1], c * left[1] - s * left[0]])
    # The longer side counts for more: what is cut is cut along its length.
    axis = int(np.argmax(np.abs(along) * (high - low)))
    return axis, int(along[axis] > 0)


def _quarter_turn(
    yaw: float, low: np.ndarray, high: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The same rectangle with its axes turned by 90 degrees."""
    return yaw - np.pi / 2, np.array([-high[1], low[0]]), np.array([-low[1], high[0]])


def _score(name: str, count: int, f: Footprint) -> float:
    score = f.config.score
    returns = 1.0 - np.exp(-count / score.returns)
    allowed = allowed_error(f.rectangle, f.context, f.config.shape)
    fit = float(np.exp(-score.error * f.rectangle.error / allowed))
    if name not in ("pedestrian", "cyclist"):
        fit *= min(1.0, f.context.smooth / score.smooth)
    base = score.other if name == "other" else 1.0
    proved = score.unproved + (1 - score.unproved) * returns
    return within(base * proved * fit, 0.01, 0.99)
