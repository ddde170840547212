"""What NumPy does to few numbers, in a tenth of its time: every object asks for some of it."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def within(value: float, low: float, high: float) -> float:
    """The value, or the bound that it is beyond."""
    return min(max(value, low), high)


def median(values: np.ndarray) -> float:
    """Of (N,) values, N >= 1, as `np.median`: in their own precision."""
    middle = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, middle)[middle])
    ordered = np.partition(values, (middle - 1, middle))
    return float((ordered[middle - 1] + ordered[middle]) / values.dtype.type(2))


@njit(cache=True)
def nth(values: np.ndarray, n: int) -> float:
    """Of (N,) values, none of them NaN, the one that is n-th in order; they change places."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        # Up to j none is above the pivot, from i on none below; what is between is equal to it.
        if n <= j:
            high = j
        elif n >= i:
            low = i
        else:
            break
    return values[n]


@njit(cache=True)
def middle(values: np.ndarray) -> float:
    """`median` within compiled code; the values change places."""
    half = len(values) // 2
    upper = nth(values, half)
    if len(values) % 2:
        return upper
    lower = values[0]
    for i in range(1, half):
        lower = max(lower, values[i])
    return (lower + upper) / 2


@njit(cache=True)
def quantile(values: np.ndarray, share: float) -> float:
    """Of (N,) values, N >= 1, between the two around the share, as `np.quantile`; they move."""
    place = share * (len(values) - 1)
    low = int(place)
    before = after = nth(values, low)
    if low + 1 < len(values):
        after = values[low + 1]
        for i in range(low + 2, len(values)):
            after = min(after, values[i])
    part, own = place - low, values.dtype.type
    # As NumPy does, from the nearer of the two, in the values' precision.
    if part < 0.5:
        return before + (after - before) * own(part)
    return after - (after - before) * own(1 - part)
