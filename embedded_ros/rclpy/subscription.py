"""Subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rosbags.serde import SerdeError

from embedded_ros import dds, interfaces
from embedded_ros.importer import Partial

from .exceptions import InvalidHandle
from .qos import MismatchWarning, QoSProfile, to_dds


class Subscription(Partial):
    """Calls back with each message of one topic; see Node.create_subscription."""

    _absent = "event_handlers handle"

    def __init__(
        self,
        node: Any,
        msg_type: Any,
        topic: str,
        callback: Callable[[Any], Any],
        qos_profile: QoSProfile,
    ) -> None:
        self._logger = node.get_logger()
        self.msg_type = msg_type
        self.topic = self.topic_name = topic
        self.qos_profile = qos_profile
        self.callback = callback
        self.malformed = 0  # messages that could not be read
        kind = msg_type.ros_name
        qos = to_dds(qos_profile, f"typehash={interfaces.type_hash(kind)};")
        self._reader: dds.Reader | None = dds.Reader(
            node.context.participant, f"rt{topic}", kind, qos
        )
        self.condition = self._reader.condition
        self.mismatch = MismatchWarning(
            self._reader,
            self._logger,
            f"New publisher discovered on topic '{topic}', offering incompatible QoS. "
            "No messages will be received from it.",
        )

    @property
    def _open(self) -> dds.Reader:
        if self._reader is None:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        return self._reader

    def get_publisher_count(self) -> int:
        """How many publishers this receives from."""
        return len(self._open.matched())

    def _close(self) -> list[dds.Endpoint]:
        reader, self._reader = self._open, None
        reader.close()
        return [reader]

    def _take(self) -> Callable[[], Any] | None:
        reader = self._reader
        sample = reader.take() if reader is not None else None
        if sample is None:
            return None
        try:
            message = interfaces.deserialize(sample.data, self.msg_type)
        except SerdeError as error:
            self.malformed += 1
            text = (
                f"dropped a malformed message on '{self.topic}' ({self.malformed} so far): {error}"
            )
            self._logger.error(text, throttle_duration_sec=5.0)
            return None
        return lambda: self.callback(message)
