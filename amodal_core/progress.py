"""How work that takes long tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

# Is called with how much is done, and how much there is in all.
Progress = Callable[[int, int], None]
# The same for work of several stages, whose name comes first.
StageProgress = Callable[[str, int, int], None]
# Hands the items on, while it shows how many of so many, of what, are through.
ProgressBar = Callable[[Iterable[Any], int, str], Iterable[Any]]


def no_bar(items: Iterable[Any], _total: int, _what: str) -> Iterable[Any]:
    """A `ProgressBar` that shows nothing."""
    return items
