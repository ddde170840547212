"""What a node knows of its own state; the base node publishes it on /diagnostics."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

OK, WARN, ERROR = 0, 1, 2
_WINDOW = 100  # frames that the milliseconds are taken over
# Keys of the values on /diagnostics; `NodeState` reads what `Health.summary` writes.
_FRAMES, _DROPPED, _MILLISECONDS, _WRONG = "frames", "dropped: ", "processing ms, ", "wrong: "
_MESSAGES, PROCESS = ": messages", "process"
HOST = socket.gethostname()  # hardware_id of all nodes here


@dataclass(frozen=True)
class NodeState:
    """What the values of a node's diagnostics say.

    Attributes:
        drops: frames and messages given up so far, by reason.
        milliseconds: of processing a frame, by "last", "p50", "p95" and "p99".
        wrong: kinds of what is wrong now, and a line for each.
        inputs: topics that it subscribes to; none while it is not active.
        process: number of its process, "" where it is not said.
    """

    drops: dict[str, int]
    milliseconds: dict[str, float]
    wrong: dict[str, str]
    inputs: tuple[str, ...] = ()
    process: str = ""

    @classmethod
    def read(cls, values: Mapping[str, str]) -> NodeState | None:
        """The state in values of a DiagnosticStatus; None where they are not of our nodes."""
        if _FRAMES not in values:
            return None

        def after(prefix: str) -> dict[str, str]:
            return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}

        try:
            drops = {reason: int(count) for reason, count in after(_DROPPED).items()}
            milliseconds = {name: float(ms) for name, ms in after(_MILLISECONDS).items()}
        except ValueError:
            return None  # another's, whose words are like ours
        inputs = tuple(k.removesuffix(_MESSAGES) for k in values if k.endswith(_MESSAGES))
        return cls(drops, milliseconds, after(_WRONG), inputs, values.get(PROCESS, ""))


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
            source = self._inputs.get(key)
            if source is not None:
                source.count += 1
                source.stamp = stamp
                source.arrived = self._clock()

    def processed(self, stamp: int, ms: float) -> None:
        """A frame was processed in so many milliseconds."""
        with self._lock:
            self._processed += 1
            self._stamp = stamp
            self._ms.append(ms)

    def dropped(self, reason: str) -> int:
        """A frame or a message was given up; how many so far for this reason."""
        with self._lock:
            self._drops[reason] += 1
            return self._drops[reason]

    def count(self, key: str) -> int:
        """Messages of an input since it is watched."""
        with self._lock:
            source = self._inputs.get(key)
            return source.count if source is not None else 0

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
            level, wrong = OK, dict[str, str]()
            for source in self._inputs.values():
                silent = now - source.arrived
                if source.required and silent > stale_after:
                    level = max(level, ERROR if silent > lost_after else WARN)
                    ever = "" if source.count else " ever"
                    line = f"no message{ever} on {source.topic} for {silent:.1f} s"
                    wrong[f"no message on {source.topic}"] = line
            for key, text in self._conditions.items():
                level = ERROR
                wrong[key] = text
            total = sum(self._drops.values())
            if self._errors > self._reported_errors:
                level = ERROR
                count = self._errors - self._reported_errors
                wrong["exceptions"] = f"{count} exceptions: {self._last_error}"
            if total > self._reported_drops:
                level = max(level, WARN)
                wrong["dropped"] = f"{total - self._reported_drops} dropped"
            self._reported_drops, self._reported_errors = total, self._errors
            values = {
                _FRAMES: str(self._processed),
                "last stamp": _seconds(self._stamp),
                "exceptions": str(self._errors),
                "dropped": str(total),
            }
            if self._last_error:
                values["last exception"] = self._last_error
            if self._ms:
                quantiles = np.percentile(self._ms, (50, 95, 99))
                names = ("last", "p50", "p95", "p99")
                for name, ms in zip(names, (self._ms[-1], *quantiles), strict=True):
                    values[f"{_MILLISECONDS}{name}"] = f"{ms:.2f}"
            values |= {f"{_DROPPED}{reason}": str(n) for reason, n in sorted(self._drops.items())}
            values |= {f"{_WRONG}{kind}": line for kind, line in wrong.items()}
            for source in self._inputs.values():
                values[f"{source.topic}{_MESSAGES}"] = str(source.count)
                values[f"{source.topic}: last stamp"] = _seconds(source.stamp)
            return level, "; ".join(wrong.values()) or "running", values


def _seconds(stamp: int) -> str:
    return f"{stamp // 1_000_000_000}.{stamp % 1_000_000_000:09d}" if stamp else "none"
