"""HOTA, DetA, AssA, IDF1 and MOTA of masks, computed by the TrackEval library."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from amodal_core.errors import InputError
from amodal_core.evaluation.assignment import image_overlaps
from amodal_core.evaluation.sets import AnnotationSet

# TrackEval's field, whether it is an array over 19 IoU thresholds, and our name.
_FIELDS = {
    "HOTA": {"HOTA": "HOTA", "DetA": "DetA", "AssA": "AssA", "LocA": "LocA"},
    "Identity": {"IDF1": "IDF1", "IDR": "ID recall", "IDP": "ID precision"},
    "CLEAR": {"MOTA": "MOTA", "IDSW": "ID switches", "Frag": "fragmentations"},
}
COUNTS = ("ID switches", "fragmentations")  # summed over classes; all others are shares
_CROWD_IOU = 0.5


def evaluate(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    kind: str = "amodal",
    class_agnostic: bool = False,
) -> dict[str, dict[str, float]]:
    """Tracking metrics by class name, and their mean over the classes of the truth as "all".

    MOTA, IDF1 and ID switches are at IoU .5; HOTA, DetA, AssA and LocA are means over IoU
    .05:.05:.95. Predictions on crowd annotations (IoU >= .5, unpaired otherwise) are removed.

    Args:
        truth: with instance ids and videos.
        predictions: aligned with it, with instance ids.
        kind: "box", "visible" or "amodal".
        class_agnostic: treat all objects as one class; the result then holds "all" only.

    Raises:
        InputError: TrackEval is not installed.
    """
    metrics = _metrics()
    groups: dict[str, tuple[AnnotationSet, AnnotationSet]] = {}
    if class_agnostic:
        groups["all"] = truth, predictions
    else:
        for k, name in enumerate(truth.classes):
            mine = truth.select(truth.class_ids == k)
            if len(mine):
                groups[name] = mine, predictions.select(predictions.class_ids == k)
    results = {}
    for name, (mine, theirs) in groups.items():
        sequences = _sequences(mine, theirs, kind)
        values: dict[str, float] = {}
        for metric in metrics:
            with contextlib.redirect_stdout(io.StringIO()):
                each = {video: metric.eval_sequence(data) for video, data in sequences.items()}
                combined = metric.combine_sequences(each)
            for key, ours in _FIELDS[metric.get_name()].items():
                values[ours] = float(np.mean(combined[key]))
        results[name] = values
    if not class_agnostic and results:
        results["all"] = {
            key: float((np.sum if key in COUNTS else np.mean)([r[key] for r in results.values()]))
            for key in next(iter(results.values()))
        }
    return results


def _metrics() -> list[Any]:
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError as error:
        raise InputError(
            "HOTA, IDF1 and MOTA need the TrackEval library",
            str(error),
            "pip install --no-deps trackeval tabulate pillow",
        ) from error
    quiet = {"PRINT_CONFIG": False, "THRESHOLD": 0.5}
    return [HOTA(), Identity(quiet), CLEAR(quiet)]


def _sequences(
    truth: AnnotationSet, predictions: AnnotationSet, kind: str
) -> dict[str, dict[str, Any]]:
    """TrackEval's input by video: contiguous ids and similarities frame by frame."""
    overlap = image_overlaps(truth, predictions, kind)
    sequences: dict[str, dict[str, Any]] = {}
    frames: dict[str, list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]] = defaultdict(list)
    for n, image in enumerate(truth.images):
        a, b, ious = overlap[n]
        # Without crowds, and without the predictions that lie on one and on nothing else.
        counted = ~truth.crowd[a]
        if not counted.all() and len(b):
            rows, columns = linear_sum_assignment(
                np.where(ious[counted] >= _CROWD_IOU, ious[counted], 0), maximize=True
            )
            taken = columns[ious[counted][rows, columns] >= _CROWD_IOU]
            on_crowd = (ious[~counted] >= _CROWD_IOU).any(axis=0)
            on_crowd[taken] = False
            b, ious = b[~on_crowd], ious[:, ~on_crowd]
        frames[image.video].append(
            (image.frame, a[counted], b, np.ascontiguousarray(ious[counted]))
        )
    # Ids from 0 in every video.
    for video, rows in frames.items():
        rows.sort(key=lambda r: r[0])
        mine = [truth.instance_ids[a] for _, a, _, _ in rows]
        theirs = [predictions.instance_ids[b] for _, _, b, _ in rows]
        my_ids, their_ids = np.unique(np.concatenate(mine)), np.unique(np.concatenate(theirs))
        sequences[video] = {
            "seq": video,
            "num_timesteps": len(rows),
            "num_gt_ids": len(my_ids),
            "num_tracker_ids": len(their_ids),
            "num_gt_dets": sum(map(len, mine)),
            "num_tracker_dets": sum(map(len, theirs)),
            "gt_ids": [np.searchsorted(my_ids, i) for i in mine],
            "tracker_ids": [np.searchsorted(their_ids, i) for i in theirs],
            "similarity_scores": [s for *_, s in rows],
        }
    return sequences
