"""KITTI's benchmark of objects: AP of boxes in the image, from above and in 3D, and orientation.

The rules are those of the benchmark's development kit (Geiger, Lenz, Urtasun: Are we ready for
Autonomous Driving?, CVPR 2012; 3D and bird's eye since 2017). Precision is read at 40 recalls
(R40, the benchmark's since 2019; Simonelli et al., ICCV 2019) and at the 11 of before (R11).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit

from amodal_core.datasets.kitti_labels import (
    DONT_CARE,
    MAX_OCCLUSION,
    MAX_TRUNCATION,
    MIN_HEIGHT,
    KittiLabel,
)
from amodal_core.geometry.boxes3d import iou_3d, iou_bev

DIFFICULTIES = ("easy", "moderate", "hard")
KINDS = ("2D", "orientation", "BEV", "3D")
# Least overlap, the same for all kinds of boxes, and the class that is neither asked for nor wrong.
CLASSES = {"Car": (0.7, "Van"), "Pedestrian": (0.5, "Person_sitting"), "Cyclist": (0.5, "")}
_STEPS = 41  # recalls 0, 1/40, ..., 1


@dataclass
class KittiScores:
    """AP as shares of 1, NaN where there is nothing to find; orientation is AOS.

    Attributes:
        r40: (easy, moderate, hard) by class and kind.
        r11: likewise.
        objects: how many count, by class and difficulty.
        images: that were evaluated.
    """

    r40: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    r11: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    objects: dict[str, tuple[int, ...]] = field(default_factory=dict)
    images: int = 0

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON; null stands for "nothing to find"."""

        def plain(scores: dict[str, dict[str, tuple[float, ...]]]) -> dict[str, Any]:
            return {
                name: {
                    kind: [None if math.isnan(v) else v for v in row] for kind, row in kinds.items()
                }
                for name, kinds in scores.items()
            }

        objects = {name: list(counts) for name, counts in self.objects.items()}
        head = {"images": self.images, "difficulties": list(DIFFICULTIES), "objects": objects}
        return head | {"R40": plain(self.r40), "R11": plain(self.r11)}


def evaluate(
    truth: Sequence[Sequence[KittiLabel]], detections: Sequence[Sequence[KittiLabel]]
) -> KittiScores:
    """KITTI's numbers of detections in the camera's frame.

    Orientation is NaN where a detection tells none (alpha -10).

    Args:
        truth: annotations of each image, DontCare regions included.
        detections: of the same images, with scores.
    """
    frames = _Frames(truth, detections)
    scores = KittiScores(images=len(truth))
    oriented = not any(d.alpha == -10 for one in detections for d in one)
    for name, (least, neighbour) in CLASSES.items():
        r40: dict[str, list[float]] = {kind: [] for kind in KINDS}
        r11: dict[str, list[float]] = {kind: [] for kind in KINDS}
        counts = []
        for difficulty in range(len(DIFFICULTIES)):
            ignored, ignored_detections = frames.ignored(name, neighbour, difficulty)
            counts.append(int((ignored == 0).sum()))
            for kind in ("2D", "BEV", "3D"):
                curves = np.full((2, _STEPS), math.nan)
                if counts[-1]:
                    curves = _curves(frames, kind, ignored, ignored_detections, least)
                if not oriented:
                    curves[1] = math.nan
                columns = ("2D", "orientation") if kind == "2D" else (kind,)
                for column, curve in zip(columns, curves, strict=False):
                    r40[column].append(float(curve[1:].mean()))
                    r11[column].append(float(curve[::4].mean()))
        scores.r40[name] = {kind: tuple(v) for kind, v in r40.items()}
        scores.r11[name] = {kind: tuple(v) for kind, v in r11.items()}
        scores.objects[name] = tuple(counts)
    return scores


