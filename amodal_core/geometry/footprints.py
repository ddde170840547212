"""What the returns of things measure before these have a class; all things of a scan at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from amodal_core.geometry.config import DEFAULTS, GeometricConfig
from amodal_core.geometry.context import CONTEXT, ClusterContext
from amodal_core.geometry.lshape import RECTANGLE, Rectangle, rectangles
from amodal_core.geometry.scalars import nth


class Footprint(NamedTuple):
    """What is measured of a thing: a record of `Footprints`.

    Attributes:
        rectangle: around its returns.
        context: its ends and surface.
        returns: how many there are.
        kept: how many of them were measured, fewer where there are many.
        usable: it is neither flat nor too large; others have no rectangle.
        lowest: metres above the ground, of its lowest return.
        top: metres above the ground, of its highest returns.
        cut: the scan ends below the object's top.
    """

    rectangle: Rectangle
    context: ClusterContext
    returns: int
    kept: int
    usable: bool
    lowest: float
    top: float
    cut: bool


FOOTPRINT = np.dtype(
    {
        "names": list(Footprint._fields),
        "formats": [RECTANGLE, CONTEXT, "i8", "i8", "?", "f8", "f8", "?"],
    }
)


class Footprints(NamedTuple):
    """What is measured of K things.

    Attributes:
        footprints: (K,) `Footprint`.
        xy: (N, 2) float32 metres, the returns thing by thing, `kept` of each.
        heights: (N,) float32 metres above the ground.
    """

    footprints: np.ndarray
    xy: np.ndarray
    heights: np.ndarray


def measured(
    points: np.ndarray,
    heights: np.ndarray,
    members: Sequence[np.ndarray],
    contexts: np.ndarray,
    config: GeometricConfig = DEFAULTS,
) -> Footprints:
    """What each of K things measures, K >= 1.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        heights: (N,) float32, metres above the ground.
        members: K times (M,) int64, M >= 1, the returns of a thing.
        contexts: (K,) `ClusterContext`, where its ends are its own.
        config: what is flat or too large, and what rectangles are laid by.
    """
    footprints = np.zeros(len(members), FOOTPRINT)
    footprints["context"] = contexts
    footprints["returns"] = [len(m) for m in members]
    index = np.concatenate(members)
    xy, high, first, usable = _gathered(points, heights, index, footprints, config.objects)
    footprints["rectangle"] = rectangles(xy, first, usable, config)
    return Footprints(footprints, xy, high)


@njit(cache=True)
def _gathered(
    points: np.ndarray,
    heights: np.ndarray,
    members: np.ndarray,
    footprints: np.ndarray,
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Place and height of returns, at most so many of a thing; where each one's begin; what is one.

    The members are one thing's after the other's. Things, of which context and number of returns
    are given, get all but their rectangles.
    """
    shape, longest = values[0].shape, values[0].sizes.truck.length[2]
    first = np.zeros(len(footprints) + 1, np.int64)
    for k in range(len(footprints)):
        step = -(-footprints[k].returns // shape.enough)
        footprints[k].kept = -(-footprints[k].returns // step)
        first[k + 1] = first[k] + footprints[k].kept
    xy = np.empty((first[-1], 2), np.float32)
    high = np.empty(first[-1], np.float32)
    usable, begin = np.zeros(len(footprints), np.bool_), 0
    for k in range(len(footprints)):
        f = footprints[k]
        step = -(-f.returns // shape.enough)
        low0 = low1 = lowest = np.float32(np.inf)
        high0 = high1 = np.float32(-np.inf)
        for m in range(f.kept):
            i = members[begin + m * step]
            at = first[k] + m
            x, y, h = points[i, 0], points[i, 1], heights[i]
            xy[at, 0], xy[at, 1], high[at] = x, y, h
            low0, high0, low1, high1 = min(low0, x), max(high0, x), min(low1, y), max(high1, y)
            lowest = min(lowest, h)
        f.lowest = lowest
        f.top = nth(high[first[k] : first[k + 1]].copy(), int(shape.top_quantile * (f.kept - 1)))
        f.cut = f.context.cut_above > shape.cut
        f.usable = f.top >= shape.lowest_top and max(high0 - low0, high1 - low1) <= longest
        usable[k] = f.usable
        begin += f.returns
    return xy, high, first, usable


@njit(cache=True)
def grounded(xy: np.ndarray, heights: np.ndarray, directions: int, level: float) -> float:
    """Share of the directions in which the lowest return is no higher than a level."""
    lowest = np.full(directions, np.inf, np.float32)
    for i in range(len(xy)):
        k = int((np.arctan2(xy[i, 1], xy[i, 0]) + np.pi) * (directions / (2 * np.pi)))
        k = min(k, directions - 1)
        lowest[k] = min(lowest[k], heights[i])
    count = below = 0
    for k in range(directions):
        count += np.isfinite(lowest[k])
        below += lowest[k] < level
    return below / max(count, 1)
