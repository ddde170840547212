"""Amodal instances from geometry alone: LiDAR clusters completed by size priors. No weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from amodal_core.frame import Calibration, Frame, Instances, Report
from amodal_core.geometry import silhouette
from amodal_core.geometry.assembly import Found, assemble
from amodal_core.geometry.clustering import connected_components, range_image, remove_ground
from amodal_core.geometry.completion import CLASSES, Candidate
from amodal_core.geometry.projection import Projection, project
from amodal_core.masks.mask_set import RleMasks

_LOWEST, _HIGHEST = 0.25, 4.2
"""Metres above the ground between which returns belong to objects of a road."""

_SPLAT = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 9))
"""What one return stands for in the image: the gaps of a 64-beam scan to its neighbours."""


@dataclass(eq=False)
class _Object:
    """A candidate with its returns and masks."""

    candidate: Candidate
    points: np.ndarray
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
    classes = CLASSES

    def __init__(
        self,
        device: str = "cpu",
        min_points: int = 12,
        min_score: float = 0.2,
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
                report.warnings.append("geometric: no points or no calibration in this frame")
            return Instances.empty(frame.size)
        finite = np.isfinite(points).all(axis=1)
        if not finite.all():
            points = points[finite]
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
            return self._instances(found, owner, keep, projection, calibration)

    def _instances(
        self,
        found: list[Found],
        owner: np.ndarray,
        keep: np.ndarray,
        projection: Projection,
        calibration: Calibration,
    ) -> Instances:
        size = (calibration.height, calibration.width)
        objects = [
            o
            for f in found
            if f.candidate.score >= self.min_score
            and (o := self._draw(f.candidate, f.index, projection, calibration))
        ]
        n = len(objects)
        if not n:
            return Instances.empty(size)
        front = _in_front(objects)
        occluders = np.zeros((n, n), bool)
        for i, o in enumerate(objects):
            for j in np.flatnonzero(front[i]):
                covered = _cut(o, objects[j])
                occluders[i, j] = covered > max(4, 0.01 * o.amodal.sum())
        offsets = np.array([(o.x, o.y) for o in objects])
        amodal = RleMasks.from_crops([o.amodal for o in objects], offsets, size)
        visible = RleMasks.from_crops([o.visible for o in objects], offsets, size)
        whole, shown = amodal.areas(), visible.areas()
        return Instances(
            size=size,
            amodal_boxes=amodal.boxes(),
            visible_boxes=visible.boxes(),
            scores=np.array([o.candidate.score for o in objects], np.float32),
            class_ids=np.array([CLASSES.index(o.candidate.name) for o in objects], np.int64),
            amodal=amodal,
            visible=visible,
            occlusion_rates=(1.0 - shown / np.maximum(whole, 1)).astype(np.float32),
            depths=np.array([o.depth for o in objects], np.float32),
            occluders=occluders,
            boxes3d=np.array([o.candidate.box for o in objects], np.float32),
        )

    def _draw(
        self,
        candidate: Candidate,
        index: np.ndarray,
        projection: Projection,
        calibration: Calibration,
    ) -> _Object | None:
        polygons = silhouette.outlines(candidate.box, candidate.name, calibration)
        pixels = projection.pixels[index]
        inside = pixels[:, 0] >= 0
        if not inside.any():
            return None
        own = pixels[inside]
        if candidate.name != "pedestrian" and len(own) >= 3:
            polygons.append(cv2.convexHull(own).reshape(-1, 2).astype(np.float64))
        drawn = silhouette.draw(polygons, calibration)
        if drawn is None or drawn[0].sum() < self.min_pixels:
            return None
        mask, x, y = drawn
        depth = float(np.median(projection.z[index][inside]))
        return _Object(candidate, index, mask, mask.copy(), x, y, depth)


def _in_front(objects: list[_Object]) -> np.ndarray:
    """(N, N) bool, [i, j] where j stands between the camera and i."""
    depth = np.array([o.depth for o in objects])
    return depth[None, :] < depth[:, None]


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
