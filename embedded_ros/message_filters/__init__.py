"""Subscriptions as filters; what matches messages is not embedded, the nodes do that themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import qos_profile_default


class SimpleFilter:
    """Passes messages on to callbacks."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:  # noqa: N802
        """Call with each message, followed by `args`."""
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
