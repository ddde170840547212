"""From the returns of one thing to a whole object: class, and an oriented box with its unseen side.

A scan shows at most two sides of a vehicle. The rectangle around the returns is grown, away from
the sensor and behind whatever stands in front, to the size that its class usually has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.geometry.classification import VEHICLES, allowed_error, classify
from amodal_core.geometry.config import Size
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.footprints import Footprint
from amodal_core.geometry.ground import Ground
from amodal_core.geometry.lshape import Pair
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


def complete(footprint: Footprint, ground: Ground) -> Candidate | None:
    """The object that a cluster's returns are part of.

    Args:
        footprint: of the returns.
        ground: the ground's shape.

    Returns:
        None where the cluster is no object: pole, wall or foliage.
    """
    name = classify(footprint)
    if name is None:
        return None
    box = completed(name, footprint, ground)
    return Candidate(name, box, _score(name, footprint), footprint.cut)


def completed(name: str, footprint: Footprint, ground: Ground) -> np.ndarray:
    """The (7,) box of the whole object, standing on the ground.

    Args:
        name: its class, one of `classification.CLASSES`, or "van".
        footprint: what of it was seen.
        ground: the ground's shape.
    """
    yaw, low, high = _grow(name, footprint)
    length, width = high[0] - low[0], high[1] - low[1]
    along, across = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    c, s = float(np.cos(yaw)), float(np.sin(yaw))
    x, y = c * along - s * across, s * along + c * across
    height = footprint.top
    if name != "other":
        usual, least, most = _usual(name, width, footprint).height
        height = within(max(height, usual) if footprint.cut else height, least, most)
    return np.array([x, y, ground.under(x, y) + height / 2, length, width, height, yaw])


def _grow(name: str, f: Footprint) -> tuple[float, Pair, Pair]:
    """Heading and extent along it: the first axis is the length's."""
    growth, sizes = f.config.growth, f.config.sizes
    yaw, low, high = f.rectangle.yaw, f.rectangle.low, f.rectangle.high
    # Which side is the length.
    long_first = high[0] - low[0] >= high[1] - low[1]
    vehicle = name == "van" or name in VEHICLES
    if vehicle and f.length < growth.end_width * getattr(sizes, name).width[2]:
        # The longer visible side is too short to be the length: it is the front or rear. Of two
        # sides alike, traffic's usual direction decides.
        alike = f.width > growth.alike * f.length
        long_first = yaw < np.pi / 4 if alike else not long_first
    if not long_first:
        # The same rectangle with its axes turned by 90 degrees.
        yaw, low, high = yaw - np.pi / 2, (-high[1], low[0]), (-low[1], high[0])
    if vehicle:
        usual = getattr(sizes, name).width[0]
        left, right = _without_mirrors(f.xy, yaw, low[1], high[1], usual, growth.mirrors)
        low, high = (low[0], left), (high[0], right)
    # How much of it is not seen.
    length, width = high[0] - low[0], high[1] - low[1]
    if name == "other":
        least = f.config.shape.other_least
        return yaw, *_extend(yaw, low, high, (max(length, least), max(width, least)), f)
    size = _usual(name, width, f)
    hidden = f.hidden > growth.hidden
    # From straight behind, only returns through the glass tell of the length.
    ahead, aside = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    end_on = abs(aside) < np.tan(np.radians(growth.end_on)) * abs(ahead)
    wanted = _wanted(length, size.length, hidden or end_on), _wanted(width, size.width, hidden)
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


def _extend(yaw: float, low: Pair, high: Pair, wanted: Pair, f: Footprint) -> tuple[Pair, Pair]:
    """Grow [low, high] to the wanted sizes.

    Away from the sensor, which stands at 0, or over the end of the scan's field of view.
    """
    beyond = _beyond(yaw, low, high, f.context, f.config.growth.beyond)
    lows, highs = list(low), list(high)
    for k in range(2):
        missing = max(wanted[k] - (high[k] - low[k]), 0.0)
        if beyond == (k, 0):
            lows[k] -= missing
        elif beyond == (k, 1) or low[k] > 0:
            highs[k] += missing
        elif high[k] < 0:
            lows[k] -= missing
        else:
            lows[k] -= missing / 2
            highs[k] += missing / 2
    return (lows[0], lows[1]), (highs[0], highs[1])


def _beyond(
    yaw: float, low: Pair, high: Pair, context: ClusterContext, least: float
) -> tuple[int, int] | None:
    """Axis, and end of it (0 low, 1 high), that the scan's field of view cuts off."""
    if max(context.beyond_left, context.beyond_right) < least:
        return None
    # The face towards which the cut rows' ends lie: leftmost or rightmost as seen from the sensor.
    c, s = float(np.cos(yaw)), float(np.sin(yaw))
    ahead, aside = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    x, y = c * ahead - s * aside, s * ahead + c * aside
    way = max(float(np.hypot(x, y)), 1e-6)
    left = -y / way, x / way
    if context.beyond_right > context.beyond_left:
        left = -left[0], -left[1]
    along = c * left[0] + s * left[1], c * left[1] - s * left[0]
    # The longer side counts for more: what is cut is cut along its length.
    cut = [abs(along[k]) * (high[k] - low[k]) for k in range(2)]
    axis = int(cut[1] > cut[0])
    return axis, int(along[axis] > 0)


def _score(name: str, f: Footprint) -> float:
    score = f.config.score
    returns = 1.0 - np.exp(-f.count / score.returns)
    allowed = allowed_error(f.rectangle, f.context, f.config.shape)
    fit = float(np.exp(-score.error * f.rectangle.error / allowed))
    if name not in ("pedestrian", "cyclist"):
        fit *= min(1.0, f.context.smooth / score.smooth)
    base = score.other if name == "other" else 1.0
    proved = score.unproved + (1 - score.unproved) * returns
    return within(base * proved * fit, 0.01, 0.99)