class _Frames:
    """All labels in a row, with the overlaps of each image's detections and truth."""

    def __init__(
        self, truth: Sequence[Sequence[KittiLabel]], detections: Sequence[Sequence[KittiLabel]]
    ) -> None:
        self.truth_first = np.cumsum([0, *map(len, truth)])
        self.first = np.cumsum([0, *map(len, detections)])
        flat, predicted = [t for one in truth for t in one], [d for one in detections for d in one]
        self.types = np.array([t.type for t in flat], object)
        self.detection_types = np.array([d.type for d in predicted], object)
        self.boxes, self.detection_boxes = _image_boxes(flat), _image_boxes(predicted)
        self.occluded = np.array([t.occluded for t in flat])
        self.truncated = np.array([t.truncated for t in flat])
        self.alphas = np.array([t.alpha for t in flat], np.float64)
        self.detection_alphas = np.array([d.alpha for d in predicted], np.float64)
        self.scores = np.array([d.score for d in predicted], np.float64)
        # Where each image's overlaps begin, truth by detections.
        self.block = np.cumsum([0, *(np.diff(self.truth_first) * np.diff(self.first))])
        self.overlaps = {kind: np.zeros(int(self.block[-1])) for kind in ("2D", "BEV", "3D")}
        # The largest share of a detection that lies in one DontCare region.
        self.stuff = np.zeros(len(predicted))
        solid, solid_detections = _solid_boxes(flat), _solid_boxes(predicted)
        for n in range(len(truth)):
            t, d = slice(*self.truth_first[n : n + 2]), slice(*self.first[n : n + 2])
            block = slice(*self.block[n : n + 2])
            shared = _shared(self.boxes[t], self.detection_boxes[d])
            areas, own = _areas(self.detection_boxes[d]), _areas(self.boxes[t])[:, None]
            self.overlaps["2D"][block] = _ratio(shared, own + areas - shared).ravel()
            self.overlaps["BEV"][block] = iou_bev(solid[t], solid_detections[d]).ravel()
            self.overlaps["3D"][block] = iou_3d(solid[t], solid_detections[d]).ravel()
            regions = self.types[t] == DONT_CARE
            if regions.any():
                self.stuff[d] = _ratio(shared[regions], areas[None]).max(axis=0)

    def ignored(self, name: str, neighbour: str, difficulty: int) -> tuple[np.ndarray, np.ndarray]:
        """Of truth and detections: 0 counts, 1 may be matched but does not count, -1 is not there.

        A detection that is too small does not count whatever its class.
        """
        heights = self.boxes[:, 3] - self.boxes[:, 1]
        hard = (
            (self.occluded > MAX_OCCLUSION[difficulty])
            | (self.truncated > MAX_TRUNCATION[difficulty])
            | (heights < MIN_HEIGHT[difficulty])
        )
        own, beside = self.types == name, self.types == neighbour
        truth = np.where(own & ~hard, 0, np.where(own | beside, 1, -1))
        # Whole pixels, as the development kit counts them.
        tall = np.abs(self.detection_boxes[:, 3] - self.detection_boxes[:, 1]).astype(np.int64)
        detections = np.where(self.detection_types == name, 0, -1)
        detections[tall < MIN_HEIGHT[difficulty]] = 1
        return truth, detections


def _curves(
    frames: _Frames, kind: str, ignored: np.ndarray, ignored_detections: np.ndarray, least: float
) -> np.ndarray:
    """(2, 41) precision and orientation similarity, the best from each recall on."""
    fixed = (
        frames.truth_first,
        frames.first,
        frames.block,
        frames.overlaps[kind],
        ignored,
        ignored_detections,
        frames.scores,
        # DontCare regions are known in the image alone.
        frames.stuff if kind == "2D" else np.zeros_like(frames.stuff),
        frames.alphas,
        frames.detection_alphas,
        least,
    )
    reached = np.zeros(len(frames.scores))
    count = int(_count(*fixed, -np.inf, False, reached)[0])
    curves = np.zeros((2, _STEPS))
    thresholds = _thresholds(np.sort(reached[:count])[::-1], int((ignored == 0).sum()))
    for n, threshold in enumerate(thresholds):
        tp, fp, similarity = _count(*fixed, threshold, True, reached)
        curves[:, n] = np.array([tp, similarity]) / max(tp + fp, 1)
    best: np.ndarray = np.maximum.accumulate(curves[:, ::-1], axis=1)[:, ::-1]
    return best


