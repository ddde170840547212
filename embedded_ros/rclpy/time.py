"""Points in time."""

from __future__ import annotations

from enum import IntEnum
from functools import total_ordering
from typing import Any

from .duration import Duration

_S = 10**9


class ClockType(IntEnum):
    """Kinds of clocks, numbered as in rcl."""

    UNINITIALIZED = 0
    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3


@total_ordering
class Time:
    """A point in time of one kind of clock, in nanoseconds."""

    def __init__(
        self,
        *,
        seconds: float = 0,
        nanoseconds: float = 0,
        clock_type: ClockType = ClockType.SYSTEM_TIME,
    ) -> None:
        if seconds < 0 or nanoseconds < 0:
            raise ValueError("Times must be positive")
        self.nanoseconds = int(seconds * _S) + int(nanoseconds)
        if self.nanoseconds >= 2**63:
            raise OverflowError("Total nanoseconds value is too large to store in C time point.")
        self.clock_type = clock_type

    def seconds_nanoseconds(self) -> tuple[int, int]:
        """Whole seconds and the rest in nanoseconds."""
        return divmod(self.nanoseconds, _S)

    def __repr__(self) -> str:
        return f"Time(nanoseconds={self.nanoseconds}, clock_type={self.clock_type.name})"

    def __add__(self, other: Duration) -> Time:
        if not isinstance(other, Duration):
            return NotImplemented
        return Time(nanoseconds=self.nanoseconds + other.nanoseconds, clock_type=self.clock_type)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, Time):
            self._require_same_clock(other)
            return Duration(nanoseconds=self.nanoseconds - other.nanoseconds)
        if isinstance(other, Duration):
            return Time(
                nanoseconds=self.nanoseconds - other.nanoseconds, clock_type=self.clock_type
            )
        return NotImplemented

    def _require_same_clock(self, other: Time) -> None:
        if self.clock_type != other.clock_type:
            raise TypeError("Can't compare times with different clock types")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Time):
            return NotImplemented
        self._require_same_clock(other)
        return self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Time) -> bool:
        if not isinstance(other, Time):
            return NotImplemented
        self._require_same_clock(other)
        return self.nanoseconds < other.nanoseconds

    def __hash__(self) -> int:
        return hash((self.nanoseconds, self.clock_type))

    def to_msg(self) -> Any:
        """A builtin_interfaces/Time."""
        from builtin_interfaces.msg import Time as Msg

        sec, nanosec = self.seconds_nanoseconds()
        return Msg(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg: Any, clock_type: ClockType = ClockType.ROS_TIME) -> Time:
        """From a builtin_interfaces/Time."""
        return cls(nanoseconds=msg.sec * _S + msg.nanosec, clock_type=clock_type)
