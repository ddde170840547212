"""Files of weights: read without trusting them, fitted to a module whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from amodal_core import limits, torch_files
from amodal_core.errors import InputError

_SHOWN = 4  # names of each kind in a message
COUNTER = "num_batches_tracked"  # of batch norms; neither momentum nor inference reads it


def read_weights(path: str | Path, cure: str = "check the path") -> dict[str, torch.Tensor]:
    """The tensors of a file by their names, on the host.

    Args:
        path: .safetensors, or what torch wrote (.pth, .pt, .bin); code in it is never run.
        cure: where such a file is had, for errors.

    Raises:
        InputError: there is no such file, or it is no table of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("there are no such weights", str(path), cure)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        torch_files.check(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        for tensor in state.values() if isinstance(state, dict) else ():
            check_extent(tensor)
    except Exception as error:
        # torch raises pickle, zip and runtime errors alike for files that are no weights.
        line = str(error).splitlines()[0]
        raise InputError(f"not a file of weights: {line}", str(path), "copy it again") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise InputError("not a table of tensors by name", str(path), cure)
    return state


def check_extent(tensor: Any) -> None:
    """Refuse a tensor of which a few numbers of a file are repeated without end.

    Raises:
        ValueError: it would have more bytes than limits.UNPACKED, and more than its storage.
    """
    if not torch.is_tensor(tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        return
    size = tensor.numel() * tensor.element_size()
    if size > max(limits.UNPACKED, tensor.untyped_storage().nbytes()):
        raise ValueError(f"a tensor of {size} bytes that are not in it")


@dataclass(frozen=True)
class Misfits:
    """How a state differs from what is expected.

    Attributes:
        missing: names of tensors that it does not have.
        foreign: names of tensors that nobody expects.
        wrong: names, shapes and expected shapes of the others that differ, one line each.
    """

    missing: tuple[str, ...]
    foreign: tuple[str, ...]
    wrong: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.foreign or self.wrong)

    def message(self) -> str:
        """One line: how many of each kind, and which come first."""
        kinds = (
            ("missing", self.missing),
            ("foreign", self.foreign),
            ("of another shape", self.wrong),
        )
        return "; ".join(
            f"{len(names)} tensors {kind} ({', '.join(names[:_SHOWN])}"
            f"{', ...' if len(names) > _SHOWN else ''})"
            for kind, names in kinds
            if names
        )


def misfits(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> Misfits:
    """How a state differs from what is expected, such as a module's `state_dict()`."""
    missing = sorted(k for k in set(expected) - set(state) if not k.endswith(COUNTER))
    wrong = [
        f"{k}: {tuple(state[k].shape)} for {tuple(expected[k].shape)}"
        for k in sorted(set(expected) & set(state))
        if state[k].shape != expected[k].shape
    ]
    return Misfits(tuple(missing), tuple(sorted(set(state) - set(expected))), tuple(wrong))


def fitted(
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    where: str | Path,
    cure: str,
) -> dict[str, torch.Tensor]:
    """The tensors of a state, each of its namesake's dtype, where all names and shapes agree.

    Args:
        state: what was read.
        expected: such as a module's `state_dict()`, or those of its tensors that are wanted.
        where: the file, for errors.
        cure: what would fit, for errors.

    Raises:
        InputError: tensors are missing, foreign or of other shapes.
    """
    if faults := misfits(state, expected):
        raise InputError(f"weights do not fit: {faults.message()}", str(where), cure)
    return {k: state[k].to(expected[k].dtype) for k in sorted(set(expected) & set(state))}
