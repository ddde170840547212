"""mIoU of whole masks and of their hidden parts, in the protocols that the field uses.

Published values under one name are not comparable: protocols differ in which visible mask is
subtracted, in whether it is merged into the prediction first, in what an object without a hidden
part counts, and in how frames are averaged. Each protocol here says its choice.
Sources: EoRaS (ICCV 2023) and SaVos (NeurIPS 2022) with their public evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.evaluation.assignment import assign, assign_by_id
from amodal_core.evaluation.overlaps import Overlaps
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
        matched: share of annotations that have a prediction.
    """

    protocol: OccludedIouProtocol
    full: float
    occluded: float
    objects: int
    hidden: int
    matched: float


@dataclass(frozen=True)
class Pixels:
    """Pixels that N annotations and their predictions cover: A whole, V visible, P predicted.

    Attributes:
        matched: (N,) the prediction of each annotation or -1.
        a: (N,) |A|; p and v accordingly.
        av: (N,) |A and V|; ap, pv and apv accordingly.
        videos: (N,) name of each annotation's video.
    """

    matched: np.ndarray
    a: np.ndarray
    v: np.ndarray
    p: np.ndarray
    av: np.ndarray
    pv: np.ndarray
    ap: np.ndarray
    apv: np.ndarray
    videos: np.ndarray


def count_pixels(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    pairing: str,
    visible_overlaps: Overlaps | None = None,
) -> Pixels:
    """Count what all protocols of one pairing are computed from.

    Args:
        truth: with visible and amodal masks.
        predictions: aligned with it, with amodal masks (and visible ones where pairing needs them).
        pairing: "id" or "visible", see `OccludedIouProtocol`.
        visible_overlaps: overlaps of the visible masks, where they are known.

    Raises:
        InputError: a side lacks the masks.
    """
    if pairing == "id":
        matched = assign_by_id(truth, predictions)
    else:
        free = truth.crowd  # crowds are compared with nothing
        matched = assign(
            truth,
            predictions,
            "visible",
            0.5,
            class_agnostic=True,
            overlap=visible_overlaps,
            skip=free,
        )
    counted = np.flatnonzero(~truth.crowd)
    matched = matched[counted]
    amodal, visible = truth.runs("amodal"), truth.runs("visible")
    if len(counted) < len(truth):
        amodal, visible = amodal[counted], visible[counted]
    predicted = predictions.runs("amodal")[matched]
    videos = {i.id: i.video or i.name or str(i.id) for i in truth.images}
    return Pixels(
        matched=matched,
        a=amodal.areas,
        v=visible.areas,
        p=predicted.areas,
        av=amodal.shared(visible),
        pv=predicted.shared(visible),
        ap=amodal.shared(predicted),
        apv=(amodal & visible).shared(predicted),
        videos=np.array([videos[i] for i in truth.image_ids[counted].tolist()]),
    )


def evaluate(
    truth: AnnotationSet, predictions: AnnotationSet, protocol: OccludedIouProtocol
) -> OccludedIou:
    """mIoU_full and mIoU_occ under one protocol, see `count_pixels`."""
    return tabulate(count_pixels(truth, predictions, protocol.pairing), protocol)


def tabulate(pixels: Pixels, protocol: OccludedIouProtocol) -> OccludedIou:
    """Read a protocol's numbers off the pixels of its pairing."""
    n = pixels
    compared = np.ones(len(n.matched), bool) if protocol.missing_counts else n.matched >= 0
    p, pv, ap, apv = n.p, n.pv, n.ap, n.apv
    if protocol.merge_visible:
        p, pv, ap, apv = n.p + n.v - n.pv, n.v, n.ap + n.av - n.apv, n.av
    hidden = n.a - n.av
    full = _share(ap, n.a + p - ap)
    occluded = _share(ap - apv, hidden + (p - pv) - (ap - apv))
    chosen = compared & ((hidden > 0) if protocol.skip_empty else (occluded != 1.0))
    groups = n.videos if protocol.average == "video" else None
    return OccludedIou(
        protocol,
        _mean(full, compared, groups),
        _mean(occluded, chosen, groups),
        int(compared.sum()),
        int(chosen.sum()),
        float(np.mean(n.matched >= 0)) if len(n.matched) else float("nan"),
    )


def _share(shared_pixels: np.ndarray, union: np.ndarray) -> np.ndarray:
    """IoU; of two empty masks it is 1."""
    return np.where(union > 0, shared_pixels / np.maximum(union, 1), 1.0)


def _mean(values: np.ndarray, chosen: np.ndarray, groups: np.ndarray | None) -> float:
    """Mean of the chosen values, or of their means by group."""
    if not chosen.any():
        return float("nan")
    if groups is None:
        return float(values[chosen].mean())
    _, group = np.unique(groups[chosen], return_inverse=True)
    return float((np.bincount(group, values[chosen]) / np.bincount(group)).mean())
