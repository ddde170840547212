"""What a node knows of its own state; the base node publishes it on /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

OK, WARN, ERROR = 0, 1, 2
_WINDOW = 100  # frames that the milliseconds are taken over


@dataclass
class _Input:
    topic: str
    required: bool
    count: int = 0
    stamp: int = 0
    arrived: float = 0.0


class Health:
    """Counts inputs, outputs, drops and errors; thread-safe.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._inputs: dict[str, _Input] = {}
        self._processed = 0
        self._stamp = 0
        self._ms: deque[float] = deque(maxlen=_WINDOW)
        self._drops: Counter[str] = Counter()
        self._reported_drops = 0
        self._errors = 0
        self._reported_errors = 0
        self._last_error = ""
        self._conditions: dict[str, str] = {}

    def expect(self, key: str, topic: str, required: bool) -> None:
        """Watch an input from now on."""
        with self._lock:
            self._inputs[key] = _Input(topic, required, arrived=self._clock())

    def forget_inputs(self) -> None:
        """Watch none, while the node is not active."""
        with self._lock:
            self._inputs.clear()

    def received(self, key: str, stamp: int) -> None:
        """A message with a stamp in nanoseconds came in."""
        with self._lock:
            found = self._inputs.get(key)
            if found is not None:
                found.count += 1
                found.stamp = stamp
                found.arrived = self._clock()

    def processed(self, stamp: int, ms: float) -> None:
        """A frame was processed in so many milliseconds."""
        with self._lock:
            self._processed += 1
            self._stamp = stamp
            self._ms.append(ms)

    def dropped(self, reason: str) -> None:
        """A frame or a message was given up."""
        with self._lock:
            self._drops[reason] += 1

    def failed(self, error: str) -> None:
        """An exception was caught."""
        with self._lock:
            self._errors += 1
            self._last_error = error

    def condition(self, key: str, text: str) -> None:
        """Something that lasts is wrong; an empty text says that it is mended."""
        with self._lock:
            if text:
                self._conditions[key] = text
            else:
                self._conditions.pop(key, None)

    @property
    def drops(self) -> dict[str, int]:
        """Frames and messages given up so far, by reason."""
        with self._lock:
            return dict(self._drops)

    @property
    def frames(self) -> int:
        """Frames processed so far."""
        with self._lock:
            return self._processed

    @property
    def errors(self) -> int:
        """Exceptions caught so far."""
        with self._lock:
            return self._errors

    def summary(self, stale_after: float, lost_after: float) -> tuple[int, str, dict[str, str]]:
        """Level, one line, and values, for a DiagnosticStatus.

        Drops and exceptions count for the level once: in the summary that follows them.
        """
        with self._lock:
            now = self._clock()
            level, lines = OK, []
            for found in self._inputs.values():
                silent = now - found.arrived
                if found.required and silent > stale_after:
                    level = max(level, ERROR if silent > lost_after else WARN)
                    ever = "" if found.count else " ever"
                    lines.append(f"no message{ever} on {found.topic} for {silent:.1f} s")
            for text in self._conditions.values():
                level = ERROR
                lines.append(text)
            total = sum(self._drops.values())
            if self._errors > self._reported_errors:
                level = ERROR
                lines.append(
                    f"{self._errors - self._reported_errors} exceptions: {self._last_error}"
                )
            if total > self._reported_drops:
                level = max(level, WARN)
                lines.append(f"{total - self._reported_drops} dropped")
            self._reported_drops, self._reported_errors = total, self._errors
            values = {
                "frames": str(self._processed),
                "last stamp": _seconds(self._stamp),
                "exceptions": str(self._errors),
                "dropped": str(total),
            }
            if self._last_error:
                values["last exception"] = self._last_error
            if self._ms:
                p50, p95, p99 = np.percentile(self._ms, (50, 95, 99))
                values["processing ms, last"] = f"{self._ms[-1]:.2f}"
                values["processing ms, p50"] = f"{p50:.2f}"
                values["processing ms, p95"] = f"{p95:.2f}"
                values["processing ms, p99"] = f"{p99:.2f}"
            for reason, count in sorted(self._drops.items()):
                values[f"dropped: {reason}"] = str(count)
            for found in self._inputs.values():
                values[f"{found.topic}: messages"] = str(found.count)
                values[f"{found.topic}: last stamp"] = _seconds(found.stamp)
            return level, "; ".join(lines) or "running", values


def _seconds(stamp: int) -> str:
    return f"{stamp // 1_000_000_000}.{stamp % 1_000_000_000:09d}" if stamp else "none"
