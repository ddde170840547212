"""mIoU of whole masks and of their hidden parts, in the protocols that the field uses.

Published values under one name are not comparable: protocols differ in which visible mask is
subtracted, in whether it is merged into the prediction first, in what an object without a hidden
part counts, and in how frames are averaged. Each protocol here says its choice.
Sources: EoRaS (ICCV 2023) and SaVos (NeurIPS 2022) with their public evaluation.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from amodal_core.evaluation.pairs import assign, assign_by_id
from amodal_core.evaluation.sets import AnnotationSet


@dataclass(frozen=True)
class OccludedIouProtocol:
    """How mIoU_full and mIoU_occ are computed.

    Attributes:
        name: its name for `--protocol`.
        says: printed beside the numbers.
        pairing: "id" (the prediction carries the annotation's instance id) or "visible" (visible
            masks with IoU >= .5, as assignment of largest total).
        missing_counts: an annotation without a prediction counts 0; else it is left out.
        merge_visible: the true visible mask is merged into the prediction before comparing.
        skip_empty: annotations without a hidden part are left out of mIoU_occ; otherwise only those
            with an IoU of exactly 1 are (the original's rule), and a needless prediction counts 0.
        average: "frame" over all, or "video": over the frames of a video, then over videos.
    """

    name: str
    says: str
    pairing: str
    missing_counts: bool
    merge_visible: bool
    skip_empty: bool
    average: str


PROTOCOLS = {
    p.name: p
    for p in (
        OccludedIouProtocol(
            "eoras",
            "EoRaS: IoU(P - V, A - V) with the true visible mask V; frames with an IoU of "
            "exactly 1 are left out of mIoU_occ, other frames without occlusion count 0; mean "
            "over frames. Predictions carry the truth's instance id.",
            pairing="id",
            missing_counts=True,
            merge_visible=False,
            skip_empty=False,
            average="frame",
        ),
        OccludedIouProtocol(
            "skip-empty",
            "IoU(P - V, A - V) with the true visible mask V over annotations that have a hidden "
            "part; mean over frames. Paired by visible masks at IoU >= .5; an object without a "
            "prediction counts 0.",
            pairing="visible",
            missing_counts=True,
            merge_visible=False,
            skip_empty=True,
            average="frame",
        ),
        OccludedIouProtocol(
            "savos",
            "SaVos: paired by visible masks at IoU >= .5, objects without a pair are left out; the "
            "visible mask is merged into the prediction; IoU of exactly 1 is left out of mIoU_occ; "
            "mean over the frames of a video, then over videos.",
            pairing="visible",
            missing_counts=False,
            merge_visible=True,
            skip_empty=False,
            average="video",
        ),
    )
}


@dataclass
class OccludedIou:
    """The numbers of one protocol.

    Attributes:
        protocol: the protocol.
        full: mIoU_full, 0-1; NaN where nothing was compared.
        occluded: mIoU_occ.
        objects: annotations compared.
        hidden: annotations in mIoU_occ.
        paired: share of annotations that have a prediction.
    """

    protocol: OccludedIouProtocol
    full: float
    occluded: float
    objects: int
    hidden: int
    paired: float


def _area(rle: dict[str, Any]) -> int:
    return int(coco.area(rle))


def _both(*masks: dict[str, Any]) -> int:
    return _area(coco.merge(list(masks), intersect=True))


def pair_ious(
    whole: dict[str, Any], seen: dict[str, Any], predicted: dict[str, Any]
) -> tuple[float, float, int]:
    """IoU of the whole and of the hidden part of one object.

    Args:
        whole: true amodal mask A, COCO RLE.
        seen: true visible mask V.
        predicted: predicted amodal mask P.

    Returns:
        IoU(P, A), IoU(P - V, A - V), and |A - V| in pixels. An IoU of two empty masks is 1.
    """
    a, p = _area(whole), _area(predicted)
    a_hidden = a - _both(whole, seen)
    p_hidden = p - _both(predicted, seen)
    common = _both(whole, predicted)
    common_hidden = common - _both(whole, predicted, seen)
    union, union_hidden = a + p - common, a_hidden + p_hidden - common_hidden
    return (
        common / union if union else 1.0,
        common_hidden / union_hidden if union_hidden else 1.0,
        a_hidden,
    )


def evaluate(
    truth: AnnotationSet, predictions: AnnotationSet, protocol: OccludedIouProtocol
) -> OccludedIou:
    """mIoU_full and mIoU_occ under one protocol.

    Args:
        truth: with visible and amodal masks.
        predictions: aligned with it, with amodal masks (and visible ones where pairing needs them).
        protocol: see `PROTOCOLS`.

    Raises:
        InputError: a side lacks the masks.
    """
    truth = truth.select(~truth.crowd)
    whole, seen, predicted = truth.rle("amodal"), truth.rle("visible"), predictions.rle("amodal")
    if protocol.pairing == "id":
        pairs = assign_by_id(truth, predictions)
    else:
        predictions.rle("visible")
        pairs = assign(truth, predictions, "visible", 0.5, class_agnostic=True)
    videos = {i.id: i.video or i.name or i.id for i in truth.images}
    full: dict[Any, list[float]] = defaultdict(list)
    hidden: dict[Any, list[float]] = defaultdict(list)
    for n, pair in enumerate(pairs):
        if pair < 0 and not protocol.missing_counts:
            continue
        group = videos[int(truth.image_ids[n])] if protocol.average == "video" else None
        guess = (
            predicted[pair]
            if pair >= 0
            else {"size": whole[n]["size"], "counts": _nothing(whole[n]["size"])}
        )
        if protocol.merge_visible and pair >= 0:
            guess = coco.merge([guess, seen[n]])
        iou, iou_hidden, area_hidden = pair_ious(whole[n], seen[n], guess)
        full[group].append(iou)
        if area_hidden > 0 if protocol.skip_empty else iou_hidden != 1.0:
            hidden[group].append(iou_hidden)

    def mean(groups: dict[Any, list[float]]) -> float:
        return float(np.mean([np.mean(g) for g in groups.values()])) if groups else float("nan")

    return OccludedIou(
        protocol,
        mean(full),
        mean(hidden),
        sum(map(len, full.values())),
        sum(map(len, hidden.values())),
        float(np.mean(pairs >= 0)) if len(pairs) else float("nan"),
    )


def _nothing(size: Any) -> bytes:
    counts: bytes = coco.encode(np.zeros(tuple(size), np.uint8, order="F"))["counts"]
    return counts
