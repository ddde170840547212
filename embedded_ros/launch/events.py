"""Events of a launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .core import Event, LaunchDescriptionEntity


class Shutdown(Event):
    """The launch is to end; `reason` is one line for the log."""

    def __init__(self, *, reason: str = "reason not given") -> None:
        self.reason = reason


class TimerEvent(Event):
    """The time of a TimerAction is over; `entities` are visited."""

    def __init__(self, entities: Sequence[LaunchDescriptionEntity]) -> None:
        self.entities = entities


class ProcessExited(Event):
    """A process ended.

    Args:
        action: what started it.
        name: its name in the log, such as tracking-3.
        cmd: command line.
        pid: process id.
        returncode: exit code, negative for a signal.
    """

    def __init__(
        self, action: Any, name: str, cmd: Sequence[str], pid: int, returncode: int
    ) -> None:
        self.action, self.process_name, self.cmd = action, name, list(cmd)
        self.pid, self.returncode = pid, returncode
