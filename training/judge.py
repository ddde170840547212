"""The held-out split, judged by the project's own evaluation, shared out over the processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from amodal_core.errors import InputError
from amodal_core.evaluation import image_level, occluded_iou
from amodal_core.evaluation.occluded_iou import PROTOCOLS
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.sets import ImageRecord, aligned, from_tracks
from amodal_core.frame import Report, Tracks
from amodal_core.inference import tracks_of
from amodal_core.models.base import Completer, Model
from amodal_core.models.learned import LearnedModel
from training.distributed import Place
from training.progress import Display
from training.sources import Samples

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
    model: LearnedModel, samples: Samples, batch: int, place: Place, display: Display
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
    """
    completes = isinstance(model, Completer)
    if completes:
        pieces = samples.videos(singles=True)[place.rank :: place.world]
    else:
        mine = list(range(place.rank, len(samples), place.world))
        pieces = [mine[k : k + batch] for k in range(0, len(mine), batch)]
    rows: list[tuple[ImageRecord, Tracks, Tracks]] = []
    for done, chosen in enumerate(pieces, 1):
        rows += _rows(model, samples, chosen)
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


def _rows(
    model: LearnedModel, samples: Samples, chosen: Sequence[int]
) -> list[tuple[ImageRecord, Tracks, Tracks]]:
    read = [(k, samples[k]) for k in chosen]
    annotated = [(k, s, s.truth) for k, s in read if s.truth is not None]
    if not annotated:
        return []
    frames = [s.frame for _, s, _ in annotated]
    if isinstance(model, Completer):
        predictions = model.complete(frames, [t for _, _, t in annotated])
    else:
        predictions = tracks_of(cast(Model, model), frames, Report())
    return [
        (ImageRecord(k + 1, *truth.size, sample.name), truth, tracks)
        for (k, sample, truth), tracks in zip(annotated, predictions, strict=True)
    ]
