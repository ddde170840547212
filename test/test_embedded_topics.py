"""Topics without ROS 2: quality of service, what is latched, images and clouds at full rate."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place


import pytest
import rclpy
from embedded_peers import TALKER, Peer, ros, spin_until
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from std_msgs.msg import String

pytestmark = pytest.mark.dds
__all__ = ["ros"]

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
