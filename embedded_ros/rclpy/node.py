"""Nodes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from builtin_interfaces.msg import Time as TimeMsg
from rcl_interfaces.msg import Log, ParameterEvent

from embedded_ros import arguments, names
from embedded_ros.importer import refuse_arguments

from . import logging
from .client import Client
from .clock import Clock, TimeSource
from .context import get_default_context
from .exceptions import (
    InvalidHandle,
    InvalidNodeNameException,
    InvalidTopicNameException,
    NotInitializedException,
)
from .node_parameters import NodeParameters
from .parameter import Parameter
from .publisher import Publisher
from .qos import (
    QoSProfile,
    as_profile,
    qos_profile_parameter_events,
    qos_profile_rosout_default,
    qos_profile_services_default,
)
from .qos_overriding_options import QoSOverridingOptions, _declare_qos_parameters
from .service import Service
from .subscription import Subscription
from .time import ClockType
from .timer import Timer


class Node(NodeParameters):
    """A named part of the ROS graph that owns publishers, subscriptions, timers and so on."""

    _absent = (
        "clients get_topic_names_and_types services timers "
        "add_pre_set_parameters_callback add_waitable create_guard_condition create_rate "
        "declare_parameters default_callback_group destroy_guard_condition destroy_rate "
        "get_client_names_and_types_by_node get_parameter_or get_parameter_type "
        "get_parameters_by_prefix get_publisher_names_and_types_by_node "
        "get_publishers_info_by_topic get_service_names_and_types "
        "get_service_names_and_types_by_node get_subscriber_names_and_types_by_node "
        "get_subscriptions_info_by_topic guards handle remove_on_set_parameters_callback "
        "remove_post_set_parameters_callback remove_pre_set_parameters_callback "
        "remove_waitable set_descriptor undeclare_parameter wait_for_node waitables"
    )

    def __init__(
        self,
        node_name: str,
        *,
        context: Any = None,
        cli_args: Sequence[str] | None = None,
        namespace: str | None = None,
        use_global_arguments: bool = True,
        enable_rosout: bool = True,
        start_parameter_services: bool = True,
        parameter_overrides: Sequence[Parameter] | None = None,
        **absent: Any,
    ) -> None:
        refuse_arguments("rclpy.node.Node", absent)
        self.context = context or get_default_context()
        if not self.context.ok():
            raise NotInitializedException("cannot create node")
        sources = [self.context.arguments] if use_global_arguments else []
        if cli_args:
            own = list(cli_args) if "--ros-args" in cli_args else ["--ros-args", *cli_args]
            # A node's own arguments come before the process's.
            sources.insert(0, arguments.parse(own))
        self._rules = [rule for source in sources for rule in source.rules]
        self._name_node(node_name, namespace or "")
        self._executor: Any = None
        self._owned: list[Any] = []
        self._destroyed = False
        self._graph_key = (self._namespace, self._name)
        self.context.graph.add_node(*self._graph_key)
        base = self._namespace.strip("/").replace("/", ".")
        self._logger = logging.get_logger(f"{base}.{self._name}" if base else self._name)
        self.context.track_node(self)
        if enable_rosout and all(source.rosout for source in sources):
            rosout = self.create_publisher(Log, "/rosout", qos_profile_rosout_default)
            logging.rosout[self._logger.name] = _log_publisher(rosout)
        self._parameter_events = self.create_publisher(
            ParameterEvent, "/parameter_events", qos_profile_parameter_events
        )
        super().__init__(self._overrides(sources[::-1], parameter_overrides or ()))
        self._clock = Clock(clock_type=ClockType.ROS_TIME)
        self._time_source = TimeSource(self, self._clock)
        if start_parameter_services:
            self._start_parameter_services()

    def _name_node(self, name: str, namespace: str) -> None:
        namespace = namespace if namespace.startswith("/") else f"/{namespace}"
        mine = [rule for rule in self._rules if rule.node in ("", name)]
        self._name = next((r.replacement for r in mine if r.match in ("__node", "__name")), name)
        self._namespace = next((r.replacement for r in mine if r.match == "__ns"), namespace)
        if wrong := names.node_name_error(self._name):
            raise InvalidNodeNameException(self._name, *wrong)
        if self._namespace != "/" and (wrong := names.topic_name_error(self._namespace)):
            raise InvalidTopicNameException(self._namespace, *wrong)

    def _overrides(
        self, sources: Sequence[arguments.Arguments], given: Sequence[Parameter]
    ) -> dict[str, Parameter]:
        overrides: dict[str, Parameter] = {}
        for source in sources:
            for pattern, values in source.parameters:
                if arguments.node_matches(pattern, self.get_fully_qualified_name()):
                    overrides.update({n: Parameter(n, value=v) for n, v in values.items()})
        overrides.update({parameter.name: parameter for parameter in given})
        return overrides

    @property
    def executor(self) -> Any:
        """The executor that serves it, or None."""
        return self._executor() if self._executor else None

    @executor.setter
    def executor(self, new_executor: Any) -> None:
        current = self.executor
        if current is new_executor:
            return
        self._executor = None if new_executor is None else weakref.ref(new_executor)
        if current is not None:
            current.remove_node(self)
        if new_executor is not None:
            new_executor.add_node(self)

    @property
    def publishers(self) -> list[Publisher]:
        """Its publishers."""
        return [e for e in self._owned if isinstance(e, Publisher)]

    @property
    def subscriptions(self) -> list[Subscription]:
        """Its subscriptions."""
        return [e for e in self._owned if isinstance(e, Subscription)]

    def get_name(self) -> str:
        """Its name."""
        return self._name

    def get_namespace(self) -> str:
        """Its namespace, which begins with a slash."""
        return self._namespace

    def get_fully_qualified_name(self) -> str:
        """Namespace and name."""
        return f"{self._namespace.rstrip('/')}/{self._name}"

    def get_logger(self) -> logging.RcutilsLogger:
        """Its logger; what it logs goes to /rosout too."""
        return self._logger

    def get_clock(self) -> Clock:
        """Its clock: system time, or /clock while use_sim_time is true."""
        return self._clock

    def resolve_topic_name(self, topic: str) -> str:
        """The full name of a topic, remapped.

        Raises:
            InvalidTopicNameException: the name breaks the rules.
        """
        if wrong := names.topic_name_error(topic):
            raise InvalidTopicNameException(topic, *wrong)
        full = names.expand(topic, self._name, self._namespace)
        return names.remap(full, self._name, self._namespace, self._rules)

    resolve_service_name = resolve_topic_name

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        publisher_class: type[Publisher] = Publisher,
        qos_overriding_options: QoSOverridingOptions | None = None,
        **absent: Any,
    ) -> Any:
        """A publisher; `qos_profile` may be a depth, and parameters may override it."""
        refuse_arguments("rclpy.node.Node.create_publisher", absent)
        full, profile = self.resolve_topic_name(topic), as_profile(qos_profile)
        if qos_overriding_options is not None:
            _declare_qos_parameters(publisher_class, self, full, profile, qos_overriding_options)
        made = publisher_class(self, msg_type, full, profile)
        return self._own(made, made._open)

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[[Any], Any],
        qos_profile: QoSProfile | int,
        *,
        qos_overriding_options: QoSOverridingOptions | None = None,
        **absent: Any,
    ) -> Subscription:
        """A subscription; the callback gets each message. Parameters may override the profile."""
        refuse_arguments("rclpy.node.Node.create_subscription", absent)
        full, profile = self.resolve_topic_name(topic), as_profile(qos_profile)
        if qos_overriding_options is not None:
            _declare_qos_parameters(Subscription, self, full, profile, qos_overriding_options)
        made = Subscription(self, msg_type, full, callback, profile)
        return self._own(made, made._open)

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[[], Any],
        *,
        clock: Clock | None = None,
        **absent: Any,
    ) -> Timer:
        """A timer on the node's clock, or on another."""
        refuse_arguments("rclpy.node.Node.create_timer", absent)
        period = int(float(timer_period_sec) * 1e9)
        return self._own(Timer(self, callback, period, clock or self._clock))

    def create_service(
        self,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        **absent: Any,
    ) -> Service:
        """A service; the callback gets request and response and returns the response."""
        refuse_arguments("rclpy.node.Node.create_service", absent)
        full = self.resolve_service_name(srv_name)
        made = Service(self, srv_type, full, callback, qos_profile)
        return self._own(made, made._reader, made._writer)

    def create_client(
        self,
        srv_type: Any,
        srv_name: str,
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        **absent: Any,
    ) -> Client:
        """A client of a service."""
        refuse_arguments("rclpy.node.Node.create_client", absent)
        made = Client(self, srv_type, self.resolve_service_name(srv_name), qos_profile)
        return self._own(made, made._reader, made._writer)

    def _own(self, entity: Any, *endpoints: Any) -> Any:
        if self._destroyed:
            entity._close()
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        self._owned.append(entity)
        if endpoints:
            self.context.graph.add(self._graph_key, *endpoints)
        self._wake()
        return entity

    def _entities(self) -> list[Any]:
        """What an executor waits for."""
        owned = list(self._owned)
        entities = [entity for entity in owned if not isinstance(entity, Publisher)]
        return entities + [e.mismatch for e in owned if isinstance(e, Publisher | Subscription)]

    def _wake(self) -> None:
        executor = self.executor
        if executor is not None:
            executor.wake()

    def _destroy(self, entity: Any) -> bool:
        if entity not in self._owned:
            return False
        self._owned.remove(entity)
        closed = entity._close()
        if closed and not self._destroyed:
            self.context.graph.remove(self._graph_key, *closed)
        self._wake()
        return True

    destroy_publisher = _destroy
    destroy_subscription = _destroy
    destroy_timer = _destroy
    destroy_service = _destroy
    destroy_client = _destroy

    def destroy_node(self) -> None:
        """Leave the graph, with everything that it owns."""
        if self._destroyed:
            return
        self._destroyed = True
        logging.rosout.pop(self._logger.name, None)
        if self.executor is not None:
            self.executor.remove_node(self)
        for entity in list(self._owned):
            self._destroy(entity)
        self.context.graph.remove_node(*self._graph_key)
        self.context.untrack_node(self)

    def _publish_parameter_event(self, event: Any) -> None:
        event.stamp = self._clock.now().to_msg()
        self._parameter_events.publish(event)

    def get_node_names(self) -> list[str]:
        """Names of all nodes on the network."""
        return [name for _, name in self.context.graph.nodes()]

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        """(name, namespace) of all nodes on the network."""
        return [(name, namespace) for namespace, name in self.context.graph.nodes()]

    def count_publishers(self, topic_name: str) -> int:
        """How many publishers a topic has on the network."""
        return self._count(topic_name, writers=True)

    def count_subscribers(self, topic_name: str) -> int:
        """How many subscriptions a topic has on the network."""
        return self._count(topic_name, writers=False)

    def _count(self, topic_name: str, writers: bool) -> int:
        name = f"rt{self.resolve_topic_name(topic_name)}"
        return int(self.context.graph.count(name, writers=writers))


def _log_publisher(publisher: Publisher) -> Callable[..., None]:
    # A logger outlives a node that is forgotten instead of destroyed.
    reference = weakref.ref(publisher)

    def publish(now: int, **fields: Any) -> None:
        publisher = reference()
        if publisher is not None:
            stamp = TimeMsg(sec=now // 10**9, nanosec=now % 10**9)
            publisher.publish(Log(stamp=stamp, **fields))

    return publish
