"""Loggers: a line on stderr for each message, and the node's on /rosout too."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from embedded_ros.importer import Partial, refuse_arguments


class LoggingSeverity(IntEnum):
    """Severities, numbered as in rcutils."""

    UNSET = 0
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50


_COLORS = {10: "\033[32m", 30: "\033[33m", 40: "\033[31m", 50: "\033[31m"}
_levels: dict[str, LoggingSeverity] = {"": LoggingSeverity.INFO}
# Name of a node's logger -> what publishes the fields of a rcl_interfaces/Log.
rosout: dict[str, Callable[..., None]] = {}
_lock = threading.Lock()
_loggers: dict[str, RcutilsLogger] = {}


def _ancestors(name: str) -> list[str]:
    parts = name.split(".") if name else []
    return [".".join(parts[:n]) for n in range(len(parts), -1, -1)]


class RcutilsLogger(Partial):
    """A named logger; children are named parent.child and inherit its level."""

    _absent = "get_effective_level is_enabled_for"

    def __init__(self, name: str = "") -> None:
        self.name = name
        # Call site -> when its message was last printed, on a steady clock.
        self._printed: dict[tuple[str, int], float] = {}

    def get_child(self, name: str) -> RcutilsLogger:
        """The logger parent.name."""
        return get_logger(f"{self.name}.{name}" if self.name else name)

    def set_level(self, level: LoggingSeverity | int) -> None:
        """Drop what is less severe."""
        set_logger_level(self.name, level)

    def log(
        self,
        message: str,
        severity: LoggingSeverity | int,
        *,
        throttle_duration_sec: float | None = None,
        once: bool = False,
        **absent: Any,
    ) -> bool:
        """Print, unless the level or a filter of the calling line says no.

        Args:
            message: what to say.
            severity: how bad it is.
            throttle_duration_sec: at most one message of this line in so many seconds.
            once: only this line's first message.
            absent: what rclpy has besides; refused.
        """
        refuse_arguments("rclpy.logging.RcutilsLogger.log", absent)
        levels = (level for name in _ancestors(self.name) if (level := _levels.get(name)))
        if severity < next(levels, LoggingSeverity.INFO):
            return False
        frame = inspect.currentframe()
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        place = (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)
        period = float("inf") if once else throttle_duration_sec or 0.0
        with _lock:
            now = time.monotonic()
            if now - self._printed.get(place, -float("inf")) < period:
                return False
            self._printed[place] = now
        function = frame.f_code.co_name if frame else ""
        self._print(str(message), LoggingSeverity(severity), place, function)
        return True

    def _print(
        self, message: str, severity: LoggingSeverity, place: tuple[str, int], function: str
    ) -> None:
        now = time.time_ns()
        line = f"[{severity.name}] [{now // 10**9}.{now % 10**9:09d}] [{self.name}]: {message}"
        wanted = os.environ.get("RCUTILS_COLORIZED_OUTPUT")
        if wanted == "1" or (wanted is None and sys.stderr.isatty()):
            line = f"{_COLORS.get(severity, '')}{line}\033[0m"
        print(line, file=sys.stderr, flush=True)
        publish = next((rosout[n] for n in _ancestors(self.name) if n in rosout), None)
        if publish is not None:
            publish(
                now,
                level=int(severity),
                name=self.name,
                msg=message,
                file=place[0],
                function=function,
                line=place[1],
            )

    def debug(self, message: str, **kwargs: Any) -> bool:
        """Log at DEBUG; see log()."""
        return self.log(message, LoggingSeverity.DEBUG, **kwargs)

    def info(self, message: str, **kwargs: Any) -> bool:
        """Log at INFO; see log()."""
        return self.log(message, LoggingSeverity.INFO, **kwargs)

    def warning(self, message: str, **kwargs: Any) -> bool:
        """Log at WARN; see log()."""
        return self.log(message, LoggingSeverity.WARN, **kwargs)

    warn = warning

    def error(self, message: str, **kwargs: Any) -> bool:
        """Log at ERROR; see log()."""
        return self.log(message, LoggingSeverity.ERROR, **kwargs)

    def fatal(self, message: str, **kwargs: Any) -> bool:
        """Log at FATAL; see log()."""
        return self.log(message, LoggingSeverity.FATAL, **kwargs)


def get_logger(name: str) -> RcutilsLogger:
    """The logger of this name; the same object each time."""
    with _lock:
        return _loggers.setdefault(name, RcutilsLogger(name))


def set_logger_level(name: str, level: LoggingSeverity | int) -> None:
    """Set the level of a logger and of its children; the empty name is the root."""
    _levels[name] = LoggingSeverity(level)
