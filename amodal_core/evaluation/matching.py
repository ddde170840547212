"""COCO matching and precision-recall accumulation, with bins that COCO does not have.

COCO knows one bin: the area. Amodal evaluation also splits by occlusion, and each paper decides in
its own way which detections a bin ignores. Here a bin is two flags, one an annotation and one a
detection. Overlaps do not depend on the bin and are computed once; matching, ties, crowds and
interpolation follow pycocotools, and equal it (test_evaluation_image.py).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from amodal_core import pickles
from amodal_core.errors import foreign
from amodal_core.evaluation.overlaps import Overlaps, grouped, overlaps
from amodal_core.files import atomic
from amodal_core.masks.runs import Runs

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)


@dataclass
class Entries:
    """N annotations or detections in the form that COCO matching needs.

    Attributes:
        places: (N,) int64, the place of each entry's image (or video) in the list of them.
        class_ids: (N,) int64 from 0.
        shapes: what is compared: masks, or boxes (N, 4) float64 xyxy in pixels.
        scores: (N,) float64.
        crowd: (N,) bool.
    """

    places: np.ndarray
    class_ids: np.ndarray
    shapes: Runs | np.ndarray
    scores: np.ndarray
    crowd: np.ndarray


@dataclass
class Matches:
    """What AP is computed from, once matching is done: D detections over I images, K classes.

    Attributes:
        images: (I,) int64 ids of all images.
        classes: names; one name where classes are not compared.
        image: (D,) int32 place in `images` of each detection.
        class_id: (D,) int16.
        rank: (D,) int16, how many better-scored detections its image has of its class.
        score: (D,) float64.
        hit: (D, T) bool, matched at each IoU threshold.
        ignored: (D, T) bool, neither hit nor false positive.
        truth: (I, K) int32 annotations that count, by image and class.
    """

    images: np.ndarray
    classes: tuple[str, ...]
    image: np.ndarray
    class_id: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    truth: np.ndarray

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with atomic(path) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                images=self.images,
                classes=np.array(self.classes),
                image=self.image,
                class_id=self.class_id,
                rank=self.rank,
                score=self.score,
                hit=self.hit,
                ignored=self.ignored,
                truth=self.truth,
            )

    @classmethod
    def load(cls, path: Path) -> Matches:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or is no such file.
        """
        cure = "run `amodal eval` again"
        with foreign(path, "cannot read the matches", cure), pickles.Arrays(path) as data:
            arrays: dict[str, Any] = {f.name: data[f.name] for f in fields(cls)}
            arrays["classes"] = tuple(map(str, arrays["classes"].reshape(-1).tolist()))
            made = cls(**arrays)
            n, classes, thresholds = len(made.image), len(made.classes), made.hit.shape[-1:]
            shapes = {"images": made.truth.shape[:1], "truth": (len(made.images), classes)}
            shapes |= dict.fromkeys(("image", "class_id", "rank", "score"), (n,))
            shapes |= dict.fromkeys(("hit", "ignored"), (n, *thresholds))
            for name, shape in shapes.items():
                if arrays[name].shape != shape or arrays[name].dtype.kind not in "iufb":
                    raise ValueError(f"{name} of shape {arrays[name].shape}")
            for name, end in (("image", len(made.images)), ("class_id", classes)):
                if n and not (arrays[name].min() >= 0 and arrays[name].max() < end):
                    raise ValueError(f"{name} beyond {end}")
            return made


