"""Lifecycle nodes: the state machine of rcl_lifecycle, its services and its topic."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any, NamedTuple

from lifecycle_msgs.msg import State, Transition, TransitionDescription, TransitionEvent
from lifecycle_msgs.srv import (
    ChangeState,
    GetAvailableStates,
    GetAvailableTransitions,
    GetState,
)

from embedded_ros.importer import absent_attribute

from .node import Node
from .publisher import Publisher

__getattr__ = absent_attribute(__name__)


class TransitionCallbackReturn(Enum):
    """How a transition went."""

    SUCCESS = Transition.TRANSITION_CALLBACK_SUCCESS
    FAILURE = Transition.TRANSITION_CALLBACK_FAILURE
    ERROR = Transition.TRANSITION_CALLBACK_ERROR

    def to_label(self) -> str:
        """The label of the transition that follows."""
        return f"transition_{self.name.lower()}"


class LifecycleState(NamedTuple):
    """A state."""

    state_id: int
    label: str


_LABELS = {
    0: "unknown",
    1: "unconfigured",
    2: "inactive",
    3: "active",
    4: "finalized",
    10: "configuring",
    11: "cleaningup",
    12: "shuttingdown",
    13: "activating",
    14: "deactivating",
    15: "errorprocessing",
}
# (id, label, from, to), as rcl_lifecycle numbers them.
_TRANSITIONS = [
    (1, "configure", 1, 10),
    (10, "transition_success", 10, 2),
    (11, "transition_failure", 10, 1),
    (12, "transition_error", 10, 15),
    (2, "cleanup", 2, 11),
    (20, "transition_success", 11, 1),
    (21, "transition_failure", 11, 2),
    (22, "transition_error", 11, 15),
    (3, "activate", 2, 13),
    (30, "transition_success", 13, 3),
    (31, "transition_failure", 13, 2),
    (32, "transition_error", 13, 15),
    (4, "deactivate", 3, 14),
    (40, "transition_success", 14, 2),
    (41, "transition_failure", 14, 3),
    (42, "transition_error", 14, 15),
    (5, "shutdown", 1, 12),
    (6, "shutdown", 2, 12),
    (7, "shutdown", 3, 12),
    (50, "transition_success", 12, 4),
    (51, "transition_failure", 12, 4),
    (52, "transition_error", 12, 15),
    (60, "transition_success", 15, 1),
    (61, "transition_failure", 15, 4),
    (62, "transition_error", 15, 4),
]
_CALLBACKS = {
    10: "on_configure",
    11: "on_cleanup",
    12: "on_shutdown",
    13: "on_activate",
    14: "on_deactivate",
    15: "on_error",
}


class ManagedEntity:
    """Something that follows its node's transitions."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is being configured."""
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is being cleaned up."""
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is being shut down."""
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is being activated."""
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The node is being deactivated."""
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition of the node raised an error."""
        return TransitionCallbackReturn.SUCCESS


class SimpleManagedEntity(ManagedEntity):
    """A managed entity that is on or off."""

    def __init__(self) -> None:
        self._enabled = False

    @property
    def is_activated(self) -> bool:
        """Whether it is on."""
        return self._enabled

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Turn on."""
        self._enabled = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Turn off."""
        self._enabled = False
        return TransitionCallbackReturn.SUCCESS

    @staticmethod
    def when_enabled(
        wrapped: Callable[..., Any] | None = None,
        *,
        when_not_enabled: Callable[[], Any] | None = None,
    ) -> Any:
        """Decorate a method to do nothing, or something else, while the entity is off."""

        def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(method)
            def call(self: SimpleManagedEntity, *args: Any, **kwargs: Any) -> Any:
                if self._enabled:
                    return method(self, *args, **kwargs)
                return when_not_enabled() if when_not_enabled else None

            return call

        return decorate if wrapped is None else decorate(wrapped)


class LifecyclePublisher(SimpleManagedEntity, Publisher):
    """A publisher that is silent unless its node is active."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        SimpleManagedEntity.__init__(self)
        Publisher.__init__(self, *args, **kwargs)

    def publish(self, msg: Any) -> None:
        """Publish, while active."""
        if self._enabled:
            super().publish(msg)


def _description(number: int, label: str, start: int, goal: int) -> Any:
    return TransitionDescription(
        transition=Transition(id=number, label=label),
        start_state=State(id=start, label=_LABELS[start]),
        goal_state=State(id=goal, label=_LABELS[goal]),
    )


