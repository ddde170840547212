"""Events of a launch."""

from __future__ import annotations

from typing import Any

from ..core import Event, missing
from . import process

__all__ = ["Shutdown", "process"]


class Shutdown(Event):
    """The launch is to end.

    Args:
        reason: one line for the log.
        due_to_sigint: the user pressed ctrl-c.
    """

    def __init__(
        self, *, reason: str = "reason not given", due_to_sigint: bool = False, **_: Any
    ) -> None:
        self.reason = reason
        self.due_to_sigint = due_to_sigint


def __getattr__(name: str) -> Any:
    raise missing(f"launch.events.{name}", name)
