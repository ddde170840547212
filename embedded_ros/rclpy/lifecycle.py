"""Lifecycle nodes: the state machine of rcl_lifecycle, its services and its topic."""

from __future__ import annotations

import time
import traceback
from enum import Enum
from typing import Any, NamedTuple

from lifecycle_msgs.msg import State, Transition, TransitionDescription, TransitionEvent
from lifecycle_msgs.srv import (
    ChangeState,
    GetAvailableStates,
    GetAvailableTransitions,
    GetState,
)

from .node import Node
from .publisher import Publisher


class TransitionCallbackReturn(Enum):
    """How a transition went."""

    SUCCESS = Transition.TRANSITION_CALLBACK_SUCCESS
    FAILURE = Transition.TRANSITION_CALLBACK_FAILURE
    ERROR = Transition.TRANSITION_CALLBACK_ERROR


class LifecycleState(NamedTuple):
    """A state."""

    state_id: int
    label: str


class _Step(NamedTuple):
    """A transition, as rcl_lifecycle numbers them."""

    number: int
    label: str
    start: int
    goal: int

    def described(self) -> Any:
        """As a lifecycle_msgs/TransitionDescription."""
        return TransitionDescription(
            transition=Transition(id=self.number, label=self.label),
            start_state=State(id=self.start, label=_LABELS[self.start]),
            goal_state=State(id=self.goal, label=_LABELS[self.goal]),
        )


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
_CALLBACKS = {
    10: "on_configure",
    11: "on_cleanup",
    12: "on_shutdown",
    13: "on_activate",
    14: "on_deactivate",
    15: "on_error",
}
_ERROR = 15


def _outcomes(first: int, state: int, success: int, failure: int, error: int) -> list[_Step]:
    return [
        _Step(first, "transition_success", state, success),
        _Step(first + 1, "transition_failure", state, failure),
        _Step(first + 2, "transition_error", state, error),
    ]


_STEPS = [
    _Step(1, "configure", 1, 10),
    *_outcomes(10, 10, success=2, failure=1, error=_ERROR),
    _Step(2, "cleanup", 2, 11),
    *_outcomes(20, 11, success=1, failure=2, error=_ERROR),
    _Step(3, "activate", 2, 13),
    *_outcomes(30, 13, success=3, failure=2, error=_ERROR),
    _Step(4, "deactivate", 3, 14),
    *_outcomes(40, 14, success=2, failure=3, error=_ERROR),
    _Step(5, "shutdown", 1, 12),
    _Step(6, "shutdown", 2, 12),
    _Step(7, "shutdown", 3, 12),
    *_outcomes(50, 12, success=4, failure=4, error=_ERROR),
    *_outcomes(60, _ERROR, success=1, failure=4, error=4),
]


class LifecyclePublisher(Publisher):
    """A publisher that is silent unless its node is active."""

    is_activated = False

    def publish(self, msg: Any) -> None:
        """Publish, while active."""
        if self.is_activated:
            super().publish(msg)


class LifecycleNode(Node):
    """A node with the lifecycle of ROS 2; override on_configure() and the like."""

    _absent = "add_managed_entity"

    def __init__(self, node_name: str, **kwargs: Any) -> None:
        super().__init__(node_name, **kwargs)
        self._state = 1
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

    def create_lifecycle_publisher(self, *args: Any, **kwargs: Any) -> LifecyclePublisher:
        """A publisher that is silent unless the node is active; arguments as create_publisher."""
        made: LifecyclePublisher = self.create_publisher(
            *args, **kwargs, publisher_class=LifecyclePublisher
        )
        return made

    destroy_lifecycle_publisher = Node.destroy_publisher

    def _activate_publishers(self, active: bool) -> TransitionCallbackReturn:
        for publisher in self.publishers:
            if isinstance(publisher, LifecyclePublisher):
                publisher.is_activated = active
        return TransitionCallbackReturn.SUCCESS

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unconfigured to inactive."""
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Inactive to unconfigured."""
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Any state to finalized."""
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Inactive to active; lifecycle publishers speak."""
        return self._activate_publishers(True)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Active to inactive; lifecycle publishers fall silent."""
        return self._activate_publishers(False)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an error: success leads to unconfigured, else finalized."""
        return TransitionCallbackReturn.SUCCESS

    def trigger_configure(self) -> TransitionCallbackReturn:
        """Go from unconfigured to inactive."""
        return self._change(self._step("configure"))

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        """Go from inactive to unconfigured."""
        return self._change(self._step("cleanup"))

    def trigger_activate(self) -> TransitionCallbackReturn:
        """Go from inactive to active."""
        return self._change(self._step("activate"))

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        """Go from active to inactive."""
        return self._change(self._step("deactivate"))

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        """Go to finalized."""
        return self._change(self._step("shutdown"))

    def _step(self, wanted: str | int) -> _Step:
        """The transition of this label or number from the present state."""
        for step in _STEPS:
            if step.start == self._state and wanted in (step.label, step.number):
                return step
        raise RuntimeError(
            f"Failed to trigger lifecycle state machine transition {wanted} from state "
            f"{_LABELS[self._state]}: Transition is not registered."
        )

    def _move(self, step: _Step) -> None:
        self._state = step.goal
        described = step.described()
        self._transition_events.publish(
            TransitionEvent(
                timestamp=time.time_ns(),
                transition=described.transition,
                start_state=described.start_state,
                goal_state=described.goal_state,
            )
        )

    def _call(self, before: LifecycleState) -> TransitionCallbackReturn:
        """Run the present state's callback and follow what it returns."""
        callback, result = _CALLBACKS[self._state], TransitionCallbackReturn.ERROR
        try:
            returned = getattr(self, callback)(before)
        except Exception:
            self.get_logger().error(f"{callback}() failed:\n{traceback.format_exc()}")
        else:
            if isinstance(returned, TransitionCallbackReturn):
                result = returned
            else:
                self.get_logger().error(f"{callback}() returned {returned!r}")
        self._move(self._step(f"transition_{result.name.lower()}"))
        return result

    def _change(self, step: _Step) -> TransitionCallbackReturn:
        before = LifecycleState(self._state, _LABELS[self._state])
        self._move(step)
        result = self._call(before)
        if result is TransitionCallbackReturn.ERROR:
            self._call(before)
        return result

    def _serve_change(self, request: Any, response: Any) -> Any:
        try:
            step = self._step(request.transition.label or request.transition.id)
        except RuntimeError as error:
            self.get_logger().warning(str(error))
            return response
        response.success = self._change(step) is TransitionCallbackReturn.SUCCESS
        return response

    def _serve_state(self, request: Any, response: Any) -> Any:
        response.current_state = State(id=self._state, label=_LABELS[self._state])
        return response

    def _serve_states(self, request: Any, response: Any) -> Any:
        response.available_states = [State(id=i, label=name) for i, name in _LABELS.items()]
        return response

    def _serve_available(self, request: Any, response: Any) -> Any:
        steps = [step.described() for step in _STEPS if step.start == self._state]
        response.available_transitions = steps
        return response

    def _serve_graph(self, request: Any, response: Any) -> Any:
        response.available_transitions = [step.described() for step in _STEPS]
        return response
