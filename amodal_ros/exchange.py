"""What nodes of one process pass to each other, and what they receive together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import message_filters
from rclpy.qos import QoSDurabilityPolicy, QoSProfile

from amodal_core.drive.shared import Shared


class _Receiver(NamedTuple):
    """Who wants a topic: the node, its own name for the topic, and what is called."""

    node: Any
    name: str
    receive: Callable[[Any], None]


class _Source:
    """A subscription of the first of its receivers, whose messages all of them get."""

    def __init__(
        self, kind: type, qos: QoSProfile, shared: bool, receivers: list[_Receiver]
    ) -> None:
        self.kind, self.qos, self.shared, self.receivers = kind, qos, shared, receivers
        self.node, name, _ = receivers[0]
        # Only the way in: messages are matched by the synchroniser of the offline replay.
        self._subscriber = message_filters.Subscriber(self.node, kind, name, qos_profile=qos)
        self._subscriber.registerCallback(self._received)

    def _received(self, message: Any) -> None:
        item = Shared(message) if self.shared else message
        for receiver in list(self.receivers):
            receiver.receive(item)

    def close(self) -> None:
        """Receive nothing any more."""
        self.node.destroy_subscription(self._subscriber.sub)


class Exchange:
    """The topics of the nodes of one process; thread-safe.

    A topic that a node of the process publishes reaches the others as what was made, not as a
    message, and in the thread that made it. Of any other there is one subscription for all that ask
    for the same: its messages are deserialised once, and what is read of them is read once. A topic
    that is latched is subscribed to by each: who comes later must get what was said before.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._offered: set[str] = set()
        self._local: dict[str, list[_Receiver]] = {}
        self._sources: dict[tuple[Any, ...], _Source] = {}

    def offer(self, topic: str) -> None:
        """A node of this process will publish a topic, by its full name."""
        with self._lock:
            self._offered.add(topic)

    def pass_on(self, topic: str, item: Shared) -> None:
        """Give the nodes of this process what one of them made."""
        for receiver in list(self._local.get(topic, ())):
            receiver.receive(item)

    def subscribe(
        self,
        node: Any,
        kind: type,
        name: str,
        qos: QoSProfile,
        receive: Callable[[Any], None],
        *,
        shared: bool,
    ) -> None:
        """Let a node receive a topic.

        Args:
            node: that asks.
            kind: class of the messages.
            name: of the topic, as the node knows it.
            qos: as the node asks for it.
            receive: called with each message, and with what a node of this process passes on.
            shared: messages come as Shared, since reading them is work.
        """
        topic, receiver = node.resolve_topic_name(name), _Receiver(node, name, receive)
        with self._lock:
            if topic in self._offered:
                self._local.setdefault(topic, []).append(receiver)
                return
            latched = qos.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
            asked = (qos.reliability, qos.history, qos.depth)
            key = (topic, kind, *asked, shared, node if latched else None)
            if key in self._sources:
                self._sources[key].receivers.append(receiver)
            else:
                self._sources[key] = _Source(kind, qos, shared, [receiver])

    def unsubscribe(self, node: Any) -> None:
        """A node receives nothing any more; others go on with what only it had subscribed to.

        After a shutdown nothing comes for them, and rclpy takes no new subscription.
        """
        with self._lock:
            for local in self._local.values():
                local[:] = [r for r in local if r.node is not node]
            for key, source in list(self._sources.items()):
                others = [r for r in source.receivers if r.node is not node]
                if source.node is not node:
                    source.receivers = others
                    continue
                source.receivers = []
                del self._sources[key]
                if others and node.context.ok():
                    self._sources[key] = _Source(source.kind, source.qos, source.shared, others)
                source.close()
