"""embedded_ros against a real ROS 2, where AMODAL_ROS_PEER names a script that sets one up."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import os
import re
import shlex
import signal
import subprocess
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
import rclpy
from embedded_peers import Peer, ros, spin_until
from lifecycle_msgs.msg import State
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from amodal_msgs.msg import AmodalInstance, AmodalInstanceArray, Mask
from amodal_ros.domains import own_domain

SCRIPT = os.environ.get("AMODAL_ROS_PEER", "")
pytestmark = [
    pytest.mark.dds,
    pytest.mark.skipif(not SCRIPT, reason="AMODAL_ROS_PEER names no ROS 2 environment script"),
]
__all__ = ["ros"]
LATCHED = QoSProfile(depth=1, durability=1)


def environment(domain: int) -> dict[str, str]:
    """This process's, without its Python environment."""
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "CYCLONEDDS_URI")
    kept = {k: v for k, v in os.environ.items() if k not in hidden}
    return {**kept, "ROS_DOMAIN_ID": str(domain)}


class RealPeer(Peer):
    """A process with real rclpy."""

    preamble = Peer.preamble.replace("amodal_ros, ", "")

    def environment(self, domain: int) -> dict[str, str]:
        """Without this process's Python environment."""
        return environment(domain)

    def command(self, code: str, *args: str) -> list[str]:
        """Sources the environment first."""
        run = f". {shlex.quote(SCRIPT)}; exec python3 -c {shlex.quote(code)} {shlex.join(args)}"
        return ["bash", "-c", run]


def run(domain: int, command: str, timeout: float = 30.0) -> tuple[str, str]:
    """What a shell command prints on both streams; none of its processes outlives the time."""
    with subprocess.Popen(
        ["bash", "-c", f". {shlex.quote(SCRIPT)}; {command}"],
        env=environment(domain),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=timeout)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@cache
def there_is(command: str) -> bool:
    """Whether a shell command succeeds beside the real ROS 2."""
    return bool(SCRIPT) and "yes" in run(0, f"{command} >/dev/null 2>&1 && echo yes")[0]


needs_ros2 = pytest.mark.skipif(
    bool(SCRIPT) and not there_is("command -v ros2"), reason="no ros2 command comes with that ROS 2"
)
FAST_DDS = there_is(
    "python3 -c 'import rclpy; assert \"fastrtps\" in rclpy.get_rmw_implementation_identifier()'"
)
fast_dds_services = pytest.mark.skipif(
    FAST_DDS, reason="Fast DDS ties replies to requests in another way: topics only"
)


def ros2(domain: int, command: str) -> str:
    """What a ros2 command prints."""
    return "".join(run(domain, f"ros2 {command}; ros2 daemon stop >/dev/null 2>&1"))


TARGET = """
from rclpy.lifecycle import LifecycleNode
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from std_msgs.msg import String
from rclpy.qos import QoSProfile
rclpy.init(args=[])
node = LifecycleNode("target")
node.declare_parameter("rate", 5, ParameterDescriptor(
    description="in Hz", integer_range=[IntegerRange(from_value=1, to_value=20, step=1)]))
latched = node.create_publisher(String, "latched", QoSProfile(depth=1, durability=1))
latched.publish(String(data="sticky"))
chat = node.create_publisher(String, "chat", 10)
node.create_timer(0.1, lambda: chat.publish(String(data="hello")))
say("ready")
rclpy.spin(node)
"""


@pytest.fixture(scope="module")
def target():
    """A domain with an embedded node to look at."""
    with own_domain() as domain, Peer(domain, TARGET) as peer:
        assert peer.hear() == "ready"
        yield domain


