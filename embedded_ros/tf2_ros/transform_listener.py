"""Fills a buffer from /tf and /tf_static."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from .buffer import Buffer, InvalidArgumentException


class TransformListener:
    """Subscribes to transforms; with `spin_thread`, in a thread of its own."""

    def __init__(
        self,
        buffer: Buffer,
        node: Any,
        *,
        spin_thread: bool = False,
        qos: QoSProfile | int | None = None,
        static_qos: QoSProfile | None = None,
        tf_topic: str = "/tf",
        tf_static_topic: str = "/tf_static",
    ) -> None:
        self.buffer, self.node = buffer, node
        buffer.follow(node.get_clock())
        self.group = ReentrantCallbackGroup()
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.tf_sub = node.create_subscription(
            TFMessage,
            tf_topic,
            self._dynamic,
            qos or QoSProfile(depth=100),
            callback_group=self.group,
        )
        self.tf_static_sub = node.create_subscription(
            TFMessage,
            tf_static_topic,
            self._static,
            static_qos or latched,
            callback_group=self.group,
        )
        if spin_thread:
            self.executor = SingleThreadedExecutor(context=node.context)
            self.executor.add_node(node)
            self.dedicated_listener_thread = threading.Thread(target=self._spin, daemon=True)
            self.dedicated_listener_thread.start()

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            return

    def unregister(self) -> None:
        """Listen no more."""
        if hasattr(self, "executor"):
            self.executor.shutdown()
        self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)

    def _dynamic(self, message: Any) -> None:
        self._store(message, self.buffer.set_transform)

    def _static(self, message: Any) -> None:
        self._store(message, self.buffer.set_transform_static)

    def _store(self, message: Any, put: Any) -> None:
        for transform in message.transforms:
            try:
                put(transform, "default_authority")
            except InvalidArgumentException as error:  # noqa: PERF203
                self.node.get_logger().error(f"ignored a {error}", throttle_duration_sec=5.0)
