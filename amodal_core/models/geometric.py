"""Amodal instances from geometry alone: LiDAR clusters completed by size priors. No weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from amodal_core.frame import Calibration, Frame, Instances, Report
from amodal_core.geometry import silhouette
from amodal_core.geometry.assembly import Found, assemble
from amodal_core.geometry.clustering import (
    RangeImage,
    connected_components,
    range_image,
    remove_ground,
)
from amodal_core.geometry.completion import CLASSES, SIZES, Candidate
from amodal_core.geometry.projection import Projection, project, to_camera
from amodal_core.geometry.top_edge import top_edge
from amodal_core.geometry.visibility import SightLines
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import least_shared, occlusion_rates

_LOWEST, _HIGHEST = 0.25, 4.2
"""Metres above the ground between which returns belong to objects of a road."""

_SPLAT = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 9))
"""What one return stands for in the image: the gaps of a 64-beam scan to its neighbours."""


_LONG = 9.0
"""Metres; a longer truck is a tractor with a trailer, and has no level top edge to look for."""

_PEOPLE = ("pedestrian", "cyclist")

_UNHIDDEN = 0.4
"""Share of rows that something nearer ends, up to which returns tell a person's whole outline."""

_BEFORE = 0.5
"""Metres that a return must be nearer than an object to stand before it."""


@dataclass(eq=False)
class _Object:
    """A candidate with its masks, crops whose first pixel is (x, y) of the image."""

    candidate: Candidate
    amodal: np.ndarray
    visible: np.ndarray
    x: int
    y: int
    depth: float


