"""Shuts contexts down on SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from enum import IntEnum
from typing import Any

from . import context

_previous: dict[int, Any] = {}


class SignalHandlerOptions(IntEnum):
    """Which signals to handle."""

    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3


def install_signal_handlers(options: SignalHandlerOptions = SignalHandlerOptions.ALL) -> None:
    """Handle the signals, where this is the main thread; Python allows no other."""
    if threading.current_thread() is not threading.main_thread():
        return
    for option, number in (
        (SignalHandlerOptions.SIGINT, signal.SIGINT),
        (SignalHandlerOptions.SIGTERM, signal.SIGTERM),
    ):
        if options & option and number not in _previous:
            _previous[number] = signal.signal(number, _handle)


def uninstall_signal_handlers() -> None:
    """Put the former handlers back."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in list(_previous):
        signal.signal(number, _previous.pop(number))


def _handle(number: int, frame: Any) -> None:
    for running in list(context.running):
        running.try_shutdown()
    # Python's own SIGINT handler raises KeyboardInterrupt, as under rclpy.
    previous = _previous.get(number)
    if callable(previous):
        previous(number, frame)
