"""Loggers: a line on stderr for each message, and the node's on /rosout too."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any


class LoggingSeverity(IntEnum):
    """Severities, numbered as in rcutils."""

    UNSET = 0
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50


_COLORS = {
    LoggingSeverity.DEBUG: "\033[32m",
    LoggingSeverity.WARN: "\033[33m",
    LoggingSeverity.ERROR: "\033[31m",
    LoggingSeverity.FATAL: "\033[31m",
}
_levels: dict[str, LoggingSeverity] = {"": LoggingSeverity.INFO}
# Name of a node's logger -> what publishes (time, severity, name, message, file, function, line).
rosout: dict[str, Callable[..., None]] = {}
_lock = threading.Lock()
_loggers: dict[str, RcutilsLogger] = {}


def _ancestors(name: str) -> list[str]:
    parts = name.split(".") if name else []
    return [".".join(parts[:n]) for n in range(len(parts), -1, -1)]


class RcutilsLogger:
    """A named logger; children are named parent.child and inherit its level."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        # Call site -> state of its once, skip_first and throttle filters.
        self._sites: dict[tuple[str, int], dict[str, Any]] = {}

    def get_child(self, name: str) -> RcutilsLogger:
        """The logger parent.name."""
        if not name:
            raise ValueError("Child logger name must not be empty.")
        return get_logger(f"{self.name}.{name}" if self.name else name)

    def set_level(self, level: LoggingSeverity | int) -> None:
        """Drop what is less severe."""
        set_logger_level(self.name, level)

    def get_effective_level(self) -> LoggingSeverity:
        """The level of this logger or of the nearest ancestor that has one."""
        for name in _ancestors(self.name):
            level = _levels.get(name, LoggingSeverity.UNSET)
            if level is not LoggingSeverity.UNSET:
                return level
        return LoggingSeverity.INFO

    def is_enabled_for(self, severity: LoggingSeverity | int) -> bool:
        """Whether such a message would be printed."""
        return severity >= self.get_effective_level()

    def log(
        self,
        message: str,
        severity: LoggingSeverity | int,
        *,
        throttle_duration_sec: float | None = None,
        throttle_time_source_type: Any = None,
        skip_first: bool = False,
        once: bool = False,
        name: str | None = None,
    ) -> bool:
        """Print, unless the level or a filter of the calling line says no.

        Args:
            message: what to say.
            severity: how bad it is.
            throttle_duration_sec: at most one message of this line in so many seconds.
            throttle_time_source_type: the clock to throttle by; steady time where absent.
            skip_first: leave out this line's first message.
            once: only this line's first message.
            name: the name to print instead of the logger's.
        """
        severity = LoggingSeverity(severity)
        frame = inspect.currentframe()
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        place = (frame.f_code.co_filename, frame.f_lineno) if frame else ("", 0)
        with _lock:
            site = self._sites.setdefault(place, {"severity": severity})
            if site["severity"] is not severity:
                raise ValueError("Logger severity cannot be changed between calls.")
            if not self.is_enabled_for(severity):
                return False
            first = not site.get("seen")
            site["seen"] = True
            if (once and not first) or (skip_first and first):
                return False
            if throttle_duration_sec is not None:
                now = (
                    throttle_time_source_type.now().nanoseconds
                    if throttle_time_source_type is not None
                    else time.monotonic_ns()
                )
                last = site.get("last")
                # A clock that went back starts a new period.
                if last is not None and 0 <= now - last < throttle_duration_sec * 1e9:
                    return False
                site["last"] = now
        function = frame.f_code.co_name if frame else ""
        self._emit(str(message), severity, name or self.name, place, function)
        return True

    def _emit(
        self,
        message: str,
        severity: LoggingSeverity,
        name: str,
        place: tuple[str, int],
        function: str,
    ) -> None:
        now = time.time_ns()
        line = f"[{severity.name}] [{now // 10**9}.{now % 10**9:09d}] [{name}]: {message}"
        wanted = os.environ.get("RCUTILS_COLORIZED_OUTPUT")
        if wanted == "1" or (wanted is None and sys.stderr.isatty()):
            line = f"{_COLORS.get(severity, '')}{line}\033[0m"
        print(line, file=sys.stderr, flush=True)
        for owner in _ancestors(name):
            publish = rosout.get(owner)
            if publish is not None:
                publish(now, int(severity), name, message, place[0], function, place[1])
                break

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


def get_logger_level(name: str) -> LoggingSeverity:
    """The level set for this very name."""
    return _levels.get(name, LoggingSeverity.UNSET)


def get_logger_effective_level(name: str) -> LoggingSeverity:
    """The level in force for this name."""
    return RcutilsLogger(name).get_effective_level()


def get_logging_severity_from_string(log_severity: str) -> LoggingSeverity:
    """A severity by name in any case."""
    try:
        return LoggingSeverity[log_severity.upper()]
    except KeyError:
        raise RuntimeError(f"Invalid severity string '{log_severity}'") from None


def get_logging_directory() -> Path:
    """Where ROS 2 would write log files; embedded_ros writes none."""
    home = os.environ.get("ROS_HOME", "~/.ros")
    return Path(os.environ.get("ROS_LOG_DIR") or f"{home}/log").expanduser()
