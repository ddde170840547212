"""The held-out split, judged by the project's own evaluation, shared out over the processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import cast

from amodal_core.errors import InputError
from amodal_core.evaluation import image_level, occluded_iou
from amodal_core.evaluation.occluded_iou import PROTOCOLS
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.sets import ImageRecord, aligned, from_tracks
from amodal_core.frame import Instances, Report, Tracks
from amodal_core.inference import tracks_of
from amodal_core.models.base import Completer, Model
from amodal_core.models.learned import LearnedModel
from amodal_core.tracking.coasting import CoastingTracker

from .distributed import Place
from .progress import Display
from .sources import Samples

_KINDS = ("amodal", "visible", "box")
_PROTOCOL = IMAGE_PROTOCOLS["default"]
METRICS = tuple(f"{kind} {column.name}" for kind in _KINDS for column in _PROTOCOL.columns)
_PAIRED = PROTOCOLS["eoras"]
PAIRED_METRICS = (f"{_PAIRED.name} mIoU_full", f"{_PAIRED.name} mIoU_occ")


def check_metric(name: str, completes: bool = False) -> None:
    """Make sure that a metric exists.

    Args:
        name: of the metric.
        completes: whether the model is told the true visible masks (`models.base.Completer`).

    Raises:
        InputError: it does not.
    """
    metrics = (*PAIRED_METRICS, *METRICS) if completes else METRICS
    if name not in metrics:
        raise InputError(f"no metric '{name}'", "metric", f"such as {', '.join(metrics[:3])}")


def judge(
    model: LearnedModel,
    samples: Samples,
    batch: int,
    place: Place,
    display: Display,
    new_tracker: Callable[[], CoastingTracker] | None = None,
) -> dict[str, float]:
    """Every AP and AR of amodal masks, visible masks and boxes by name, the same in all processes.

    A model that completes given masks is told the true visible ones, video by video and single
    images one by one, and judged by EoRaS' mIoU, too.

    Args:
        model: on its device.
        samples: held out; those without annotation are left out.
        batch: frames that the model gets at once.
        place: this process; it takes every `world`-th sample, or video.
        display: shows progress.
        new_tracker: what the detections of each video pass through before they are judged; None for
            the detections themselves.
    """
    completes = isinstance(model, Completer)
    if completes or new_tracker is not None:
        pieces = samples.videos(singles=True)[place.rank :: place.world]
    else:
        mine = list(range(place.rank, len(samples), place.world))
        pieces = [mine[k : k + batch] for k in range(0, len(mine), batch)]
    rows: list[tuple[ImageRecord, Tracks, Tracks]] = []
    for done, chosen in enumerate(pieces, 1):
        if new_tracker is None or completes:
            rows += predicted(model, samples, chosen)
        else:
            tracker = new_tracker()
            for first in range(0, len(chosen), batch):
                rows += predicted(model, samples, chosen[first : first + batch], tracker)
        display.preparing("evaluating", done, len(pieces))
    everything = [r for share in place.gathered(rows) for r in share]
    values: dict[str, float] = {}
    if place.first:
        everything.sort(key=lambda r: r[0].id)
        truth = from_tracks(((i, t) for i, t, _ in everything), model.classes)
        predictions = from_tracks(((i, f) for i, _, f in everything), model.classes)
        predictions = aligned(truth, predictions)
        for kind in _KINDS:
            scores = image_level.evaluate(truth, predictions, kind, _PROTOCOL)
            values |= {f"{kind} {name}": v for name, v in scores.values.items()}
        if completes:
            paired = occluded_iou.evaluate(truth, predictions, _PAIRED)
            values |= dict(zip(PAIRED_METRICS, (paired.full, paired.occluded), strict=True))
    values = place.of_first(values)
    return {name: value for name, value in values.items() if not math.isnan(value)}


def predicted(
    model: LearnedModel,
    samples: Samples,
    chosen: Sequence[int],
    tracker: CoastingTracker | None = None,
) -> list[tuple[ImageRecord, Tracks, Tracks]]:
    """Image, truth and predictions of the samples that are annotated.

    Args:
        model: on its device; one that completes given masks is told the true visible ones.
        samples: of which some are asked.
        chosen: their indices, of one video where the model or the tracker remembers.
        tracker: what the detections pass through, None for the detections themselves.
    """
    read = [(k, samples[k]) for k in chosen]
    annotated = [(k, s, s.truth) for k, s in read if s.truth is not None]
    if not annotated:
        return []
    frames = [s.frame for _, s, _ in annotated]
    if isinstance(model, Completer):
        predictions = model.complete(frames, [t for _, _, t in annotated])
    else:
        predictions = tracks_of(cast(Model, model), frames, Report())
        if tracker is not None:
            predictions = [
                tracker.step(_detections(one), frame.stamp, frame)
                for one, frame in zip(predictions, frames, strict=True)
            ]
    return [
        (ImageRecord(k + 1, *truth.size, sample.name), truth, tracks)
        for (k, sample, truth), tracks in zip(annotated, predictions, strict=True)
    ]


def _detections(tracks: Tracks) -> Instances:
    """The same without identities."""
    return Instances(**{f.name: getattr(tracks, f.name) for f in fields(Instances)})
