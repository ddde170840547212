"""Latency of a stream: from a frame's arrival to its answer, matched by the stamp."""

from __future__ import annotations

from array import array
from collections import OrderedDict

import numpy as np

_KEPT = 1000  # frames that may be unanswered before the oldest count as lost


class LatencyMeter:
    """Collects when frames and their answers came, in any order and with gaps.

    Times are seconds of one monotonic clock; stamps are the frames', nanoseconds.
    """

    def __init__(self) -> None:
        self._frames: OrderedDict[int, float] = OrderedDict()
        self._early: OrderedDict[int, float] = OrderedDict()
        self._ms = array("d")  # eight bytes a frame, all day
        self._began: float | None = None
        self._ended = 0.0
        self.frames = 0
        self.forgotten = 0

    def frame(self, stamp: int, at: float) -> None:
        """A frame came in."""
        self.frames += 1
        if self._began is None:
            self._began = at
        answer = self._early.pop(stamp, None)
        if answer is not None:
            self._ms.append(max(answer - at, 0.0) * 1e3)
            return
        self._frames[stamp] = at
        if len(self._frames) > _KEPT:
            self._frames.popitem(last=False)
            self.forgotten += 1

    def answer(self, stamp: int, at: float) -> None:
        """Its result came out."""
        self._ended = max(self._ended, at)
        began = self._frames.pop(stamp, None)
        if began is None:
            # Two topics have no common order: an answer can be seen before its frame.
            self._early[stamp] = at
            if len(self._early) > _KEPT:
                self._early.popitem(last=False)
            return
        self._ms.append((at - began) * 1e3)

    @property
    def answered(self) -> int:
        """Frames whose answer came."""
        return len(self._ms)

    @property
    def unanswered(self) -> int:
        """Frames whose answer has not come."""
        return len(self._frames) + self.forgotten

    def summary(self) -> dict[str, float]:
        """frames, answered, unanswered, fps, and p50_ms, p95_ms, p99_ms, max_ms where any came."""
        took = self._ended - self._began if self._began is not None else 0.0
        values: dict[str, float] = {
            "frames": self.frames,
            "answered": self.answered,
            "unanswered": self.unanswered,
            "fps": round(self.answered / took, 3) if took > 0 else 0.0,
        }
        if self._ms:
            p50, p95, p99 = np.percentile(self._ms, (50, 95, 99))
            values.update(p50_ms=round(p50, 3), p95_ms=round(p95, 3), p99_ms=round(p99, 3))
            values["max_ms"] = round(max(self._ms), 3)
        return values
