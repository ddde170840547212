"""What is written once for arrays of NumPy and for tensors of torch, on whatever device.

`library(x)` is the module whose functions take x. NumPy and torch name most of them alike, by
position: where, minimum, clip, stack, amin, zeros_like; those that differ are here. Only tensors
import torch, which takes seconds, and so arrays work where it is not installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def library(values: Any) -> Any:
    """The module of an array's functions, numpy or torch."""
    if isinstance(values, np.ndarray):
        return np
    import torch

    return torch


def host(values: Any) -> np.ndarray:
    """The array itself, or a tensor's values on the host."""
    if isinstance(values, np.ndarray):
        return values
    array: np.ndarray = values.detach().cpu().numpy()
    return array


def floats(values: Any) -> Any:
    """The same as float32."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float32, copy=False)
    return values.float()


def integers(values: Any) -> Any:
    """The same as int64, cut towards zero."""
    return values.astype(np.int64) if isinstance(values, np.ndarray) else values.long()


def steps(count: int, like: Any) -> Any:
    """(count,) float32: 0, 1, 2, ... where `like` is."""
    if isinstance(like, np.ndarray):
        return np.arange(count, dtype=np.float32)
    import torch

    return torch.arange(count, dtype=torch.float32, device=like.device)


def like(values: Any, array: Any) -> Any:
    """Numbers of a list or another array in the type, and where, `array` is."""
    if isinstance(array, np.ndarray):
        return np.asarray(values, array.dtype)
    import torch

    return torch.as_tensor(values).to(array)


def nan_median(values: Any) -> Any:
    """(N,) lower median of each row of (N, M) without NaN; NaN where there is nothing else."""
    if not isinstance(values, np.ndarray):
        return values.nanmedian(dim=1).values
    count = (~np.isnan(values)).sum(axis=1)
    middle = np.maximum(count - 1, 0) // 2
    ordered = np.sort(values, axis=1)  # NaN last
    return np.take_along_axis(ordered, middle[:, None], axis=1)[:, 0]
