"""Subscriptions."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rosbags.serde import SerdeError

from embedded_ros import dds, interfaces

from .exceptions import InvalidHandle
from .qos import QoSProfile, to_dds

if TYPE_CHECKING:
    from .node import Node


class Subscription:
    """Calls back with each message of one topic; see Node.create_subscription."""

    def __init__(
        self,
        node: Node,
        msg_type: Any,
        topic: str,
        callback: Callable[..., Any],
        callback_group: Any,
        qos_profile: QoSProfile,
        raw: bool,
    ) -> None:
        self._node = node
        self.msg_type = msg_type
        self.topic = self.topic_name = topic
        self.callback_group = callback_group
        self.qos_profile = qos_profile
        self.raw = raw
        self.callback = callback
        user_data = f"typehash={interfaces.type_hash(msg_type.ros_name)};"
        prefix = "" if qos_profile.avoid_ros_namespace_conventions else "rt"
        self._reader: dds.Reader | None = dds.Reader(
            node.context.participant,
            prefix + topic,
            msg_type.ros_name,
            to_dds(qos_profile, user_data),
        )
        self.condition = self._reader.condition
        self.event_handlers: list[Any] = []

    @property
    def callback(self) -> Callable[..., Any]:
        """What is called with the message, and with a dict about it if it takes two arguments."""
        return self._callback

    @callback.setter
    def callback(self, value: Callable[..., Any]) -> None:
        self._callback = value
        self._wants_info = False
        for count in (1, 2):
            try:
                inspect.signature(value).bind(*range(count))
            except ValueError:
                return
            except TypeError:
                continue
            self._wants_info = count == 2
            return
        raise RuntimeError(
            "Subscription.__init__(): callback should be either be callable with "
            "one argument (message) or with two arguments (message, message_info)"
        )

    @property
    def _open(self) -> dds.Reader:
        if self._reader is None:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        return self._reader

    def get_publisher_count(self) -> int:
        """How many publishers this receives from."""
        return len(self._open.matched())

    def destroy(self) -> None:
        """Leave the topic."""
        self._node.destroy_subscription(self)

    def _close(self) -> list[dds.Endpoint]:
        reader, self._reader = self._reader, None
        if reader is None:
            return []
        reader.close()
        return [reader]

    def _take(self) -> Callable[[], Any] | None:
        reader = self._reader
        sample = reader.take() if reader is not None else None
        if sample is None:
            return None
        received = time.time_ns()

        def run() -> Any:
            message: Any
            if self.raw:
                message = bytes(sample.data)
            else:
                try:
                    message = interfaces.deserialize(sample.data, self.msg_type)
                except SerdeError as error:
                    self._node.get_logger().error(
                        f"dropped a malformed message on '{self.topic}': {error}",
                        throttle_duration_sec=5.0,
                    )
                    return None
            if self._wants_info:
                info = {
                    "source_timestamp": sample.source_timestamp,
                    "received_timestamp": received,
                }
                return self._callback(message, info)
            return self._callback(message)

        return run
