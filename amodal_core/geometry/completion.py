"""From the returns of one thing to a whole object: class, and an oriented box with its unseen side.

A scan shows at most two sides of a vehicle. The rectangle around the returns is grown, away from
the sensor and behind whatever stands in front, to the size that its class usually has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from amodal_core.geometry.clustering import Evidence, Ground
from amodal_core.geometry.lshape import Rectangle, dominant_edge, fit_rectangle, rectangle_at

CLASSES = ("car", "truck", "pedestrian", "cyclist", "other")
VEHICLES = ("car", "truck")


@dataclass(frozen=True)
class Size:
    """What a class measures, in metres: the usual value, the least and the greatest."""

    length: tuple[float, float, float]
    width: tuple[float, float, float]
    height: tuple[float, float, float]


# Means and spreads of KITTI's labels of vehicles; people from anthropometric tables.
SIZES = {
    "car": Size((4.2, 3.3, 5.4), (1.75, 1.5, 2.1), (1.52, 1.3, 1.95)),
    "truck": Size((7.0, 4.6, 18.0), (2.3, 1.9, 3.2), (3.3, 1.95, 4.2)),
    "pedestrian": Size((0.7, 0.4, 1.2), (0.6, 0.35, 1.0), (1.72, 1.1, 2.05)),
    "cyclist": Size((1.75, 1.4, 2.2), (0.6, 0.4, 0.95), (1.72, 1.4, 2.05)),
}

_VAN = Size((4.9, 4.2, 6.0), (1.95, 1.7, 2.2), (2.05, 1.9, 2.8))
"""Trucks whose whole width shows and is less than 2.1 m."""

_LOWEST_TOP = 0.5
"""Metres; kerbs, cones and plants that end lower are no obstacles of a size to track."""

_ENOUGH = 3000
"""Returns that tell a shape; of a near truck's twenty thousand every few are as good as all."""

_LONGEST = SIZES["truck"].length[2]

_DIRECTIONS = 1800

_SMOOTH = 0.52
"""Share of smooth returns that tells bodywork (0.7 and more) from foliage (0.2 to 0.45)."""


_FLAT = 0.15
"""Metres; the faces of vehicles are deeper, with bumpers, lamps and wheels."""

_FLOATING = 1.0
"""Metres above the ground: what has no return below, and nothing before it, is no vehicle."""

_HIGHEST_FLOOR = 1.3

_WALL = 0.85
"""Share of a side that reaches the ground: trucks stand on wheels (0.4 to 0.8), walls do not."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An object found in a scan.

    Attributes:
        name: one of CLASSES.
        box: (7,) float64, see `amodal_core.geometry.boxes3d`, standing on the ground.
        score: 0-1.
        cut_above: the scan ends below the object's top, so that its height is a guess.
    """

    name: str
    box: np.ndarray
    score: float
    cut_above: bool