@dataclass
class Curves:
    """Precision and recall of one evaluation run; -1 where nothing could be evaluated.

    Attributes:
        precision: (T, 101, K, M) over IoU thresholds, recalls, classes, detection limits.
        recall: (T, K, M).
        scores: (T, 101, K, M), the score at which each precision is reached.
        iou_thresholds: (T,).
        max_detections: M limits.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    iou_thresholds: np.ndarray
    max_detections: tuple[int, ...]

    def average_precision(
        self, iou: float | None = None, limit: int | None = None, class_index: int | None = None
    ) -> float:
        """Mean precision over recalls, classes and IoU thresholds; NaN where there is no truth."""
        chosen = self.precision if iou is None else self.precision[self._at(iou)]
        chosen = chosen[..., self._limit(limit)]
        if class_index is not None:
            chosen = chosen[..., class_index]
        chosen = chosen[chosen > -1]
        return float(chosen.mean()) if chosen.size else float("nan")

    def average_recall(self, limit: int | None = None) -> float:
        """Mean over IoU thresholds and classes of the recall reached; NaN without truth."""
        chosen = self.recall[..., self._limit(limit)]
        chosen = chosen[chosen > -1]
        return float(chosen.mean()) if chosen.size else float("nan")

    def mean_curve(self, iou: float) -> np.ndarray:
        """(101,) float64 precision at recalls 0:.01:1, mean over classes; empty without truth."""
        chosen = self.precision[self._at(iou)[0], :, :, -1]
        valid = (chosen > -1).all(axis=0)
        return chosen[:, valid].mean(axis=1) if valid.any() else np.zeros(0)

    def _at(self, iou: float) -> np.ndarray:
        return np.flatnonzero(np.isclose(self.iou_thresholds, iou))

    def _limit(self, limit: int | None) -> int:
        return -1 if limit is None else self.max_detections.index(limit)


class Matcher:
    """Detections and truth with their overlaps, to be matched within any number of bins.

    Args:
        images: (I,) int64 ids of all images, in order.
        truth: what is there.
        detections: what was predicted.
        classes: names.
        class_agnostic: let every class match every other.
        crowd_union: the union with a crowd is the detection alone.
    """

    def __init__(
        self,
        images: np.ndarray,
        truth: Entries,
        detections: Entries,
        classes: tuple[str, ...],
        class_agnostic: bool = False,
        crowd_union: bool = True,
    ) -> None:
        self._images = images
        self._classes = ("all",) if class_agnostic else classes
        self._crowd = truth.crowd
        count, k = len(images), len(self._classes)
        # Ties are broken by position; without classes, pycocotools lists class after class.
        best = -detections.scores
        keys = (detections.class_ids, best) if class_agnostic else (best, detections.class_ids)
        self._overlaps: Overlaps = overlaps(
            truth.shapes,
            detections.shapes,
            grouped(truth.places, count, truth.class_ids),
            grouped(detections.places, count, *keys),
            truth.crowd if crowd_union else None,
        )
        overlap = self._overlaps
        self._truth_places = truth.places[overlap.truth]
        self._places = detections.places[overlap.predictions]
        self._truth_class = truth.class_ids[overlap.truth]
        self._class = detections.class_ids[overlap.predictions]
        if class_agnostic:
            self._truth_class = np.zeros_like(self._truth_class)
            self._class = np.zeros_like(self._class)
        # Rank within an image and class: matching and files look at the first MAX_DETECTIONS.
        group = self._places * k + self._class  # sorted: one image's detections of one class
        self._rank = np.arange(len(group)) - np.searchsorted(group, group)
        self._kept = np.flatnonzero(self._rank < MAX_DETECTIONS[-1])
        self._scores = detections.scores[overlap.predictions]

    def run(self, truth_inside: np.ndarray, detections_inside: np.ndarray) -> Matches:
        """Match within a bin.

        Args:
            truth_inside: (N,) bool; truth outside is ignored, and so is what is matched to it.
            detections_inside: (M,) bool; an unmatched detection outside is no false positive.
        """
        overlap = self._overlaps
        ignore = (~truth_inside | self._crowd)[overlap.truth]
        hit = np.zeros((len(self._rank), len(IOU_THRESHOLDS)), bool)
        ignored = np.zeros_like(hit)
        _match(
            self._truth_class,
            ignore,
            self._crowd[overlap.truth],
            overlap.truth_first,
            self._class,
            self._rank,
            detections_inside[overlap.predictions],
            overlap.predictions_first,
            overlap.first,
            overlap.ious,
            IOU_THRESHOLDS,
            MAX_DETECTIONS[-1],
            hit,
            ignored,
        )
        truth = np.zeros((len(self._images), len(self._classes)), np.int32)
        np.add.at(truth, (self._truth_places[~ignore], self._truth_class[~ignore]), 1)
        kept = self._kept
        return Matches(
            self._images,
            self._classes,
            self._places[kept].astype(np.int32),
            self._class[kept].astype(np.int16),
            self._rank[kept].astype(np.int16),
            self._scores[kept],
            hit[kept],
            ignored[kept],
            truth,
        )

    def best_ious(self) -> np.ndarray:
        """(N,) float64, IoU of each annotation with the best detection of its class, 0 for none."""
        overlap, best = self._overlaps, np.zeros(len(self._truth_class))
        for image in range(len(overlap)):
            a, b, ious = overlap[image]
            if len(a) and len(b):
                rows = slice(overlap.truth_first[image], overlap.truth_first[image + 1])
                columns = slice(
                    overlap.predictions_first[image], overlap.predictions_first[image + 1]
                )
                same = self._truth_class[rows][:, None] == self._class[columns][None]
                best[a] = np.where(same, ious, 0.0).max(axis=1)
        return best


@njit(cache=True, nogil=True)
def _match(
    truth_class: np.ndarray,
    ignore: np.ndarray,
    crowd: np.ndarray,
    truth_first: np.ndarray,
    classes: np.ndarray,
    rank: np.ndarray,
    inside: np.ndarray,
    first: np.ndarray,
    block: np.ndarray,
    ious: np.ndarray,
    thresholds: np.ndarray,
    limit: int,
    hit: np.ndarray,
    ignored: np.ndarray,
) -> None:
    """Pycocotools' evaluateImg for all images: entries are sorted by image, detections by score."""
    taken = np.zeros(len(truth_class), np.bool_)
    for image in range(len(first) - 1):
        t0, t1 = truth_first[image], truth_first[image + 1]
        columns = first[image + 1] - first[image]
        for t in range(len(thresholds)):
            taken[t0:t1] = False
            for d in range(first[image], first[image + 1]):
                if rank[d] >= limit:
                    continue
                best, best_iou = -1, min(thresholds[t], 1 - 1e-10)
                # What counts comes first; what is ignored is taken only where nothing else is left.
                for wanted in range(2):
                    for g in range(t0, t1):
                        if ignore[g] != (wanted == 1) or truth_class[g] != classes[d]:
                            continue
                        if taken[g] and not crowd[g]:
                            continue
                        iou = ious[block[image] + (g - t0) * columns + d - first[image]]
                        if iou >= best_iou:
                            best, best_iou = g, iou
                    if best >= 0:
                        break
                if best >= 0:
                    taken[best] = True
                    hit[d, t] = True
                    ignored[d, t] = ignore[best]
                else:
                    ignored[d, t] = not inside[d]


