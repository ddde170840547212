"""A job for other processes, in a module that they import at once."""

from __future__ import annotations

import os


def half(number: float) -> float:
    """Half of it; nothing can be halved of 0, and what is negative kills the process."""
    if number == 0:
        raise ValueError("nothing to halve")
    if number < 0:
        os._exit(9)
    return number / 2
