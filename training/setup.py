"""What a run begins with: its data, and its model with all that changes while it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from amodal_core.classes import Renames, check_renames, renamed
from amodal_core.datasets.base import Dataset
from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.checkpoint import load_shared, load_weights, read_info
from amodal_core.models.learned import Clip, LearnedModel
from amodal_core.tracking import make_tracker

from . import state
from .clips import clip_for
from .config import Config, Source
from .distributed import Place
from .judge import check_metric
from .loggers import check_loggers
from .object_bank import ObjectBank, bank_of
from .progress import Display
from .schedules import make_optimizer
from .sharding import shard
from .sources import (
    Samples,
    open_sources,
    render_sources,
)

_T = TypeVar("_T")
_Opened = list[tuple[Dataset, range]]


@dataclass(frozen=True)
class RunData:
    """What is learnt from and judged on.

    Attributes:
        classes: of the model.
        training: samples with the model's class ids.
        held_out: likewise, None where the run has none.
        clip: what the model learns from at once, None for single frames.
        bank: objects that scans are filled up with, None where they are not.
    """

    classes: tuple[str, ...]
    training: Samples
    held_out: Samples | None
    clip: Clip | None
    bank: ObjectBank | None = None


def open_data(config: Config, place: Place, display: Display) -> RunData:
    """Open and check the data, then render what is missing of it.

    The first process unpacks and renders, the others then find it done.

    Raises:
        InputError: anything in the configuration that does not fit the data or the model.
    """
    check_loggers(config.log_to)
    kind = registry.learned(config.model)
    check_metric(config.metric, completes=registry.completes(config.model))
    if config.tracker:
        make_tracker(config.tracker, config.tracker_settings, "tracker_settings")
    clip = clip_for(kind, config.clip)
    cache = Path(config.cache)

    def open_all() -> tuple[_Opened, _Opened]:
        progress = display.preparing
        return (
            open_sources(config.train, cache, progress),
            open_sources(config.held_out, cache, progress),
        )

    training, held_out = _first_then_others(place, open_all)
    names = [name for data, _ in (*training, *held_out) for name in data.classes]
    check_renames(config.class_map, names, "the data", "class_map")
    classes = config.classes or _classes_of(training, config.class_map)

    def samples(opened: _Opened) -> Samples:
        least = config.smallest, config.least_visible
        return Samples(opened, classes, config.class_map, *least)

    _check_learnable(config, kind, [data for data, _ in (*training, *held_out)])
    made = RunData(classes, samples(training), samples(held_out) if held_out else None, clip)
    sources, workers = (*config.train, *config.held_out), max(config.workers, 1)
    if place.first:
        render_sources(sources, cache, workers, display.preparing)
    place.wait()
    scan = config.augment.scan
    if scan is None or not scan.objects:
        return made
    check_renames(dict.fromkeys(scan.objects), classes, "the model", "augment.scan.objects")
    progress = display.preparing

    def bank() -> ObjectBank:
        return bank_of(made.training, classes, scan.least_points, cache, progress)

    return replace(made, bank=_first_then_others(place, bank))


def _check_learnable(config: Config, kind: type[LearnedModel], sets: Sequence[Dataset]) -> None:
    """Make sure that the model learns from what the data has, and the changes leave it true."""
    if kind.needs_masks and config.augment.scan is not None:
        raise InputError(
            f"'{config.model}' sees the image, too",
            "augment.scan",
            "leave it out: it changes the scan alone",
        )
    bare = [data for data in sets if not data.has_masks]
    if not bare:
        return
    where = f"{bare[0].name} ({bare[0].path})"
    if kind.needs_masks:
        raise InputError(
            f"it annotates boxes, no masks, and '{config.model}' learns masks",
            where,
            "for KITTI's images: KINS' annotations (format kins), or `model: pointpillars`; for "
            "nuScenes, Argoverse and Waymo: `options: {masks: derived}`",
        )
    if config.smallest or config.least_visible or config.augment.crop:
        raise InputError(
            "it has no masks to measure", where, "leave out smallest, least_visible, augment.crop"
        )


def _first_then_others(place: Place, work: Callable[[], _T]) -> _T:
    """The same work in every process, in the first one before the others."""
    if place.first:
        result = work()
    place.wait()
    return result if place.first else work()


def _classes_of(opened: _Opened, class_map: Renames) -> tuple[str, ...]:
    """The data's own class names after the map, each once, in their order."""
    names = [renamed(name, class_map) for data, _ in opened for name in data.classes]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def make_state(
    config: Config, classes: tuple[str, ...], place: Place, display: Display
) -> state.RunState:
    """The model with its first weights on its device, and what learns them.

    Raises:
        InputError: settings that the model does not have, or a checkpoint that does not fit it.
    """
    state.seed_step(config.seed, 0, 0)  # weights begin equal in every process
    kind = registry.learned(config.model)
    model = kind.from_config({**config.settings, "classes": classes})
    if config.init:
        display.say(begin_with(model, config.init, config.init_classes == "any"))
    model = model.to(place.device)
    if place.world > 1 and place.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.split:
        model.split(place.device, place.second or place.device)
    average = state.MovingAverage(model, config.ema) if config.ema else None
    if config.sharding == "fsdp" and place.world > 1:
        shard(model, place)
        if average is not None:
            shard(average.module, place)
    return state.RunState(
        model,
        make_optimizer(model, config.optimiser),
        torch.amp.GradScaler(place.device.type, enabled=config.precision == "fp16"),
        average,
        state.Progressed(),
    )