def complete(
    points: np.ndarray, heights: np.ndarray, evidence: Evidence, ground: Ground
) -> Candidate | None:
    """The object that a cluster's returns are part of.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        heights: (N,) float32, metres above the ground.
        evidence: where the cluster's ends are its own.
        ground: the ground's shape.

    Returns:
        None where the cluster is no object: too large, too flat, pole, wall or foliage.
    """
    count = len(points)
    step = -(-count // _ENOUGH)
    xy = np.ascontiguousarray(points[::step, :2], np.float32)
    heights = np.ascontiguousarray(heights[::step], np.float32)
    at = int(0.99 * (len(heights) - 1))
    top = float(np.partition(heights, at)[at])
    if top < _LOWEST_TOP or np.ptp(xy[:, 0]) > _LONGEST or np.ptp(xy[:, 1]) > _LONGEST:
        return None
    front = _facing(xy)
    rectangle = rectangle_at(xy, _heading(xy, front))
    name = _classify(rectangle, xy, heights, top, evidence)
    if name is None:
        return None
    yaw, low, high = _grow(name, xy, rectangle, evidence)
    size = high - low
    centre = (low + high) / 2
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = c * centre[0] - s * centre[1], s * centre[0] + c * centre[1]
    cut = evidence.cut_above > 0.3
    height = top
    if name in SIZES:
        usual, least, most = _usual(name, size[1], evidence).height
        height = float(np.clip(max(top, usual) if cut else top, least, most))
    z = float(ground.at(np.array([[x, y]], np.float32))[0])
    box = np.array([x, y, z + height / 2, size[0], size[1], height, yaw])
    return Candidate(name, box, _score(name, count, rectangle, evidence), cut)


@njit(cache=True)
def _facing(xy):  # type: ignore[no-untyped-def]
    """The nearest return in each direction: the sides that face the sensor, not what is inside."""
    nearest = np.full(_DIRECTIONS, -1, np.int32)
    distance = np.full(_DIRECTIONS, np.inf)
    for i in range(len(xy)):
        k = int((np.arctan2(xy[i, 1], xy[i, 0]) + np.pi) * (_DIRECTIONS / (2 * np.pi)))
        k = min(k, _DIRECTIONS - 1)
        d = xy[i, 0] ** 2 + xy[i, 1] ** 2
        if d < distance[k]:
            nearest[k], distance[k] = i, d
    return xy[nearest[nearest >= 0]]


def _heading(xy: np.ndarray, front: np.ndarray) -> float:
    """Radians in [0, pi/2): of the face that shows, or of the best rectangle if none is flat."""
    edge = dominant_edge(front)
    if edge is not None and edge[1] > 0.5:
        return edge[0]
    # The facing returns alone are free of what is inside; all of them tell flat sides from edges.
    thinned = xy[:: -(-len(xy) // len(front))]
    bias = 0.25 + min(0.35, 8.0 / len(front))
    return fit_rectangle(np.concatenate([front, thinned]), forward_bias=bias).yaw


@njit(cache=True)
def _down_to_ground(xy, heights):  # type: ignore[no-untyped-def]
    """Share of the directions in which the lowest return is at the ground."""
    lowest = np.full(_DIRECTIONS, np.inf, np.float32)
    for i in range(len(xy)):
        k = int((np.arctan2(xy[i, 1], xy[i, 0]) + np.pi) * (_DIRECTIONS / (2 * np.pi)))
        k = min(k, _DIRECTIONS - 1)
        lowest[k] = min(lowest[k], heights[i])
    seen = np.isfinite(lowest)
    return (lowest < 0.45).sum() / max(seen.sum(), 1)


def _classify(
    r: Rectangle, xy: np.ndarray, heights: np.ndarray, top: float, evidence: Evidence
) -> str | None:
    size = r.high - r.low
    length, width = float(size.max()), float(size.min())
    cut = evidence.cut_above > 0.3
    foliage = evidence.smooth < _SMOOTH
    # What shows only between nearer things, on both sides, is the background: a wall, a window.
    hemmed_in = min(evidence.hidden_left, evidence.hidden_right) > 0.6
    if length > _LONGEST or width > 3.5:
        return None
    if length < 1.2 and width < 1.0:
        # A person is narrower than 1.2 m and wider than a pole.
        if hemmed_in:
            return None
        stands = float(heights.min()) < 0.9
        # Clothes are less smooth than bodywork, and a few returns cannot tell them from leaves.
        if len(xy) > 60 and evidence.smooth < 0.4:
            return None
        if 1.2 <= top <= 2.05 and not cut and length > 0.35 and stands:
            return "pedestrian"
        return "other" if top < 1.2 and not foliage else None
    upper = xy[heights > 0.7 * top]
    narrow = len(upper) > 0 and float(np.hypot(*(upper.max(axis=0) - upper.min(axis=0)))) < 0.9
    if length < 2.2 and width < 1.0 and 1.35 <= top <= 2.05 and narrow and not cut:
        return None if hemmed_in else "cyclist"
    if foliage or r.error > _allowed_error(r, evidence):
        return None
    if _truck_votes(length, width, top, cut) > 0:
        # A trailer's floor is higher than a car's, and its side longer and smoother.
        trailer = length > 5.0 and evidence.smooth > 0.9
        stands = float(heights.min()) < (_HIGHEST_FLOOR if trailer else 0.9)
        # A flat piece between a nearer thing and the scan's upper end is more often a wall.
        hidden = max(evidence.hidden_left, evidence.hidden_right) > 0.5
        piece = cut and hidden and (length < 2.2 or width < 0.5)
        grounded = _down_to_ground(xy, heights)
        # A long side without depth is a trailer's above the ground, and a wall's at the ground.
        panel = width < _FLAT and length > 3.0 and grounded > 0.1
        fits = top > 1.7 and length > 1.5 and width < 3.2 and stands and not panel
        if hemmed_in or piece or not fits:
            return None
        if _stands_free(length, width, evidence):
            return "truck"
        # Nor is what shows only over the top of nearer things.
        over = cut and grounded < 0.1 and evidence.hidden_left + evidence.hidden_right > 1.0
        return "truck" if grounded < _WALL and not over else None
    if top > 0.8 and 1.2 < length < 5.8 and width < 2.4:
        # Sides of cars are rounded: what is as flat as a board is one, or a wall beyond a gap.
        board = width < _FLAT and length > 2.4 and len(xy) > 40
        beyond = hemmed_in and width < 2 * _FLAT and (length > 2.4 or top > 1.75)
        aloft = float(heights.min()) > _FLOATING
        aloft = aloft and max(evidence.hidden_left, evidence.hidden_right) < 0.4
        if board or beyond or aloft:
            return None
        return "car"
    return "other" if length < 3.0 else None


def _stands_free(length: float, width: float, evidence: Evidence) -> bool:
    """Whether it is as wide and long as a vehicle, and both its ends are its own.

    A wall goes on: behind what hides its end, or round its corner.
    """
    ends = evidence.hidden_left + evidence.hidden_right + 2.0 * evidence.touching
    rear = width < 2.7 and 1.6 < length < 3.0
    box = 1.2 < width < 2.7 and length < 9.0
    return ends < 0.4 and (rear or box)


def _allowed_error(r: Rectangle, evidence: Evidence) -> float:
    """Metres off the rectangle's edges: foliage is, and a smooth body's inside behind its glass."""
    width = float((r.high - r.low).min())
    return (0.15 + 0.12 * width) * (1.0 + 3.0 * max(evidence.smooth - _SMOOTH, 0.0))


def _truck_votes(length: float, width: float, top: float, cut: bool) -> float:
    """Above 0 for a truck rather than a car; three sizes vote, so that none alone makes it flicker.

    Only what is seen counts: a short or narrow view is no evidence of a car.
    """
    # What reaches above the scan higher than most cars' roofs is no car.
    height = 0.5 if cut and top > 1.7 else np.clip((top - 2.0) / 0.2, -1.0, 1.0)
    longer = np.clip((length - 5.2) / 0.5, 0.0, 1.0)
    wider = np.clip((width - 2.1) / 0.2, 0.0, 1.0)
    return float(height + longer + wider)


def _grow(
    name: str, xy: np.ndarray, r: Rectangle, evidence: Evidence
) -> tuple[float, np.ndarray, np.ndarray]:
    """Heading and extent along it: the first axis is the length's."""
    yaw, low, high = r.yaw, r.low.copy(), r.high.copy()
    extent = high - low
    long_first = extent[0] >= extent[1]
    if name in VEHICLES and extent.max() < 1.15 * SIZES[name].width[2]:
        # The longer visible side is too short to be the length: it is the front or rear. Of two
        # sides alike, traffic's usual direction decides.
        alike = extent.min() > 0.6 * extent.max()
        long_first = yaw < np.pi / 4 if alike else not long_first
    if not long_first:
        yaw, low, high = _quarter_turn(yaw, low, high)
    if name in VEHICLES:
        low[1], high[1] = _without_mirrors(xy, yaw, low[1], high[1], SIZES[name].width[0])
    extent = high - low
    if name == "other":
        wanted = np.maximum(extent, 0.3)
    else:
        size = _usual(name, extent[1], evidence)
        hidden = max(evidence.hidden_left, evidence.hidden_right) > 0.45
        # From straight behind, only returns through the glass tell of the length.
        ahead = (low + high) / 2
        end_on = abs(ahead[1]) < np.tan(np.radians(8.0)) * abs(ahead[0])
        wanted = np.array(
            [
                _wanted(extent[0], size.length, hidden or end_on),
                _wanted(extent[1], size.width, hidden),
            ]
        )
    return yaw, *_extend(yaw, low, high, wanted, evidence)


def _usual(name: str, width: float, evidence: Evidence) -> Size:
    """What the class measures; trucks no wider than vans measure what vans do."""
    whole = max(evidence.hidden_left, evidence.hidden_right) < 0.3
    narrow = _VAN.width[1] < width < 2.1
    return _VAN if name == "truck" and whole and narrow else SIZES[name]


def _without_mirrors(
    xy: np.ndarray, yaw: float, low: float, high: float, usual: float
) -> tuple[float, float]:
    """Extent across a vehicle's heading, less the few returns by which it exceeds the usual."""
    if high - low <= usual:
        return low, high
    across = xy[:, 1] * np.cos(yaw) - xy[:, 0] * np.sin(yaw)
    left, right = (float(q) for q in np.quantile(across, (0.015, 0.985)))
    share = np.clip((usual - (right - left)) / max(high - low - (right - left), 1e-6), 0.0, 1.0)
    return left + share * (low - left), right + share * (high - right)


def _wanted(seen: float, size: tuple[float, float, float], hidden: bool) -> float:
    usual, least, _ = size
    if seen >= least and not hidden:
        return seen
    return max(seen, usual)


def _extend(
    yaw: float, low: np.ndarray, high: np.ndarray, wanted: np.ndarray, evidence: Evidence
) -> tuple[np.ndarray, np.ndarray]:
    """Grow [low, high] to the wanted sizes.

    Away from the sensor, which stands at 0, or over the end of the scan's field of view.
    """
    beyond = _beyond(yaw, low, high, evidence)
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
    yaw: float, low: np.ndarray, high: np.ndarray, evidence: Evidence
) -> tuple[int, int] | None:
    """Axis, and end of it (0 low, 1 high), that the scan's field of view cuts off."""
    if max(evidence.beyond_left, evidence.beyond_right) < 0.5:
        return None
    # The face towards which the cut rows' ends lie: leftmost or rightmost as seen from the sensor.
    c, s = np.cos(yaw), np.sin(yaw)
    centre = (low + high) / 2
    middle = np.array([c * centre[0] - s * centre[1], s * centre[0] + c * centre[1]])
    left = np.array([-middle[1], middle[0]]) / max(float(np.hypot(*middle)), 1e-6)
    if evidence.beyond_right > evidence.beyond_left:
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


def _score(name: str, count: int, r: Rectangle, evidence: Evidence) -> float:
    points = 1.0 - np.exp(-count / 60.0)
    fit = float(np.exp(-0.7 * r.error / _allowed_error(r, evidence)))
    if name not in ("pedestrian", "cyclist"):
        fit *= min(1.0, evidence.smooth / 0.7)
    base = 0.6 if name == "other" else 1.0
    return float(np.clip(base * (0.25 + 0.75 * points) * fit, 0.01, 0.99))
