"""Clocks: system, steady, and ROS time that /clock drives while use_sim_time is true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rosgraph_msgs.msg import Clock as ClockMsg

from embedded_ros.importer import Partial

from .parameter import Parameter
from .qos import QoSProfile, ReliabilityPolicy
from .time import ClockType, Time

_USE_SIM_TIME = "use_sim_time"


class Clock(Partial):
    """A clock of one kind; one of ROS time shows the system's until something drives it."""

    _absent = "create_jump_callback sleep_for sleep_until"

    def __init__(self, *, clock_type: ClockType = ClockType.SYSTEM_TIME) -> None:
        self.clock_type = ClockType(clock_type)
        # Nanoseconds of a driven clock; None while it runs by itself.
        self._driven: int | None = None
        self._watchers: list[Callable[[bool], Any]] = []

    def now(self) -> Time:
        """The time on this clock."""
        steady = self.clock_type is ClockType.STEADY_TIME
        nanoseconds = self._driven
        if nanoseconds is None:
            nanoseconds = time.monotonic_ns() if steady else time.time_ns()
        return Time(nanoseconds=nanoseconds, clock_type=self.clock_type)

    @property
    def ros_time_is_active(self) -> bool:
        """Whether something drives this clock."""
        return self._driven is not None

    def _watch(self, callback: Callable[[bool], Any]) -> None:
        """Call with every step; True where the time went back or its source has changed."""
        self._watchers.append(callback)

    def _unwatch(self, callback: Callable[[bool], Any]) -> None:
        self._watchers.remove(callback)

    def _drive(self, nanoseconds: int | None) -> None:
        """Show a time from now on; None lets the clock run by itself again."""
        before, self._driven = self._driven, nanoseconds
        if before is None and nanoseconds is None:
            return
        jumped = before is None or nanoseconds is None or nanoseconds < before
        for callback in list(self._watchers):
            callback(jumped)


class TimeSource:
    """Drives one node's clock, as its parameter use_sim_time says."""

    def __init__(self, node: Any, clock: Clock) -> None:
        self._node, self._clock = node, clock
        self._subscription: Any = None
        about = ParameterDescriptor(description="take the time from /clock")
        self._apply(node.declare_parameter(_USE_SIM_TIME, False, about).value)
        node.add_post_set_parameters_callback(self._changed)

    def _changed(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == _USE_SIM_TIME:
                self._apply(parameter.value)

    def _apply(self, enabled: bool) -> None:
        if enabled and self._subscription is None:
            self._clock._drive(0)
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._subscription = self._node.create_subscription(ClockMsg, "/clock", self._tick, qos)
        elif not enabled and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
            self._clock._drive(None)

    def _tick(self, message: Any) -> None:
        self._clock._drive(Time.from_msg(message.clock).nanoseconds)
