"""Checkpoints: one safetensors file that says what it is.

The metadata names model, configuration, classes, training data and commit; reading refuses whatever
does not fit, key by key, and never loads a part in silence.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from amodal_core.errors import InputError
from amodal_core.files import atomic
from amodal_core.models.checkpoint_info import FORMAT, CheckpointInfo, read_info
from amodal_core.models.layers.weights import fitted, read_weights

_CURE = "the configuration differs from the one it was trained with"


def save_checkpoint(
    path: str | Path, module: nn.Module, info: CheckpointInfo, dtype: torch.dtype | None = None
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: of the .safetensors file.
        module: the model.
        info: what it is.
        dtype: store floating point tensors as this, such as torch.float16; None keeps them.
    """
    save_tensors(path, module.state_dict(), info, dtype)


def save_tensors(
    path: str | Path,
    state: Mapping[str, torch.Tensor],
    info: CheckpointInfo,
    dtype: torch.dtype | None = None,
) -> None:
    """The same for tensors by name."""
    path = Path(path)
    tensors = {}
    for name, value in state.items():
        kept = value.detach().cpu()
        if dtype is not None and kept.is_floating_point():
            kept = kept.to(dtype)
        # Tensors that share memory (tied weights) are refused by the format.
        tensors[name] = kept.clone().contiguous()
    metadata = {
        "format": FORMAT,
        "model": info.model,
        "config": json.dumps(info.config),
        "classes": json.dumps(list(info.classes)),
        "data": info.data,
        "commit": info.commit,
        "metrics": json.dumps(info.metrics),
        "partial": json.dumps(info.partial),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        save_file(tensors, part, metadata)
        _sort_metadata(part)


def _sort_metadata(path: Path) -> None:
    """Put a file's metadata in order: safetensors writes it in another one every time.

    The same weights are the same file then, and the graph beside them keeps its name.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:  # as many letters, unless something is escaped in another way
            file.seek(8)
            file.write(text.ljust(length))


def load_weights(path: str | Path, module: nn.Module, model: str) -> CheckpointInfo:
    """Load a checkpoint into a module that fits it exactly.

    Args:
        path: of the checkpoint.
        module: receives the tensors, in its own dtypes.
        model: name that the checkpoint must have.

    Raises:
        InputError: another model, missing or foreign tensors, or other shapes.
    """
    info = read_info(path)
    if info.model != model:
        raise InputError(f"a checkpoint of '{info.model}'", str(path), f"'{model}' was asked for")
    if info.partial:
        raise InputError(
            f"a part of the weights of '{info.model}', to begin a training with",
            str(path),
            "amodal train ... init= takes it",
        )
    module.load_state_dict(fitted(read_weights(path), module.state_dict(), path, _CURE))
    return info


def load_shared(
    path: str | Path, module: nn.Module, skip: bool = False, without: Collection[str] = ()
) -> tuple[int, int]:
    """Load what a checkpoint of another model has in common with a module, by name.

    Args:
        path: of the checkpoint.
        module: receives the tensors, in its own dtypes; the others stay as they are.
        skip: pass over tensors of one name with different shapes instead of raising an error; a
            convolution that sees more channels in the module begins blind to those.
        without: names of tensors that stay as they are.

    Returns:
        How many of the module's tensors were loaded, and how many it has.

    Raises:
        InputError: nothing is shared, or tensors of one name have different shapes.
    """
    info, state, own = read_info(path), read_weights(path), module.state_dict()
    shared = set(state) & set(own) - set(without)
    if skip:
        state = {name: _widened(state[name], own[name]) for name in shared}
        shared = {name for name in shared if state[name].shape == own[name].shape}
    if not shared:
        raise InputError(
            f"a checkpoint of '{info.model}', which shares no tensor with the model",
            str(path),
            "give one of a model with the same trunk",
        )
    loaded = {name: state[name] for name in sorted(shared)}
    module.load_state_dict(fitted(loaded, {k: own[k] for k in loaded}, path, _CURE), strict=False)
    return len(loaded), len(own)


def _widened(kernel: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """A convolution's kernel with zeros for the channels that the module's own sees more."""
    more = own.shape[1] - kernel.shape[1] if kernel.ndim == own.ndim == 4 else 0
    if more <= 0 or kernel.shape[0] != own.shape[0] or kernel.shape[2:] != own.shape[2:]:
        return kernel
    return torch.cat([kernel, kernel.new_zeros((len(kernel), more, *kernel.shape[2:]))], 1)
