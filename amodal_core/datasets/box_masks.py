"""Masks of annotated 3D boxes, as the model `geometric` draws those of the boxes that it finds.

They are derived: the silhouette that the class has in the box, and what nearer objects and nearer
returns leave of it. Nobody drew them, and a number against them is no number against annotations.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    kinds = [_SHAPES.get(name, name) for name in names]
    shapes = [getattr(config.shapes, kind, config.shapes.other) for kind in kinds]
    usual = silhouette.outlines(np.asarray(boxes, float), shapes, calibration)
    objects = []
    for box, kind, own, polygons in zip(boxes, kinds, inside, usual, strict=True):
        envelope = _envelope(scan, own, box, calibration) if kind in _PEOPLE else []
        pixels = _shown(scan, own)
        every = [*(envelope or polygons)]
        if kind != "pedestrian" and every and len(pixels) >= config.masks.hull:
            every.append(silhouette.hull(pixels))
        objects.append(every)
    nothing = np.zeros((0, 0), np.uint8), 0, 0
    drawn = [one or nothing for one in silhouette.draw(objects, calibration)]
    crops, offsets = [one[0] for one in drawn], [one[1:] for one in drawn]
    amodal = RleMasks.from_crops(crops, np.array(offsets), size)
    # What stands before each, objects first, then returns of things that are none.
    lines = SightLines(boxes, calibration, config.masks.directions)
    front = lines.in_front(to_camera(boxes, calibration)[:, 2])
    covers = [amodal[front[i]].union() for i in range(n)]
    visible = amodal - RleMasks.concatenated(covers)
    if scan is not None:
        free = scan.heights > config.cluster.lowest
        free[np.concatenate(inside)] = False
        index = scan.inside[free[scan.inside]]
        clutter = lines.covers(scan.points[index], scan.pixels[index], crops, offsets, config.masks)
        visible = visible - RleMasks.from_crops(clutter, np.array(offsets), size)
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
    index = index[scan.pixels[index, 0] >= 0]
    if reach < _MOST * box[5] or not len(index):
        return []
    columns = scan.image.index.shape[1]
    foot = to_camera(np.array([[box[0], box[1], box[2] - box[5] / 2]]), calibration)[0]
    bottom = calibration.K[1, 2] + calibration.K[1, 1] * foot[1] / max(foot[2], 0.1)
    step = calibration.K[0, 0] * 2 * np.pi / columns
    rows = scan.image.cells[index] // columns
    least = DEFAULTS.masks.envelope_lasers
    return silhouette.envelope(scan.pixels[index], rows, step, float(bottom), least)


def _shown(scan: Scan | None, index: np.ndarray) -> np.ndarray:
    """(K, 2) pixels of the points at `index` that fall into the image."""
    if scan is None:
        return np.zeros((0, 2), np.int32)
    pixels = scan.pixels[index]
    return pixels[pixels[:, 0] >= 0]
