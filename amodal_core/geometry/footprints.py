"""What the returns of things measure before these have a class; all things of a scan at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from amodal_core.geometry.config import DEFAULTS, GeometricConfig
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.lshape import Rectangle, headings, rectangles
from amodal_core.geometry.scalars import nth


@dataclass(frozen=True, eq=False)
class Footprint:
    """What is measured of a thing.

    Attributes:
        rectangle: around its returns.
        xy: (N, 2) float32 metres, the returns, thinned where there are many.
        heights: (N,) float32 metres above the ground.
        count: its returns before some were left out.
        lowest: metres above the ground, of its lowest return.
        top: metres above the ground, of its highest returns.
        cut: the scan ends below the object's top.
        context: its ends and surface.
        config: what is decided by.
    """

    rectangle: Rectangle
    xy: np.ndarray
    heights: np.ndarray
    count: int
    lowest: float
    top: float
    cut: bool
    context: ClusterContext
    config: GeometricConfig

    @property
    def length(self) -> float:
        """Metres, the longer side."""
        return self.rectangle.length

    @property
    def width(self) -> float:
        """Metres, the shorter side."""
        return self.rectangle.width

    @property
    def foliage(self) -> bool:
        """Its surface is no bodywork."""
        return self.context.smooth < self.config.shape.foliage

    @property
    def hemmed_in(self) -> bool:
        """It shows only between nearer things, on both sides: a wall, a window."""
        return min(self.context.hidden_left, self.context.hidden_right) > (
            self.config.shape.hemmed_in
        )

    @property
    def hidden(self) -> float:
        """Share of rows that something nearer ends, of the side with more of them."""
        return max(self.context.hidden_left, self.context.hidden_right)

    @cached_property
    def grounded(self) -> float:
        """Share of the directions in which the lowest return is at the ground."""
        rectangle, shape = self.config.rectangle, self.config.shape
        return _grounded(self.xy, self.heights, rectangle.directions, shape.grounded)


def measured(
    points: np.ndarray,
    heights: np.ndarray,
    members: Sequence[np.ndarray],
    contexts: Sequence[ClusterContext],
    config: GeometricConfig = DEFAULTS,
) -> list[Footprint | None]:
    """What each of K things measures; None for one that is flat or too large.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        heights: (N,) float32, metres above the ground.
        members: K times (M,) int64, M >= 1, the returns of a thing.
        contexts: K, where its ends are its own.
        config: what is flat or too large, and what rectangles are laid by.
    """
    result: list[Footprint | None] = [None] * len(members)
    if not members:
        return result
    shape = config.shape
    counts = [len(m) for m in members]
    first = np.concatenate([[0], np.cumsum(counts)])
    limits = (shape.top_quantile, shape.lowest_top, config.sizes.truck.length[2])
    xy, high, first, extents, usable = _gathered(
        points, heights, np.concatenate(members), first, shape.enough, limits
    )
    chosen = np.flatnonzero(usable)
    yaws = headings(xy, first, chosen, config.rectangle)
    laid = rectangles(xy, first, chosen, yaws, config.rectangle)
    bounds, lows_tops = first.tolist(), extents.tolist()
    for k, rectangle in zip(chosen.tolist(), laid, strict=True):
        own = slice(bounds[k], bounds[k + 1])
        lowest, top = lows_tops[k]
        context = contexts[k]
        cut = context.cut_above > shape.cut
        result[k] = Footprint(
            rectangle, xy[own], high[own], counts[k], lowest, top, cut, context, config
        )
    return result


@njit(cache=True)
def _gathered(
    points: np.ndarray,
    heights: np.ndarray,
    members: np.ndarray,
    first: np.ndarray,
    most: int,
    limits: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Place and height of returns, at most so many of a thing; how low and high it is; what is one.

    The things' returns are [first[k], first[k + 1]) of the members, and of what is returned.
    """
    count = len(first) - 1
    begin = np.zeros(count + 1, np.int64)
    for k in range(count):
        n = first[k + 1] - first[k]
        step = -(-n // most)
        begin[k + 1] = begin[k] + -(-n // step)
    xy = np.empty((begin[count], 2), np.float32)
    high = np.empty(begin[count], np.float32)
    extents = np.empty((count, 2), np.float32)
    usable = np.zeros(count, np.bool_)
    quantile, lowest_top, longest = limits
    for k in range(count):
        n = begin[k + 1] - begin[k]
        step = -(-(first[k + 1] - first[k]) // most)
        low0 = low1 = lowest = np.float32(np.inf)
        high0 = high1 = np.float32(-np.inf)
        for m in range(n):
            i = members[first[k] + m * step]
            at = begin[k] + m
            x, y, h = points[i, 0], points[i, 1], heights[i]
            xy[at, 0], xy[at, 1], high[at] = x, y, h
            low0, high0, low1, high1 = min(low0, x), max(high0, x), min(low1, y), max(high1, y)
            lowest = min(lowest, h)
        top = nth(high[begin[k] : begin[k + 1]].copy(), int(quantile * (n - 1)))
        extents[k, 0], extents[k, 1] = lowest, top
        usable[k] = top >= lowest_top and max(high0 - low0, high1 - low1) <= longest
    return xy, high, begin, extents, usable


@njit(cache=True)
def _grounded(xy: np.ndarray, heights: np.ndarray, directions: int, level: float) -> float:
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
