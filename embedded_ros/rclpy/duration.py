"""Spans of time."""

from __future__ import annotations

from functools import total_ordering
from typing import Any

_S = 10**9


@total_ordering
class Duration:
    """A signed span of time in nanoseconds."""

    def __init__(self, *, seconds: float = 0, nanoseconds: float = 0) -> None:
        total = int(seconds * _S) + int(nanoseconds)
        if not -(2**63) <= total < 2**63:
            raise OverflowError("Total nanoseconds value is too large to store in C duration.")
        self.nanoseconds = total

    def __repr__(self) -> str:
        return f"Duration(nanoseconds={self.nanoseconds})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Duration) -> bool:
        if not isinstance(other, Duration):
            return NotImplemented
        return self.nanoseconds < other.nanoseconds

    def __hash__(self) -> int:
        return hash(self.nanoseconds)

    def to_msg(self) -> Any:
        """A builtin_interfaces/Duration."""
        from builtin_interfaces.msg import Duration as Msg

        sec, nanosec = divmod(self.nanoseconds, _S)
        return Msg(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg: Any) -> Duration:
        """From a builtin_interfaces/Duration."""
        return cls(nanoseconds=msg.sec * _S + msg.nanosec)


# What QoS profiles call "no limit".
Infinite = Duration(nanoseconds=2**63 - 1)
