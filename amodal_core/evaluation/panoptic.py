"""Amodal panoptic quality (APQ) and amodal parsing coverage (APC) of things.

Mohan and Valada, "Amodal Panoptic Segmentation", CVPR 2022, with the rules of their public
evaluation: things of a class are paired by the assignment of largest total amodal IoU, without a
threshold; a pair contributes the IoU of its visible masks and, where the truth is occluded, the IoU
of its hidden parts. Two slips of that evaluation are not repeated: where one side of an image is
empty it counts only the first object, and for an unpaired prediction it looks at the occlusion of
another.
Stuff is not predicted by any model here, so these are the things' columns only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from amodal_core.evaluation.pairs import by_image
from amodal_core.evaluation.sets import AnnotationSet


@dataclass
class PanopticScores:
    """Means over the classes of the truth, 0-1; NaN without truth.

    Attributes:
        apq: APQ of things: visible and hidden parts together.
        apq_visible: its visible part.
        apq_occluded: its hidden part.
        apc: APC of things.
        apc_visible: its visible part.
        apc_occluded: its hidden part.
        per_class: (APQ, APC) by class name.
    """

    apq: float
    apq_visible: float
    apq_occluded: float
    apc: float
    apc_visible: float
    apc_occluded: float
    per_class: dict[str, tuple[float, float]]


def _hidden(part: AnnotationSet, chosen: np.ndarray, size: list[int]) -> np.ndarray:
    """(n, H, W) bool: amodal without visible."""
    if not len(chosen):
        return np.zeros((0, *size), bool)
    whole = coco.decode([{"size": size, "counts": part.amodal[i]} for i in chosen])
    seen = coco.decode([{"size": size, "counts": part.visible[i]} for i in chosen])
    return ((whole > 0) & ~(seen > 0)).transpose(2, 0, 1)


def _encode(masks: np.ndarray) -> list[dict[str, object]]:
    if not len(masks):
        return []
    encoded: list[dict[str, object]] = coco.encode(
        np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    )
    return encoded


def evaluate(truth: AnnotationSet, predictions: AnnotationSet) -> PanopticScores:
    """APQ and APC of things.

    Args:
        truth: with visible and amodal masks.
        predictions: aligned with it, with both masks.

    Raises:
        InputError: a side lacks the masks.
    """
    for part in (truth, predictions):
        part.rle("amodal")
        part.rle("visible")
    k = len(truth.classes)
    iou, tp, fp, fn = (np.zeros((k, 2)) for _ in range(4))  # columns: visible, hidden
    covered, area = np.zeros((k, 2)), np.zeros((k, 2))
    sizes = truth.sizes()
    for image, a, b in by_image(truth, predictions):
        size = list(sizes[image])
        hidden_a, hidden_b = (
            _encode(_hidden(truth, a, size)),
            _encode(_hidden(predictions, b, size)),
        )
        amodal_a = [{"size": size, "counts": truth.amodal[i]} for i in a]
        amodal_b = [{"size": size, "counts": predictions.amodal[i]} for i in b]
        visible_a = [{"size": size, "counts": truth.visible[i]} for i in a]
        visible_b = [{"size": size, "counts": predictions.visible[i]} for i in b]

        def matrix(one: list[Any], two: list[Any]) -> np.ndarray:
            if not one or not two:
                return np.zeros((len(one), len(two)))
            return np.asarray(coco.iou(one, two, [False] * len(two)))

        amodal, visible, hidden = (
            matrix(amodal_a, amodal_b),
            matrix(visible_a, visible_b),
            matrix(hidden_a, hidden_b),
        )
        occluded_a = np.array([coco.area(m) > 0 for m in hidden_a], bool)
        occluded_b = np.array([coco.area(m) > 0 for m in hidden_b], bool)
        class_a, class_b = truth.class_ids[a], predictions.class_ids[b]
        same = class_a[:, None] == class_b[None]
        # Pairs of another class cost more than any of the same class, as in the original.
        rows, columns = linear_sum_assignment(np.where(same, 1 - amodal, 100.0))
        good = same[rows, columns]
        rows, columns = rows[good], columns[good]
        for r, c in zip(rows, columns, strict=True):
            n = class_a[r]
            tp[n, 0] += 1
            iou[n, 0] += visible[r, c]
            if occluded_a[r]:
                tp[n, 1] += 1
                iou[n, 1] += hidden[r, c]
            elif occluded_b[c]:
                fp[n, 1] += 1
        for r in np.setdiff1d(np.arange(len(a)), rows):
            fn[class_a[r], 0] += 1
            fn[class_a[r], 1] += occluded_a[r]
        for c in np.setdiff1d(np.arange(len(b)), columns):
            fp[class_b[c], 0] += 1
            fp[class_b[c], 1] += occluded_b[c]
        for r in range(len(a)):
            n = class_a[r]
            areas = float(coco.area(visible_a[r])), float(coco.area(hidden_a[r]))
            area[n] += areas
            candidates = np.flatnonzero(same[r])
            if len(candidates):
                best = candidates[np.argmax(visible[r, candidates])]
                if visible[r, best] > 0:
                    covered[n] += areas[0] * visible[r, best], areas[1] * hidden[r, best]

    def mean(top: np.ndarray, bottom: np.ndarray, known: np.ndarray) -> tuple[float, np.ndarray]:
        values = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        return (float(values[known].mean()) if known.any() else float("nan")), values

    parts = tp + fn + fp
    known, known_hidden = (tp + fn)[:, 0] > 0, (tp + fn)[:, 1] > 0
    apq, each_apq = mean(iou.sum(1), parts.sum(1), known)
    apc, each_apc = mean(covered.sum(1), area.sum(1), known)
    return PanopticScores(
        apq,
        mean(iou[:, 0], parts[:, 0], known)[0],
        mean(iou[:, 1], parts[:, 1], known_hidden)[0],
        apc,
        mean(covered[:, 0], area[:, 0], known)[0],
        mean(covered[:, 1], area[:, 1], known_hidden)[0],
        {
            name: (float(each_apq[n]), float(each_apc[n]))
            for n, name in enumerate(truth.classes)
            if known[n]
        },
    )
