"""Nodes of embedded_ros in separate processes over real DDS."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place


import pytest
import rclpy
from embedded_peers import TALKER, Peer, ros, spin_until
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from node_bench import PATIENCE
from rcl_interfaces.msg import Log, ParameterEvent, ParameterType, ParameterValue
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from embedded_ros import dds
from embedded_ros.rclpy.qos import to_dds
from embedded_ros.rclpy.service import pack

pytestmark = pytest.mark.dds
__all__ = ["ros"]


PARAMETERS = """
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rcl_interfaces.msg import SetParametersResult
rclpy.init(args=["--ros-args", "-p", "rate:=7", "-r", "__ns:=/robot", "-r", "__node:=renamed"])
node = rclpy.create_node("target")
node.declare_parameter("rate", 5, ParameterDescriptor(
    description="in Hz", integer_range=[IntegerRange(from_value=1, to_value=20, step=1)]))
node.declare_parameter("gain", 0.5, ParameterDescriptor(
    floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1.0, step=0.25)]))
node.declare_parameter("fixed", "yes", ParameterDescriptor(read_only=True))
node.declare_parameter("camera.names", ["left", "right"])
node.declare_parameter("odd", 1)
def check(parameters):
    even = [p for p in parameters if p.name == "odd" and p.value % 2 == 0]
    return SetParametersResult(successful=not even, reason="even" if even else "")
node.add_on_set_parameters_callback(check)
node.add_post_set_parameters_callback(
    lambda ps: say([[p.name, p.value] for p in ps]))
say("ready")
rclpy.spin(node)
"""


def test_parameters_can_be_read_and_set_from_another_process(ros):
    with Peer(ros, PARAMETERS) as peer:
        assert peer.hear() == "ready"
        node, events = rclpy.create_node("asker"), []
        node.create_subscription(ParameterEvent, "/parameter_events", events.append, 100)

        def ask(kind, name, **fields):
            client = node.create_client(kind, f"/robot/renamed/{name}")
            assert client.wait_for_service(10.0)
            future = client.call_async(kind.Request(**fields))
            rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
            node.destroy_client(client)
            return future.result()

        def integer(name, value):
            kind = ParameterType.PARAMETER_INTEGER
            return ParameterMessage(name=name, value=ParameterValue(type=kind, integer_value=value))

        def double(name, value):
            kind = ParameterType.PARAMETER_DOUBLE
            return ParameterMessage(name=name, value=ParameterValue(type=kind, double_value=value))

        def accepted(*parameters):
            answer = ask(SetParameters, "set_parameters", parameters=list(parameters))
            return [(r.successful, r.reason) for r in answer.results]

        listed = ask(ListParameters, "list_parameters").result
        assert set(listed.names) >= {"rate", "gain", "fixed", "camera.names", "use_sim_time"}
        assert listed.prefixes == ["camera"]
        below = ask(ListParameters, "list_parameters", prefixes=["camera"], depth=2).result
        assert below.names == ["camera.names"]
        values = ask(GetParameters, "get_parameters", names=["rate", "camera.names"]).values
        assert values[0].integer_value == 7
        assert values[1].string_array_value == ["left", "right"]
        assert ask(GetParameters, "get_parameters", names=["rate", "nope"]).values == []
        types = ask(GetParameterTypes, "get_parameter_types", names=["gain", "fixed"]).types
        assert list(types) == [
            ParameterType.PARAMETER_DOUBLE,
            ParameterType.PARAMETER_STRING,
        ]
        (about,) = ask(DescribeParameters, "describe_parameters", names=["rate"]).descriptors
        assert (about.name, about.description) == ("rate", "in Hz")
        assert about.integer_range[0].to_value == 20

        assert accepted(integer("rate", 20)) == [(True, "")]
        assert peer.hear() == [["rate", 20]]
        assert "out of range" in accepted(integer("rate", 21))[0][1]
        assert "Wrong parameter type" in accepted(double("rate", 3.0))[0][1]
        assert "not a valid step" in accepted(double("gain", 0.3))[0][1]
        assert accepted(integer("odd", 2)) == [(False, "even")]
        text = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="no")
        assert "read-only" in accepted(ParameterMessage(name="fixed", value=text))[0][1]
        assert not accepted(integer("nope", 1))[0][0]
        both = [integer("rate", 3), integer("odd", 4)]
        result = ask(SetParametersAtomically, "set_parameters_atomically", parameters=both).result
        assert (result.successful, result.reason) == (False, "even")
        values = ask(GetParameters, "get_parameters", names=["rate", "odd", "gain"]).values
        assert [v.integer_value for v in values[:2]] == [20, 1]
        assert values[2].double_value == 0.5
        changed = [e.changed_parameters[0].name for e in events if e.changed_parameters]
        assert changed == ["rate"]
        assert events[0].node == "/robot/renamed"


def test_a_service_answers_each_of_several_clients(ros):
    code = """
    from std_srvs.srv import SetBool
    rclpy.init(args=[])
    node = rclpy.create_node("server")
    def answer(request, response):
        response.success, response.message = request.data, f"was {request.data}"
        return response
    node.create_service(SetBool, "switch", answer)
    say("ready")
    rclpy.spin(node)
    """
    from std_srvs.srv import SetBool

    with Peer(ros, code) as server:
        server.hear()
        node = rclpy.create_node("client")
        clients = [node.create_client(SetBool, "switch") for _ in range(2)]
        assert all(client.wait_for_service(10.0) for client in clients)
        futures = [c.call_async(SetBool.Request(data=bool(i))) for i, c in enumerate(clients)]
        assert spin_until(node, lambda: all(f.done() for f in futures))
        assert [f.result().message for f in futures] == ["was False", "was True"]
        absent = node.create_client(SetBool, "elsewhere")
        assert not absent.wait_for_service(0.1)


def test_a_service_of_another_middleware_is_named_and_not_waited_for(ros, capfd):
    """Fast DDS' endpoints say no serviceid."""
    from std_srvs.srv import SetBool

    node = rclpy.create_node("asked")
    foreign = to_dds(QoSProfile(depth=10), "")
    participant, kind = node.context.participant, "std_srvs/srv/SetBool"
    ends = [
        dds.Reader(participant, "rq/switchRequest", f"{kind}_Request", foreign),
        dds.Writer(participant, "rr/switchReply", f"{kind}_Response", foreign),
    ]
    client = node.create_client(SetBool, "switch")
    assert not client.wait_for_service(1.0)
    lines = [line for line in capfd.readouterr().err.splitlines() if "/switch" in line]
    assert len(lines) == 1
    assert "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp" in lines[0]
    # The other way round its requests are told from malformed ones.
    node.create_service(SetBool, "own", lambda request, response: response)
    ends.append(dds.Writer(participant, "rq/ownRequest", f"{kind}_Request", foreign))
    assert spin_until(node, ends[-1].matched)
    ends[-1].write(pack(7, 1, SetBool.Request(data=True)))
    assert spin_until(node, lambda: "/own" in capfd.readouterr().err)
    for end in ends:
        end.close()


