"""Timers and rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .clock import Clock, ClockChange, JumpThreshold, TimeJump
from .duration import Duration
from .exceptions import ROSInterruptException

if TYPE_CHECKING:
    from .node import Node


class Timer:
    """Calls back at a fixed period of a clock; see Node.create_timer.

    A late timer runs once and goes on in phase. When its clock goes back, it starts a new period.
    """

    condition = None

    def __init__(
        self,
        node: Node,
        callback: Callable[..., Any],
        callback_group: Any,
        timer_period_ns: int,
        clock: Clock,
        autostart: bool = True,
    ) -> None:
        if timer_period_ns < 0:
            raise ValueError("timer period must not be negative")
        self._node = node
        self.callback = callback
        self.callback_group = callback_group
        self.timer_period_ns = timer_period_ns
        self.clock = clock
        self._canceled = not autostart
        self._last = clock.now().nanoseconds
        self._next = self._last + timer_period_ns
        self._jumps = clock.create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=self._jumped,
        )

    def _jumped(self, jump: TimeJump) -> None:
        now = self.clock.now().nanoseconds
        changed = jump.clock_change is not ClockChange.ROS_TIME_NO_CHANGE
        if changed or now < self._last:
            self._last, self._next = now, now + self.timer_period_ns
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
        self._last = self.clock.now().nanoseconds
        self._next = self._last + self.timer_period_ns
        self._canceled = False
        self._node._wake()

    def time_since_last_call(self) -> int:
        """Nanoseconds since it last ran."""
        return self.clock.now().nanoseconds - self._last

    def time_until_next_call(self) -> int | None:
        """Nanoseconds until it is due; None where canceled."""
        return None if self._canceled else self._next - self.clock.now().nanoseconds

    def destroy(self) -> None:
        """Stop it for good."""
        self._node.destroy_timer(self)

    def _close(self) -> list[Any]:
        self._canceled = True
        self._jumps.unregister()
        return []

    def _wait_nanoseconds(self) -> int | None:
        """How long to sleep for it; None where the clock's next step will wake it."""
        if self._canceled:
            return None
        left = self._next - self.clock.now().nanoseconds
        return None if self.clock._driven and left > 0 else max(0, left)

    def _take(self) -> Callable[[], Any] | None:
        now = self.clock.now().nanoseconds
        if self._canceled or now < self._next:
            return None
        self._last = now
        self._next += self.timer_period_ns
        if self._next < now:
            periods = -(-(now - self._next) // self.timer_period_ns) if self.timer_period_ns else 0
            self._next = self._next + periods * self.timer_period_ns if periods else now
        return self.callback


class Rate:
    """Sleeps so that a loop runs at a fixed frequency of a clock."""

    def __init__(self, frequency: float, clock: Clock, context: Any) -> None:
        if frequency <= 0:
            raise ValueError("frequency must be > 0")
        self._period = Duration(nanoseconds=int(1e9 / frequency))
        self._clock, self._context = clock, context
        self._next = clock.now() + self._period

    def sleep(self) -> None:
        """Sleep until the period is over.

        Raises:
            ROSInterruptException: the context was shut down.
        """
        if not self._context.ok():
            raise ROSInterruptException
        now = self._clock.now()
        if now - self._next > self._period or self._next - now > self._period:
            self._next = now + self._period
        self._clock.sleep_until(self._next, self._context)
        if not self._context.ok():
            raise ROSInterruptException
        self._next = self._next + self._period

    def destroy(self) -> None:
        """Nothing to free."""
