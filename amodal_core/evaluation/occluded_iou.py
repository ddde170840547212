"""mIoU of amodal masks and of their hidden parts, in the protocols that the field uses.

Published values under one name are not comparable: protocols differ in which visible mask is
subtracted, in whether it is merged into the prediction first, in what an object without a hidden
part counts, and in how frames are averaged. Each protocol here says its choice.
Sources: EoRaS (ICCV 2023) and SaVos (NeurIPS 2022) with their public evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.evaluation.assignment import assign, assign_by_id, image_overlaps
from amodal_core.evaluation.overlaps import Overlaps
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.runs import Runs


@dataclass(frozen=True)
class OccludedIouProtocol:
    """How mIoU_full and mIoU_occ are computed.

    Attributes:
        name: its name for `--protocol`.
        says: printed beside the numbers.
        pairing: "id" (the prediction carries the annotation's instance id), "visible" (visible
            masks with IoU >= .5, as assignment of largest total) or "nearest" (the visible mask
            of largest IoU, from .5; two annotations may share it).
        skip_empty: annotations without a hidden part are left out of mIoU_occ; otherwise only those
            with an IoU of exactly 1 are, and a needless prediction counts 0.
    """

    name: str
    says: str
    pairing: str
    skip_empty: bool = False


PROTOCOLS = {
    p.name: p
    for p in (
        OccludedIouProtocol(
            "eoras",
            "EoRaS: IoU(P - V, A - V) with the true visible mask V, divided by the union + 1e-6 in "
            "float32: an empty hidden part with an empty prediction counts 0. An IoU of exactly 1 "
            "is left out of mIoU_occ; an object without a prediction counts 0; mean over objects "
            "and frames. Predictions of any score, with the truth's instance ids.",
            pairing="id",
        ),
        OccludedIouProtocol(
            "skip-empty",
            "IoU(P - V, A - V) with the true visible mask V over annotations that have a hidden "
            "part; mean over frames. Paired by visible masks at IoU >= .5; an object without a "
            "prediction counts 0.",
            pairing="visible",
            skip_empty=True,
        ),
        OccludedIouProtocol(
            "savos",
            "SaVos: each object with the prediction of the nearest visible mask (IoU >= .5), "
            "objects without one are left out. O being the other predictions' visible masks, the "
            "predicted visible mask outside of O and the amodal one within O are compared with A, "
            "and both within O for mIoU_occ. IoUs of exactly 1 are left out of both; mean over the "
            "objects of a frame, then over frames. Predictions of any score.",
            pairing="nearest",
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
    """Pixels that N annotations and their predictions cover: A amodal, V visible, P predicted.

    Attributes:
        matched: (N,) the prediction of each annotation or -1.
        a: (N,) |A|; p and v accordingly.
        av: (N,) |A and V|; ap, pv and apv accordingly.
    """

    matched: np.ndarray
    a: np.ndarray
    v: np.ndarray
    p: np.ndarray
    av: np.ndarray
    pv: np.ndarray
    ap: np.ndarray
    apv: np.ndarray


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
    return Pixels(
        matched=matched,
        a=amodal.areas,
        v=visible.areas,
        p=predicted.areas,
        av=amodal.shared(visible),
        pv=predicted.shared(visible),
        ap=amodal.shared(predicted),
        apv=(amodal & visible).shared(predicted),
    )


def evaluate(
    truth: AnnotationSet, predictions: AnnotationSet, protocol: OccludedIouProtocol
) -> OccludedIou:
    """mIoU_full and mIoU_occ under one protocol.

    Args:
        truth: with visible and amodal masks.
        predictions: aligned with it, with amodal masks, and visible ones unless pairing is by id.
        protocol: one of `PROTOCOLS`.

    Raises:
        InputError: a side lacks the masks.
    """
    if protocol.pairing == "nearest":
        return _savos(truth.select(~truth.crowd), predictions, protocol)
    return tabulate(count_pixels(truth, predictions, protocol.pairing), protocol)


def tabulate(pixels: Pixels, protocol: OccludedIouProtocol) -> OccludedIou:
    """Read a protocol's numbers off the pixels of its pairing."""
    n = pixels
    hidden = n.a - n.av
    shared = n.ap - n.apv
    iou = _exact if protocol.skip_empty else _with_epsilon
    full, occluded = iou(n.ap, n.a + n.p - n.ap), iou(shared, hidden + (n.p - n.pv) - shared)
    chosen = hidden > 0 if protocol.skip_empty else occluded != 1.0
    return OccludedIou(
        protocol,
        _mean(full),
        _mean(occluded[chosen]),
        len(full),
        int(chosen.sum()),
        _mean(n.matched >= 0),
    )


