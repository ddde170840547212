"""What several stages of one process read: whoever comes first reads it, for all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Time:
    sec: int
    nanosec: int


@dataclass(frozen=True)
class _Header:
    """What is read of a std_msgs/Header."""

    stamp: _Time
    frame_id: str


class Shared:
    """A message with what was read of it, or in its place what a stage of this process made.

    Nobody changes what is read of it, since others have the same arrays; thread-safe.

    Attributes:
        header: the message's std_msgs/Header, or one like it.
        message: of rosbags or of rclpy; None where a stage made what there is to read.
    """

    __slots__ = ("_lock", "_values", "header", "message")

    def __init__(self, message: Any) -> None:
        self.header = message.header if message is not None else None
        self.message = message
        self._lock = threading.RLock()
        self._values: dict[Hashable, Any] = {}

    @classmethod
    def made(cls, key: Hashable, value: Any, stamp: int, frame_id: str) -> Shared:
        """What a stage made, without a message.

        Args:
            key: what its readers ask for.
            value: what they get.
            stamp: nanoseconds.
            frame_id: the camera's optical frame.
        """
        shared = cls(None)
        shared.header = _Header(_Time(*divmod(stamp, 1_000_000_000)), frame_id)
        shared._values[key] = value
        return shared

    def once(self, key: Hashable, read: Callable[[Any], _T]) -> _T:
        """What `read` gives of the message; it is called by the first who asks for the key."""
        with self._lock:
            if key not in self._values:
                self._values[key] = read(self.message)
            value: _T = self._values[key]
            return value


def once(message: Any, key: Hashable, read: Callable[[Any], _T]) -> _T:
    """`read(message)`, or of a Shared what was read of it already."""
    return message.once(key, read) if isinstance(message, Shared) else read(message)
