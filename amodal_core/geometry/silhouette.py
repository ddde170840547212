"""What an object of a known class and box covers in an image: better than the box's own outline.

A shape is a stack of horizontal slices of the box; the solid between two slices is their convex
hull, and its projection the convex hull of the slices' corners. The union over the stack is a
silhouette with wheels, bonnet and roof, or with legs, shoulders and a head.
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from amodal_core.frame import Calibration
from amodal_core.geometry.boxes3d import project_convex
from amodal_core.geometry.config import Shape
from amodal_core.geometry.projection import NEAR, to_camera


def slices(box: np.ndarray, shape: Shape) -> np.ndarray:
    """(S, 8, 3) corners in metres, LiDAR frame, of a shape's slices from the bottom up.

    Args:
        box: (7,), see `amodal_core.geometry.boxes3d`.
        shape: the class's slices.
    """
    # A rounded rectangle: the octagon of a slice, whose corners are cut.
    stack = np.asarray(shape.slices)
    inner = 1.0 - 2.0 * shape.corner
    x = np.array([1, inner, -inner, -1, -1, -inner, inner, 1])
    y = np.array([inner, 1, 1, inner, -inner, -1, -1, -inner])
    along = stack[:, 1:2] * x * box[3]
    across = stack[:, 2:3] * y * box[4]
    c, s = np.cos(box[6]), np.sin(box[6])
    z = np.broadcast_to((stack[:, 0:1] - 0.5) * box[5] + box[2], along.shape)
    return np.stack([box[0] + c * along - s * across, box[1] + s * along + c * across, z], axis=2)


def outlines(box: np.ndarray, shape: Shape, calibration: Calibration) -> list[np.ndarray]:
    """Convex polygons, (K, 2) float64 pixels each, whose union is the silhouette."""
    stack = slices(box, shape)
    camera = to_camera(stack.reshape(-1, 3), calibration).reshape(stack.shape)
    if (camera[..., 2] >= NEAR).all():
        pixels = camera @ calibration.K.T
        pixels = (pixels[..., :2] / pixels[..., 2:]).astype(np.float32)
        solids = (pixels[k : k + 2].reshape(-1, 2) for k in range(len(pixels) - 1))
        hulls = [cv2.convexHull(solid).reshape(-1, 2).astype(np.float64) for solid in solids]
    else:
        hulls = [project_convex(np.concatenate(pair), calibration) for pair in pairwise(stack)]
    return [hull for hull in hulls if len(hull) >= 3]


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
    lasers, index = np.unique(rows, return_inverse=True)
    if len(lasers) < least:
        return []
    left = np.full(len(lasers), np.inf)
    right = np.full(len(lasers), -np.inf)
    np.minimum.at(left, index, pixels[:, 0])
    np.maximum.at(right, index, pixels[:, 0])
    level = np.bincount(index, pixels[:, 1]) / np.bincount(index)
    half = float(np.median(np.diff(level) / np.diff(lasers))) / 2
    # Half a laser's spacing above the highest, and down to the ground.
    left, right = np.pad(left, 1, "edge") - step / 2, np.pad(right, 1, "edge") + step / 2
    level = np.concatenate([[level[0] - half], level, [max(bottom, level[-1])]])
    corners = np.stack([left, level, right, level], axis=1).reshape(-1, 2, 2)
    return [np.concatenate([upper, lower[::-1]]) for upper, lower in pairwise(corners)]


def draw(
    polygons: list[np.ndarray], calibration: Calibration, margin: int = 0
) -> tuple[np.ndarray, int, int] | None:
    """Fill convex polygons.

    Args:
        polygons: each (K, 2) float pixels; integer coordinates are pixel centres.
        calibration: gives the image's size.
        margin: empty pixels to leave around them inside the image.

    Returns:
        (h, w) uint8 crop (1 inside) and the column and row of its first pixel; None where nothing
        of them lies in the image.
    """
    if not polygons:
        return None
    every = np.concatenate(polygons)
    low, high = every.min(axis=0), every.max(axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    x0 = min(max(math.floor(low[0]) - margin, 0), calibration.width)
    y0 = min(max(math.floor(low[1]) - margin, 0), calibration.height)
    x1 = min(max(math.ceil(high[0]) + 1 + margin, 0), calibration.width)
    y1 = min(max(math.ceil(high[1]) + 1 + margin, 0), calibration.height)
    if x1 <= x0 or y1 <= y0:
        return None
    crop = np.zeros((y1 - y0, x1 - x0), np.uint8)
    # Far outside the image only the direction matters; OpenCV's integers must not overflow.
    moved = np.rint(np.clip(every - (x0, y0), -1e5, 1e5) * 16).astype(np.int32)
    begin = 0
    for polygon in polygons:
        cv2.fillConvexPoly(crop, moved[begin : begin + len(polygon)], 1, shift=4)
        begin += len(polygon)
    return crop, x0, y0
