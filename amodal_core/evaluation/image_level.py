"""Average precision and recall of boxes, visible masks and amodal masks, image by image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amodal_core.evaluation.matching import Curves, Entries, Matcher, Matches, curves
from amodal_core.evaluation.protocols import Bin, Protocol
from amodal_core.evaluation.sets import AnnotationSet


@dataclass
class Scores:
    """The numbers of one kind of comparison under one protocol.

    Attributes:
        kind: "box", "visible" or "amodal".
        protocol: the protocol.
        values: number by column name, 0-1; NaN where the truth has nothing in that bin.
        per_class: AP (or AP50 where the protocol quotes only that) by class name.
        counts: entries of truth in each column's bin.
        curves: precision and recall over the first column's bin.
        matches: what they were computed from, for comparisons with other runs.
        best_ious: of each annotation that is no crowd with the best prediction of its class; of
            videos only.
        warnings: one line each.
    """

    kind: str
    protocol: Protocol
    values: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    curves: Curves | None = None
    matches: Matches | None = None
    best_ious: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class Subjects:
    """Truth and detections ready for matching, with what bins select by.

    Attributes:
        images: (I,) int64 ids of the images, or of the videos.
        classes: class names.
        truth: what is there.
        detections: what was predicted.
        truth_area: (N,) float64 pixels.
        truth_occlusion: (N,) float64 hidden share, NaN where unknown.
        detection_area: (M,) float64 pixels.
        detection_occlusion: (M,) float64 by the prediction's own masks, NaN where unknown.
        crowd_union: the union with a crowd is the detection alone, as COCO has it.
    """

    images: np.ndarray
    classes: tuple[str, ...]
    truth: Entries
    detections: Entries
    truth_area: np.ndarray
    truth_occlusion: np.ndarray
    detection_area: np.ndarray
    detection_occlusion: np.ndarray
    crowd_union: bool = True

    def flags(self, selects: Bin) -> tuple[np.ndarray, np.ndarray]:
        """Which truth lies in a bin, and which unmatched detections count there."""
        truth = np.ones(len(self.truth_area), bool)
        detections = np.ones(len(self.detection_area), bool)
        if selects.area is not None:
            low, high = selects.area
            truth &= (self.truth_area >= low) & (self.truth_area <= high)
            detections &= (self.detection_area >= low) & (self.detection_area <= high)
        if selects.occlusion is not None:
            low, high = selects.occlusion
            truth &= (self.truth_occlusion >= low) & (self.truth_occlusion <= high)
            if selects.own_occlusion:
                own = self.detection_occlusion
                detections &= (own >= low) & (own <= high)
        return truth, detections

    def matcher(self, protocol: Protocol) -> Matcher:
        """Overlaps of both sides, ready to match within bins."""
        return Matcher(
            self.images,
            self.truth,
            self.detections,
            self.classes,
            protocol.class_agnostic,
            self.crowd_union,
        )


def subjects(truth: AnnotationSet, predictions: AnnotationSet, kind: str) -> Subjects:
    """Bring both sides of a comparison into the form that matching needs.

    Args:
        truth: what is there.
        predictions: aligned with it (`sets.aligned`).
        kind: "box", "visible" or "amodal".

    Raises:
        InputError: a side has no masks of that kind.
    """
    places = {i.id: n for n, i in enumerate(truth.images)}

    def entries(side: AnnotationSet) -> tuple[Entries, np.ndarray]:
        shapes = side.shapes(kind)
        where = np.array([places[i] for i in side.image_ids.tolist()], np.int64)
        area = side.areas("box") if isinstance(shapes, np.ndarray) else shapes.areas
        entry = Entries(where, side.class_ids, shapes, side.scores, side.crowd)
        return entry, area.astype(np.float64)

    (true, true_area), (predicted, predicted_area) = entries(truth), entries(predictions)
    return Subjects(
        images=np.array([i.id for i in truth.images], np.int64),
        classes=truth.classes,
        truth=true,
        detections=predicted,
        truth_area=true_area,
        truth_occlusion=truth.occlusion_rates,
        detection_area=predicted_area,
        detection_occlusion=predictions.occlusion_rates,
    )


def evaluate(
    truth: AnnotationSet, predictions: AnnotationSet, kind: str, protocol: Protocol
) -> Scores:
    """All numbers of a protocol for boxes, visible masks or amodal masks.

    Args:
        truth: what is there.
        predictions: aligned with it (`sets.aligned`).
        kind: "box", "visible" or "amodal".
        protocol: see `protocols`.

    Raises:
        InputError: a side has no masks of that kind.
    """
    if kind == "visible":
        # What is wholly hidden has no visible mask to find; as truth it could only be missed.
        truth = truth.select(truth.areas("visible") > 0)
    scores = tabulate(subjects(truth, predictions, kind), protocol)
    scores.kind = kind
    if not len(predictions):
        scores.warnings.append("there are no predictions: every AP is 0 by right")
    return scores


def tabulate(sides: Subjects, protocol: Protocol, matcher: Matcher | None = None) -> Scores:
    """Run the bins of a protocol, each once, and read off its columns."""
    scores = Scores("", protocol)
    matcher = matcher or sides.matcher(protocol)
    done: dict[Bin, tuple[Curves, int]] = {}
    unknown = int(np.isnan(sides.truth_occlusion).sum())
    for column in protocol.columns:
        if column.bin not in done:
            matches = matcher.run(*sides.flags(column.bin))
            if scores.matches is None:
                scores.matches = matches
            done[column.bin] = curves(matches), int(matches.truth.sum())
        curve, count = done[column.bin]
        value = (
            curve.average_recall(column.limit)
            if column.recall
            else curve.average_precision(column.iou, column.limit)
        )
        scores.values[column.name] = value
        scores.counts[column.name] = count
    first = protocol.columns[0]
    scores.curves = done[first.bin][0]
    if not protocol.class_agnostic:
        scores.per_class = {
            name: scores.curves.average_precision(first.iou, first.limit, k)
            for k, name in enumerate(sides.classes)
        }
    if unknown and any(c.bin.occlusion for c in protocol.columns):
        scores.warnings.append(
            f"{unknown} annotations have no occlusion rate and are in no occlusion bin"
        )
    return scores