def begin_with(model: LearnedModel, path: str, any_classes: bool = False) -> str:
    """First weights from a checkpoint: all of its own model's, what is shared of another's.

    Of its own model in another variant, or without detail, those of its shapes are taken.

    Args:
        model: that begins.
        path: of the checkpoint.
        any_classes: of one with other classes, too, what does not depend on them.

    Returns:
        What was done.
    """
    info = read_info(path)
    model.check_tied(info, path)
    if any_classes and info.classes != model.classes:
        taken, own = load_shared(path, model, skip=True, without=_of_classes(model))
        return f"{taken} of {own} tensors begin with those of {info.model}, which has other classes"
    if info.classes != model.classes:
        raise InputError(
            f"a checkpoint with the classes {', '.join(info.classes)}",
            path,
            f"set `classes` to them, or init_classes: any; the run has {', '.join(model.classes)}",
        )
    own_config = model.config_json()
    same = info.config.get("variant") == own_config.get("variant")
    same &= all(bool(info.config.get(n)) == bool(own_config.get(n)) for n in ("detail", "heights"))
    if info.model == model.name and not info.partial and same:
        load_weights(path, model, model.name)
        return f"beginning with {path}"
    taken, own = load_shared(path, model, skip=info.model == model.name)
    return f"{taken} of {own} tensors begin with those of {info.model}, the rest anew"


def _of_classes(model: LearnedModel) -> set[str]:
    """Names of the tensors whose shape depends on the classes: a model with one more shows it."""
    more = model.config_json() | dict.fromkeys(model.files & model.config_json().keys(), "")
    more["classes"] = (*model.classes, "one more")
    other = type(model).from_config(more).state_dict()
    return {n for n, value in model.state_dict().items() if other[n].shape != value.shape}


def described(sources: Sequence[Source]) -> str:
    """Sources in one line, for checkpoints."""
    return ", ".join(map(_described, sources))


def _described(source: Source) -> str:
    if source.synthetic is None:
        return f"{source.format or 'data'} {Path(source.path).name}"
    made = source.synthetic
    size = f" at {made.size[0]}x{made.size[1]}" if made.size else ""
    return f"{made.frames} frames of synthetic drives{size}, seed {made.seed}"
