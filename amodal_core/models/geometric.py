"""Amodal instances from geometry alone: LiDAR clusters completed by size priors. No weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from amodal_core.frame import Calibration, Frame, Instances, Report
from amodal_core.geometry import silhouette
from amodal_core.geometry.assembly import Candidate, Detection, assemble
from amodal_core.geometry.classification import CLASSES
from amodal_core.geometry.clustering import connected_components
from amodal_core.geometry.config import DEFAULTS, GeometricConfig
from amodal_core.geometry.projection import to_camera
from amodal_core.geometry.range_image import columns_in_view
from amodal_core.geometry.scalars import middle
from amodal_core.geometry.scan import Scan, scan_of
from amodal_core.geometry.top_edge import top_edge
from amodal_core.geometry.visibility import SightLines
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import least_shared, occlusion_rates

_PEOPLE = ("pedestrian", "cyclist")


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
        config: every number that it decides by.
        device: accepted for the sake of a common signature; everything runs on one CPU core.
    """

    name = "geometric"
    inputs = frozenset({"points", "calibration"})
    optional = frozenset({"image"})  # tells heights where the scan ends
    classes = CLASSES
    Config = GeometricConfig

    def __init__(self, config: GeometricConfig = DEFAULTS, device: str = "cpu") -> None:
        self.config = config
        self.device = "cpu"

    def reset(self) -> None:
        """Nothing to forget: every frame stands alone."""

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """The instances of each frame; frames without points or calibration give none."""
        report = report if report is not None else Report()
        return [self._infer_one(frame, report) for frame in frames]

    def _infer_one(self, frame: Frame, report: Report) -> Instances:
        calibration, config = frame.calibration, self.config
        if frame.points is None or calibration is None:
            report.warn("missing input", "geometric: no points or no calibration in this frame")
            return Instances.empty(frame.size)
        with report.time("geometric.ground"):
            scan = scan_of(frame, config)
        if scan is None:
            return Instances.empty(frame.size)
        points, heights, image = scan.points, scan.heights, scan.image
        with report.time("geometric.cluster"):
            keep = (heights > config.cluster.lowest) & (heights < config.cluster.highest)
            near = columns_in_view(image, scan.inside, config.cluster.margin)
            labels = connected_components(points, image, keep, config.cluster, near)
        with report.time("geometric.fit"):
            detections, owner = assemble(
                points, heights, labels, image, scan.ground, scan.inside, config
            )
        with report.time("geometric.masks"):
            return self._instances(detections, owner, scan, frame.image, calibration)

    def _instances(
        self,
        detections: list[Detection],
        owner: np.ndarray,
        scan: Scan,
        image: np.ndarray | None,
        calibration: Calibration,
    ) -> Instances:
        size, config = (calibration.height, calibration.width), self.config
        objects = self._drawn(detections, scan, image, calibration)
        n = len(objects)
        if not n:
            return Instances.empty(size)
        # Who hides whom, and what that leaves visible.
        boxes = np.array([o.candidate.box for o in objects])
        depths = np.array([o.depth for o in objects])
        lines = SightLines(boxes, calibration, config.masks.directions)
        front = lines.in_front(depths)
        occluders = np.zeros((n, n), bool)
        least = least_shared(np.array([np.count_nonzero(o.amodal) for o in objects]))
        for i, j in np.argwhere(front & _meeting(objects)).tolist():
            occluders[i, j] = _cut(objects[i], objects[j]) >= least[i]
        # Returns of nearer things, that are no objects, cover what is behind them.
        free = owner.take(scan.inside) < 0
        free &= scan.heights.take(scan.inside) > config.cluster.lowest
        index = scan.inside[free]
        offsets, crops = [(o.x, o.y) for o in objects], [o.visible for o in objects]
        points, pixels = scan.points.take(index, axis=0), scan.pixels.take(index, axis=0)
        covers = lines.covers(points, pixels, crops, offsets, config.masks)
        for o, cover in zip(objects, covers, strict=True):
            o.visible &= 1 - cover
        amodal = RleMasks.from_crops([o.amodal for o in objects], np.array(offsets), size)
        visible = RleMasks.from_crops(crops, np.array(offsets), size)
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

    def _drawn(
        self,
        detections: list[Detection],
        scan: Scan,
        image: np.ndarray | None,
        calibration: Calibration,
    ) -> list[_Object]:
        """The detections that score enough and show in the image, with their whole masks."""
        config, masks = self.config, self.config.masks
        selected = [d for d in detections if d.candidate.score >= config.min_score]
        if not selected:
            return []
        # The returns of each that fall into the image.
        index = np.concatenate([d.index for d in selected])
        owner = np.repeat(np.arange(len(selected)), [len(d.index) for d in selected])
        z = scan.z.take(index)
        inside = z > 0
        index, z = index[inside], z[inside]
        pixels = scan.pixels.take(index, axis=0)
        last = np.cumsum(np.bincount(owner[inside], minlength=len(selected))).tolist()
        candidates, depths, hulls, polygons, spans = [], [], [], [], []
        for d, (begin, end) in zip(selected, pairwise([0, *last]), strict=True):
            if begin == end:
                continue
            candidate, own = d.candidate, slice(begin, end)
            level = candidate.cut_above and candidate.box[3] < config.top_edge.longest
            if level and image is not None:
                measured = pixels[own], z[own], scan.heights[index[own]]
                candidate = self._with_top(candidate, image, *measured, calibration)
            outline: list[np.ndarray] = []
            hidden = max(d.context.hidden_left, d.context.hidden_right)
            if candidate.name in _PEOPLE and hidden < masks.unhidden:
                columns = scan.image.index.shape[1]
                step = calibration.K[0, 0] * 2 * np.pi / columns
                foot = _foot(candidate.box, calibration)
                bottom = calibration.K[1, 2] + calibration.K[1, 1] * foot
                lasers = scan.image.cells[index[own]] // columns
                least = masks.envelope_lasers
                outline = silhouette.envelope(pixels[own], lasers, step, bottom, least)
            candidates.append(candidate)
            polygons.append(outline)
            hulls.append(candidate.name != "pedestrian" and end - begin >= masks.hull)
            depths.append(float(middle(z[own].copy())))
            spans.append(own)
        usual = [k for k, outline in enumerate(polygons) if not outline]
        boxes = np.array([candidates[k].box for k in usual])
        shapes = [getattr(config.shapes, candidates[k].name) for k in usual]
        for k, outline in zip(usual, silhouette.outlines(boxes, shapes, calibration), strict=True):
            if hulls[k]:
                outline.append(silhouette.hull(pixels[spans[k]]))
            polygons[k] = outline
        objects = []
        drawn = silhouette.draw(polygons, calibration)
        for candidate, depth, one in zip(candidates, depths, drawn, strict=True):
            if one is not None and np.count_nonzero(one[0]) >= masks.min_pixels:
                mask, x, y = one
                objects.append(_Object(candidate, mask, mask.copy(), x, y, depth))
        return objects

    def _with_top(
        self,
        candidate: Candidate,
        image: np.ndarray,
        pixels: np.ndarray,
        z: np.ndarray,
        heights: np.ndarray,
        calibration: Calibration,
    ) -> Candidate:
        """The candidate with the height that the image shows where the scan ends below its top."""
        config = self.config
        highest = config.top_edge.other_highest
        if candidate.name != "other":
            highest = getattr(config.sizes, candidate.name).height[2]
        top = top_edge(image, pixels, z, heights, calibration, highest, config.top_edge)
        if top is None:
            return candidate
        box = candidate.box.copy()
        bottom = box[2] - box[5] / 2
        box[5] = top
        box[2] = bottom + top / 2
        return replace(candidate, box=box)


