"""The processes of a run: who this one is, and what all agree on. Started by torchrun or alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from amodal_core.errors import InputError
from amodal_core.runtime.devices import check_device

_T = TypeVar("_T")
# The others wait while the first process renders drives or evaluates.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Place:
    """This process among those of the run.

    Attributes:
        rank: from 0.
        world: number of processes.
        device: of this one.
        second: device of the second half of a model that is split.
    """

    rank: int
    world: int
    device: torch.device
    second: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    def totals(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gathered(self, value: _T) -> list[_T]:
        """Every process's value, in the order of ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def of_first(self, value: _T) -> _T:
        """The first process's value."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined(device: str, split: bool = False) -> Iterator[Place]:
    """Join the run that torchrun describes in the environment; alone where it does not.

    NCCL on GPUs, gloo on CPUs.

    Args:
        device: as in the configuration.
        split: each process takes two devices, a GPU and the next one.

    Raises:
        InputError: a device is not there.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(kind)
    chosen = torch.device(kind)
    second = chosen if split else None
    if chosen.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if chosen.index is None or world > 1:
            chosen = torch.device("cuda", local * (2 if split else 1))
        if split:
            second = torch.device("cuda", chosen.index + 1)
        last = second or chosen
        if last.index >= torch.cuda.device_count():
            raise InputError(
                f"there are {torch.cuda.device_count()} GPUs", f"device {last}", "start fewer"
            )
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Place(0, 1, chosen, second)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Place(rank, world, chosen, second)
    finally:
        dist.destroy_process_group()