@needs_ros2
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("topic list -t --no-daemon --spin-time 2", ["/chat [std_msgs/msg/String]"]),
        (
            "topic info -v /chat --no-daemon --spin-time 2",
            ["Node name: target", "RIHS01_df668c74", "KEEP_LAST (10)"],
        ),
        (
            "topic echo --once --qos-durability transient_local --qos-reliability reliable"
            " /latched std_msgs/msg/String",
            ["data: sticky"],
        ),
        ("node list --no-daemon --spin-time 2", ["/target"]),
        (
            "node info /target --no-daemon --spin-time 2",
            ["/chat: std_msgs/msg/String", "/target/change_state: lifecycle_msgs/srv/ChangeState"],
        ),
        ("param list /target --no-daemon --spin-time 2", ["rate", "use_sim_time"]),
        ("param get /target rate", ["Integer value is: 5"]),
        ("param set /target rate 21", ["out of range"]),
        ("param set /target rate 7", ["Set parameter successful"]),
        ("param get /target rate", ["Integer value is: 7"]),
        ("param describe /target rate", ["in Hz", "Max value: 20"]),
        ("lifecycle get /target", ["unconfigured [1]"]),
        ("lifecycle set /target configure", ["Transitioning successful"]),
        ("lifecycle get /target", ["inactive [2]"]),
        ("lifecycle list /target", ["activate [3]"]),
    ],
)
def test_the_ros2_command_sees_an_embedded_node(target, command, expected):
    printed = ros2(target, command)
    assert all(text in printed for text in expected), printed


@needs_ros2
def test_ros2_topic_hz_measures_an_embedded_publisher(target):
    printed = run(target, "PYTHONUNBUFFERED=1 timeout -s INT -k 3 6 ros2 topic hz /chat")
    rates = [float(r) for r in re.findall(r"average rate: ([\d.]+)", printed[0])]
    assert rates, printed
    assert rates[-1] == pytest.approx(10.0, rel=0.05)


LISTENER = """
import numpy as np
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from std_msgs.msg import String
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from vision_msgs.msg import Detection2DArray
from amodal_msgs.msg import AmodalInstanceArray
rclpy.init(args=[])
node = rclpy.create_node("real_listener")
latched = QoSProfile(depth=1, durability=1)
def on(kind, topic, qos, seen):
    node.create_subscription(kind, topic, lambda m: say([topic, seen(m)]), qos)
on(String, "latched", latched, lambda m: m.data)
on(Image, "image", qos_profile_sensor_data, lambda m: [m.width, len(m.data), m.data[-1]])
on(PointCloud2, "points", qos_profile_sensor_data, lambda m: [m.width, sum(m.data[:4])])
on(CameraInfo, "info", 10, lambda m: [m.k[4], list(m.d)])
on(Detection2DArray, "detections", 10,
   lambda m: [m.detections[0].id, m.detections[0].results[0].hypothesis.score])
on(AmodalInstanceArray, "tracks", 10,
   lambda m: [m.instances[0].visible.counts, list(m.instances[0].occluders),
              m.instances[1].track_id])
rclpy.spin(node)
"""


def test_a_real_node_receives_all_kinds_of_messages(ros):
    node = rclpy.create_node("embedded_talker")
    detection = Detection2D(id="7", results=[ObjectHypothesisWithPose()])
    detection.results[0].hypothesis.score = 0.5
    instance = AmodalInstance(track_id=3, visible=Mask(counts="abc"), occluders=[4, 5])
    outputs = [
        (String(data="sticky"), "latched", LATCHED, "sticky"),
        (
            Image(height=375, width=1242, data=np.full(375 * 1242 * 3, 9, np.uint8)),
            "image",
            qos_profile_sensor_data,
            [1242, 375 * 1242 * 3, 9],
        ),
        (
            PointCloud2(width=120_000, data=np.full(120_000 * 16, 2, np.uint8)),
            "points",
            qos_profile_sensor_data,
            [120_000, 8],
        ),
        (CameraInfo(k=np.arange(9.0), d=[0.5]), "info", 10, [4.0, [0.5]]),
        (Detection2DArray(detections=[detection]), "detections", 10, ["7", 0.5]),
        (
            AmodalInstanceArray(instances=[instance, AmodalInstance()]),
            "tracks",
            10,
            ["abc", [4, 5], -1],
        ),
    ]
    publishers = [node.create_publisher(type(m), topic, qos) for m, topic, qos, _ in outputs]
    publishers[0].publish(outputs[0][0])
    with RealPeer(ros, LISTENER) as peer:
        assert spin_until(node, lambda: all(p.get_subscription_count() for p in publishers))
        heard = {}

        def all_heard():
            # Best effort may lose one.
            for publisher, (message, topic, *_) in zip(publishers, outputs, strict=True):
                if topic not in heard and topic != "latched":
                    publisher.publish(message)
            while not peer.silent():
                heard.update([peer.hear()])
            return len(heard) == len(outputs)

        assert spin_until(node, all_heard), heard
    assert heard == {topic: seen for _, topic, _, seen in outputs}


