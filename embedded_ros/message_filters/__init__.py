"""Synchronises messages of several topics by their stamps.

Unlike its model it goes on after a jump back in time and after an exception in a callback.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from rclpy.duration import Duration
from rclpy.qos import qos_profile_default

from embedded_ros.importer import refuse_arguments


def _stamp(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class SimpleFilter:
    """Passes messages on to callbacks."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:  # noqa: N802
        """Call with each message, or each set of messages, followed by `args`."""
        self._callbacks.append((cb, args))
        return len(self._callbacks) - 1

    def signalMessage(self, *msg: Any) -> None:  # noqa: N802
        """Pass messages on."""
        for callback, args in list(self._callbacks):
            callback(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as a filter; arguments as Node.create_subscription."""

    def __init__(
        self,
        node: Any,
        msg_type: Any,
        topic: str,
        qos_profile: Any = qos_profile_default,
    ) -> None:
        super().__init__()
        self.node, self.topic = node, topic
        self.sub = node.create_subscription(msg_type, topic, self.signalMessage, qos_profile)


class ApproximateTimeSynchronizer(SimpleFilter):
    """Passes sets of messages whose stamps differ by at most `slop` seconds.

    When a message completes a set, the set with the smallest spread is passed and everything up to
    it is dropped. A stamp that goes back by more than the queues span starts anew.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        **absent: Any,
    ) -> None:
        super().__init__()
        refuse_arguments("message_filters.ApproximateTimeSynchronizer", absent)
        self._slop, self._size = Duration(seconds=slop).nanoseconds, queue_size
        self._queues: list[dict[int, Any]] = [{} for _ in fs]
        self._lock = threading.Lock()
        for index, source in enumerate(fs):
            source.registerCallback(self.add, index)

    def add(self, msg: Any, index: int) -> None:
        """Take a message of the source with this index."""
        found = None
        stamp = _stamp(msg)
        with self._lock:
            queue = self._queues[index]
            if queue and stamp < min(queue) - self._slop:
                for each in self._queues:
                    each.clear()
            queue[stamp] = msg
            while len(queue) > self._size:
                del queue[min(queue)]
            near = [
                [stamp] if i == index else [s for s in q if abs(s - stamp) <= self._slop]
                for i, q in enumerate(self._queues)
            ]
            sets = [s for s in product(*near) if max(s) - min(s) <= self._slop]
            if sets:
                best = min(sets, key=lambda s: max(s) - min(s))
                found = [q[s] for q, s in zip(self._queues, best, strict=True)]
                for each, last in zip(self._queues, best, strict=True):
                    for old in [s for s in each if s <= last]:
                        del each[old]
        # Outside the lock: what a callback raises must not mute the filter.
        if found:
            self.signalMessage(*found)


class TimeSynchronizer(ApproximateTimeSynchronizer):
    """Passes sets of messages with equal stamps."""

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__(fs, queue_size, 0.0)