def curves(matches: Matches, max_detections: tuple[int, ...] = MAX_DETECTIONS) -> Curves:
    """Accumulate matches to precision-recall curves."""
    t, k, m = matches.hit.shape[1], len(matches.classes), len(max_detections)
    precision = np.full((t, len(RECALLS), k, m), -1.0)
    scores = np.full_like(precision, -1.0)
    recall = np.full((t, k, m), -1.0)
    positives = matches.truth.sum(axis=0)
    order = np.argsort(-matches.score, kind="stable")
    of_class = matches.class_id[order]
    for c in range(k):
        if not positives[c]:
            continue
        mine = order[of_class == c]
        for n, limit in enumerate(max_detections):
            chosen = mine[matches.rank[mine] < limit]
            _accumulate(
                matches.hit[chosen],
                matches.ignored[chosen],
                matches.score[chosen],
                float(positives[c]),
                RECALLS,
                precision[:, :, c, n],
                recall[:, c, n],
                scores[:, :, c, n],
            )
    return Curves(precision, recall, scores, IOU_THRESHOLDS[:t], max_detections)


@njit(cache=True, nogil=True)
def _accumulate(
    hit: np.ndarray,
    ignored: np.ndarray,
    score: np.ndarray,
    positives: float,
    recalls: np.ndarray,
    precision: np.ndarray,
    recall: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Pycocotools' accumulate for one class and limit; detections best first."""
    n = len(score)
    exact = np.empty(n)
    reached = np.empty(n)
    for t in range(hit.shape[1]):
        true, false = 0.0, 0.0
        for d in range(n):
            if not ignored[d, t]:
                if hit[d, t]:
                    true += 1
                else:
                    false += 1
            reached[d] = true / positives
            exact[d] = true / (true + false + 2.220446049250313e-16)
        recall[t] = reached[n - 1] if n else 0.0
        for d in range(n - 2, -1, -1):
            exact[d] = max(exact[d], exact[d + 1])
        d = 0
        for r in range(len(recalls)):
            while d < n and reached[d] < recalls[r]:
                d += 1
            precision[t, r] = exact[d] if d < n else 0.0
            scores[t, r] = score[d] if d < n else 0.0
