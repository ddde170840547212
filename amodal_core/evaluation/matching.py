"""COCO matching and precision-recall accumulation, on hotcoco, with bins that COCO does not have.

COCO knows one bin: the area. Amodal evaluation also splits by occlusion, and each paper decides in
its own way which detections a bin ignores. Both decisions reach the library as one flag per entry:
the `area` field is set to 1 inside the bin and to 0 outside, and the bin is the area range
[0.5, 1.5]. Matching, ties, crowds and interpolation are the library's, bit for bit pycocotools'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)


@dataclass
class Entries:
    """N annotations or detections in the form that COCO matching needs.

    Attributes:
        image_ids: (N,) int64.
        class_ids: (N,) int64 from 0.
        boxes: (N, 4) float64 xyxy in pixels, or None where masks are compared.
        masks: N COCO RLE dictionaries, or None where boxes are compared.
        scores: (N,) float64.
        crowd: (N,) bool.
    """

    image_ids: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray | None
    masks: list[dict[str, Any]] | None
    scores: np.ndarray
    crowd: np.ndarray

    def _dataset(self, images: list[dict[str, Any]], classes: int, inside: np.ndarray) -> COCO:
        records = []
        xywh = None
        if self.boxes is not None:
            xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], 1)
        for n in range(len(self.image_ids)):
            record: dict[str, Any] = {
                "id": n + 1,  # pycocotools takes an id of 0 for "no match"
                "image_id": int(self.image_ids[n]),
                "category_id": int(self.class_ids[n]) + 1,
                "area": float(inside[n]),
                "iscrowd": int(self.crowd[n]),
                "score": float(self.scores[n]),
            }
            if xywh is not None:
                record["bbox"] = xywh[n].tolist()
            if self.masks is not None:
                record["segmentation"] = self.masks[n]
                record.setdefault("bbox", [0.0, 0.0, 0.0, 0.0])
            records.append(record)
        return COCO(
            {
                "images": images,
                "annotations": records,
                "categories": [{"id": c + 1, "name": str(c)} for c in range(classes)],
            }
        )


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

    def _at(self, iou: float) -> np.ndarray:
        return np.flatnonzero(np.isclose(self.iou_thresholds, iou))

    def _limit(self, limit: int | None) -> int:
        return -1 if limit is None else self.max_detections.index(limit)


def evaluator(
    images: list[dict[str, Any]],
    truth: Entries,
    detections: Entries,
    classes: int,
    *,
    truth_inside: np.ndarray | None = None,
    detections_inside: np.ndarray | None = None,
    class_agnostic: bool = False,
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
    max_detections: tuple[int, ...] = MAX_DETECTIONS,
) -> COCOeval:
    """Match detections to truth as COCO does; `evaluate()` has run, `accumulate()` has not.

    Args:
        images: COCO image records.
        truth: what is there.
        detections: what was predicted.
        classes: number of classes.
        truth_inside: (N,) bool; truth outside is ignored, and so is what is matched to it.
        detections_inside: (M,) bool; an unmatched detection outside is not a false positive.
        class_agnostic: let every class match every other.
        iou_thresholds: (T,) IoU from which a match counts.
        max_detections: numbers of best-scored detections an image (and class) to look at.
    """
    if truth_inside is None:
        truth_inside = np.ones(len(truth.image_ids), bool)
    if detections_inside is None:
        detections_inside = np.ones(len(detections.image_ids), bool)
    run = COCOeval(
        truth._dataset(images, classes, truth_inside),
        detections._dataset(images, classes, detections_inside),
        "bbox" if truth.masks is None else "segm",
    )
    run.params.iouThrs = iou_thresholds.tolist()
    run.params.maxDets = list(max_detections)
    run.params.areaRng = [[0.5, 1.5]]
    run.params.areaRngLbl = ["all"]
    run.params.useCats = not class_agnostic
    run.evaluate()
    return run


def curves(run: COCOeval) -> Curves:
    """Accumulate a run of `evaluator` to precision-recall curves."""
    run.accumulate()
    tables: dict[str, Any] = run.eval or {}
    return Curves(
        precision=np.asarray(tables["precision"])[:, :, :, 0],
        recall=np.asarray(tables["recall"])[:, :, 0],
        scores=np.asarray(tables["scores"])[:, :, :, 0],
        iou_thresholds=np.asarray(run.params.iouThrs),
        max_detections=tuple(run.params.maxDets),
    )
