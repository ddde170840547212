"""Clocks: system, steady, and ROS time that /clock may drive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from .clock_type import ClockType
from .duration import Duration
from .exceptions import NotInitializedException
from .time import Time

__all__ = [
    "Clock",
    "ClockChange",
    "ClockType",
    "JumpHandle",
    "JumpThreshold",
    "ROSClock",
    "TimeJump",
]


class ClockChange(IntEnum):
    """What happened to the source of ROS time in a jump."""

    ROS_TIME_NO_CHANGE = 1
    ROS_TIME_ACTIVATED = 2
    ROS_TIME_DEACTIVATED = 3
    SYSTEM_TIME_NO_CHANGE = 4


class TimeJump(NamedTuple):
    """A jump: what changed, and by how much the time moved."""

    clock_change: ClockChange
    delta: Duration


class JumpThreshold:
    """Which jumps a callback wants to hear of; None disables a direction."""

    def __init__(
        self,
        *,
        min_forward: Duration | None,
        min_backward: Duration | None,
        on_clock_change: bool = True,
    ) -> None:
        if min_forward is not None and min_forward.nanoseconds <= 0:
            raise ValueError("min_forward must be a positive non-zero duration")
        if min_backward is not None and min_backward.nanoseconds >= 0:
            raise ValueError("min_backward must be a negative non-zero duration")
        if min_forward is None and min_backward is None and not on_clock_change:
            raise ValueError("At least one jump threshold must be enabled")
        self.min_forward = min_forward
        self.min_backward = min_backward
        self.on_clock_change = on_clock_change

    def exceeded(self, jump: TimeJump) -> bool:
        """Whether the jump is one to report."""
        if jump.clock_change in (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
            return self.on_clock_change
        if self.min_forward is not None and jump.delta >= self.min_forward:
            return True
        return self.min_backward is not None and jump.delta <= self.min_backward


class JumpHandle:
    """Keeps a pair of jump callbacks registered until `unregister()`."""

    def __init__(
        self,
        *,
        clock: Clock,
        threshold: JumpThreshold,
        pre_callback: Callable[[], Any] | None,
        post_callback: Callable[[TimeJump], Any] | None,
    ) -> None:
        if pre_callback is None and post_callback is None:
            raise ValueError("One of pre_callback or post_callback must be callable")
        self._clock, self.threshold = clock, threshold
        self.pre_callback, self.post_callback = pre_callback, post_callback
        clock._jump_handles.append(self)

    def unregister(self) -> None:
        """Call no more."""
        if self in self._clock._jump_handles:
            self._clock._jump_handles.remove(self)

    def __enter__(self) -> JumpHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()


class Clock:
    """A clock of one kind; `Clock(clock_type=ClockType.ROS_TIME)` makes a ROSClock."""

    def __new__(cls, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> Clock:
        """A ROSClock where ROS time is asked for."""
        if not isinstance(clock_type, ClockType):
            raise TypeError("Clock type must be a ClockType enum")
        return super().__new__(ROSClock if clock_type is ClockType.ROS_TIME else cls)

    def __init__(self, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> None:
        self.clock_type = clock_type
        self._jump_handles: list[JumpHandle] = []
        self._moved = threading.Condition()

    def __repr__(self) -> str:
        return f"Clock(clock_type={self.clock_type.name})"

    def now(self) -> Time:
        """The time on this clock."""
        steady = self.clock_type is ClockType.STEADY_TIME
        nanoseconds = time.monotonic_ns() if steady else time.time_ns()
        return Time(nanoseconds=nanoseconds, clock_type=self.clock_type)

    def create_jump_callback(
        self,
        threshold: JumpThreshold,
        *,
        pre_callback: Callable[[], Any] | None = None,
        post_callback: Callable[[TimeJump], Any] | None = None,
    ) -> JumpHandle:
        """Call back before and after jumps beyond the threshold, until the handle is dropped."""
        return JumpHandle(
            clock=self, threshold=threshold, pre_callback=pre_callback, post_callback=post_callback
        )

    def sleep_until(self, until: Time, context: Any = None) -> bool:
        """Sleep until the clock shows this time.

        Returns:
            False where a shutdown or a change of the time source ended the sleep early.
        """
        from .utilities import get_default_context

        context = context or get_default_context()
        if not context.ok():
            raise NotInitializedException
        if until.clock_type != self.clock_type:
            raise ValueError("until's clock type does not match this clock's type")
        driven = self._driven
        with self._moved:
            while context.ok():
                left = until.nanoseconds - self.now().nanoseconds
                if left <= 0:
                    return True
                if self._driven != driven:
                    return False
                # In short naps, to notice a shutdown.
                self._moved.wait(0.1 if driven else min(left / 1e9, 0.1))
        return False

    def sleep_for(self, rel_time: Duration, context: Any = None) -> bool:
        """Sleep for a span on this clock; see sleep_until."""
        return self.sleep_until(self.now() + rel_time, context)

    @property
    def _driven(self) -> bool:
        return False


class ROSClock(Clock):
    """System time, or what a time source sets while ROS time is active."""

    def __new__(cls) -> ROSClock:
        """Always of ROS time."""
        return super().__new__(cls, clock_type=ClockType.ROS_TIME)  # type: ignore[return-value]

    def __init__(self, **_: Any) -> None:
        super().__init__(clock_type=ClockType.ROS_TIME)
        self._active = False
        self._override = 0

    @property
    def _driven(self) -> bool:
        return self._active

    @property
    def ros_time_is_active(self) -> bool:
        """Whether a time source drives this clock."""
        return self._active

    def now(self) -> Time:
        """The overriding time while ROS time is active, else the system's."""
        nanoseconds = self._override if self._active else time.time_ns()
        return Time(nanoseconds=nanoseconds, clock_type=ClockType.ROS_TIME)

    def _set_ros_time_is_active(self, enabled: bool) -> None:
        if enabled == self._active:
            return
        change = ClockChange.ROS_TIME_ACTIVATED if enabled else ClockChange.ROS_TIME_DEACTIVATED
        delta = self._override - time.time_ns()
        jump = TimeJump(change, Duration(nanoseconds=delta if enabled else -delta))

        def switch() -> None:
            self._active = enabled

        self._jump(jump, switch)

    def set_ros_time_override(self, value: Time) -> None:
        """Set the time that the clock shows while ROS time is active."""
        if value.clock_type is not ClockType.ROS_TIME:
            raise TypeError("the override must be a ROS time")

        def move() -> None:
            self._override = value.nanoseconds

        if not self._active:
            move()
            return
        delta = Duration(nanoseconds=value.nanoseconds - self._override)
        self._jump(TimeJump(ClockChange.ROS_TIME_NO_CHANGE, delta), move)

    def _jump(self, jump: TimeJump, change: Callable[[], None]) -> None:
        told = [h for h in list(self._jump_handles) if h.threshold.exceeded(jump)]
        for handle in told:
            if handle.pre_callback:
                handle.pre_callback()
        with self._moved:
            change()
            self._moved.notify_all()
        for handle in told:
            if handle.post_callback:
                handle.post_callback(jump)
