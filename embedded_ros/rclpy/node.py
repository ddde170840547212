"""Nodes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from builtin_interfaces.msg import Time as TimeMsg
from cyclonedds.qos import Policy
from rcl_interfaces.msg import Log, ParameterEvent

from embedded_ros import arguments, names
from embedded_ros import graph as ros_graph
from embedded_ros.importer import absent_attribute, missing
from embedded_ros.interfaces import type_hash

from . import logging
from .callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from .client import Client
from .clock import Clock, ROSClock
from .event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from .exceptions import (
    InvalidHandle,
    InvalidNodeNameException,
    InvalidTopicNameException,
    NotInitializedException,
)
from .guard_condition import GuardCondition
from .node_parameters import NodeParameters
from .parameter import Parameter
from .publisher import Publisher
from .qos import (
    QoSProfile,
    as_profile,
    from_dds,
    qos_profile_parameter_events,
    qos_profile_rosout_default,
    qos_profile_services_default,
)
from .service import Service
from .subscription import Subscription
from .time_source import TimeSource
from .timer import Rate, Timer
from .utilities import get_default_context

__getattr__ = absent_attribute(__name__)

_ABSENT = frozenset(
    {
        "add_waitable",
        "create_generic_publisher",
        "create_generic_subscription",
        "get_client_names_and_types_by_node",
        "get_publisher_names_and_types_by_node",
        "get_service_names_and_types_by_node",
        "get_subscriber_names_and_types_by_node",
        "set_descriptor",
        "wait_for_node",
    }
)


class TopicEndpointInfo(NamedTuple):
    """Who publishes or subscribes, how."""

    node_name: str
    node_namespace: str
    topic_type: str
    topic_type_hash: str
    endpoint_type: str
    endpoint_gid: list[int]
    qos_profile: QoSProfile


class Node(NodeParameters):
    """A named part of the ROS graph that owns publishers, subscriptions, timers and so on."""

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
        allow_undeclared_parameters: bool = False,
        automatically_declare_parameters_from_overrides: bool = False,
        enable_logger_service: bool = False,
    ) -> None:
        if enable_logger_service:
            missing("rclpy.logging_service")
        self._context = context or get_default_context()
        if not self._context.ok():
            raise NotInitializedException("cannot create node")
        sources = [self._context.arguments] if use_global_arguments else []
        if cli_args:
            own = list(cli_args) if "--ros-args" in cli_args else ["--ros-args", *cli_args]
            # A node's own arguments come before the process's.
            sources.insert(0, arguments.parse(own))
        self._rules = [rule for source in sources for rule in source.rules]
        self._name_node(node_name, namespace or "")
        self._executor: Any = None
        self._default_group = MutuallyExclusiveCallbackGroup()
        self._owned: list[Any] = []
        self._destroyed = False
        self._graph_key = (self._namespace, self._name)
        self._context.graph.add_node(*self._graph_key)
        base = self._namespace.strip("/").replace("/", ".")
        self._logger = logging.get_logger(f"{base}.{self._name}" if base else self._name)
        if enable_rosout and all(source.rosout for source in sources):
            rosout = self.create_publisher(Log, "/rosout", qos_profile_rosout_default)
            logging.rosout[self._logger.name] = _rosout(rosout)
        self._parameter_events = self.create_publisher(
            ParameterEvent, "/parameter_events", qos_profile_parameter_events
        )
        overrides = self._overrides(sources[::-1], parameter_overrides or ())
        self._init_parameters(overrides, allow_undeclared_parameters)
        self._clock = ROSClock()
        if automatically_declare_parameters_from_overrides:
            for name, parameter in overrides.items():
                self.declare_parameter(name, parameter.value, ignore_override=True)
        self._time_source = TimeSource(self, self._clock)
        if start_parameter_services:
            self._start_parameter_services()

    def __getattr__(self, name: str) -> NoReturn:
        if name in _ABSENT:
            raise NotImplementedError(
                f"rclpy.node.Node.{name} is not part of embedded_ros; install ros-jazzy-rclpy"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _name_node(self, name: str, namespace: str) -> None:
        namespace = namespace if namespace.startswith("/") else f"/{namespace}"
        given = name
        for wanted in ("__node", "__ns"):
            for rule in self._rules:
                match = "__node" if rule.match == "__name" else rule.match
                if match != wanted or (rule.node and rule.node != given):
                    continue
                if wanted == "__node":
                    name = rule.replacement
                else:
                    namespace = rule.replacement
                break
        if wrong := names.node_name_error(name):
            raise InvalidNodeNameException(name, *wrong)
        if namespace != "/" and (wrong := names.topic_name_error(namespace)):
            raise InvalidTopicNameException(namespace, *wrong)
        self._name, self._namespace = name, namespace

    def _overrides(
        self, sources: Sequence[arguments.Arguments], given: Sequence[Parameter]
    ) -> dict[str, Parameter]:
        found: dict[str, Parameter] = {}
        for source in sources:
            for pattern, values in source.parameters:
                if arguments.node_matches(pattern, self.get_fully_qualified_name()):
                    found.update({n: Parameter(n, value=v) for n, v in values.items()})
        found.update({parameter.name: parameter for parameter in given})
        return found

    @property
    def context(self) -> Any:
        """The context that it lives in."""
        return self._context

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
    def default_callback_group(self) -> CallbackGroup:
        """The group of everything that is created without one."""
        return self._default_group

    @property
    def publishers(self) -> list[Publisher]:
        """Its publishers."""
        return [e for e in self._owned if isinstance(e, Publisher)]

    @property
    def subscriptions(self) -> list[Subscription]:
        """Its subscriptions."""
        return [e for e in self._owned if isinstance(e, Subscription)]

    @property
    def timers(self) -> list[Timer]:
        """Its timers."""
        return [e for e in self._owned if isinstance(e, Timer)]

    @property
    def services(self) -> list[Service]:
        """Its services."""
        return [e for e in self._owned if isinstance(e, Service)]

    @property
    def clients(self) -> list[Client]:
        """Its clients."""
        return [e for e in self._owned if isinstance(e, Client)]

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

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        """The full name of a topic, remapped.

        Raises:
            InvalidTopicNameException: the name breaks the rules.
        """
        if wrong := names.topic_name_error(topic):
            raise InvalidTopicNameException(topic, *wrong)
        full = names.expand(topic, self._name, self._namespace)
        if only_expand:
            return full
        return names.remap(full, self._name, self._namespace, self._rules)

    resolve_service_name = resolve_topic_name

    def create_publisher(
        self,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: PublisherEventCallbacks | None = None,
        publisher_class: type[Publisher] = Publisher,
    ) -> Publisher:
        """A publisher; `qos_profile` may be a depth. Keyword arguments as in rclpy."""
        full = self.resolve_topic_name(topic)
        made = publisher_class(self, msg_type, full, as_profile(qos_profile))
        events = (event_callbacks or PublisherEventCallbacks()).create_event_handler(
            made._open, full, self._logger.name, callback_group or self._default_group
        )
        return self._own(made, events, made._open)

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[..., Any],
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        raw: bool = False,
    ) -> Subscription:
        """A subscription; `raw` ones get CDR bytes. Keyword arguments as in rclpy."""
        full = self.resolve_topic_name(topic)
        group = callback_group or self._default_group
        made = Subscription(self, msg_type, full, callback, group, as_profile(qos_profile), raw)
        events = (event_callbacks or SubscriptionEventCallbacks()).create_event_handler(
            made._open, full, self._logger.name, group
        )
        return self._own(made, events, made._open)

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[..., Any],
        callback_group: CallbackGroup | None = None,
        clock: Clock | None = None,
        autostart: bool = True,
    ) -> Timer:
        """A timer on the node's clock, or on another."""
        period, group = int(float(timer_period_sec) * 1e9), callback_group or self._default_group
        timer = Timer(self, callback, group, period, clock or self._clock, autostart)
        return self._own(timer, None)

    def create_rate(self, frequency: float, clock: Clock | None = None) -> Rate:
        """A rate on the node's clock, or on another."""
        return Rate(frequency, clock or self._clock, self._context)

    def create_service(
        self,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Service:
        """A service; the callback gets request and response and returns the response."""
        full, group = self.resolve_service_name(srv_name), callback_group or self._default_group
        made = Service(self, srv_type, full, callback, group, qos_profile)
        return self._own(made, None, made._reader, made._writer)

    def create_client(
        self,
        srv_type: Any,
        srv_name: str,
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Client:
        """A client of a service."""
        full, group = self.resolve_service_name(srv_name), callback_group or self._default_group
        made = Client(self, srv_type, full, group, qos_profile)
        return self._own(made, None, made._reader, made._writer)

    def create_guard_condition(
        self, callback: Callable[[], Any], callback_group: CallbackGroup | None = None
    ) -> GuardCondition:
        """A guard condition."""
        group = callback_group or self._default_group
        return self._own(GuardCondition(callback, group, self._context), None)

    def _own(self, entity: Any, events: Any, *endpoints: Any) -> Any:
        if self._destroyed:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")
        if events is not None:
            entity.event_handlers.append(events)
        self._owned.append(entity)
        if endpoints:
            self._context.graph.add(self._graph_key, *endpoints)
        self._wake()
        return entity

    def _entities(self) -> list[Any]:
        """What an executor waits for."""
        found = []
        for entity in list(self._owned):
            if not isinstance(entity, Publisher):
                found.append(entity)
            found.extend(getattr(entity, "event_handlers", ()))
        return found

    def _wake(self) -> None:
        executor = self.executor
        if executor is not None:
            executor.wake()

    def _destroy(self, entity: Any) -> bool:
        if entity not in self._owned:
            return False
        self._owned.remove(entity)
        if hasattr(entity, "event_handlers"):
            entity.event_handlers.clear()
        closed = entity._close()
        if closed and not self._destroyed:
            self._context.graph.remove(self._graph_key, *closed)
        self._wake()
        return True

    destroy_publisher = _destroy
    destroy_subscription = _destroy
    destroy_timer = _destroy
    destroy_service = _destroy
    destroy_client = _destroy
    destroy_guard_condition = _destroy

    def destroy_rate(self, rate: Rate) -> bool:
        """Rates own nothing."""
        return True

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
        self._context.graph.remove_node(*self._graph_key)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy_node()

    def _publish_parameter_event(self, event: Any) -> None:
        event.stamp = self._clock.now().to_msg()
        self._parameter_events.publish(event)

    def get_node_names(self) -> list[str]:
        """Names of all nodes on the network."""
        return [name for _, name, _ in self._context.graph.nodes()]

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        """(name, namespace) of all nodes on the network."""
        return [(name, namespace) for namespace, name, _ in self._context.graph.nodes()]

    def get_topic_names_and_types(self, no_demangle: bool = False) -> list[tuple[str, list[str]]]:
        """All topics on the network."""
        return self._context.graph.topics()

    def get_service_names_and_types(self) -> list[tuple[str, list[str]]]:
        """All services on the network."""
        return self._context.graph.services()

    def count_publishers(self, topic_name: str) -> int:
        """How many publishers a topic has on the network."""
        return len(self._endpoints(topic_name, True))

    def count_subscribers(self, topic_name: str) -> int:
        """How many subscriptions a topic has on the network."""
        return len(self._endpoints(topic_name, False))

    def get_publishers_info_by_topic(self, topic_name: str) -> list[TopicEndpointInfo]:
        """Who publishes a topic."""
        return self._endpoint_infos(topic_name, True)

    def get_subscriptions_info_by_topic(self, topic_name: str) -> list[TopicEndpointInfo]:
        """Who subscribes to a topic."""
        return self._endpoint_infos(topic_name, False)

    def _endpoints(self, topic_name: str, writers: bool) -> list[Any]:
        wanted = f"rt{self.resolve_topic_name(topic_name)}"
        found = self._context.graph.endpoints(writers)
        return [endpoint for endpoint in found if endpoint.topic_name == wanted]

    def _endpoint_infos(self, topic_name: str, writers: bool) -> list[TopicEndpointInfo]:
        owners = {
            gid.data.tobytes(): (name, namespace)
            for namespace, name, info in self._context.graph.nodes()
            for gid in (info.writer_gid_seq if writers else info.reader_gid_seq)
        }
        found = []
        for endpoint in self._endpoints(topic_name, writers):
            kind = ros_graph.ros_type(endpoint.type_name)
            gid = endpoint.key.bytes
            name, namespace = owners.get(gid, ("_NODE_NAME_UNKNOWN_", "_NODE_NAMESPACE_UNKNOWN_"))
            policy = endpoint.qos[Policy.Userdata]
            hashes = [i for i in (policy.data if policy else b"").split(b";") if b"typehash=" in i]
            known = hashes[0].decode().partition("=")[2] if hashes else type_hash(kind)
            role = "PUBLISHER" if writers else "SUBSCRIPTION"
            info = (name, namespace, kind, known, role, list(gid), from_dds(endpoint.qos))
            found.append(TopicEndpointInfo(*info))
        return found


def _rosout(publisher: Publisher) -> Callable[..., None]:
    def publish(
        now: int, level: int, name: str, message: str, file: str, function: str, line: int
    ) -> None:
        stamp = TimeMsg(sec=now // 10**9, nanosec=now % 10**9)
        log = Log(
            stamp=stamp,
            level=level,
            name=name,
            msg=message,
            file=file,
            function=function,
            line=line,
        )
        publisher.publish(log)

    return publish