class LifecycleNode(Node):
    """A node with the lifecycle of ROS 2; override on_configure() and the like."""

    def __init__(
        self, node_name: str, *, enable_communication_interface: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(node_name, **kwargs)
        self._state = 1
        self._managed: list[ManagedEntity] = []
        self._transition_events: Publisher | None = None
        if not enable_communication_interface:
            return
        self._transition_events = self.create_publisher(TransitionEvent, "~/transition_event", 10)
        served: list[tuple[Any, str, Any]] = [
            (ChangeState, "change_state", self._serve_change),
            (GetState, "get_state", self._serve_state),
            (GetAvailableStates, "get_available_states", self._serve_states),
            (GetAvailableTransitions, "get_available_transitions", self._serve_available),
            (GetAvailableTransitions, "get_transition_graph", self._serve_graph),
        ]
        for kind, name, callback in served:
            self.create_service(kind, f"~/{name}", callback)

    def add_managed_entity(self, entity: ManagedEntity) -> None:
        """Let an entity follow the node's transitions."""
        if not isinstance(entity, ManagedEntity):
            raise TypeError("Expected a rclpy.lifecycle.ManagedEntity instance.")
        self._managed.append(entity)

    def create_lifecycle_publisher(self, *args: Any, **kwargs: Any) -> LifecyclePublisher:
        """A publisher that is silent unless the node is active; arguments as create_publisher."""
        publisher = self.create_publisher(*args, **kwargs, publisher_class=LifecyclePublisher)
        assert isinstance(publisher, LifecyclePublisher)
        self._managed.append(publisher)
        return publisher

    def destroy_lifecycle_publisher(self, publisher: LifecyclePublisher) -> bool:
        """Destroy such a publisher."""
        if publisher in self._managed:
            self._managed.remove(publisher)
        return self.destroy_publisher(publisher)

    def _all_managed(self, callback: str, state: LifecycleState) -> TransitionCallbackReturn:
        for entity in list(self._managed):
            result = getattr(entity, callback)(state)
            if not isinstance(result, TransitionCallbackReturn):
                raise TypeError(f"{callback}() of {entity} must return TransitionCallbackReturn")
            if result is not TransitionCallbackReturn.SUCCESS:
                return result
        return TransitionCallbackReturn.SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unconfigured to inactive; calls the managed entities."""
        return self._all_managed("on_configure", state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Inactive to unconfigured; calls the managed entities."""
        return self._all_managed("on_cleanup", state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Any state to finalized; calls the managed entities."""
        return self._all_managed("on_shutdown", state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Inactive to active; calls the managed entities."""
        return self._all_managed("on_activate", state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Active to inactive; calls the managed entities."""
        return self._all_managed("on_deactivate", state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an error: success leads to unconfigured, else finalized."""
        return self._all_managed("on_error", state)

    def trigger_configure(self) -> TransitionCallbackReturn:
        """Go from unconfigured to inactive."""
        return self._change(Transition.TRANSITION_CONFIGURE)

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        """Go from inactive to unconfigured."""
        return self._change(Transition.TRANSITION_CLEANUP)

    def trigger_activate(self) -> TransitionCallbackReturn:
        """Go from inactive to active."""
        return self._change(Transition.TRANSITION_ACTIVATE)

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        """Go from active to inactive."""
        return self._change(Transition.TRANSITION_DEACTIVATE)

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        """Go to finalized."""
        for number, label, start, _ in _TRANSITIONS:
            if start == self._state and label == "shutdown":
                return self._change(number)
        raise RuntimeError("Shutdown transtion not possible")

    def _move(self, number: int | None = None, label: str | None = None) -> None:
        for transition in _TRANSITIONS:
            if transition[2] == self._state and (
                transition[0] == number if label is None else transition[1] == label
            ):
                break
        else:
            raise RuntimeError(
                f"Failed to trigger lifecycle state machine transition {label or number} from "
                f"state {_LABELS[self._state]}: Transition is not registered."
            )
        self._state = transition[3]
        if self._transition_events is not None:
            described = _description(*transition)
            self._transition_events.publish(
                TransitionEvent(
                    timestamp=time.time_ns(),
                    transition=described.transition,
                    start_state=described.start_state,
                    goal_state=described.goal_state,
                )
            )

    def _call(self, before: LifecycleState) -> TransitionCallbackReturn:
        callback = _CALLBACKS[self._state]
        try:
            result = getattr(self, callback)(before)
        except Exception:
            self.get_logger().error(f"{callback}() failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        if not isinstance(result, TransitionCallbackReturn):
            self.get_logger().error(f"{callback}() returned {result!r}")
            return TransitionCallbackReturn.ERROR
        return result

    def _change(self, number: int) -> TransitionCallbackReturn:
        before = LifecycleState(self._state, _LABELS[self._state])
        self._move(number)
        result = self._call(before)
        self._move(label=result.to_label())
        if result is TransitionCallbackReturn.ERROR:
            self._move(label=self._call(before).to_label())
        return result

    def _serve_change(self, request: Any, response: Any) -> Any:
        wanted = request.transition
        for number, label, start, _ in _TRANSITIONS:
            named = label == wanted.label if wanted.label else number == wanted.id
            if start == self._state and named:
                result = self._change(number)
                response.success = result is TransitionCallbackReturn.SUCCESS
                return response
        self.get_logger().warning(
            f"no transition {wanted.label or wanted.id} from state {_LABELS[self._state]}"
        )
        return response

    def _serve_state(self, request: Any, response: Any) -> Any:
        response.current_state = State(id=self._state, label=_LABELS[self._state])
        return response

    def _serve_states(self, request: Any, response: Any) -> Any:
        response.available_states = [State(id=i, label=name) for i, name in _LABELS.items()]
        return response

    def _serve_available(self, request: Any, response: Any) -> Any:
        available = [_description(*t) for t in _TRANSITIONS if t[2] == self._state]
        response.available_transitions = available
        return response

    def _serve_graph(self, request: Any, response: Any) -> Any:
        response.available_transitions = [_description(*t) for t in _TRANSITIONS]
        return response
