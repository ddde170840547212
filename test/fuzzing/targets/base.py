"""What a target is, and what several of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets_scenes import SIZE, drive

from amodal_core.masks.mask_set import RleMasks
from fuzzing import mutations as spoil


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: of it.
        seeds: valid inputs.
        mutate: spoils one.
        read: reads one, in a folder of its own that stays; raises InputError for a bad one.
    """

    name: str
    seeds: Sequence[bytes]
    mutate: spoil.Mutate
    read: Callable[[bytes, Path], Any]


TARGETS: list[Target] = []


def add(name: str, seeds: Sequence[bytes], mutate: spoil.Mutate, read: Any) -> None:
    TARGETS.append(Target(name, seeds, mutate, read))


def file_of(name: str, read: Callable[[Path], Any]) -> Callable[[bytes, Path], Any]:
    """A reader of a file of that name."""

    def on(data: bytes, folder: Path) -> Any:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return on


RNG = np.random.default_rng(5)
SAMPLES = drive(RNG, 2)
EMPTY = RleMasks.empty(SIZE, 1).counts[0].decode()


def made(make: Callable[[Path], Any], *names: str) -> list[bytes]:
    """The contents of files that a function makes."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        return [(Path(folder) / name).read_bytes() for name in names]