def _foot(box: np.ndarray, calibration: Calibration) -> float:
    """Tangent of the angle, below the optical axis, at which a box stands on the ground."""
    middle = np.array([[box[0], box[1], box[2] - box[5] / 2]])
    _, y, z = to_camera(middle, calibration)[0]
    return float(y / max(z, 0.1))


def _meeting(objects: Sequence[_Object]) -> np.ndarray:
    """(N, N) bool, whose crops have pixels in common."""
    first = np.array([(o.x, o.y) for o in objects])
    last = first + [o.amodal.shape[::-1] for o in objects]
    apart = first[:, None] >= last[None]
    return np.asarray(~(apart | apart.transpose(1, 0, 2)).any(axis=2))


def _cut(o: _Object, front: _Object) -> int:
    """Take a front object's amodal mask off the visible one of o, which it meets; pixels shared."""
    x0, y0 = max(o.x, front.x), max(o.y, front.y)
    x1 = min(o.x + o.amodal.shape[1], front.x + front.amodal.shape[1])
    y1 = min(o.y + o.amodal.shape[0], front.y + front.amodal.shape[0])
    cover = front.amodal[y0 - front.y : y1 - front.y, x0 - front.x : x1 - front.x]
    amodal = o.amodal[y0 - o.y : y1 - o.y, x0 - o.x : x1 - o.x]
    o.visible[y0 - o.y : y1 - o.y, x0 - o.x : x1 - o.x] &= 1 - cover
    return int(np.count_nonzero(amodal & cover))
