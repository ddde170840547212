"""How work that takes long tells how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
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


def tell(line: str) -> None:
    """Say before it begins that something takes long: one line on stderr."""
    print(line, file=sys.stderr, flush=True)


@lru_cache(maxsize=1)
def announce_compiling() -> None:
    """From now on, tell when the first kernel of this process is compiled and not read from disk.

    What is compiled lies beside the sources, or in the user's cache where they cannot be written,
    until the sources or numba change.
    """
    from numba.core import event

    class Listener(event.Listener):
        announced = False

        def on_start(self, event: Any) -> None:
            if not self.announced:
                tell(
                    "compiling kernels for this machine, once: up to half a minute "
                    "(`amodal doctor --warm` does it beforehand)"
                )
            self.announced = True

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Listener())
