"""Learning rates as functions of the step: nothing to save, nothing to apply twice."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from training.config import Optimiser, Schedule

# One-cycle: share of the steps that the rate rises, and where it begins and ends (Smith 2018, as
# used for PointPillars: from a tenth up to the rate, then down to a ten-thousandth).
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
    """The optimiser of every weight that is trained; vectors (biases, norms) do not decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if options.name == "sgd":
        return SGD(groups, lr=options.rate, momentum=options.momentum)
    return AdamW(groups, lr=options.rate, betas=options.betas)
