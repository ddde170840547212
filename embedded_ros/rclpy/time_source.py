"""Drives a node's clock from /clock while use_sim_time is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rosgraph_msgs.msg import Clock as ClockMsg

from .callback_groups import MutuallyExclusiveCallbackGroup
from .clock import ROSClock
from .parameter import Parameter
from .qos import QoSProfile, ReliabilityPolicy
from .time import Time

if TYPE_CHECKING:
    from .node import Node

_NAME = "use_sim_time"


class TimeSource:
    """Watches use_sim_time and /clock for one node."""

    def __init__(self, node: Node, clock: ROSClock) -> None:
        self._node, self._clock = node, clock
        self._subscription: Any = None
        # Of its own, so that a slow callback of the node does not stop its clock.
        self._group = MutuallyExclusiveCallbackGroup()
        if not node.has_parameter(_NAME):
            about = ParameterDescriptor(description="take the time from /clock")
            node.declare_parameter(_NAME, False, about)
        self._apply(node.get_parameter(_NAME).value)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._changed)

    def _check(self, parameters: list[Parameter]) -> Any:
        for parameter in parameters:
            if parameter.name == _NAME and parameter.type_ is not Parameter.Type.BOOL:
                return SetParametersResult(successful=False, reason=f"{_NAME} must be a bool")
        return SetParametersResult(successful=True)

    def _changed(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == _NAME:
                self._apply(parameter.value)

    def _apply(self, enabled: bool) -> None:
        self._clock._set_ros_time_is_active(bool(enabled))
        if enabled and self._subscription is None:
            self._subscription = self._node.create_subscription(
                ClockMsg,
                "/clock",
                self._tick,
                QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
                callback_group=self._group,
            )
        elif not enabled and self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _tick(self, message: Any) -> None:
        self._clock.set_ros_time_override(Time.from_msg(message.clock))
