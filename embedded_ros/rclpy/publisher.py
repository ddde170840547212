"""Publishers."""

from __future__ import annotations

from typing import Any

from embedded_ros import dds, interfaces
from embedded_ros.importer import Partial

from .exceptions import InvalidHandle
from .qos import MismatchWarning, QoSProfile, to_dds


class Publisher(Partial):
    """Publishes messages of one type on one topic; see Node.create_publisher."""

    _absent = "assert_liveliness event_handlers handle wait_for_all_acked"

    def __init__(self, node: Any, msg_type: Any, topic: str, qos_profile: QoSProfile) -> None:
        self.msg_type = msg_type
        self.topic = self.topic_name = topic
        self.qos_profile = qos_profile
        kind = msg_type.ros_name
        qos = to_dds(qos_profile, f"typehash={interfaces.type_hash(kind)};")
        self._writer: dds.Writer | None = dds.Writer(
            node.context.participant, f"rt{topic}", kind, qos
        )
        self.mismatch = MismatchWarning(
            self._writer,
            node.get_logger(),
            f"New subscription discovered on topic '{topic}', requesting incompatible QoS. "
            "No messages will be sent to it.",
        )

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

    def _close(self) -> list[dds.Endpoint]:
        writer, self._writer = self._open, None
        writer.close()
        return [writer]
