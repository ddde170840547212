"""One evaluation from start to end: everything that the given masks and ids allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from amodal_core.errors import InputError
from amodal_core.evaluation import (
    assignment,
    failures,
    identity,
    image_level,
    occluded_iou,
    order_and_depth,
    panoptic,
    tracking,
    video_level,
)
from amodal_core.evaluation.image_level import Scores
from amodal_core.evaluation.protocols import Protocol
from amodal_core.evaluation.sets import AnnotationSet, aligned

Step = Callable[[str], None]


def _silent(_what: str) -> None:
    return None


@dataclass
class Table:
    """Numbers beside the AP table.

    Attributes:
        title: what they are.
        says: the protocol, one paragraph.
        values: number by name; NaN where there is nothing to count.
        plain: names of the values that are numbers; all others are shares of 1, for percent.
    """

    title: str
    says: str
    values: dict[str, float]
    plain: tuple[str, ...] = ()


@dataclass
class Evaluation:
    """All numbers of one run.

    Attributes:
        level: "image" or "video".
        protocol: of the AP table.
        counts: images, videos, annotations and predictions.
        scores: AP and AR by kind of comparison.
        tables: the rest.
        confusion: predicted classes by occlusion, see `failures.confusion`.
        failures: the objects that lose most pixels, worst first.
        warnings: one line each.
        notes: what was decided or left out, one line each.
    """

    level: str
    protocol: Protocol
    counts: dict[str, int]
    scores: dict[str, Scores] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    confusion: dict[str, failures.Confusion] = field(default_factory=dict)
    failures: list[failures.Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON; null stands for "nothing to count", never 0."""
        return {
            "level": self.level,
            "protocol": {"name": self.protocol.name, "says": self.protocol.says},
            "counts": self.counts,
            "scores": {
                kind: {
                    "values": _numbers(s.values),
                    "annotations": s.counts,
                    "per_class": _numbers(s.per_class),
                }
                for kind, s in self.scores.items()
            },
            "tables": {
                name: {
                    "title": t.title,
                    "says": t.says,
                    "plain": list(t.plain),
                    "values": _numbers(t.values),
                }
                for name, t in self.tables.items()
            },
            "confusion": {
                name: {"rows": c.rows, "columns": c.columns, "counts": c.counts.tolist()}
                for name, c in self.confusion.items()
            },
            "warnings": self.warnings,
            "notes": self.notes,
        }


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {k: None if math.isnan(v) else v for k, v in values.items()}


def evaluate(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    protocol: Protocol,
    level: str,
    kinds: Sequence[str] = (),
    where: str = "predictions",
    step: Step = _silent,
) -> Evaluation:
    """Compute every number that the given masks, ids, depths and orders allow.

    Args:
        truth: what is there.
        predictions: what was predicted.
        protocol: of the AP table, from `IMAGE_PROTOCOLS` or `VIDEO_PROTOCOLS`.
        level: "image" or "video".
        kinds: what to compare; empty for all of the protocol's that both sides have.
        where: name of the predictions in errors.
        step: told the name of each part as it begins.

    Raises:
        InputError: the sides do not fit together, or have no masks of a demanded kind.
    """
    predictions = aligned(truth, predictions, protocol.class_agnostic, where)
    if level == "video" or protocol.hidden == "eoras":
        truth.check_identities("ground truth")
        predictions.check_identities(where)
    videos = {i.video for i in truth.images if i.video}
    result = Evaluation(
        level,
        protocol,
        {
            "images": len(truth.images),
            "videos": len(videos),
            "annotations": len(truth),
            "predictions": len(predictions),
        },
    )
    possible = [k for k in protocol.kinds if truth.has(k) and (predictions.has(k))]
    if protocol.columns and not possible and not kinds:
        cure = "give results with `segmentation` or `bbox`"
        raise InputError("nothing to compare: neither masks nor boxes on both sides", where, cure)
    missing = [k for k in protocol.kinds if k not in possible]
    if missing and not kinds:
        result.notes.append(f"not compared, for want of masks: {', '.join(missing)}")
    module = video_level if level == "video" else image_level
    for kind in (kinds or possible) if protocol.columns else ():
        step(f"{level} AP, {kind}")
        scores = module.evaluate(truth, predictions, kind, protocol)
        result.scores[kind] = scores
        result.warnings.extend(f"{kind}: {w}" for w in scores.warnings)
        if scores.best_ious is not None and len(scores.best_ious):
            best = scores.best_ious
            result.tables[f"tubes {kind}"] = Table(
                f"Spatio-temporal IoU, {kind} masks",
                f"Of each of {len(best)} true tracks with the best predicted track of its class: "
                "intersection over union, both summed over the frames of the video.",
                {
                    "mean": float(best.mean()),
                    "median": float(np.median(best)),
                    "share of tracks >= .5": float((best >= 0.5).mean()),
                },
            )
    masks = {k: truth.has(k) and predictions.has(k) for k in ("visible", "amodal")}
    if protocol.hidden:
        step("hidden parts")
        chosen = occluded_iou.PROTOCOLS[protocol.hidden]
        result.tables[f"mIoU {chosen.name}"] = _hidden(
            occluded_iou.evaluate(truth, predictions, chosen)
        )
        return result
    if masks["amodal"]:
        _objects(result, truth, predictions, masks["visible"], step)
    if level == "video" and (predictions.instance_ids >= 0).all():
        _identities(result, truth, predictions, masks, step)
    return result