def _thresholds(scores: np.ndarray, objects: int) -> list[float]:
    """Of the scores of true positives, best first, those that come nearest to the recalls."""
    result: list[float] = []
    current = 0.0
    for n, score in enumerate(scores.tolist()):
        last = n == len(scores) - 1
        left = (n + 1) / objects
        right = left if last else (n + 2) / objects
        if right - current < current - left and not last:
            continue
        result.append(score)
        current += 1.0 / (_STEPS - 1.0)
    return result[:_STEPS]


@njit(cache=True, nogil=True)
def _count(
    truth_first: np.ndarray,
    first: np.ndarray,
    block: np.ndarray,
    overlaps: np.ndarray,
    ignored: np.ndarray,
    ignored_detections: np.ndarray,
    scores: np.ndarray,
    stuff: np.ndarray,
    alphas: np.ndarray,
    detection_alphas: np.ndarray,
    least: float,
    threshold: float,
    counting: bool,
    reached: np.ndarray,
) -> tuple[int, int, float]:
    """True positives, false positives and orientation similarity at a threshold.

    Each object in turn takes a detection: with `counting` the one that overlaps most, else the one
    that scores best, and the scores of true positives are left in `reached`.
    """
    assigned = np.zeros(len(scores), np.bool_)
    tp, fp, similarity = 0, 0, 0.0
    for n in range(len(first) - 1):
        columns = first[n + 1] - first[n]
        for t in range(truth_first[n], truth_first[n + 1]):
            if ignored[t] == -1:
                continue
            best, best_score, best_overlap, small = -1, -1e7, 0.0, False
            for d in range(first[n], first[n + 1]):
                if ignored_detections[d] == -1 or assigned[d] or scores[d] < threshold:
                    continue
                overlap = overlaps[block[n] + (t - truth_first[n]) * columns + d - first[n]]
                if overlap <= least:
                    continue
                if not counting:
                    if scores[d] > best_score:
                        best, best_score = d, scores[d]
                elif ignored_detections[d] == 0 and (overlap > best_overlap or small):
                    best, best_overlap, small = d, overlap, False
                elif ignored_detections[d] == 1 and best == -1:
                    best, small = d, True
            if best == -1:
                continue
            assigned[best] = True
            if ignored[t] == 0 and ignored_detections[best] == 0:
                if not counting:
                    reached[tp] = scores[best]
                tp += 1
                similarity += (1.0 + np.cos(alphas[t] - detection_alphas[best])) / 2.0
        for d in range(first[n], first[n + 1]):
            if assigned[d] or ignored_detections[d] != 0 or scores[d] < threshold:
                continue
            if stuff[d] <= least:
                fp += 1
    return tp, fp, similarity


def _image_boxes(labels: Sequence[KittiLabel]) -> np.ndarray:
    return np.array([x.box for x in labels], np.float64).reshape(-1, 4)


def _solid_boxes(labels: Sequence[KittiLabel]) -> np.ndarray:
    """(N, 7) as `geometry.boxes3d` has them, with the camera's x, z and -y for x, y and z."""
    rows = [
        (x, z, height / 2 - y, length, width, height, -label.rotation_y)
        for label in labels
        for (height, width, length), (x, y, z) in [(label.size, label.location)]
    ]
    return np.array(rows, np.float64).reshape(-1, 7)


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _shared(truth: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """(N, M) areas that image boxes share."""
    low = np.maximum(truth[:, None, :2], detections[None, :, :2])
    high = np.minimum(truth[:, None, 2:], detections[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    area: np.ndarray = sides[..., 0] * sides[..., 1]
    return area


def _ratio(shared: np.ndarray, areas: np.ndarray) -> np.ndarray:
    areas = np.broadcast_to(areas, shared.shape)
    return np.divide(shared, areas, out=np.zeros(shared.shape), where=areas > 0)
