"""The held-out split, judged by the project's own evaluation, shared out over the processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from amodal_core.errors import InputError
from amodal_core.evaluation import image_level
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.sets import ImageRecord, aligned, from_tracks
from amodal_core.frame import Report, Tracks
from amodal_core.inference import hosted, tracks_of
from amodal_core.models.base import Model
from amodal_core.models.learned import LearnedModel
from amodal_core.models.refined import RefinedModel
from training.data import Samples
from training.distributed import Place
from training.progress import Display

_KINDS = ("amodal", "visible", "box")
_PROTOCOL = IMAGE_PROTOCOLS["default"]
METRICS = tuple(f"{kind} {column.name}" for kind in _KINDS for column in _PROTOCOL.columns)


def check_metric(name: str) -> None:
    """Make sure that a metric exists.

    Raises:
        InputError: it does not.
    """
    if name not in METRICS:
        raise InputError(f"no metric '{name}'", "metric", f"such as {', '.join(METRICS[:3])}")


def judge(
    model: LearnedModel, samples: Samples, batch: int, place: Place, display: Display
) -> dict[str, float]:
    """Every AP and AR of amodal masks, visible masks and boxes by name, the same in all processes.

    A model that completes what a detector found is judged on the visible masks of the truth.

    Args:
        model: on its device.
        samples: held out; those without annotation are left out.
        batch: frames that the model gets at once.
        place: this process; it takes every `world`-th sample.
        display: shows progress.
    """
    mine = list(range(place.rank, len(samples), place.world))
    rows: list[tuple[ImageRecord, Tracks, Tracks]] = []
    for begin in range(0, len(mine), batch):
        chosen = mine[begin : begin + batch]
        rows += _rows(model, samples, chosen)
        display.preparing("evaluating", min(begin + batch, len(mine)), len(mine))
    everything = [r for part in place.gathered(rows) for r in part]
    values: dict[str, float] = {}
    if place.first:
        everything.sort(key=lambda r: r[0].id)
        truth = from_tracks(((i, t) for i, t, _ in everything), model.classes)
        found = from_tracks(((i, f) for i, _, f in everything), model.classes)
        found = aligned(truth, found)
        for kind in _KINDS:
            scores = image_level.evaluate(truth, found, kind, _PROTOCOL)
            values |= {f"{kind} {name}": v for name, v in scores.values.items()}
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
    if isinstance(model, RefinedModel):
        found = hosted(model.complete(frames, [_shown(t) for _, _, t in annotated]))
    else:
        found = tracks_of(cast(Model, model), frames, Report())
    return [
        (ImageRecord(k + 1, *truth.size, sample.name), truth, tracks)
        for (k, sample, truth), tracks in zip(annotated, found, strict=True)
    ]


def _shown(truth: Tracks) -> Tracks:
    """The objects that show, as a detector would give them."""
    return replace(truth[truth.visible.rle().areas() > 0], ignore=None)
