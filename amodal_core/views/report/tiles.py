"""The numbers that stand large on every report: one unit, one definition beside each."""

from __future__ import annotations

import math
from typing import NamedTuple


class Tile(NamedTuple):
    """A number of a report.

    Attributes:
        value: as it is shown.
        label: what it is called.
        says: its definition, a few words; "" where the label is one.
    """

    value: str
    label: str
    says: str = ""


def percent(value: float | None) -> str:
    """A share of 1 in percent; a dash where there is nothing to count."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def number(value: float | None) -> str:
    """A number that is no share; a dash where there is nothing to count."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def identities(total: int, tracked: int, survived: int) -> Tile:
    """Identities through full occlusion: a count and what it counts.

    A share alone would hide of how few it is, and that an object that was never tracked before
    could keep nothing.

    Args:
        total: full occlusions after which the object was visible again.
        tracked: those whose object had been tracked before.
        survived: those of them after which its id was the same.
    """
    if not total:
        return Tile("-", "identities kept: no object was wholly hidden and came back")
    untracked = f"{total - tracked} full occlusions were of objects not tracked before"
    if not tracked:
        return Tile("-", f"identities kept: all {untracked}")
    label = "identities kept through full occlusion"
    return Tile(f"{survived} of {tracked}", f"{label}; {untracked}" if total > tracked else label)
