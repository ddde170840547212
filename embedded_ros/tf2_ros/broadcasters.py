"""Publishers of transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage


def _listed(transform: Any) -> list[Any]:
    return list(transform) if isinstance(transform, Sequence) else [transform]


class TransformBroadcaster:
    """Publishes transforms on /tf."""

    def __init__(self, node: Any, qos: QoSProfile | int | None = None) -> None:
        self.pub_tf = node.create_publisher(TFMessage, "/tf", qos or QoSProfile(depth=100))

    def sendTransform(self, transform: Any) -> None:  # noqa: N802  (ROS 2's name)
        """Publish one geometry_msgs/TransformStamped or several."""
        self.pub_tf.publish(TFMessage(transforms=_listed(transform)))


class StaticTransformBroadcaster:
    """Publishes transforms that always hold, latched on /tf_static."""

    def __init__(self, node: Any, qos: QoSProfile | None = None) -> None:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos or latched)
        self._sent: dict[str, Any] = {}

    def sendTransform(self, transform: Any) -> None:  # noqa: N802  (ROS 2's name)
        """Publish one geometry_msgs/TransformStamped or several, with all sent before."""
        self._sent.update({t.child_frame_id: t for t in _listed(transform)})
        self.pub_tf.publish(TFMessage(transforms=list(self._sent.values())))