REAL_NODE = """
import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool
rclpy.init(args=[])
node = LifecycleNode("real")
latched = node.create_publisher(String, "latched", QoSProfile(depth=1, durability=1))
latched.publish(String(data="sticky"))
image = node.create_publisher(Image, "image", qos_profile_sensor_data)
clock = node.create_publisher(Clock, "/clock", 10)
message = Image(height=375, width=1242)
message.data.frombytes(bytes([7]) * (375 * 1242 * 3))
step = 0
def tick():
    global step
    step += 1
    image.publish(message)
    now = Clock()
    now.clock.sec = 100 + step
    clock.publish(now)
node.create_timer(0.1, tick)
def answer(request, response):
    response.success, response.message = request.data, "real"
    return response
node.create_service(SetBool, "switch", answer)
say("ready")
rclpy.spin(node)
"""


def test_an_embedded_node_receives_from_a_real_one(ros):
    with RealPeer(ros, REAL_NODE) as peer:
        assert peer.hear() == "ready"
        sim = Parameter("use_sim_time", value=True)
        node = rclpy.create_node("embedded", parameter_overrides=[sim])
        texts, images = [], []
        node.create_subscription(String, "latched", lambda m: texts.append(m.data), LATCHED)
        node.create_subscription(Image, "image", images.append, qos_profile_sensor_data)
        assert spin_until(node, lambda: texts and len(images) > 5)
        assert texts == ["sticky"]
        assert (images[0].width, len(images[0].data), set(images[0].data[:9])) == (
            1242,
            375 * 1242 * 3,
            {7},
        )
        assert 100 * 10**9 < node.get_clock().now().nanoseconds < 10**12
        assert spin_until(node, lambda: "real" in node.get_node_names())


@fast_dds_services
def test_an_embedded_client_is_answered_by_a_real_service(ros):
    with RealPeer(ros, REAL_NODE) as peer:
        assert peer.hear() == "ready"
        node = rclpy.create_node("embedded")
        client = node.create_client(SetBool, "switch")
        assert client.wait_for_service(10.0)
        future = client.call_async(SetBool.Request(data=True))
        assert spin_until(node, future.done)
        assert (future.result().success, future.result().message) == (True, "real")


@pytest.mark.skipif(not FAST_DDS, reason="Cyclone DDS' services answer")
def test_a_service_on_fast_dds_is_named_and_not_waited_for(ros, capfd):
    with RealPeer(ros, REAL_NODE) as peer:
        assert peer.hear() == "ready"
        client = rclpy.create_node("embedded").create_client(SetBool, "switch")
        assert not client.wait_for_service(6.0)
    assert "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp" in capfd.readouterr().err


@fast_dds_services
def test_a_real_client_is_answered_by_an_embedded_service_and_clock(ros):
    code = """
    from rosgraph_msgs.msg import Clock
    from std_srvs.srv import SetBool
    from lifecycle_msgs.srv import GetState
    from rclpy.parameter import Parameter
    rclpy.init(args=[])
    node = rclpy.create_node(
        "asker", parameter_overrides=[Parameter("use_sim_time", value=True)])
    for i in range(5):
        for kind, name in ((SetBool, "switch"), (GetState, "/embedded/get_state")):
            client = node.create_client(kind, name)
            client.wait_for_service(10.0)
            future = client.call_async(kind.Request())
            rclpy.spin_until_future_complete(node, future, timeout_sec=5.0)
            answer = future.result()
            say(answer.message if kind is SetBool else answer.current_state.id)
            node.destroy_client(client)
    while node.get_clock().now().nanoseconds == 0:
        rclpy.spin_once(node, timeout_sec=0.1)
    say(node.get_clock().now().nanoseconds)
    """

    def answer(request, response):
        response.message = "embedded"
        return response

    node, said = LifecycleNode("embedded"), []
    node.create_service(SetBool, "switch", answer)
    clock = node.create_publisher(Clock, "/clock", 10)
    message = Clock()
    message.clock.sec = 77
    node.create_timer(0.05, lambda: clock.publish(message))
    with RealPeer(ros, code) as peer:

        def all_said():
            while not peer.silent():
                said.append(peer.hear())
            return len(said) == 11

        assert spin_until(node, all_said, timeout=40.0), said
    assert said == ["embedded", State.PRIMARY_STATE_UNCONFIGURED] * 5 + [77 * 10**9]
