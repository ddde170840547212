"""Masks of annotated 3D boxes, as the model `geometric` draws those of the boxes that it finds.

They are derived: the silhouette that the class has in the box, and what nearer objects and nearer
returns leave of it. Nobody drew them, and a number against them is no number against annotations.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from amodal_core.frame import Calibration, Frame
from amodal_core.geometry import silhouette
from amodal_core.geometry.boxes3d import points_in_boxes
from amodal_core.geometry.config import DEFAULTS
from amodal_core.geometry.projection import to_camera
from amodal_core.geometry.scan import Scan, scan_of
from amodal_core.geometry.visibility import SightLines
from amodal_core.masks.mask_set import RleMasks

# The silhouette of a class; all others have one of their own, or that of "other".
_SHAPES = {"van": "truck", "bus": "truck", "tram": "truck"}
# People are of no usual shape: their returns tell it, where they reach over most of the box.
_PEOPLE, _MOST = ("pedestrian", "cyclist"), 0.7
_MARGIN = 0.1  # metres by which returns of an object may lie outside its box


def box_masks(
    boxes: np.ndarray, names: Sequence[str], frame: Frame
) -> tuple[RleMasks, RleMasks, np.ndarray]:
    """Amodal and visible masks of the objects in 3D boxes.

    Args:
        boxes: (N, 7) as in Instances.boxes3d, in the LiDAR frame.
        names: N classes; they choose the silhouette.
        frame: its calibration, and its scan where it has one.

    Returns:
        N amodal masks, empty where the object is not in the image; N visible masks; (N, N) bool,
        [i, j] where j stands before i.
    """
    calibration, config = frame.calibration, DEFAULTS
    assert calibration is not None
    size, n = (calibration.height, calibration.width), len(boxes)
    if not n:
        return RleMasks.empty(size), RleMasks.empty(size), np.zeros((0, 0), bool)
    scan = None if frame.points is None else scan_of(frame, config, last=True)
    inside = [_inside(scan, box) for box in boxes]
    crops, offsets = [], []
    for box, name, own in zip(boxes, names, inside, strict=True):
        kind = _SHAPES.get(name, name)
        shape = getattr(config.shapes, kind, config.shapes.other)
        pixels = _shown(scan, own)
        polygons = _envelope(scan, own, box, calibration) if kind in _PEOPLE else []
        polygons = polygons or silhouette.outlines(np.asarray(box, float), shape, calibration)
        if kind != "pedestrian" and polygons and len(pixels) >= config.masks.hull:
            polygons.append(cv2.convexHull(pixels).reshape(-1, 2).astype(np.float64))
        drawn = silhouette.draw(polygons, calibration)
        crop, x, y = (np.zeros((0, 0), np.uint8), 0, 0) if drawn is None else drawn
        crops.append(crop)
        offsets.append((x, y))
    amodal = RleMasks.from_crops(crops, np.array(offsets), size)
    # What stands before each, objects first, then returns of things that are none.
    lines = SightLines(boxes, calibration, config.masks.directions)
    front = lines.in_front(to_camera(boxes, calibration)[:, 2])
    covers = [amodal[front[i]].union() for i in range(n)]
    visible = amodal - RleMasks.concatenated(covers)
    if scan is not None:
        visible = visible - _clutter(scan, inside, crops, offsets, lines, size)
    return amodal, visible, front


def _inside(scan: Scan | None, box: np.ndarray) -> np.ndarray:
    """(M,) indices of a scan's points in a box."""
    if scan is None:
        return np.zeros(0, np.int64)
    reach = np.hypot(box[3], box[4]) / 2 + _MARGIN
    near = np.flatnonzero(np.abs(scan.points[:, :2] - box[:2]).max(axis=1) <= reach)
    return near[points_in_boxes(scan.points[near], box[None], _MARGIN)[0]]


def _envelope(
    scan: Scan | None, index: np.ndarray, box: np.ndarray, calibration: Calibration
) -> list[np.ndarray]:
    """The outline of the returns at `index`; none where they show a part of the box alone."""
    if scan is None or not len(index):
        return []
    reach = scan.points[index, 2].max() - (box[2] - box[5] / 2)
    index = index[scan.projection.pixels[index, 0] >= 0]
    if reach < _MOST * box[5] or not len(index):
        return []
    columns = scan.image.index.shape[1]
    foot = to_camera(np.array([[box[0], box[1], box[2] - box[5] / 2]]), calibration)[0]
    bottom = calibration.K[1, 2] + calibration.K[1, 1] * foot[1] / max(foot[2], 0.1)
    step = calibration.K[0, 0] * 2 * np.pi / columns
    rows = scan.image.cells[index] // columns
    pixels = np.asarray(scan.projection.pixels[index])
    least = DEFAULTS.masks.envelope_lasers
    return silhouette.envelope(pixels, rows, step, float(bottom), least)


def _shown(scan: Scan | None, index: np.ndarray) -> np.ndarray:
    """(K, 2) pixels of the points at `index` that fall into the image."""
    if scan is None:
        return np.zeros((0, 2), np.int32)
    pixels = np.asarray(scan.projection.pixels[index])
    return pixels[pixels[:, 0] >= 0]


def _clutter(
    scan: Scan,
    inside: Sequence[np.ndarray],
    crops: Sequence[np.ndarray],
    offsets: Sequence[tuple[int, int]],
    lines: SightLines,
    size: tuple[int, int],
) -> RleMasks:
    """What returns of nearer things, that are in no box, cover of each object."""
    masks = DEFAULTS.masks
    free = scan.heights > DEFAULTS.cluster.lowest
    free[np.concatenate(inside)] = False
    index = np.flatnonzero(free & (scan.projection.pixels[:, 0] >= 0))
    pixels = np.asarray(scan.projection.pixels[index])
    distance = lines.distance(scan.points[index])
    direction = lines.direction(pixels[:, 0])
    splat = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, masks.splat)
    covers: list[np.ndarray] = []
    for k, (crop, (left, top)) in enumerate(zip(crops, offsets, strict=True)):
        height, width = crop.shape
        x, y = pixels[:, 0] - left, pixels[:, 1] - top
        near = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        entry = lines.near[k, direction]
        near &= np.isfinite(entry) & (distance < entry - masks.before)
        returns = np.zeros((height, width), np.uint8)
        if near.sum() >= masks.clutter:
            returns[y[near], x[near]] = 1
        covers.append(cv2.dilate(returns, splat) if returns.size else returns)
    return RleMasks.from_crops(covers, np.array(offsets), size)
