"""Timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedded_ros.importer import Partial

from .clock import Clock


class Timer(Partial):
    """Calls back at a fixed period of a clock; see Node.create_timer.

    A late timer runs once and goes on in phase. When its clock goes back, it starts a new period.
    """

    _absent = "time_since_last_call time_until_next_call"
    condition = None

    def __init__(
        self, node: Any, callback: Callable[[], Any], timer_period_ns: int, clock: Clock
    ) -> None:
        if timer_period_ns < 0:
            raise ValueError("timer period must not be negative")
        self._node = node
        self.callback = callback
        self.timer_period_ns = timer_period_ns
        self.clock = clock
        self.reset()
        clock._watch(self._clock_moved)

    def _clock_moved(self, jumped: bool) -> None:
        if jumped:
            self._next = self.clock.now().nanoseconds + self.timer_period_ns
        self._node._wake()

    def is_ready(self) -> bool:
        """Whether it is due."""
        return not self._canceled and self.clock.now().nanoseconds >= self._next

    def is_canceled(self) -> bool:
        """Whether cancel() stopped it."""
        return self._canceled

    def cancel(self) -> None:
        """Stop it; reset() starts it again."""
        self._canceled = True

    def reset(self) -> None:
        """Start a new period now."""
        self._next = self.clock.now().nanoseconds + self.timer_period_ns
        self._canceled = False
        self._node._wake()

    def _close(self) -> list[Any]:
        self._canceled = True
        self.clock._unwatch(self._clock_moved)
        return []

    def _wait_nanoseconds(self) -> int | None:
        """How long to sleep for it; None where the clock's next step will wake it."""
        if self._canceled:
            return None
        left = self._next - self.clock.now().nanoseconds
        return None if self.clock.ros_time_is_active and left > 0 else max(0, left)

    def _take(self) -> Callable[[], Any] | None:
        if not self.is_ready():
            return None
        late, period = self.clock.now().nanoseconds - self._next, self.timer_period_ns
        # The first multiple of the period that is not over.
        self._next += max(1, -(-late // period)) * period if period else late
        return self.callback
