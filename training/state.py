"""What a run needs to go on exactly where it stopped, and the checkpoints that it leaves.

Random numbers are functions of seed, step and rank (`seed_step`), the order of samples and the
learning rate are functions of the step: none of them has a state to save.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from amodal_core.errors import InputError
from amodal_core.files import atomic
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.learned import LearnedModel

from .sharding import is_sharded, shared_out, shared_out_optimizer, unsharded

LAST, BEST, FINAL = "last.pt", "best.safetensors", "final.safetensors"
# What may differ between an interrupted run and its continuation.
FREE = (
    "steps", "workers", "device", "log_every", "log_to", "project", "samples_every", "samples",
    "save_every", "out", "cache", "sharding", "split",
)  # fmt: skip


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set every generator that a model may draw from."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(mixed)


_Pair = tuple[torch.Tensor, torch.Tensor]


class MovingAverage(AveragedModel):
    """An exponential moving average of weights and buffers.

    The decay grows with the steps, (1 + n) / (10 + n) at most, so that the random weights of the
    beginning do not linger.

    Args:
        model: what is averaged; after the first update its tensors stay the same ones.
        decay: at its most.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay, self._count = decay, 0
        self._source = (model,)  # no part of this one
        self._pairs: list[_Pair] = []
        self._copied: list[_Pair] = []
        self._averaged: list[tuple[tuple[torch.Tensor, ...], ...]] = []

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's weights in."""
        if not self._pairs:
            self._look_up()
        share = 1 - min(self._decay, (1 + self._count) / (10 + self._count))
        for averaged, current in self._averaged if self._count else ():
            torch._foreach_lerp_(averaged, current, share)
        for old, new in self._copied if self._count else self._pairs:
            old.copy_(new)
        self._count += 1
        self.n_averaged += 1

    def _look_up(self) -> None:
        """All tensors, once: walking over a model costs as much as the averaging."""
        tensors = _tensors(self.module), _tensors(self._source[0])
        self._pairs = list(zip(*tensors, strict=True))
        self._copied = [pair for pair in self._pairs if not pair[0].is_floating_point()]
        groups: dict[bool, list[_Pair]] = {}
        for pair in self._pairs:
            if pair[0].is_floating_point():
                groups.setdefault(isinstance(pair[0], DTensor), []).append(pair)
        self._averaged = [tuple(zip(*group, strict=True)) for group in groups.values()]

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Go on from a saved average."""
        result = super().load_state_dict(*args, **options)
        self._count = int(self.n_averaged)
        return result


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


@dataclass
class Progressed:
    """How far a run has come.

    Attributes:
        step: steps done.
        best: value of the metric at its best, None before the first evaluation.
        best_step: steps done then.
        metrics: of the last evaluation.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class RunState:
    """Everything of a run that changes.

    Attributes:
        model: the model itself, unwrapped.
        optimizer: of its weights.
        scaler: of fp16 losses; does nothing for other precisions.
        ema: moving average, or None.
        progressed: how far it is.
    """

    model: LearnedModel
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    ema: MovingAverage | None
    progressed: Progressed

    @property
    def judged(self) -> LearnedModel:
        """The weights that are evaluated and kept: the average where there is one."""
        if self.ema is None or not self.progressed.step:
            return self.model
        averaged = self.ema.module
        assert isinstance(averaged, LearnedModel)
        return averaged

    def ready(self) -> LearnedModel:
        """The judged model, fit for inference in each process by itself.

        Where weights are held in shares it is a copy of them, for which all processes ask together.
        """
        model = self.judged
        if not is_sharded(model):
            return model
        copy = registry.learned(model.name).from_config(_without_weights(model))
        copy.load_state_dict(unsharded(model.state_dict()))
        return copy.to(model.device)


def collected(run: RunState, config: dict[str, Any]) -> dict[str, Any]:
    """The state of a run, whole; where weights are held in shares all processes ask together."""
    return {
        "config": config,
        "progressed": vars(run.progressed),
        "model": unsharded(run.model.state_dict()),
        "optimizer": unsharded(run.optimizer.state_dict()),
        "scaler": run.scaler.state_dict(),
        "ema": None if run.ema is None else unsharded(run.ema.state_dict()),
    }


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state, whole or not at all."""
    with atomic(path) as part:
        torch.save(state, part)


def load(path: Path, run: RunState, config: dict[str, Any]) -> None:
    """Put a saved state into a run of the same configuration.

    Raises:
        InputError: the file is broken, or of a run that was configured otherwise.
    """
    try:
        state = torch.load(path, map_location=run.model.device, weights_only=True)
        theirs, progressed = state["config"], Progressed(**state["progressed"])
    except Exception as error:
        # torch raises pickle, zip and runtime errors alike for files that are no states.
        line = str(error).splitlines()[0]
        raise InputError(f"no state of a run: {line}", str(path), "remove it") from None
    differing = sorted(k for k in config if k not in FREE and config[k] != theirs.get(k))
    if differing:
        raise InputError(
            f"a run with other settings: {', '.join(differing)}",
            str(path.parent),
            "give them as they were, or another `out`",
        )
    run.model.load_state_dict(shared_out(state["model"], run.model.state_dict()))
    run.optimizer.load_state_dict(shared_out_optimizer(state["optimizer"], run.optimizer))
    run.scaler.load_state_dict(state["scaler"])
    if run.ema is not None:
        run.ema.load_state_dict(shared_out(state["ema"], run.ema.state_dict()))
    run.progressed = progressed


def keep(path: Path, model: LearnedModel, metrics: dict[str, float], data: str, half: bool) -> None:
    """Write a checkpoint for inference."""
    settings = _without_weights(model)
    info = CheckpointInfo(model.name, settings, model.classes, data, commit(), metrics)
    save_checkpoint(path, model, info, torch.float16 if half else None)


def _without_weights(model: LearnedModel) -> dict[str, Any]:
    """The configuration, without the files that training began with; nothing needs them now."""
    settings = model.config_json()
    return settings | dict.fromkeys(model.files & settings.keys(), "")


def commit() -> str:
    """The commit of this code, "" where it is installed without its repository."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.strip()
