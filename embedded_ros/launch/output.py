"""Lines on the screen and in the launch's log file."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

_lock = threading.Lock()
_file: TextIO | None = None


def log_folder() -> Path:
    """Where ROS 2 keeps logs: ROS_LOG_DIR, else ROS_HOME/log, else ~/.ros/log."""
    if os.environ.get("ROS_LOG_DIR"):
        return Path(os.environ["ROS_LOG_DIR"])
    home = os.environ.get("ROS_HOME")
    return (Path(home) if home else Path.home() / ".ros") / "log"


def open_log() -> Path | None:
    """Begin the log file of a launch; None where the folder cannot be written."""
    global _file
    stamp = time.strftime("%Y-%m-%d-%H-%M-%S")
    place = log_folder() / f"{stamp}-{os.getpid()}" / "launch.log"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _file = place.open("w", encoding="utf-8", buffering=1)
    except OSError:
        _file = None
        return None
    return place


def close_log() -> None:
    """End the log file."""
    global _file
    with _lock:
        if _file is not None:
            _file.close()
            _file = None


def emit(line: str, *, error: bool = False, screen: bool = True) -> None:
    """Write a whole line, never mixed with another thread's."""
    with _lock:
        if screen:
            print(line, file=sys.stderr if error else sys.stdout, flush=True)
        if _file is not None:
            _file.write(f"{time.time():.6f} {line}\n")


def say(level: str, who: str, text: str) -> None:
    """A line of launch itself."""
    emit(f"[{level}] [{who}]: {text}", error=level in ("ERROR", "WARNING"))