class Geometric:
    """Finds road users in a scan, completes them, and draws their masks.

    Ground is removed and the rest clustered in the range image (Bogoslavskyi and Stachniss 2016), a
    rectangle is fitted to each cluster (Zhang et al. 2017) and completed by its class's usual size.
    The amodal mask is the silhouette of the completed object; the visible mask is what nearer
    objects and nearer returns leave of it.

    Args:
        device: accepted for the sake of a common signature; everything runs on one CPU core.
        min_points: clusters with fewer returns are dropped.
        min_score: so are objects that score less.
        min_pixels: and objects whose amodal mask is smaller.
    """

    name = "geometric"
    inputs = frozenset({"points", "calibration"})
    optional = frozenset({"image"})  # tells heights where the scan ends
    classes = CLASSES

    def __init__(
        self,
        device: str = "cpu",
        min_points: int = 12,
        min_score: float = 0.25,
        min_pixels: int = 60,
    ) -> None:
        self.device = device
        self.min_points = min_points
        self.min_score = min_score
        self.min_pixels = min_pixels

    def reset(self) -> None:
        """Nothing to forget: every frame stands alone."""

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The instances of each frame; frames without points or calibration give none."""
        report = report if report is not None else Report()
        return [self._infer_one(frame, report) for frame in frames]

    def _infer_one(self, frame: Frame, report: Report) -> Instances:
        points, calibration = frame.points, frame.calibration
        if points is None or calibration is None or not len(points):
            if frame.points is None or calibration is None:
                report.warn("missing input", "geometric: no points or no calibration in this frame")
            return Instances.empty(frame.size)
        # A sum tells in one pass whether any value is bad; most scans have none.
        if not np.isfinite(points.sum()):
            points = points[np.isfinite(points).all(axis=1)]
        points = np.ascontiguousarray(points, np.float32)
        if not len(points):
            return Instances.empty(frame.size)
        with report.time("geometric.cluster"):
            image = range_image(points)
            ground, heights = remove_ground(points, image)
            keep = (heights > _LOWEST) & (heights < _HIGHEST)
            labels = connected_components(points, image, keep)
        with report.time("geometric.project"):
            projection = project(points, calibration)
        with report.time("geometric.fit"):
            seen = projection.pixels[:, 0] >= 0
            found, owner = assemble(points, heights, labels, image, ground, seen, self.min_points)
        with report.time("geometric.masks"):
            return self._instances(
                found, owner, points, heights, image, frame.image, projection, calibration
            )

    def _instances(
        self,
        found: list[Found],
        owner: np.ndarray,
        points: np.ndarray,
        heights: np.ndarray,
        ranges: RangeImage,
        image: np.ndarray | None,
        projection: Projection,
        calibration: Calibration,
    ) -> Instances:
        size = (calibration.height, calibration.width)
        objects = []
        for f in found:
            if f.candidate.score < self.min_score:
                continue
            candidate = f.candidate
            if candidate.cut_above and image is not None and candidate.box[3] < _LONG:
                candidate = _with_top(f, heights, image, projection, calibration)
            drawn = self._draw(candidate, f, ranges, projection, calibration)
            if drawn is not None:
                objects.append(drawn)
        n = len(objects)
        if not n:
            return Instances.empty(size)
        boxes = np.array([o.candidate.box for o in objects])
        depths = np.array([o.depth for o in objects])
        lines = SightLines(boxes, calibration)
        front = lines.in_front(depths)
        occluders = np.zeros((n, n), bool)
        for i, o in enumerate(objects):
            least = least_shared(o.amodal.sum())
            for j in np.flatnonzero(front[i]):
                occluders[i, j] = _cut(o, objects[j]) >= least
        self._cut_clutter(objects, owner, points, heights, lines, projection)
        offsets = np.array([(o.x, o.y) for o in objects])
        amodal = RleMasks.from_crops([o.amodal for o in objects], offsets, size)
        visible = RleMasks.from_crops([o.visible for o in objects], offsets, size)
        return Instances(
            size=size,
            amodal_boxes=amodal.boxes(),
            visible_boxes=visible.boxes(),
            scores=np.array([o.candidate.score for o in objects], np.float32),
            class_ids=np.array([CLASSES.index(o.candidate.name) for o in objects], np.int64),
            amodal=amodal,
            visible=visible,
            occlusion_rates=occlusion_rates(amodal, visible),
            depths=depths.astype(np.float32),
            occluders=occluders,
            boxes3d=boxes.astype(np.float32),
        )

    def _draw(
        self,
        candidate: Candidate,
        found: Found,
        ranges: RangeImage,
        projection: Projection,
        calibration: Calibration,
    ) -> _Object | None:
        inside = projection.pixels[found.index, 0] >= 0
        if not inside.any():
            return None
        index = found.index[inside]
        own = np.asarray(projection.pixels[index])
        depth = float(np.median(projection.z[index]))
        polygons: list[np.ndarray] = []
        hidden = max(found.evidence.hidden_left, found.evidence.hidden_right)
        if candidate.name in _PEOPLE and hidden < _UNHIDDEN:
            rows = ranges.cells[index] // ranges.index.shape[1]
            bottom = calibration.K[1, 2] + calibration.K[1, 1] * _foot(candidate.box, calibration)
            step = calibration.K[0, 0] * 2 * np.pi / ranges.index.shape[1]
            polygons = silhouette.envelope(own, rows, step, bottom)
        if not polygons:
            polygons = silhouette.outlines(candidate.box, candidate.name, calibration)
            if candidate.name != "pedestrian" and len(own) >= 3:
                polygons.append(cv2.convexHull(own).reshape(-1, 2).astype(np.float64))
        drawn = silhouette.draw(polygons, calibration)
        if drawn is None or drawn[0].sum() < self.min_pixels:
            return None
        mask, x, y = drawn
        return _Object(candidate, mask, mask.copy(), x, y, depth)

    @staticmethod
    def _cut_clutter(
        objects: list[_Object],
        owner: np.ndarray,
        points: np.ndarray,
        heights: np.ndarray,
        lines: SightLines,
        projection: Projection,
    ) -> None:
        """Take off the visible masks what returns of nearer things, that are no objects, cover."""
        index = np.flatnonzero((owner < 0) & (heights > _LOWEST) & (projection.pixels[:, 0] >= 0))
        pixels = projection.pixels[index]
        distance = lines.distance(points[index])
        direction = lines.direction(pixels[:, 0])
        for k, o in enumerate(objects):
            h, w = o.visible.shape
            x, y = pixels[:, 0] - o.x, pixels[:, 1] - o.y
            near = (x >= 0) & (x < w) & (y >= 0) & (y < h)
            near &= distance < lines.near[k, direction] - _BEFORE
            near &= np.isfinite(lines.near[k, direction])
            if near.sum() < 3:
                continue
            cover = np.zeros((h, w), np.uint8)
            cover[y[near], x[near]] = 1
            o.visible &= 1 - cv2.dilate(cover, _SPLAT)


def _foot(box: np.ndarray, calibration: Calibration) -> float:
    """Tangent of the angle, below the optical axis, at which a box stands on the ground."""
    middle = np.array([[box[0], box[1], box[2] - box[5] / 2]])
    _, y, z = to_camera(middle, calibration)[0]
    return float(y / max(z, 0.1))


def _with_top(
    found: Found,
    heights: np.ndarray,
    image: np.ndarray,
    projection: Projection,
    calibration: Calibration,
) -> Candidate:
    """The candidate with the height that the image shows where the scan ends below its top."""
    candidate = found.candidate
    index = found.index[projection.pixels[found.index, 0] >= 0]
    highest = SIZES[candidate.name].height[2] if candidate.name in SIZES else 2.5
    top = top_edge(
        image,
        np.asarray(projection.pixels[index]),
        np.asarray(projection.z[index]),
        heights[index],
        calibration,
        highest,
    )
    if top is None:
        return candidate
    box = candidate.box.copy()
    bottom = box[2] - box[5] / 2
    box[5] = top
    box[2] = bottom + top / 2
    return replace(candidate, box=box)


def _cut(o: _Object, front: _Object) -> int:
    """Take the front object's amodal mask off o's visible one; returns the pixels shared."""
    x0, y0 = max(o.x, front.x), max(o.y, front.y)
    x1 = min(o.x + o.amodal.shape[1], front.x + front.amodal.shape[1])
    y1 = min(o.y + o.amodal.shape[0], front.y + front.amodal.shape[0])
    if x1 <= x0 or y1 <= y0:
        return 0
    cover = front.amodal[y0 - front.y : y1 - front.y, x0 - front.x : x1 - front.x]
    whole = o.amodal[y0 - o.y : y1 - o.y, x0 - o.x : x1 - o.x]
    o.visible[y0 - o.y : y1 - o.y, x0 - o.x : x1 - o.x] &= 1 - cover
    return int((whole & cover).sum())
