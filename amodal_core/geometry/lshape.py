"""Rectangles around the L-shaped footprints that a LiDAR sees of vehicles.

After Zhang, Xu, Dong and Dolan, "Efficient L-Shape Fitting for Vehicle Detection Using Laser
Scanners", IV 2017: every heading is tried, and the one whose rectangle's edges lie closest to the
points wins (the closeness criterion).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit

from amodal_core.geometry.config import GeometricConfig, RectangleConfig
from amodal_core.geometry.scalars import middle

Pair: TypeAlias = tuple[float, float]


class Rectangle(NamedTuple):
    """A rectangle on the ground.

    Attributes:
        yaw: radians in [0, pi/2), direction of the first axis.
        low: metres, least coordinates along the two axes.
        high: metres, greatest coordinates along the two axes.
        error: metres, median distance of the points from the nearest edge.
        length: metres, the longer side.
        width: metres, the shorter side.
    """

    yaw: float
    low: Pair
    high: Pair
    error: float
    length: float
    width: float


RECTANGLE = np.dtype(
    {
        "names": list(Rectangle._fields),
        "formats": ["f8", ("f8", 2), ("f8", 2), "f8", "f8", "f8"],
    }
)


def rectangles(
    xy: np.ndarray, first: np.ndarray, chosen: np.ndarray, config: GeometricConfig
) -> np.ndarray:
    """(K,) `Rectangle` around each footprint, zeros where it is not asked for.

    The heading is that of the face that shows, or of the best rectangle if none is flat.

    Args:
        xy: (N, 2) float32 metres, the footprints one after the other.
        first: (K + 1,) int64, footprint k is [first[k], first[k + 1]) of them, one or more.
        chosen: (K,) bool, the footprints that are asked for.
        config: how it is looked for.
    """
    azimuths = np.arctan2(xy[:, 1], xy[:, 0])
    rows = _rows(xy, azimuths, first, chosen, *_tried(config.rectangle), config.objects)
    return rows.view(RECTANGLE)[:, 0]


@lru_cache(maxsize=8)
def _tried(config: RectangleConfig) -> tuple[np.ndarray, np.ndarray]:
    """The headings that are tried, radians in [0, pi/2); 0-1 how nearly each is forward."""
    count = max(round(np.pi / 2 / np.radians(config.step)), 1)
    angles = np.arange(count) * (np.pi / 2 / count)
    strayed = np.minimum(angles, np.pi / 2 - angles) / np.radians(config.forward)
    return angles, np.exp(-0.5 * strayed**2)


@njit(cache=True)
def _rows(
    xy: np.ndarray,
    azimuths: np.ndarray,
    first: np.ndarray,
    chosen: np.ndarray,
    angles: np.ndarray,
    forward: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """(K, 8) the numbers of `Rectangle`."""
    v = values[0].rectangle
    out = np.zeros((len(chosen), 8))
    for k in range(len(chosen)):
        if not chosen[k]:
            continue
        own = xy[first[k] : first[k + 1]]
        yaw = _heading(own, azimuths[first[k] : first[k + 1]], angles, forward, v)
        step = -(-len(own) // v.error_returns)
        low, high, edge = _bounds(own, np.cos(yaw), np.sin(yaw), step)
        along, across = high[0] - low[0], high[1] - low[1]
        out[k, 0], out[k, 5] = yaw, middle(edge)
        out[k, 1], out[k, 2], out[k, 3], out[k, 4] = low[0], low[1], high[0], high[1]
        out[k, 6], out[k, 7] = max(along, across), min(along, across)
    return out


@njit(cache=True)
def _bounds(
    xy: np.ndarray, c: float, s: float, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least and greatest coordinates along the axes; distance of some points from the edges."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for i in range(len(xy)):
        a, b = xy[i, 0] * c + xy[i, 1] * s, xy[i, 1] * c - xy[i, 0] * s
        low[0], high[0] = min(low[0], a), max(high[0], a)
        low[1], high[1] = min(low[1], b), max(high[1], b)
    count = -(-len(xy) // step)
    edge = np.empty(count)
    for k in range(count):
        i = k * step
        a, b = xy[i, 0] * c + xy[i, 1] * s, xy[i, 1] * c - xy[i, 0] * s
        edge[k] = min(min(a - low[0], high[0] - a), min(b - low[1], high[1] - b))
    return low, high, edge


@njit(cache=True)
def _facing(xy: np.ndarray, azimuths: np.ndarray, directions: int) -> np.ndarray:
    """The nearest return in each direction: the sides that face the sensor, not what is inside."""
    nearest = np.full(directions, -1, np.int32)
    distance = np.full(directions, np.float32(np.inf))
    first, last = directions, -1
    for i in range(len(xy)):
        x, y = xy[i, 0], xy[i, 1]
        place = (azimuths[i] + np.pi) * (directions / (2 * np.pi))
        # NumPy's last bits, of many at once, differ between processors: not what is decided here.
        if abs(place - np.floor(place + 0.5)) < 1e-3:
            place = (np.arctan2(y, x) + np.pi) * (directions / (2 * np.pi))
        k = min(int(place), directions - 1)
        first, last = min(first, k), max(last, k)
        d = x * x + y * y
        if d < distance[k]:
            nearest[k], distance[k] = i, d
    count = 0
    for k in range(first, last + 1):
        count += nearest[k] >= 0
    # Slices and masks of arrays would cost numba seconds to compile.
    facing = np.empty((count, 2), np.float32)
    count = 0
    for k in range(first, last + 1):
        if nearest[k] >= 0:
            facing[count, 0], facing[count, 1] = xy[nearest[k], 0], xy[nearest[k], 1]
            count += 1
    return facing


@njit(cache=True)
def _longest_line(
    xy: np.ndarray, on_edge: float, starts: int, shortest: float, least: int
) -> tuple[float, float, float]:
    """Direction, share of points and length of the line with most points within `on_edge`."""
    n = len(xy)
    # Filled up with what is on no line, so that none are left over where several go at once.
    full = -(-n // 16) * 16
    x, y = np.full(full, np.float32(np.nan)), np.full(full, np.float32(np.nan))
    for k in range(n):
        x[k], y[k] = xy[k, 0], xy[k, 1]
    # What is less than `on_edge` in double precision is at most this in the points' own.
    edge = np.float32(on_edge)
    if edge >= on_edge:
        edge = np.nextafter(edge, np.float32(0.0))
    # The line through two points that most of the others lie on.
    step = max(1, n // starts)
    best, bx, by, bdx, bdy = 0, 0.0, 0.0, 1.0, 0.0
    for i in range(0, n, step):
        for j in range(i + step, n, step):
            dx, dy = xy[j, 0] - xy[i, 0], xy[j, 1] - xy[i, 1]
            length = np.sqrt(dx * dx + dy * dy)
            if length < shortest:
                continue
            dx, dy = dx / length, dy / length
            count = np.int32(0)
            for k in range(full):
                off = (x[k] - x[i]) * dy - (y[k] - y[i]) * dx
                count += np.int32(abs(off) <= edge)
            if count > best:
                best, bx, by, bdx, bdy = count, xy[i, 0], xy[i, 1], dx, dy
    if best < least:
        return 0.0, 0.0, 0.0
    # Total least squares through the points on it.
    mx = my = sxx = sxy = syy = 0.0
    for k in range(n):
        if abs((xy[k, 0] - bx) * bdy - (xy[k, 1] - by) * bdx) < on_edge:
            mx += xy[k, 0] / best
            my += xy[k, 1] / best
    low, high = np.inf, -np.inf
    for k in range(n):
        if abs((xy[k, 0] - bx) * bdy - (xy[k, 1] - by) * bdx) < on_edge:
            x, y = xy[k, 0] - mx, xy[k, 1] - my
            sxx, sxy, syy = sxx + x * x, sxy + x * y, syy + y * y
            along = x * bdx + y * bdy
            low, high = min(low, along), max(high, along)
    return 0.5 * np.arctan2(2 * sxy, sxx - syy), best / n, high - low


@njit(cache=True)
def _closeness(xy: np.ndarray, angles: np.ndarray, on_edge: float) -> np.ndarray:
    """Zhang's algorithm 4 for each heading.

    The inner loops run over headings, whose sums do not depend on each other: several at once.
    """
    n, m = len(xy), len(angles)
    c, s = np.empty(m), np.empty(m)
    for k in range(m):
        c[k], s[k] = np.cos(angles[k]), np.sin(angles[k])
    low1, low2 = np.full(m, np.inf), np.full(m, np.inf)
    high1, high2 = np.full(m, -np.inf), np.full(m, -np.inf)
    for i in range(n):
        x, y = xy[i, 0], xy[i, 1]
        for k in range(m):
            a, b = x * c[k] + y * s[k], y * c[k] - x * s[k]
            low1[k] = a if a < low1[k] else low1[k]
            high1[k] = a if a > high1[k] else high1[k]
            low2[k] = b if b < low2[k] else low2[k]
            high2[k] = b if b > high2[k] else high2[k]
    # Of two opposite edges, the points lie on the one that the sensor sees: the nearer in sum.
    to_low1, to_low2, to_high1, to_high2 = np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(m)
    for i in range(n):
        x, y = xy[i, 0], xy[i, 1]
        for k in range(m):
            a, b = x * c[k] + y * s[k], y * c[k] - x * s[k]
            to_low1[k] += (a - low1[k]) ** 2
            to_high1[k] += (high1[k] - a) ** 2
            to_low2[k] += (b - low2[k]) ** 2
            to_high2[k] += (high2[k] - b) ** 2
    scores = np.zeros(m)
    for i in range(n):
        x, y = xy[i, 0], xy[i, 1]
        for k in range(m):
            a, b = x * c[k] + y * s[k], y * c[k] - x * s[k]
            d1 = a - low1[k] if to_low1[k] < to_high1[k] else high1[k] - a
            d2 = b - low2[k] if to_low2[k] < to_high2[k] else high2[k] - b
            d = d2 if d2 < d1 else d1
            scores[k] += 1.0 / (d if d > on_edge else on_edge)
    return scores


@njit(cache=True)
def _heading(
    xy: np.ndarray,
    azimuths: np.ndarray,
    angles: np.ndarray,
    forward: np.ndarray,
    v: RectangleConfig,
) -> float:
    """Of the face that shows, or of the best rectangle if none is flat."""
    front = _facing(xy, azimuths, v.directions)
    yaw, share, length = _longest_line(
        front, v.on_edge, v.edge_starts, v.edge_shortest, v.edge_returns
    )
    if length > v.edge_length and share > v.edge_share:
        return yaw % (np.pi / 2)
    # The facing returns alone are free of what is inside; all of them tell flat sides from edges.
    step = -(-len(xy) // len(front))
    shown = len(front)
    both = np.empty((shown + -(-len(xy) // step), 2), np.float32)
    for i in range(len(both)):
        for k in range(2):
            both[i, k] = front[i, k] if i < shown else xy[(i - shown) * step, k]
    bias = v.forward_bias + min(v.sparse_bias, v.sparse_returns / len(front))
    scores = _closeness(both, angles, v.on_edge)
    best = 0
    for k in range(len(angles)):
        scores[k] *= 1.0 + bias * forward[k]
        if scores[k] > scores[best]:
            best = k
    return angles[best]