def _exact(shared: np.ndarray, union: np.ndarray) -> np.ndarray:
    """IoU; of two empty masks it is 1."""
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)


def _with_epsilon(shared: np.ndarray, union: np.ndarray) -> np.ndarray:
    """IoU as EoRaS computes it: in float32, where union + 1e-6 is the union from 32 pixels on."""
    return shared.astype(np.float32) / (union.astype(np.float32) + np.float32(1e-6))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")


def _savos(
    truth: AnnotationSet, predictions: AnnotationSet, protocol: OccludedIouProtocol
) -> OccludedIou:
    """The SaVos protocol, over annotations that are no crowds."""
    sizes = truth.sizes()
    # Each annotation with the nearest visible mask, and what the others of its image show.
    rows: list[tuple[int, int]] = []  # annotation, prediction
    others: list[bytes] = []  # what the image's other predictions show, one mask a row
    each = image_overlaps(truth, predictions, "visible")
    for image in range(len(each)):
        a, b, ious = each[image]
        if not ious.size:
            continue
        # The last of equals, as a stable sort leaves it.
        best = ious.shape[1] - 1 - ious[:, ::-1].argmax(axis=1)
        shown = RleMasks(
            sizes[int(truth.image_ids[a[0]])], [predictions.visible[j] or b"" for j in b]
        )
        without = {j: shown[np.arange(len(b)) != j].union().counts[0] for j in set(best.tolist())}
        for r in np.flatnonzero(ious.max(axis=1) >= 0.5).tolist():
            rows.append((int(a[r]), int(b[best[r]])))
            others.append(without[best[r]])
    annotations, matched = np.array(rows, np.int64).reshape(-1, 2).T
    extent = np.array([sizes[int(i)] for i in truth.image_ids[annotations]], np.int64).reshape(
        -1, 2
    )
    other = Runs.parse(others, extent[:, 0], extent[:, 1])
    # What is predicted: seen outside of the others, completed within them.
    amodal = truth.runs("amodal")[annotations]
    visible, predicted = predictions.runs("visible")[matched], predictions.runs("amodal")[matched]
    fused = (visible - other) | (predicted & other)
    full, occluded = _smoothed(fused, amodal), _smoothed(fused & other, amodal & other)
    images = truth.image_ids[annotations]
    return OccludedIou(
        protocol,
        _mean_of_frames(full, images),
        _mean_of_frames(occluded, images),
        len(full),
        int((occluded != 1).sum()),
        len(full) / len(truth) if len(truth) else float("nan"),
    )


def _smoothed(a: Runs, b: Runs) -> np.ndarray:
    """IoU mask by mask with 1e-6 above and below: of two empty masks it is 1."""
    shared = a.shared(b)
    return (shared + 1e-6) / (a.areas + b.areas - shared + 1e-6)


def _mean_of_frames(ious: np.ndarray, images: np.ndarray) -> float:
    """Mean over images of the mean of their IoUs that are not 1."""
    kept = ious != 1
    _, image = np.unique(images[kept], return_inverse=True)
    return (
        _mean(np.bincount(image, ious[kept]) / np.bincount(image)) if kept.any() else float("nan")
    )
