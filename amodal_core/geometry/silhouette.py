"""What an object of a known class and box covers in an image: better than the box's own outline.

A shape is a stack of horizontal slices of the box; the solid between two slices is their convex
hull, and its projection the convex hull of the slices' corners. The union over the stack is a
silhouette with wheels, bonnet and roof, or with legs, shoulders and a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numba import njit

from amodal_core.frame import Calibration
from amodal_core.geometry.boxes3d import project_convex
from amodal_core.geometry.config import Shape
from amodal_core.geometry.projection import NEAR, to_camera
from amodal_core.geometry.scalars import median


def outlines(
    boxes: np.ndarray, shapes: Sequence[Shape], calibration: Calibration
) -> list[list[np.ndarray]]:
    """Convex polygons of each object, (K, 2) float pixels each, whose union is its silhouette.

    Args:
        boxes: (N, 7), see `amodal_core.geometry.boxes3d`.
        shapes: N times the class's slices.
        calibration: camera and pose.
    """
    if not len(boxes):
        return []
    # Octagons of all slices of all objects, in space and in the image.
    units = [_octagons(shape) for shape in shapes]
    along, across, up = (np.concatenate(values) for values in zip(*units, strict=True))
    ends = np.cumsum([len(unit[2]) for unit in units])
    row = np.repeat(np.asarray(boxes, np.float64), np.diff(ends, prepend=0), axis=0)
    along, across = along * row[:, 3:4], across * row[:, 4:5]
    c, s = np.cos(row[:, 6:7]), np.sin(row[:, 6:7])
    x, y = row[:, 0:1] + c * along - s * across, row[:, 1:2] + s * along + c * across
    z = np.broadcast_to(up * row[:, 5:6] + row[:, 2:3], along.shape)
    stack = np.stack([x, y, z], axis=2)
    camera = to_camera(stack.reshape(-1, 3), calibration).reshape(stack.shape)
    pixels = camera @ calibration.K.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        pixels = (pixels[..., :2] / pixels[..., 2:]).astype(np.float32)
    before = camera[..., 2].min(axis=1) >= NEAR
    result = []
    for begin, end in pairwise([0, *ends.tolist()]):
        steps = range(begin, end - 1)
        if before[begin:end].all():
            hulls = [cv2.convexHull(pixels[k : k + 2].reshape(-1, 2))[:, 0] for k in steps]
        else:
            solids = (stack[k : k + 2].reshape(-1, 3) for k in steps)
            hulls = [project_convex(solid, calibration) for solid in solids]
        result.append([hull for hull in hulls if len(hull) >= 3])
    return result


@lru_cache(maxsize=64)
def _octagons(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(S, 8) along and across, (S, 1) up: slices' corners in sizes of a box, from its centre.

    A slice is a rounded rectangle: an octagon, whose corners are cut.
    """
    stack = np.asarray(shape.slices)
    inner = 1.0 - 2.0 * shape.corner
    x = np.array([1, inner, -inner, -1, -1, -inner, inner, 1])
    y = np.array([inner, 1, 1, inner, -inner, -1, -1, -inner])
    return stack[:, 1:2] * x, stack[:, 2:3] * y, stack[:, 0:1] - 0.5


def envelope(
    pixels: np.ndarray, rows: np.ndarray, step: float, bottom: float, least: int
) -> list[np.ndarray]:
    """What an object's own returns show of its outline, laser by laser.

    People are of no usual shape: what is between the outermost returns of each laser is theirs, and
    what is between two lasers is between their outermost returns.

    Args:
        pixels: (N, 2) int, column and row in the image of the object's returns.
        rows: (N,) int, the laser of each, 0 looks highest.
        step: pixels between neighbouring returns of a laser; half of it is added at each end.
        bottom: row in the image at which the object stands.
        least: lasers that tell an outline.

    Returns:
        Convex polygons, (4, 2) float64 pixels each; none for fewer lasers.
    """
    lasers, spans = _spans(pixels, rows)
    if len(lasers) < least:
        return []
    half = median(np.diff(spans[:, 2]) / np.diff(lasers)) / 2
    # Half a laser's spacing above the highest, and down to the ground.
    left, right, level = np.concatenate([spans[:1], spans, spans[-1:]]).T
    level[0] -= half
    level[-1] = max(bottom, level[-1])
    corners = np.stack([left - step / 2, level, right + step / 2, level], axis=1).reshape(-1, 2, 2)
    return [np.concatenate([upper, lower[::-1]]) for upper, lower in pairwise(corners)]