def _objects(
    result: Evaluation,
    truth: AnnotationSet,
    predictions: AnnotationSet,
    visible: bool,
    step: Step,
) -> None:
    """Numbers over pairs of objects: confusion, failures, hidden parts, order, depth, panoptic."""
    agnostic = result.protocol.class_agnostic
    # Of every true object the confident prediction that covers it best, whatever its class.
    step("pairs of objects")
    confident = predictions.select(predictions.scores >= failures.MIN_SCORE)
    predictions.release()
    amodal_overlaps = assignment.image_overlaps(truth, confident, "amodal")
    crowd = truth.crowd
    matched = assignment.assign(
        truth, confident, "amodal", class_agnostic=True, overlap=amodal_overlaps, skip=crowd
    )
    if not agnostic:
        result.confusion = failures.confusion(truth, confident, matched)
    result.failures = failures.worst(truth, amodal_overlaps)
    # Depth and occlusion order of the objects that were found.
    depth = order_and_depth.depth_error(truth, confident, matched)
    if depth.objects:
        result.tables["depth"] = _depth(depth)
    order = order_and_depth.occlusion_order(truth, confident, matched)
    if order.pairs:
        result.tables["order"] = _order(order)
    if not visible:
        return
    # mIoU of hidden parts, by id too where the predictions carry the ids of the truth.
    step("hidden parts")
    by_id = bool((predictions.instance_ids >= 0).any()) and bool(
        (assignment.assign_by_id(truth, predictions) >= 0).mean() > 0.5
    )
    visible_overlaps = assignment.image_overlaps(truth, confident, "visible")
    protocols = occluded_iou.PROTOCOLS
    if by_id:
        predictions.check_identities("predictions")
        iou = occluded_iou.evaluate(truth, predictions, protocols["eoras"])
        result.tables["mIoU eoras"] = _hidden(iou)
    pixels = occluded_iou.count_pixels(truth, confident, "visible", visible_overlaps)
    iou = occluded_iou.tabulate(pixels, protocols["skip-empty"])
    result.tables["mIoU skip-empty"] = _hidden(iou)
    # Panoptic quality: both masks of what is paired within its class.
    step("panoptic quality")
    if not agnostic:
        quality = (
            panoptic.evaluate(truth.select(~crowd), confident)
            if crowd.any()
            else panoptic.evaluate(truth, confident, amodal_overlaps, visible_overlaps)
        )
        result.tables["panoptic"] = _panoptic(quality)


