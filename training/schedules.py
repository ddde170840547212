"""Learning rates as functions of the step: nothing to save, nothing to apply twice."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, AdamW, Optimizer
from torchvision.ops import FrozenBatchNorm2d

from amodal_core.errors import InputError

from .config import Optimiser, PartConfig, Schedule

# One-cycle: share of the steps that the rate rises, and where it begins and ends (Smith 2018, as
# used for PointPillars: from a tenth up to the rate, then down to a ten-thousandth).
NORMS = (_BatchNorm, FrozenBatchNorm2d, nn.GroupNorm, nn.LayerNorm)
_RISE, _BEGIN, _END = 0.4, 0.1, 1e-4


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """The share of the learning rate at a step.

    Args:
        schedule: which way it goes.
        step: from 0.
        steps: of the whole run.
    """
    if schedule.kind == "one_cycle":
        top = max(1.0, _RISE * steps)
        if step < top:
            return _between(_BEGIN, 1.0, step / top)
        return _between(1.0, _END, (step - top) / max(steps - top, 1))
    value = 1.0
    if schedule.kind == "step":
        value = schedule.gamma ** sum(step >= m for m in schedule.milestones)
    else:
        left = max(steps - schedule.warm_up, 1)
        value = _between(1.0, schedule.floor, max(step - schedule.warm_up, 0) / left)
    if step < schedule.warm_up:
        risen = step / schedule.warm_up
        value *= schedule.warm_up_from * (1 - risen) + risen
    return value


def _between(begin: float, end: float, share: float) -> float:
    """Half a cosine from one value to another."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def make_optimizer(module: nn.Module, options: Optimiser) -> Optimizer:
    """The optimiser of every weight that is trained, each part of the model with its own rate.

    Vectors (biases, norms) do not decay unless `decays` says so. Weights whose rate is 0 are
    frozen from now on. A group's "scale" is its factor on the learning rate (`set_rate`), "pull" is
    for `Pull`.

    Raises:
        InputError: a part that no weight of the module is in.
    """
    unused = set(options.parts)
    of_norms = {
        id(w) for m in module.modules() if isinstance(m, NORMS) for w in m.parameters(False)
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, weight in module.named_parameters():
        fitting = [p for p in options.parts if name.startswith(f"{p}.")]
        unused -= set(fitting)
        part = max(fitting, key=len, default="")
        if part and not options.parts[part].rate:
            weight.requires_grad_(False)
        if weight.requires_grad:
            vectors = options.decays == "all" or (
                options.decays == "biases" and id(weight) not in of_norms
            )
            groups.setdefault((part, weight.ndim > 1 or vectors), []).append(weight)
    if unused:
        raise InputError(
            f"no weight is in {', '.join(sorted(unused))}", "optimiser.parts", "name modules"
        )
    made: list[dict[str, Any]] = []
    for (name, decays), weights in groups.items():
        part_options = options.parts.get(name, PartConfig())
        pulled = part_options.pull > 0
        made.append(
            {
                "params": weights,
                "weight_decay": options.weight_decay if decays and not pulled else 0.0,
                "scale": part_options.rate,
                "pull": part_options.pull,
            }
        )
    if options.name == "sgd":
        return SGD(made, lr=options.rate, momentum=options.momentum)
    return AdamW(made, lr=options.rate, betas=options.betas)


class Pull:
    """Pulls weights towards what they were when this was made (L2-SP), group by group.

    Args:
        optimizer: of `make_optimizer`, before its first step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._groups = [g for g in optimizer.param_groups if g["pull"]]
        self._begin = [[w.detach().clone() for w in g["params"]] for g in self._groups]

    @torch.no_grad()
    def step(self) -> None:
        """Go back the share lr * pull of the way, after the optimiser's own step."""
        for group, begin in zip(self._groups, self._begin, strict=True):
            for weight, first in zip(group["params"], begin, strict=True):
                weight.lerp_(first, min(group["lr"] * group["pull"], 1.0))


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Let every group move at a learning rate times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