@njit(cache=True)
def _spans(pixels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lasers that there are; (L, 3) of each the leftmost and rightmost column, the mean row."""
    first = last = rows[0]
    for row in rows:
        first, last = min(first, row), max(last, row)
    count = np.zeros(last + 1 - first, np.int64)
    spans = np.zeros((len(count), 3))
    for i in range(len(rows)):
        k = rows[i] - first
        u = float(pixels[i, 0])
        spans[k, 0] = min(spans[k, 0], u) if count[k] else u
        spans[k, 1] = max(spans[k, 1], u) if count[k] else u
        spans[k, 2] += pixels[i, 1]
        count[k] += 1
    total = 0
    lasers = np.empty(len(count), np.int64)
    for k in range(len(count)):
        if count[k]:
            lasers[total] = first + k
            spans[total, 0], spans[total, 1] = spans[k, 0], spans[k, 1]
            spans[total, 2] = spans[k, 2] / count[k]
            total += 1
    return lasers[:total], spans[:total]


def hull(pixels: np.ndarray) -> np.ndarray:
    """(K, 2) int32, the convex polygon around pixels (N, 2) int32, N >= 1."""
    # Of each column the ends are enough, of far fewer points.
    return np.asarray(cv2.convexHull(_ends(pixels)))[:, 0]


@njit(cache=True)
def _ends(pixels: np.ndarray) -> np.ndarray:
    """The uppermost and the lowest pixel of each column."""
    first = last = pixels[0, 0]
    for i in range(len(pixels)):
        first, last = min(first, pixels[i, 0]), max(last, pixels[i, 0])
    some = np.zeros(last + 1 - first, np.bool_)
    rows = np.empty((len(some), 2), np.int32)
    for i in range(len(pixels)):
        k, v = pixels[i, 0] - first, pixels[i, 1]
        rows[k, 0] = min(rows[k, 0], v) if some[k] else v
        rows[k, 1] = max(rows[k, 1], v) if some[k] else v
        some[k] = True
    out, total = np.empty((2 * len(some), 2), np.int32), 0
    for k in range(len(some)):
        for end in range(2 if some[k] else 0):
            out[total, 0], out[total, 1] = first + k, rows[k, end]
            total += 1
    return out[:total]


def draw(
    objects: Sequence[Sequence[np.ndarray]], calibration: Calibration
) -> list[tuple[np.ndarray, int, int] | None]:
    """Fill convex polygons, each object's in a crop of its own.

    Args:
        objects: N times polygons, (K, 2) float pixels each; integer coordinates are pixel centres.
        calibration: gives the image's size.

    Returns:
        N times the (h, w) uint8 crop (1 inside) and the column and row of its first pixel; None
        where nothing of an object lies in the image.
    """
    result: list[tuple[np.ndarray, int, int] | None] = [None] * len(objects)
    drawn = [n for n, polygons in enumerate(objects) if len(polygons)]
    if not drawn:
        return result
    every = np.concatenate([p for n in drawn for p in objects[n]]).astype(np.float64)
    counts = np.array([sum(len(p) for p in objects[n]) for n in drawn])
    first = np.cumsum(counts) - counts
    low, high = np.minimum.reduceat(every, first), np.maximum.reduceat(every, first)
    size = calibration.width, calibration.height
    finite = np.isfinite(low).all(axis=1) & np.isfinite(high).all(axis=1)
    with np.errstate(invalid="ignore"):
        low = np.clip(np.floor(low), 0, size).astype(np.int64)
        high = np.clip(np.ceil(high) + 1, 0, size).astype(np.int64)
        # Far outside the image only the direction matters; OpenCV's integers must not overflow.
        moved = np.clip(every - np.repeat(low, counts, axis=0), -1e5, 1e5)
        moved = np.rint(moved * 16).astype(np.int32)
    some = finite & (high > low).all(axis=1)
    for k in np.flatnonzero(some).tolist():
        (x0, y0), (x1, y1) = low[k].tolist(), high[k].tolist()
        crop = np.zeros((y1 - y0, x1 - x0), np.uint8)
        begin = first[k]
        for polygon in objects[drawn[k]]:
            cv2.fillConvexPoly(crop, moved[begin : begin + len(polygon)], 1, shift=4)
            begin += len(polygon)
        result[drawn[k]] = crop, x0, y0
    return result