def _depth(depth: order_and_depth.DepthError) -> Table:
    metres = {
        "mean error, m": depth.mean_absolute,
        "median error, m": depth.median_absolute,
        "RMSE, m": depth.rmse,
        **{f"mean error, {k} away, m": v for k, (_, v) in depth.by_range.items()},
    }
    return Table(
        "Depth of instances",
        f"Absolute error along the optical axis over {depth.objects} objects, paired at "
        f"amodal IoU >= .5 among predictions with score >= {failures.MIN_SCORE}; the relative "
        "error is of the true depth.",
        {
            **metres,
            "relative error": depth.relative,
            "objects with a predicted depth": depth.with_depth,
        },
        plain=tuple(metres),
    )


def _order(order: order_and_depth.OcclusionOrder) -> Table:
    return Table(
        "Occlusion order",
        f"Over {order.pairs} ordered pairs (j hides i) of the truth whose objects were both "
        "found at amodal IoU >= .5.",
        {
            "right": order.correct,
            "the wrong way round": order.reversed,
            "not named": order.unnamed,
            "precision of named pairs": order.precision,
            "pairs that could be judged": order.judged,
        },
    )


def _panoptic(quality: panoptic.PanopticScores) -> Table:
    return Table(
        "Amodal panoptic quality of things",
        "APQ and APC (Mohan and Valada 2022) over thing classes of the truth, predictions with "
        f"score >= {failures.MIN_SCORE}; stuff is not predicted.",
        {
            "APQ": quality.apq,
            "APQ visible": quality.apq_visible,
            "APQ occluded": quality.apq_occluded,
            "APC": quality.apc,
            "APC visible": quality.apc_visible,
            "APC occluded": quality.apc_occluded,
        },
    )


def _hidden(iou: occluded_iou.OccludedIou) -> Table:
    """The table of one protocol of hidden parts."""
    return Table(
        f"Hidden parts, protocol {iou.protocol.name}",
        f"{iou.protocol.says} {iou.objects} objects, {iou.hidden} in mIoU_occ.",
        {
            "mIoU_full": iou.full,
            "mIoU_occ": iou.occluded,
            "share with a prediction": iou.matched,
        },
    )


def _identities(
    result: Evaluation,
    truth: AnnotationSet,
    predictions: AnnotationSet,
    masks: dict[str, bool],
    step: Step,
) -> None:
    for kind, available in masks.items():
        if not available:
            continue
        step(f"HOTA and IDF1, {kind}")
        shown = truth.select(truth.areas(kind) > 0)
        predicted = predictions.select(predictions.areas(kind) > 0)
        try:
            values = tracking.evaluate(shown, predicted, kind, result.protocol.class_agnostic)
        except InputError as error:  # what was computed before it is worth keeping
            result.notes.append(str(error))
            continue
        result.tables[f"tracking {kind}"] = Table(
            f"Identities, {kind} masks",
            "TrackEval: HOTA, DetA, AssA and LocA are means over IoU .05:.05:.95; MOTA, IDF1, "
            "switches and fragmentations at IoU .5; means over classes, counts over all.",
            values["all"],
            plain=tracking.COUNTS,
        )
    if masks["amodal"] and truth.has("visible"):
        step("identity through occlusion")
        kept = identity.evaluate(truth, predictions)
        if kept.reappearances or kept.untracked:
            shares = {
                "kept": kept.kept,
                "switched": kept.switched,
                "lost": kept.lost,
                "carried on the true place": kept.carried,
            }
            counts = {
                "full occlusions": len(kept.occlusions),
                "of tracked objects": kept.reappearances,
                "identity kept after": sum(o.kept for o in kept.occlusions),
            }
            shares |= {
                f"kept, {name} ({n})": share for name, (n, share) in kept.by_length.items() if n
            }
            result.tables["identity"] = Table(
                "Identity through full occlusion",
                f"Shares of {kept.reappearances} reappearances after a full occlusion whose object "
                "kept, switched or lost its id, and of hidden frames with a mask at the true place "
                f"(IoU >= .5). {kept.untracked} more were not tracked before.",
                shares | {name: float(n) for name, n in counts.items()},
                plain=tuple(counts),
            )
