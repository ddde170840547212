"""Nodes of embedded_ros in separate processes over real DDS."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import gc
import signal
import threading

import pytest
import rclpy
from embedded_peers import Peer, ros, spin_until
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from node_bench import PATIENCE
from rcl_interfaces.msg import (
    Log,
    ParameterEvent,
    ParameterType,
    ParameterValue,
    SetParametersResult,
)
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from std_msgs.msg import String

from amodal_ros.domains import in_use
from embedded_ros import dds
from embedded_ros.rclpy.qos import to_dds
from embedded_ros.rclpy.service import pack

pytestmark = pytest.mark.dds
__all__ = ["ros"]

TALKER = """
from rclpy.qos import QoSProfile
from std_msgs.msg import String
rclpy.init(args=[])
node = rclpy.create_node("talker")
qos = QoSProfile(depth=1000, reliability=int(sys.argv[1]), durability=int(sys.argv[2]))
publisher = node.create_publisher(String, "chat", qos)
for i in range(3):
    publisher.publish(String(data=f"before {i}"))
say("ready")
count = 0
def tick():
    global count
    publisher.publish(String(data=f"then {count}"))
    count += 1
node.create_timer(0.02, tick)
rclpy.spin(node)
"""
RELIABLE, BEST_EFFORT = 1, 2
LATCHED, VOLATILE = 1, 2


@pytest.mark.parametrize(
    ("offered", "wanted", "matches"),
    [
        ((RELIABLE, VOLATILE), (RELIABLE, VOLATILE), True),
        ((RELIABLE, VOLATILE), (BEST_EFFORT, VOLATILE), True),
        ((BEST_EFFORT, VOLATILE), (BEST_EFFORT, VOLATILE), True),
        ((BEST_EFFORT, VOLATILE), (RELIABLE, VOLATILE), False),
        ((RELIABLE, LATCHED), (RELIABLE, LATCHED), True),
        ((RELIABLE, VOLATILE), (RELIABLE, LATCHED), False),
    ],
)
def test_topics_match_by_qos_and_late_subscribers_get_what_is_latched(
    ros, capfd, offered, wanted, matches
):
    with Peer(ros, TALKER, *map(str, offered)) as talker:
        assert talker.hear() == "ready"
        node, heard = rclpy.create_node("listener"), []
        qos = QoSProfile(depth=1000, reliability=wanted[0], durability=wanted[1])
        node.create_subscription(String, "chat", lambda m: heard.append(m.data), qos)
        if matches:
            assert spin_until(node, lambda: len(heard) > 12)
            latched = wanted[1] == LATCHED
            assert ("before 0" in heard) == latched
            numbers = [int(text.split()[1]) for text in heard if text.startswith("then")]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        else:
            warned = []

            def told():
                warned.append(capfd.readouterr().err)
                return "offering incompatible QoS" in "".join(warned)

            assert spin_until(node, told)
            assert heard == []


def test_parameters_override_what_the_options_name_of_a_profile(domain):
    given = ["publisher.reliability:=best_effort", "publisher.depth:=7", "publisher.durability:=x"]
    given += ["subscription.history:=keep_all", "subscription.reliability:=best_effort"]
    args = ["--ros-args"]
    for rule in given:
        args += ["-p", f"qos_overrides./far/chat.{rule}"]
    rclpy.init(args=args)
    try:
        node = rclpy.create_node("talker", namespace="far")
        options = QoSOverridingOptions.with_default_policies()
        publisher = node.create_publisher(
            String, "chat", QoSProfile(depth=1), qos_overriding_options=options
        )
        profile = publisher.qos_profile
        assert (profile.reliability, profile.depth) == (BEST_EFFORT, 7)
        assert profile.durability == VOLATILE  # the default policies do not name it
        only = QoSOverridingOptions([QoSPolicyKind.HISTORY])
        heard = node.create_subscription(
            String, "chat", print, QoSProfile(depth=3), qos_overriding_options=only
        )
        assert (heard.qos_profile.history.name, heard.qos_profile.reliability) == ("KEEP_ALL", 1)
        name = "qos_overrides./far/chat.publisher.depth"
        assert node.get_parameter(name).value == 7
        assert node.describe_parameter(name).read_only
        (refused,) = node.set_parameters([Parameter(name, value=9)])
        assert not refused.successful
        with pytest.raises(RuntimeError, match="Unexpected QoS override for policy `durability`"):
            node.create_publisher(
                String,
                "chat",
                QoSProfile(depth=1),
                qos_overriding_options=QoSOverridingOptions([QoSPolicyKind.DURABILITY]),
            )
        strict = QoSOverridingOptions(
            [], callback=lambda q: SetParametersResult(reason="too deep"), entity_id="b"
        )
        with pytest.raises(InvalidQosOverridesError, match="with id `b`, are not valid: too deep"):
            node.create_publisher(
                String, "chat", QoSProfile(depth=1), qos_overriding_options=strict
            )
        node.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_a_latched_message_outlives_late_subscribers_only_to_its_depth(ros):
    code = """
    from rclpy.qos import QoSProfile, DurabilityPolicy
    from std_msgs.msg import String
    rclpy.init(args=[])
    node = rclpy.create_node("talker")
    qos = QoSProfile(depth=2, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = node.create_publisher(String, "map", qos)
    for i in range(5):
        publisher.publish(String(data=str(i)))
    say("ready")
    rclpy.spin(node)
    """
    with Peer(ros, code) as talker:
        talker.hear()
        node, heard = rclpy.create_node("listener"), []
        qos = QoSProfile(depth=10, durability=LATCHED)
        node.create_subscription(String, "map", lambda m: heard.append(m.data), qos)
        assert spin_until(node, lambda: len(heard) == 2)
        assert heard == ["3", "4"]


CAMERA = """
import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import UInt32
rclpy.init(args=[])
node = rclpy.create_node("camera")
image = node.create_publisher(Image, "image", qos_profile_sensor_data)
cloud = node.create_publisher(PointCloud2, "points", qos_profile_sensor_data)
while image.get_subscription_count() < 1 or cloud.get_subscription_count() < 1:
    rclpy.spin_once(node, timeout_sec=0.05)
pixels = np.zeros(375 * 1242 * 3, np.uint8)
points = np.zeros(120_000 * 16, np.uint8)
sent = seen = 0
def see(message):
    global seen
    seen = message.data
node.create_subscription(UInt32, "seen", see, 10)
def tick():
    global sent
    # The history of the receiver holds five; one that is not run in time loses by right.
    if sent == 30 or sent - seen == 5:
        return
    pixels[:] = sent
    points[:] = sent
    image.publish(Image(height=375, width=1242, step=3726, encoding="rgb8", data=pixels))
    cloud.publish(PointCloud2(height=1, width=120_000, point_step=16, data=points))
    sent += 1
node.create_timer(0.1, tick)
rclpy.spin(node)
"""


def test_images_and_clouds_at_10_hz_arrive_without_a_loss_best_effort(ros):
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, PointCloud2
    from std_msgs.msg import UInt32

    with Peer(ros, CAMERA):
        node, images, clouds = rclpy.create_node("sink"), [], []
        told = node.create_publisher(UInt32, "seen", 10)

        def seen(store):
            def take(message):
                data = memoryview(message.data)
                assert data[0] == data[-1]
                store.append((data[0], len(data)))
                told.publish(UInt32(data=min(len(images), len(clouds))))

            return take

        node.create_subscription(Image, "image", seen(images), qos_profile_sensor_data)
        node.create_subscription(PointCloud2, "points", seen(clouds), qos_profile_sensor_data)
        assert spin_until(node, lambda: len(images) == len(clouds) == 30)
    assert images == [(i, 375 * 1242 * 3) for i in range(30)]
    assert clouds == [(i, 120_000 * 16) for i in range(30)]


def test_received_pixels_stay_valid_after_shutdown(ros):
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    with Peer(ros, CAMERA.replace("or cloud.get_subscription_count() < 1", "")):
        node, kept = rclpy.create_node("sink"), []
        node.create_subscription(Image, "image", kept.append, qos_profile_sensor_data)
        assert spin_until(node, lambda: len(kept) >= 3)
        node.destroy_node()
        rclpy.shutdown()
    first = kept[0].data[0]
    assert [set(image.data[::1000]) for image in kept[:3]] == [{first}, {first + 1}, {first + 2}]


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


def test_the_graph_of_a_domain_that_was_left_is_empty(ros):
    node = rclpy.create_node("leaving")
    graph = node.context.graph
    assert graph.nodes()
    node.destroy_node()
    rclpy.shutdown()
    assert graph.nodes() == []
    assert graph.count("rt/rosout", writers=True) == 0


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_spin_and_the_process_exits_with_zero(number, domain):
    code = """
    rclpy.init(args=[])
    node = rclpy.create_node("stopped")
    timer = node.create_timer(0.1, lambda: (say("ready"), timer.cancel()))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException) as error:
        say(type(error).__name__)
    say(rclpy.ok())
    node.destroy_node()
    rclpy.try_shutdown()
    """
    with Peer(domain, code) as peer:
        assert peer.hear() == "ready"
        assert peer.interrupt(number) == 0
        said = peer.hear()
        # spin() returns where the signal comes between two of its rounds.
        if said is not False:
            assert said in ("KeyboardInterrupt", "ExternalShutdownException")
            said = peer.hear()
        assert said is False


def test_an_exception_in_a_callback_comes_out_of_spin(ros):
    with Peer(ros, TALKER, "1", "2") as talker:
        talker.hear()
        node = rclpy.create_node("listener")

        def fail(message):
            raise ValueError(message.data)

        node.create_subscription(String, "chat", fail, 10)
        with pytest.raises(ValueError, match="then"):
            spin_until(node, lambda: False)
        heard = []
        node.subscriptions[-1].callback = heard.append
        assert spin_until(node, lambda: heard)


def test_a_context_leaves_its_domain_with_its_last_node(ros):
    one, other = rclpy.create_node("one"), rclpy.create_node("other")
    one.destroy_node()
    rclpy.shutdown()
    assert in_use(ros)
    other.destroy_node()
    assert not in_use(ros)


def test_a_context_without_nodes_leaves_when_it_is_shut_down(ros):
    rclpy.create_node("short").destroy_node()
    assert in_use(ros)
    rclpy.shutdown()
    assert not in_use(ros)


def test_what_is_forgotten_leaves_with_the_garbage(domain):
    context = rclpy.Context()
    context.init(args=[])
    node = rclpy.create_node("forgotten", context=context)
    node.create_timer(1.0, lambda: None)
    del node, context
    gc.collect()
    assert not in_use(domain)
    assert rclpy.logging.get_logger("forgotten").info("its logger still prints")


def test_leaving_ends_a_spin_in_another_thread(ros):
    node, ended = rclpy.create_node("spun"), []
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin():
        try:
            executor.spin()
        except Exception as error:
            ended.append(type(error))

    thread = threading.Thread(target=spin)
    thread.start()
    rclpy.get_default_context().leave()
    thread.join(5)
    assert not thread.is_alive()
    assert ended in ([], [ExternalShutdownException])
