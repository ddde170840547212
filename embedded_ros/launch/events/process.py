"""Events of one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import Event, missing


class ProcessStarted(Event):
    """A process runs.

    Args:
        action: what started it.
        name: its name in the log, such as tracking-3.
        cmd: command line.
        pid: process id.
    """

    def __init__(self, action: Any, name: str, cmd: Sequence[str], pid: int) -> None:
        self.action = action
        self.process_name = name
        self.cmd = list(cmd)
        self.pid = pid


class ProcessExited(ProcessStarted):
    """A process ended.

    Args:
        action: what started it.
        name: its name in the log.
        cmd: command line.
        pid: process id.
        returncode: exit code, negative for a signal.
    """

    def __init__(
        self, action: Any, name: str, cmd: Sequence[str], pid: int, returncode: int
    ) -> None:
        super().__init__(action, name, cmd, pid)
        self.returncode = returncode


def __getattr__(name: str) -> Any:
    raise missing(f"launch.events.process.{name}", name)