def test_the_graph_shows_other_processes_and_forgets_them(ros):
    with Peer(ros, TALKER, "1", "2") as talker:
        talker.hear()
        node = rclpy.create_node("observer", namespace="deep/down")
        assert spin_until(node, lambda: node.count_publishers("/chat") == 1)
        assert spin_until(node, lambda: set(node.get_node_names()) == {"talker", "observer"})
        assert ("observer", "/deep/down") in node.get_node_names_and_namespaces()
        assert talker.interrupt() is not None
        assert spin_until(node, lambda: node.count_publishers("/chat") == 0, timeout=5.0)
        assert node.get_node_names() == ["observer"]


LIFECYCLE = """
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_msgs.msg import String
class Managed(LifecycleNode):
    def on_configure(self, state):
        self.publisher = self.create_lifecycle_publisher(String, "out", 10)
        self.create_timer(0.05, lambda: self.publisher.publish(String(data="x")))
        return super().on_configure(state)
    def on_cleanup(self, state):
        raise RuntimeError("dirty")
rclpy.init(args=[])
node = Managed("managed")
say("ready")
rclpy.spin(node)
"""


def test_a_lifecycle_node_follows_its_services_and_publishes_only_while_active(ros):
    with Peer(ros, LIFECYCLE) as peer:
        assert peer.hear() == "ready"
        node, heard, events = rclpy.create_node("manager"), [], []
        node.create_subscription(String, "out", heard.append, 10)
        node.create_subscription(TransitionEvent, "/managed/transition_event", events.append, 10)

        def ask(kind, name, request):
            client = node.create_client(kind, f"/managed/{name}")
            assert client.wait_for_service(10.0)
            future = client.call_async(request)
            rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
            return future.result()

        def change(number):
            request = ChangeState.Request()
            request.transition.id = number
            return ask(ChangeState, "change_state", request).success

        def state():
            return ask(GetState, "get_state", GetState.Request()).current_state.label

        assert spin_until(node, lambda: node.count_publishers("/managed/transition_event") == 1)
        assert state() == "unconfigured"
        assert not change(3)
        assert change(1)
        assert state() == "inactive"
        spin_until(node, lambda: False, timeout=0.3)
        assert heard == []
        assert change(3)
        assert spin_until(node, lambda: len(heard) >= 3)
        assert change(4)
        spin_until(node, lambda: False, timeout=0.2)
        silent = len(heard)
        spin_until(node, lambda: False, timeout=0.3)
        assert len(heard) == silent
        assert not change(2)
        assert state() == "unconfigured"
        available = ask(
            GetAvailableTransitions,
            "get_available_transitions",
            GetAvailableTransitions.Request(),
        ).available_transitions
        assert [t.transition.label for t in available] == ["configure", "shutdown"]
        assert change(5)
        assert state() == "finalized"
        assert [e.goal_state.label for e in events][:4] == [
            "configuring",
            "inactive",
            "activating",
            "active",
        ]


def test_log_messages_reach_rosout_and_repeat_no_more_than_asked(ros):
    code = """
    rclpy.init(args=["--ros-args", "--log-level", "quiet:=warn"])
    node, quiet = rclpy.create_node("chatty"), rclpy.create_node("quiet")
    say("ready")
    import time
    while node.count_subscribers("/rosout") < 1:
        time.sleep(0.05)
    for i in range(5):
        node.get_logger().info(f"throttled {i}", throttle_duration_sec=60.0)
        node.get_logger().info(f"once {i}", once=True)
        node.get_logger().debug(f"debug {i}")
        quiet.get_logger().info(f"quiet {i}")
    node.get_logger().get_child("part").error("end")
    say("done")
    rclpy.spin(node)
    """
    with Peer(ros, code) as peer:
        assert peer.hear() == "ready"
        node, logs = rclpy.create_node("reader"), []
        node.create_subscription(Log, "/rosout", logs.append, 100)
        assert peer.hear() == "done"
        assert spin_until(node, lambda: any(log.msg == "end" for log in logs))
        expected = ["throttled 0", "once 0", "end"]
        assert sorted(log.msg for log in logs) == sorted(expected)
        assert {log.name for log in logs} == {"chatty", "chatty.part"}
        assert all(log.file and log.line for log in logs)
        printed = "".join(peer.errors)
        assert "[INFO]" in printed
        assert "quiet" not in printed
