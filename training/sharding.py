"""Weights in shares: each process holds its part of them, of gradients and the optimiser's state.

PyTorch's `fully_shard` (FSDP2) gathers a block of the model when it is computed and lets it go
afterwards. What is saved is whole, the same as of a run without shares: either goes on from the
other's state, with any number of processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from amodal_core.models.learned import LearnedModel

from .distributed import Place


def shard(model: nn.Module, place: Place) -> None:
    """Let each process keep its share of every weight, in place; `losses` gathers what it needs.

    Args:
        model: a `LearnedModel` on the process's device, with the same weights in all of them.
        place: this process.
    """
    assert isinstance(model, LearnedModel)
    for weight in model.parameters():
        weight.data = weight.data.contiguous()  # shares are cut along the first axis
    mesh = init_device_mesh(place.device.type, (place.world,))
    for block in model.blocks():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule)
    register_fsdp_forward_method(model, "losses")


def is_sharded(model: nn.Module) -> bool:
    """Whether a model is held in shares."""
    return isinstance(model, FSDPModule)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the first one's buffers, such as the means of norms."""
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)


def unsharded(values: Any) -> Any:
    """The same values with every share gathered; all processes must ask together.

    Args:
        values: tensors in dictionaries, lists and tuples, however deep, as in a state dictionary.
    """
    if isinstance(values, DTensor):
        return values.full_tensor()
    if isinstance(values, dict):
        return {k: unsharded(v) for k, v in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(unsharded(v) for v in values)
    return values


def shared_out(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Whole tensors of a model's state, each cut as the model's own; the inverse of `unsharded`.

    Args:
        values: state dictionary.
        own: of the model that takes it.
    """
    return {k: _cut(v, own[k]) if k in own else v for k, v in values.items()}


def shared_out_optimizer(values: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The same for an optimiser's state: what has a weight's shape is cut as the weight."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        number: {
            k: _cut(v, weights[number]) if torch.is_tensor(v) and v.ndim else v
            for k, v in entry.items()
        }
        for number, entry in values["state"].items()
    }
    return {**values, "state": state}


def _cut(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
