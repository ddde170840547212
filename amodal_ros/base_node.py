"""The base of every node: lifecycle, parameters, topics, diagnostics, errors."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from amodal_core.bags.sensors import stamp_of
from amodal_core.drive.outputs import Output
from amodal_core.drive.shared import Shared
from amodal_core.drive.topics import (
    COMPRESSED,
    COMPRESSED_SUFFIX,
    DIAGNOSTICS,
    IMAGE,
    POINTS,
    Topic,
)
from amodal_core.errors import InputError
from amodal_core.frame import NOTES, TIME_JUMP, FrameWarning
from amodal_core.settings import checked
from amodal_ros.conversions import message_class
from amodal_ros.declarations import COMMON, Declaration, Parameter
from amodal_ros.exchange import Exchange
from amodal_ros.health import HOST, PROCESS, Health
from amodal_ros.qos import overridden, profile

_T = TypeVar("_T")
_LOOK = 0.1  # seconds between two looks for the image's publisher, until one has come
_THROTTLE = 5.0  # seconds between two lines about the same thing
_LEVELS = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR)


class BaseNode(LifecycleNode):
    """A node made from its declaration.

    Subclasses give `declaration` and implement `configure` (load what the work needs) and, where
    they subscribe, `on_message`. Those that work on frames are a `FrameNode`.

    Args:
        exchange: of the nodes of this process; None for a node by itself.
        **kwargs: of rclpy's Node.
    """

    declaration: ClassVar[Declaration]

    def __init__(self, exchange: Exchange | None = None, **kwargs: Any) -> None:
        super().__init__(self.declaration.name, **kwargs)
        self._exchange = exchange or Exchange()
        for topic in self.declaration.publishes:
            self._exchange.offer(self.topic_name(topic.name))
        self.health = Health()
        self.ending = False  # nothing is waited for any more
        self.refused = False  # it was told what it cannot do
        self.failing = 0  # exceptions since the last frame that went well
        self._throttled: dict[str, float] = {}
        self._throttle_lock = threading.Lock()
        self._outputs: dict[str, Any] = {}
        # Messages come from the executor, and what other nodes of the process make from theirs.
        self._taking = threading.Lock()
        self._looking: Any = None  # timer, until the image's publisher is known
        self._raw_image: Any = None  # QoS of the image's subscription, where it is not compressed
        for parameter in (*COMMON, *self.declaration.parameters):
            self.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))
        self._by_name = {p.name: p for p in (*COMMON, *self.declaration.parameters)}
        self.add_on_set_parameters_callback(self._check_parameters)
        # The diagnostics run before and without activation, and on a steady clock: they must speak
        # when /clock is silent too.
        self._diagnostics = self.create_publisher(
            DiagnosticArray, DIAGNOSTICS.name, profile(DIAGNOSTICS.qos)
        )
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(
            self.value("diagnostics_period"), self._publish_diagnostics, clock=self._steady
        )

    # What subclasses implement.

    def configure(self) -> None:
        """Read parameters and load what the work needs; InputError where that is impossible."""

    def on_message(self, topic: Topic, stamp: int, message: Any) -> None:
        """A message or a Shared came in; one call at a time, stamp in nanoseconds."""

    def tick(self) -> None:
        """Called with every diagnostics message, never beside `on_message`."""

    def finish(self) -> None:
        """The node ends; called once, after the last frame."""

    def check(self, name: str, value: Any) -> None:
        """Refuse a parameter's new value, in the executor's thread; its range is checked already.

        Raises:
            InputError: it is refused.
        """

    def inputs(self) -> Sequence[Topic]:
        """The topics to subscribe to when activated; by default all that are declared."""
        return self.declaration.subscribes

    # What they use.

    def value(self, name: str) -> Any:
        """A parameter's value."""
        value = self.get_parameter(name).value
        return list(value) if isinstance(self._declared(name).default, list) else value

    def settings(self, kind: type[_T]) -> _T:
        """Settings of a type from the parameters of its fields' names; InputError as `checked`."""
        names = [f.name for f in fields(kind) if f.name in self._by_name]  # type: ignore[arg-type]
        return checked(kind, {name: self.value(name) for name in names}, "parameters")

    def topic_name(self, name: str) -> str:
        """A declared topic's name after namespace and remapping."""
        return str(self.resolve_topic_name(name))

    def overridden(self, kind: type, name: str, qos: QoSProfile) -> QoSProfile:
        """See `amodal_ros.qos.overridden`; `name` is the topic's as the node knows it."""
        return overridden(self, kind, self.topic_name(name), qos)

    def publish(self, topic: str, message: Any) -> None:
        """Publish on a declared topic, where the node is active."""
        output = self._outputs.get(topic)
        if output is not None and rclpy.ok(context=self.context):
            output.publish(message)

    def pass_on(self, topic: Topic, item: Shared, output: Callable[[], Output]) -> None:
        """Give the nodes of this process what was made, and its message whoever else listens.

        Args:
            topic: a declared output.
            item: what was made; nobody changes it from now on.
            output: makes the message; called where somebody listens.
        """
        offered = self._outputs.get(topic.name)
        if offered is None or not offered.is_activated or not rclpy.ok(context=self.context):
            return
        self._exchange.pass_on(self.topic_name(topic.name), item)
        if self.listeners(topic.name):
            self.publish_all([output()])

    def publish_all(self, outputs: Iterable[Output]) -> None:
        """Publish messages that come with their topics."""
        for topic, message in outputs:
            self.publish(topic.name, message)

    def listeners(self, topic: str) -> int:
        """How many subscribe to a declared output."""
        output = self._outputs.get(topic)
        return int(output.get_subscription_count()) if output is not None else 0

    def drop(self, reason: str, detail: str = "") -> None:
        """Count a frame or a message that is given up; say so once in a while."""
        count = self.health.dropped(reason)
        self.warn(f"drop {reason}", f"dropped: {detail or reason} ({count} so far)")

    def warn(self, key: str, text: str) -> None:
        """Log a warning, at most once in five seconds for a key."""
        if self._due(key):
            self.get_logger().warning(text)

    def warn_all(self, warnings: Sequence[FrameWarning]) -> None:
        """Log the warnings and notes of a frame; a jump back has been logged when it came in."""
        for warning in warnings:
            if warning.kind in NOTES:
                self.get_logger().info(str(warning))
            elif warning.kind != TIME_JUMP:
                self.warn(warning.kind, str(warning))

    def error(self, key: str, text: str) -> None:
        """Log an error, at most once in five seconds for a key."""
        if self._due(key):
            self.get_logger().error(text)

    # Lifecycle. rclpy swallows exceptions in these callbacks, so they are logged here.

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Load what the work needs and offer the outputs."""
        try:
            self.configure()
            lossless = self.value("queue") == 0
            for topic in self.declaration.publishes:
                qos = self.overridden(Publisher, topic.name, profile(topic.qos, lossless=lossless))
                self._outputs[topic.name] = self.create_lifecycle_publisher(
                    message_class(topic.type), topic.name, qos
                )
        except Exception as error:
            self._refuse("configure", error)
            self._release()
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Subscribe."""
        result = super().on_activate(state)
        try:
            self._begin()
            lossless = self.value("queue") == 0
            for topic in self.inputs():
                qos = profile(topic.qos, reliability=self.value("reliability"), lossless=lossless)
                self.health.expect(topic.name, self.topic_name(topic.name), topic.required)
                self._subscribe(topic, topic.name, qos)
        except Exception as error:
            self._refuse("activate", error)
            self._stop()
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        self._publish_diagnostics()  # whoever waits for it need not wait for the next ones
        return result

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Unsubscribe."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Give up the outputs."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Stop, from whatever state."""
        self._stop()
        return super().on_shutdown(state)

    def autostart(self) -> bool:
        """See `start`."""
        return start([self])

    def close(self) -> None:
        """Process what waits, where the queue keeps every frame, and end.

        Raises:
            InputError: what was to be done at the end cannot be done.
        """
        self.ending = True
        self._stop(finish=self.value("queue") == 0)
        if self.health.drops:
            reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(self.health.drops.items()))
            self.last_words(f"{self.health.frames} frames processed, dropped: {reasons}")
        self.finish()

    def last_words(self, text: str) -> None:
        """Log a line when the context may be gone already, and with it the way to /rosout."""
        if rclpy.ok(context=self.context):
            self.get_logger().info(text)
        else:
            print(f"[INFO] [{self.get_name()}]: {text}", file=sys.stderr, flush=True)

    # Inside.

    def _declared(self, name: str) -> Parameter:
        return self._by_name[name]

    def _check_parameters(self, parameters: Sequence[Any]) -> SetParametersResult:
        for parameter in parameters:
            declared = self._by_name.get(parameter.name)
            if declared is None:
                continue
            reason = declared.refusal(parameter.value)
            try:
                if not reason:
                    self.check(parameter.name, parameter.value)
            except InputError as error:
                reason = str(error)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _subscribe(self, topic: Topic, name: str, qos: Any) -> None:
        """Subscribe to an input, a compressed image by what its name says."""
        compressed = topic is IMAGE and self.topic_name(name).endswith(COMPRESSED_SUFFIX)
        kind = message_class(COMPRESSED.type if compressed else topic.type)
        qos = self.overridden(Subscription, name, qos)
        self._exchange.subscribe(
            self, kind, name, qos, self._receiver(topic), shared=topic in (IMAGE, POINTS)
        )
        if topic is IMAGE:
            self._raw_image = None if compressed else qos
            self._look(not compressed)

    def _look(self, begin: bool) -> None:
        """Begin to look who publishes the image, more often than diagnostics come; or end it."""
        if self._looking is not None:
            self.destroy_timer(self._looking)
            self._looking = None
        if begin:
            self._looking = self.create_timer(
                _LOOK, self._follow_compressed_until_one_comes, clock=self._steady
            )

    def _follow_compressed_until_one_comes(self) -> None:
        if self.health.count(IMAGE.name):
            self._look(False)
        else:
            self._follow_compressed()

    def _follow_compressed(self) -> None:
        """Where nobody publishes the image but as a compressed one, subscribe to that."""
        if self._raw_image is None:
            return
        name = self.topic_name(IMAGE.name)
        if not self.count_publishers(name) and self.count_publishers(name + COMPRESSED_SUFFIX):
            self.get_logger().info(f"{name} is published as {name}{COMPRESSED_SUFFIX}")
            self._subscribe(IMAGE, name + COMPRESSED_SUFFIX, self._raw_image)

    def _receiver(self, topic: Topic) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            stamp = stamp_of(message.header) if hasattr(message, "header") else 0
            self.health.received(topic.name, stamp)
            try:
                with self._taking:
                    self.on_message(topic, stamp, message)
            except InputError as error:
                self.health.dropped(f"refused {topic.name}")
                self.error(f"refuse {topic.name}", f"message refused: {error}")
            except Exception as error:
                self._caught((stamp, message), error)

        return receive

    def _caught(self, item: tuple[int, Any] | None, error: Exception) -> None:
        """An exception in a callback or the worker: say where, count, go on with the next frame."""
        if not rclpy.ok(context=self.context):
            return
        self._note(f"frame {seconds(item[0])}" if item is not None else "reset", error)

    def caught(self, error: Exception) -> None:
        """What a callback of this node raised outside of its frames: as `_caught`."""
        self._note("a callback", error)

    def _note(self, at: str, error: Exception) -> None:
        line = f"{at}: {type(error).__name__}: {error}"
        self.failing += 1
        self.health.failed(line)
        if self._due(f"exception {type(error).__name__}"):
            self.get_logger().error(f"{line}\n{''.join(traceback.format_exception(error))}")

    def _refuse(self, step: str, error: Exception) -> None:
        self.refused = isinstance(error, InputError)
        text = str(error) if self.refused else traceback.format_exc()
        self.get_logger().error(f"cannot {step}: {text}")

    def _due(self, key: str) -> bool:
        now = time.monotonic()
        with self._throttle_lock:
            if now - self._throttled.get(key, -_THROTTLE) < _THROTTLE:
                return False
            self._throttled[key] = now
            return True

    def _begin(self) -> None:
        """Before the first message of an activation."""

    def _stop(self, *, finish: bool = False) -> None:
        """After the last one; `finish` what waits, or forget it."""
        self._exchange.unsubscribe(self)
        self._raw_image = None
        self._look(False)
        self.health.forget_inputs()

    def _release(self) -> None:
        for output in self._outputs.values():
            self.destroy_lifecycle_publisher(output)
        self._outputs.clear()

    def _publish_diagnostics(self) -> None:
        self._follow_compressed()
        with self._taking:
            self.tick()
        self.tell_health()

    def tell_health(self) -> None:
        """Publish the node's diagnostics."""
        level, line, values = self.health.summary(
            self.value("stale_after"), self.value("lost_after")
        )
        values[PROCESS] = str(os.getpid())
        status = DiagnosticStatus(
            level=_LEVELS[level],
            name=f"{self.get_fully_qualified_name()}",
            message=line,
            hardware_id=HOST,
            values=[KeyValue(key=k, value=v) for k, v in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    """The ROS descriptor of a declared parameter."""
    constraint = "" if parameter.low is not None else parameter.constraint
    descriptor = ParameterDescriptor(
        description=parameter.description,
        additional_constraints=constraint,
        read_only=not parameter.dynamic,
    )
    if parameter.low is not None and parameter.high is not None:
        if isinstance(parameter.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high), step=0)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(
                    from_value=float(parameter.low), to_value=float(parameter.high), step=0.0
                )
            ]
    return descriptor


def seconds(stamp: int) -> str:
    """A stamp in nanoseconds as text."""
    return f"{stamp // 1_000_000_000}.{stamp % 1_000_000_000:09d}"


def start(nodes: Sequence[BaseNode]) -> bool:
    """Configure and activate nodes, all but those that a lifecycle manager is to; whether it went.

    They are activated from the last to the first, so that none makes what nobody takes yet.
    """
    own = [node for node in nodes if node.value("autostart")]
    done = TransitionCallbackReturn.SUCCESS
    return all(node.trigger_configure() == done for node in own) and all(
        node.trigger_activate() == done for node in reversed(own)
    )
