"""Other projects' files of weights, read without running any code of theirs.

A training script leaves more than tensors behind: optimiser states, logs and settings as objects of
its own classes. Tensors and plain values are read, any other object is an empty stand-in.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load as load_safetensors

from amodal_core import pickles, torch_files
from amodal_core.errors import InputError, foreign
from amodal_core.models.layers import mobile_sam
from amodal_core.models.layers.weights import check_extent
from amodal_core.unpacking import unpack

# Where files keep their weights beside other things, in the order in which they are looked for.
_INNER = ("state_dict", "model_state_dict", "model_state", "model", "blobs", "ema", "net", "module")
_DEEPEST = 4  # tables inside tables
_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_CURE = "copy it again, or name a file of weights"


@dataclass
class WeightFile:
    """What a file holds.

    Attributes:
        path: of it.
        tensors: by their names, wrappers' prefixes taken off; on the host.
        meta: what else the file says of itself, plain values by name.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any] = field(default_factory=dict)


def read_file(path: str | Path) -> WeightFile:
    """Read .pth, .pt, .bin, .pkl, .npy or .safetensors, packed with gzip or not.

    A folder with MobileSAM's graphs is read as `layers.mobile_sam` says.

    Raises:
        InputError: there is no such file, or it holds no table of tensors.
    """
    path = Path(path)
    if mobile_sam.has_graphs(path):
        return WeightFile(path, mobile_sam.graph_weights(path))
    if not path.is_file():
        raise InputError("there are no such weights", str(path), "check the path")
    with foreign(path, "not a file of weights", _CURE):
        content = path.read_bytes()
        suffixes = [s.lower() for s in path.suffixes]
        if content[:2] == b"\x1f\x8b":
            content = unpack(content, "gzip")
            suffixes = [s for s in suffixes if s != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    try:
        if suffix == ".safetensors":
            value: Any = load_safetensors(content)
        elif suffix == ".npy":
            value = pickles.load_npy(path)
        elif content[:2] == b"PK" or suffix != ".pkl":
            value = _of_torch(content)
        else:
            value = pickles.load(path)
    except InputError:
        raise
    except Exception as error:
        # torch raises pickle, zip and runtime errors alike for files that are no weights.
        line = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, KeyError):
            line = f"{line} is no step of a pickle"
        raise InputError(f"not a file of weights: {line[:200]}", str(path), _CURE) from None
    if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.reshape(-1)[0]  # a dictionary that NumPy saved
    with foreign(path, "not a file of weights", _CURE):
        tensors = _tensors(value)
    if not tensors:
        raise InputError("no table of tensors by name in it", str(path), _CURE)
    meta = {k: v for k, v in value.items() if not isinstance(v, torch.Tensor | np.ndarray)}
    return WeightFile(path, _unwrapped(tensors), meta)


def _tensors(value: Any, deep: int = 0) -> dict[str, torch.Tensor]:
    """The table of tensors in a value, whichever way it is wrapped; empty where there is none."""
    if not isinstance(value, Mapping) or deep > _DEEPEST:
        return {}
    own = {str(k): t for k, v in value.items() if (t := _tensor(v)) is not None}
    inner = next((i for name in _INNER if (i := _tensors(value.get(name), deep + 1))), {})
    # A file may hold single numbers (an epoch, a loss) beside the network.
    return inner if len(inner) > len(own) else own


def _tensor(value: Any) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        check_extent(value)
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(value))
    return None


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in _WRAPPERS * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    return tensors


class _StandIn(dict[Any, Any]):
    """In the place of an object of foreign code: takes whatever it is made from, and drops it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Nothing of it is kept."""

    def append(self, _: Any) -> None:
        """Nothing of it is kept."""

    def extend(self, _: Any) -> None:
        """Nothing of it is kept."""


# What makes tensors and containers of what lies in the file.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


# Python's own machine: the compiled one makes room for as many bytes as the file states.
_Machine: Any = pickle._Unpickler


class _Unpickler(_Machine):
    dispatch: ClassVar = {
        code: step for code, step in _Machine.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return _ALLOWED.get((module, name), _StandIn)


def _load(file: Any, **settings: Any) -> Any:
    return _Unpickler(file, **settings).load()


_RESTRICTED = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="restricted pickle")


def _of_torch(content: bytes) -> Any:
    """What `torch.save` wrote; its own safe reader first, which refuses files with objects."""
    torch_files.check(content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing source code of the stand-ins
            return torch.load(
                io.BytesIO(content),
                map_location="cpu",
                weights_only=False,
                pickle_module=_RESTRICTED,
            )
