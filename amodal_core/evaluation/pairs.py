"""One prediction for each annotation: the assignment that per-object numbers are computed on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from amodal_core.evaluation.sets import AnnotationSet


def by_image(
    truth: AnnotationSet, predictions: AnnotationSet
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Image id with the positions of its annotations and of its predictions, in image order."""
    order = {image.id: n for n, image in enumerate(truth.images)}

    def grouped(part: AnnotationSet) -> list[np.ndarray]:
        places = np.array([order[int(i)] for i in part.image_ids], np.int64)
        sorting = np.argsort(places, kind="stable")
        cuts = np.searchsorted(places[sorting], np.arange(1, len(order)))
        return np.split(sorting, cuts)

    mine, theirs = grouped(truth), grouped(predictions)
    for n, image in enumerate(truth.images):
        yield image.id, mine[n], theirs[n]


def image_ious(
    truth: AnnotationSet, predictions: AnnotationSet, a: np.ndarray, b: np.ndarray, kind: str
) -> np.ndarray:
    """(len(a), len(b)) float64 IoU between annotations `a` and predictions `b` of one image."""
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    if kind == "box":
        one, two = (
            [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in s.boxes[i].tolist()]
            for s, i in ((truth, a), (predictions, b))
        )
        return np.asarray(coco.iou(one, two, [False] * len(b)))
    sizes = truth.sizes()
    size = list(sizes[int(truth.image_ids[a[0]])])

    def masks(part: AnnotationSet, chosen: np.ndarray) -> list[dict[str, object]]:
        counts = part.amodal if kind == "amodal" else part.visible
        return [{"size": size, "counts": counts[i]} for i in chosen]

    return np.asarray(coco.iou(masks(truth, a), masks(predictions, b), [False] * len(b)))


def assign(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    kind: str = "amodal",
    threshold: float = 0.5,
    class_agnostic: bool = False,
) -> np.ndarray:
    """The prediction that belongs to each annotation: the assignment of largest total IoU.

    Args:
        truth: N annotations.
        predictions: aligned with them (`sets.aligned`).
        kind: "box", "visible" or "amodal".
        threshold: least IoU of a pair.
        class_agnostic: pair objects of different classes too.

    Returns:
        (N,) int64 positions in `predictions`, -1 where none reaches the threshold.
    """
    pairs = np.full(len(truth), -1, np.int64)
    for _, a, b in by_image(truth, predictions):
        ious = image_ious(truth, predictions, a, b, kind)
        if not class_agnostic:
            ious = np.where(truth.class_ids[a][:, None] == predictions.class_ids[b][None], ious, 0)
        ious = np.where(ious >= threshold, ious, 0)
        rows, columns = linear_sum_assignment(ious, maximize=True)
        good = ious[rows, columns] > 0
        pairs[a[rows[good]]] = b[columns[good]]
    return pairs


def assign_by_id(truth: AnnotationSet, predictions: AnnotationSet) -> np.ndarray:
    """The prediction with the same instance id in the same image, as (N,) positions or -1."""
    places = {
        (int(i), int(k)): n
        for n, (i, k) in enumerate(
            zip(predictions.image_ids, predictions.instance_ids, strict=True)
        )
        if k >= 0
    }
    return np.array(
        [
            places.get((int(i), int(k)), -1)
            for i, k in zip(truth.image_ids, truth.instance_ids, strict=True)
        ],
        np.int64,
    )
