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

import numpy as np
from scipy.optimize import linear_sum_assignment

from amodal_core.evaluation.assignment import image_overlaps
from amodal_core.evaluation.overlaps import Overlaps, overlaps
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


def evaluate(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    amodal: Overlaps | None = None,
    visible: Overlaps | None = None,
) -> PanopticScores:
    """APQ and APC of things.

    Args:
        truth: with visible and amodal masks.
        predictions: aligned with it, with both masks.
        amodal: overlaps of the amodal masks, where they are known.
        visible: overlaps of the visible masks, where they are known.

    Raises:
        InputError: a side lacks the masks.
    """
    k = len(truth.classes)
    iou, tp, fp, fn = (np.zeros((k, 2)) for _ in range(4))  # columns: visible, hidden
    covered, area = np.zeros((k, 2)), np.zeros((k, 2))
    hidden_masks, predicted_hidden = (
        p.runs("amodal") - p.runs("visible") for p in (truth, predictions)
    )
    overlaps_by_kind = (
        amodal or image_overlaps(truth, predictions, "amodal"),
        visible or image_overlaps(truth, predictions, "visible"),
        overlaps(
            hidden_masks,
            predicted_hidden,
            truth.by_image(truth.images),
            predictions.by_image(truth.images),
        ),
    )
    areas = np.stack([truth.areas("visible"), hidden_masks.areas.astype(np.float64)], axis=1)
    for image in range(len(truth.images)):
        (a, b, amodal_ious), (*_, visible_ious), (*_, hidden_ious) = (
            overlap[image] for overlap in overlaps_by_kind
        )
        occluded_a, occluded_b = hidden_masks.areas[a] > 0, predicted_hidden.areas[b] > 0
        class_a, class_b = truth.class_ids[a], predictions.class_ids[b]
        same = class_a[:, None] == class_b[None]
        # Pairs of another class cost more than any of the same class, as in the original.
        rows, columns = linear_sum_assignment(np.where(same, 1 - amodal_ious, 100.0))
        allowed = same[rows, columns]
        rows, columns = rows[allowed], columns[allowed]
        # What is matched: true positives, needless hidden parts.
        for r, c in zip(rows, columns, strict=True):
            n = class_a[r]
            tp[n, 0] += 1
            iou[n, 0] += visible_ious[r, c]
            if occluded_a[r]:
                tp[n, 1] += 1
                iou[n, 1] += hidden_ious[r, c]
            elif occluded_b[c]:
                fp[n, 1] += 1
        # What is left on either side.
        for r in np.setdiff1d(np.arange(len(a)), rows):
            fn[class_a[r], 0] += 1
            fn[class_a[r], 1] += occluded_a[r]
        for c in np.setdiff1d(np.arange(len(b)), columns):
            fp[class_b[c], 0] += 1
            fp[class_b[c], 1] += occluded_b[c]
        # Coverage: of every object by the prediction of its class that shows most of it.
        for r in range(len(a)):
            n = class_a[r]
            area[n] += areas[a[r]]
            candidates = np.flatnonzero(same[r])
            if len(candidates):
                best = candidates[np.argmax(visible_ious[r, candidates])]
                if visible_ious[r, best] > 0:
                    covered[n] += areas[a[r]] * (visible_ious[r, best], hidden_ious[r, best])

    def mean(top: np.ndarray, bottom: np.ndarray, in_truth: np.ndarray) -> tuple[float, np.ndarray]:
        values = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        return (float(values[in_truth].mean()) if in_truth.any() else float("nan")), values

    total = tp + fn + fp
    in_truth, hidden_in_truth = (tp + fn)[:, 0] > 0, (tp + fn)[:, 1] > 0
    apq, each_apq = mean(iou.sum(1), total.sum(1), in_truth)
    apc, each_apc = mean(covered.sum(1), area.sum(1), in_truth)
    return PanopticScores(
        apq,
        mean(iou[:, 0], total[:, 0], in_truth)[0],
        mean(iou[:, 1], total[:, 1], hidden_in_truth)[0],
        apc,
        mean(covered[:, 0], area[:, 0], in_truth)[0],
        mean(covered[:, 1], area[:, 1], hidden_in_truth)[0],
        {
            name: (float(each_apq[n]), float(each_apc[n]))
            for n, name in enumerate(truth.classes)
            if in_truth[n]
        },
    )
