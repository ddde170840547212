"""One prediction for each annotation: the assignment that per-object numbers are computed on."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from amodal_core.evaluation.overlaps import Overlaps, overlaps
from amodal_core.evaluation.sets import AnnotationSet


def image_overlaps(truth: AnnotationSet, predictions: AnnotationSet, kind: str) -> Overlaps:
    """IoU of all annotations and predictions, image by image in the order of `truth.images`.

    Args:
        truth: N annotations; crowds are compared like any other.
        predictions: aligned with them (`sets.aligned`).
        kind: "box", "visible" or "amodal".

    Raises:
        InputError: a side has no masks of that kind.
    """
    return overlaps(
        truth.shapes(kind),
        predictions.shapes(kind),
        truth.by_image(truth.images),
        predictions.by_image(truth.images),
    )


def assign(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    kind: str = "amodal",
    threshold: float = 0.5,
    class_agnostic: bool = False,
    overlap: Overlaps | None = None,
    skip: np.ndarray | None = None,
) -> np.ndarray:
    """The prediction that belongs to each annotation: the assignment of largest total IoU.

    Args:
        truth: N annotations.
        predictions: aligned with them (`sets.aligned`).
        kind: "box", "visible" or "amodal".
        threshold: least IoU of a pair.
        class_agnostic: pair objects of different classes too.
        overlap: the overlaps, where they are there already.
        skip: (N,) bool, annotations that get no prediction.

    Returns:
        (N,) int64 positions in `predictions`, -1 where none reaches the threshold.
    """
    overlap = overlap or image_overlaps(truth, predictions, kind)
    matched = np.full(len(truth), -1, np.int64)
    for n in range(len(overlap)):
        a, b, ious = overlap[n]
        possible = ious >= threshold
        if not class_agnostic:
            possible &= truth.class_ids[a][:, None] == predictions.class_ids[b][None]
        if skip is not None:
            possible &= ~skip[a][:, None]
        if not possible.any():
            continue
        rows, columns = linear_sum_assignment(np.where(possible, ious, 0), maximize=True)
        allowed = possible[rows, columns]
        matched[a[rows[allowed]]] = b[columns[allowed]]
    return matched


def assign_by_id(truth: AnnotationSet, predictions: AnnotationSet) -> np.ndarray:
    """The prediction with the same instance id in the same image, as (N,) positions or -1.

    Of an identity that stands twice in an image (`AnnotationSet.check_identities`) it is the last.
    """
    places = {
        (i, k): n
        for n, (i, k) in enumerate(
            zip(predictions.image_ids.tolist(), predictions.instance_ids.tolist(), strict=True)
        )
        if k >= 0
    }
    keys = zip(truth.image_ids.tolist(), truth.instance_ids.tolist(), strict=True)
    return np.array([places.get(key, -1) for key in keys], np.int64)
