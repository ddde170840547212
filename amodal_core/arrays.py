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


def unwrapped(values: Any) -> Any:
    """A CPU's tensor as an array on the same memory; anything else as it is."""
    if isinstance(values, np.ndarray) or values.device.type != "cpu":
        return values
    return host(values)


def floats(values: Any) -> Any:
    """The same as float32."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float32, copy=False)
    return values.float()


def like(values: Any, array: Any) -> Any:
    """Numbers of a list or another array in the type, and where, `array` is."""
    if isinstance(array, np.ndarray):
        return np.asarray(values, array.dtype)
    import torch

    return torch.as_tensor(values).to(array)


def positions(index: Any, count: int) -> np.ndarray:
    """(K,) int64 places, 0 and up, of what a slice, numbers or bools choose of so many."""
    if not isinstance(index, slice):
        index = np.asarray(index)
        if index.size == 0:
            index = index.astype(np.int64)
    return np.arange(count)[index].reshape(-1)
