"""Publishers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_ros import dds, interfaces

from .duration import Duration, Infinite
from .exceptions import InvalidHandle
from .qos import QoSProfile, to_dds

if TYPE_CHECKING:
    from .node import Node


class Publisher:
    """Publishes messages of one type on one topic; see Node.create_publisher."""

    def __init__(self, node: Node, msg_type: Any, topic: str, qos_profile: QoSProfile) -> None:
        self._node = node
        self.msg_type = msg_type
        self.topic = self.topic_name = topic
        self.qos_profile = qos_profile
        user_data = f"typehash={interfaces.type_hash(msg_type.ros_name)};"
        prefix = "" if qos_profile.avoid_ros_namespace_conventions else "rt"
        self._writer: dds.Writer | None = dds.Writer(
            node.context.participant,
            prefix + topic,
            msg_type.ros_name,
            to_dds(qos_profile, user_data),
        )
        self.event_handlers: list[Any] = []

    @property
    def _open(self) -> dds.Writer:
        if self._writer is None:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        return self._writer

    def publish(self, msg: Any) -> None:
        """Send a message, or the CDR bytes of one.

        Raises:
            TypeError: it is of another type.
        """
        if isinstance(msg, self.msg_type):
            self._open.write(interfaces.serialize(msg))
        elif isinstance(msg, bytes | bytearray | memoryview):
            self._open.write(msg)
        else:
            raise TypeError(f"Expected {self.msg_type}, got {type(msg)}")

    def get_subscription_count(self) -> int:
        """How many subscriptions receive from this."""
        return len(self._open.matched())

    @property
    def logger_name(self) -> str:
        """The name of the node's logger."""
        return self._node.get_logger().name

    def assert_liveliness(self) -> None:
        """Say that this publisher is alive, for MANUAL_BY_TOPIC."""
        dds.library.dds_assert_liveliness(self._open.ref)

    def wait_for_all_acked(self, timeout: Duration = Infinite) -> bool:
        """Whether every reliable subscription acknowledges everything within the time."""
        return self._open.wait_for_acks(timeout.nanoseconds)

    def destroy(self) -> None:
        """Leave the topic."""
        self._node.destroy_publisher(self)

    def _close(self) -> list[dds.Endpoint]:
        writer, self._writer = self._writer, None
        if writer is None:
            return []
        writer.close()
        return [writer]
