"""What goes wrong: classes confused by occlusion, and the objects that lose most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.evaluation.overlaps import Overlaps
from amodal_core.evaluation.sets import AnnotationSet

_TOUCHES = 0.1  # an IoU below this is another object that lies in the way
MIN_SCORE = 0.3  # least score of a prediction where one answer an object is wanted
BINS = {
    "in view (< 5 % hidden)": (0.0, 0.05),
    "partial (5-25 %)": (0.05, 0.25),
    "medium (25-50 %)": (0.25, 0.5),
    "heavy (50-100 %)": (0.5, 1.0 + 1e-9),
}


@dataclass
class Confusion:
    """Counts of predicted class by true class.

    Attributes:
        rows: true classes.
        columns: predicted classes, then "missed".
        counts: (rows, columns) int64.
    """

    rows: list[str]
    columns: list[str]
    counts: np.ndarray


def confusion(
    truth: AnnotationSet, predictions: AnnotationSet, matched: np.ndarray
) -> dict[str, Confusion]:
    """Confusion of classes in bins of occlusion.

    Args:
        truth: what is there.
        predictions: aligned with it.
        matched: (N,) the prediction of each annotation or -1, classes not regarded.
    """
    k = len(truth.classes)
    predicted = np.where(matched >= 0, predictions.class_ids[matched] if len(predictions) else k, k)
    present = np.flatnonzero(np.bincount(truth.class_ids, minlength=k))
    predicted_classes = np.unique(np.append(present, predicted[predicted < k]))
    tables = {}
    for name, (low, high) in BINS.items():
        inside = (truth.occlusion_rates >= low) & (truth.occlusion_rates < high) & ~truth.crowd
        counts = np.zeros((k, k + 1), np.int64)
        np.add.at(counts, (truth.class_ids[inside], predicted[inside]), 1)
        if counts.any():
            tables[name] = Confusion(
                [truth.classes[c] for c in present],
                [*(truth.classes[c] for c in predicted_classes), "missed"],
                counts[present][:, [*predicted_classes, k]],
            )
    return tables


@dataclass
class Failure:
    """An annotation with its best prediction.

    Attributes:
        image_id: its image.
        annotation: position in the truth.
        prediction: position in the predictions, -1 where nothing overlaps it much.
        iou: amodal IoU of the two.
        lost: pixels of the truth's amodal mask, times 1 - IoU.
    """

    image_id: int
    annotation: int
    prediction: int
    iou: float
    lost: float


def worst(truth: AnnotationSet, overlap: Overlaps, most: int = 12) -> list[Failure]:
    """The annotations that lose most pixels, worst first.

    At most one of an instance of a video, and at most one of a single image.

    Args:
        truth: with amodal masks.
        overlap: amodal overlaps with the predictions, see `assignment.image_overlaps`.
        most: how many.
    """
    areas = truth.areas("amodal") * ~truth.crowd
    best, predicted = np.zeros(len(truth)), np.full(len(truth), -1, np.int64)
    for n in range(len(overlap)):
        a, b, ious = overlap[n]
        if len(a) and len(b):
            best[a], predicted[a] = ious.max(axis=1), b[ious.argmax(axis=1)]
    lost = areas * (1 - best)
    videos = {i.id: i.video for i in truth.images}
    shown: set[tuple[str, int]] = set()
    chosen: list[Failure] = []
    for n in np.argsort(-lost, kind="stable").tolist():
        if lost[n] <= 0 or len(chosen) == most:
            break
        image = int(truth.image_ids[n])
        subject = videos[image], int(truth.instance_ids[n]) if videos[image] else image
        if subject not in shown:
            shown.add(subject)
            prediction = int(predicted[n]) if best[n] >= _TOUCHES else -1
            chosen.append(Failure(image, n, prediction, float(best[n]), float(lost[n])))
    return chosen
