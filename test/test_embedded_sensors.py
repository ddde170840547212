"""cv_bridge, point clouds, transforms, synchronisers and diagnostics of embedded_ros."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import math

import cv2
import diagnostic_updater
import message_filters
import numpy as np
import pytest
import rclpy
import tf2_ros
from cv_bridge import CvBridge, CvBridgeError
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from embedded_peers import Peer, ros, spin_until
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp
from sensor_msgs.msg import Image, PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

__all__ = ["ros"]
RNG = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("encoding", "dtype", "shape"),
    [
        ("mono8", np.uint8, (4, 5)),
        ("mono16", np.uint16, (4, 5)),
        ("rgb8", np.uint8, (4, 5, 3)),
        ("bgra8", np.uint8, (4, 5, 4)),
        ("32FC1", np.float32, (4, 5)),
        ("32FC3", np.float32, (4, 5, 3)),
        ("16SC2", np.int16, (4, 5, 2)),
        ("64FC1", np.float64, (4, 5)),
    ],
)
def test_images_survive_the_round_trip_in_every_encoding(encoding, dtype, shape):
    image = RNG.integers(0, 100, shape).astype(dtype)
    message = CvBridge().cv2_to_imgmsg(image, encoding, Header(frame_id="camera"))
    assert (message.encoding, message.header.frame_id) == (encoding, "camera")
    back = CvBridge().imgmsg_to_cv2(message)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, image)
    back[:] = 0


@pytest.mark.parametrize(("big", "order"), [(0, "<"), (1, ">")])
def test_row_padding_and_byte_order_of_images_are_respected(big, order):
    image = RNG.integers(0, 60000, (3, 4), np.uint16)
    rows = np.zeros((3, 10), np.uint8)
    rows[:, :8] = image.astype(f"{order}u2").view(np.uint8)
    message = Image(
        height=3, width=4, step=10, encoding="mono16", is_bigendian=big, data=rows.ravel()
    )
    back = CvBridge().imgmsg_to_cv2(message)
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize(
    ("source", "target", "code"),
    [
        ("rgb8", "bgr8", cv2.COLOR_RGB2BGR),
        ("bgr8", "mono8", cv2.COLOR_BGR2GRAY),
        ("mono8", "rgb8", cv2.COLOR_GRAY2RGB),
        ("bgra8", "rgb8", cv2.COLOR_BGRA2RGB),
    ],
)
def test_colours_are_converted_when_another_encoding_is_desired(source, target, code):
    channels = {"rgb8": 3, "bgr8": 3, "bgra8": 4}.get(source, 0)
    image = RNG.integers(0, 255, (6, 8, channels) if channels else (6, 8), np.uint8)
    message = CvBridge().cv2_to_imgmsg(image, source)
    np.testing.assert_array_equal(
        CvBridge().imgmsg_to_cv2(message, target), cv2.cvtColor(image, code)
    )


def test_8_and_16_bits_keep_their_full_range():
    message = CvBridge().cv2_to_imgmsg(np.array([[0, 128, 255]], np.uint8), "mono8")
    assert CvBridge().imgmsg_to_cv2(message, "mono16").tolist() == [[0, 32896, 65535]]


def test_malformed_images_are_refused():
    bridge = CvBridge()
    with pytest.raises(CvBridgeError, match="Unrecognized"):
        bridge.imgmsg_to_cv2(Image(encoding="rgb9"))
    with pytest.raises(CvBridgeError, match="wrongly formed"):
        bridge.imgmsg_to_cv2(Image(encoding="rgb8", height=2, width=2, step=6, data=bytes(11)))
    with pytest.raises(CvBridgeError, match="wrongly formed"):
        bridge.imgmsg_to_cv2(Image(encoding="rgb8", height=2, width=2, step=5, data=bytes(12)))
    with pytest.raises(CvBridgeError, match="incompatible"):
        bridge.cv2_to_imgmsg(np.zeros((2, 2), np.uint8), "rgb8")
    with pytest.raises(NotImplementedError, match=r"bayer_rggb8.* install ros-jazzy-cv-bridge"):
        bridge.imgmsg_to_cv2(Image(encoding="bayer_rggb8"))


XYZI = [
    PointField(name="x", offset=0, datatype=PointField.FLOAT32, count=1),
    PointField(name="y", offset=4, datatype=PointField.FLOAT32, count=1),
    PointField(name="z", offset=8, datatype=PointField.FLOAT32, count=1),
    PointField(name="ring", offset=16, datatype=PointField.UINT16, count=1),
]


def test_clouds_survive_the_round_trip_with_gaps_between_their_fields():
    rows = [(1.0, 2.0, 3.0, 7), (4.0, 5.0, math.nan, 8)]
    cloud = point_cloud2.create_cloud(Header(frame_id="lidar"), XYZI, rows, 24)
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (2, 1, 24, 48)
    points = point_cloud2.read_points(cloud)
    assert points["ring"].tolist() == [7, 8]
    kept = point_cloud2.read_points(cloud, ["x", "z"], skip_nans=True)
    assert [tuple(p) for p in kept] == [(1.0, 3.0)]
    xyz = point_cloud2.read_points_numpy(cloud, ["x", "y", "z"])
    np.testing.assert_array_equal(xyz, np.array(rows)[:, :3].astype(np.float32))
    with pytest.raises(AssertionError, match="same datatype"):
        point_cloud2.read_points_numpy(cloud)


def test_row_padding_and_byte_order_of_clouds_are_respected():
    values = np.arange(12, dtype=">f4").reshape(2, 2, 3)
    rows = np.zeros((2, 32), np.uint8)
    rows[:, :24] = values.reshape(2, 6).view(np.uint8)
    cloud = PointCloud2(
        height=2,
        width=2,
        is_bigendian=True,
        fields=XYZI[:3],
        point_step=12,
        row_step=32,
        data=rows.ravel(),
    )
    np.testing.assert_array_equal(
        point_cloud2.read_points_numpy(cloud), values.reshape(4, 3).astype(np.float32)
    )


def test_xyz_clouds_are_made_of_arrays():
    xyz = RNG.normal(size=(5, 3)).astype(np.float32)
    cloud = point_cloud2.create_cloud_xyz32(Header(), xyz)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), xyz)


def transform(parent, child, seconds, translation, rotation):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = Time(seconds=seconds).to_msg()
    message.transform.translation = Vector3(**dict(zip("xyz", translation, strict=True)))
    numbers = map(float, rotation.as_quat())
    message.transform.rotation = Quaternion(**dict(zip("xyzw", numbers, strict=True)))
    return message


def matrix(message):
    result = np.eye(4)
    q, t = message.transform.rotation, message.transform.translation
    result[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    result[:3, 3] = t.x, t.y, t.z
    return result


@pytest.fixture
def frames():
    """map -> base moves from 10 s to 11 s; camera and lidar sit on base."""
    turns = Rotation.random(4, random_state=1)
    buffer = tf2_ros.Buffer()
    messages = [
        transform("map", "base", 10.0, (0.0, 0.0, 0.0), turns[0]),
        transform("map", "base", 11.0, (1.0, 2.0, 3.0), turns[1]),
        transform("base", "camera", 0.0, (0.1, 0.2, 0.3), turns[2]),
        transform("base", "lidar", 0.0, (-1.0, 0.5, 2.0), turns[3]),
    ]
    for message in messages[:2]:
        buffer.set_transform(message, "test")
    for message in messages[2:]:
        buffer.set_transform_static(message, "test")
    return buffer, messages, turns


def test_static_frames_hold_at_any_time(frames):
    buffer, messages, _ = frames
    expected = np.linalg.inv(matrix(messages[2])) @ matrix(messages[3])
    for when in (Time(), Time(seconds=5), Time(seconds=500)):
        found = buffer.lookup_transform("camera", "lidar", when)
        np.testing.assert_allclose(matrix(found), expected, atol=1e-12)
        assert (found.header.frame_id, found.child_frame_id) == ("camera", "lidar")


def test_moving_frames_are_interpolated(frames):
    buffer, messages, turns = frames
    base = np.eye(4)
    base[:3, :3] = Slerp([0, 1], turns[:2])(0.25).as_matrix()
    base[:3, 3] = 0.25, 0.5, 0.75
    found = buffer.lookup_transform("map", "lidar", Time(seconds=10.25))
    np.testing.assert_allclose(matrix(found), base @ matrix(messages[3]), atol=1e-9)
    back = buffer.lookup_transform("lidar", "map", Time(seconds=10.25))
    np.testing.assert_allclose(matrix(back) @ matrix(found), np.eye(4), atol=1e-9)
    latest = buffer.lookup_transform("map", "base", Time())
    assert latest.header.stamp.sec == 11
    np.testing.assert_allclose(matrix(latest), matrix(messages[1]), atol=1e-12)


def test_interpolation_takes_the_shorter_way_round():
    buffer, half = tf2_ros.Buffer(), Rotation.from_euler("z", 10, degrees=True)
    first = transform("map", "base", 1.0, (0.0, 0.0, 0.0), Rotation.identity())
    second = transform("map", "base", 2.0, (0.0, 0.0, 0.0), half * half)
    # The same rotation, written with the opposite sign.
    q = second.transform.rotation
    second.transform.rotation = Quaternion(x=-q.x, y=-q.y, z=-q.z, w=-q.w)
    for message in (first, second):
        buffer.set_transform(message, "test")
    found = matrix(buffer.lookup_transform("map", "base", Time(seconds=1.5)))
    np.testing.assert_allclose(found[:3, :3], half.as_matrix(), atol=1e-9)


def test_what_is_unknown_is_an_error_and_never_identity(frames):
    buffer, _, _ = frames
    with pytest.raises(tf2_ros.LookupException, match="nowhere"):
        buffer.lookup_transform("map", "nowhere", Time())
    with pytest.raises(tf2_ros.ExtrapolationException, match="future"):
        buffer.lookup_transform("map", "camera", Time(seconds=12))
    with pytest.raises(tf2_ros.ExtrapolationException, match="past"):
        buffer.lookup_transform("map", "camera", Time(seconds=9))
    buffer.set_transform_static(
        transform("island", "tree", 0.0, (0.0, 0.0, 0.0), Rotation.identity()), "test"
    )
    with pytest.raises(tf2_ros.ConnectivityException):
        buffer.lookup_transform("map", "tree", Time())
    assert not buffer.can_transform("map", "camera", Time(seconds=12))
    assert not buffer.can_transform("map", "camera", Time(seconds=12), Duration(seconds=0.05))
    broken = transform("map", "base", 12.0, (0.0, 0.0, 0.0), Rotation.identity())
    broken.transform.rotation = Quaternion(x=0.0, y=0.0, z=0.0, w=0.0)
    with pytest.raises(tf2_ros.InvalidArgumentException, match="normalized"):
        buffer.set_transform(broken, "test")


def test_a_buffer_forgets_what_is_older_than_its_cache(frames):
    buffer, _, _ = frames
    late = transform("map", "base", 20.5, (0.0, 0.0, 0.0), Rotation.identity())
    buffer.set_transform(late, "test")
    assert not buffer.can_transform("map", "base", Time(seconds=10.2))
    assert buffer.can_transform("map", "base", Time(seconds=11))


@pytest.mark.dds
def test_transforms_cross_processes_and_a_jump_back_clears_the_moving_ones(ros):
    code = """
    from geometry_msgs.msg import TransformStamped
    from rclpy.qos import QoSProfile
    from tf2_msgs.msg import TFMessage
    rclpy.init(args=[])
    node = rclpy.create_node("broadcaster")
    static = node.create_publisher(TFMessage, "/tf_static", QoSProfile(depth=1, durability=1))
    moving = node.create_publisher(TFMessage, "/tf", 100)
    def make(parent, child, x):
        t = TransformStamped(child_frame_id=child)
        t.header.frame_id, t.transform.translation.x = parent, x
        t.header.stamp = node.get_clock().now().to_msg()
        return t
    static.publish(TFMessage(
        transforms=[make("base", "camera", 1.0), make("base", "lidar", 2.0)]))
    node.create_timer(
        0.05, lambda: moving.publish(TFMessage(transforms=[make("map", "base", 5.0)])))
    rclpy.spin(node)
    """
    with Peer(ros, code):
        node, buffer = rclpy.create_node("listener"), tf2_ros.Buffer()
        listener = tf2_ros.TransformListener(buffer, node)
        assert spin_until(node, lambda: buffer.can_transform("map", "camera", Time()))
        assert spin_until(node, lambda: buffer.can_transform("lidar", "camera", Time()))
        found = buffer.lookup_transform("map", "camera", Time())
        assert found.transform.translation.x == 6.0
        listener.unregister()
    node.set_parameters([rclpy.Parameter("use_sim_time", value=True)])
    assert not buffer.can_transform("map", "base", Time())
    assert buffer.can_transform("lidar", "camera", Time())


def stamped(seconds):
    return Image(header=Header(stamp=Time(seconds=seconds).to_msg()))


def synchroniser(slop):
    left, right, sets = message_filters.SimpleFilter(), message_filters.SimpleFilter(), []
    both = message_filters.ApproximateTimeSynchronizer([left, right], 5, slop)

    def take(a, b):
        sets.append((a.header.stamp.sec, b.header.stamp.sec))

    both.registerCallback(take)
    return left.signalMessage, right.signalMessage, sets


def test_messages_within_the_slop_are_matched_with_the_nearest():
    left, right, sets = synchroniser(0.5)
    left(stamped(1.0))
    left(stamped(2.0))
    right(stamped(2.1))
    right(stamped(1.0))
    assert sets == [(2, 2)]
    right(stamped(3.2))
    left(stamped(3.8))
    assert sets == [(2, 2)]
    left(stamped(3.3))
    assert sets == [(2, 2), (3, 3)]


def test_a_looping_bag_keeps_matching():
    left, right, sets = synchroniser(0.01)
    for _ in range(3):
        for second in range(100, 120):
            left(stamped(second))
            right(stamped(second))
    assert len(sets) == 60


def test_an_exception_in_a_callback_does_not_mute_the_synchroniser():
    failing, sets = [True], []
    source = message_filters.SimpleFilter()
    single = message_filters.TimeSynchronizer([source], 5)

    def take(message):
        if failing.pop():
            raise ValueError("once")
        sets.append(message)

    single.registerCallback(take)
    with pytest.raises(ValueError, match="once"):
        source.signalMessage(stamped(1))
    failing.append(False)
    source.signalMessage(stamped(2))
    assert len(sets) == 1


@pytest.mark.dds
def test_an_updater_publishes_what_its_tasks_report(ros):
    node, heard = rclpy.create_node("diagnosed"), []
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    updater = diagnostic_updater.Updater(node, period=0.1)
    updater.setHardwareID("camera0")

    def task(status):
        status.summary(DiagnosticStatus.WARN, "warm")
        status.add("celsius", "70")
        return status

    updater.add("heat", task)

    def latest(name):
        found = [s for a in heard for s in a.status if s.name == f"diagnosed: {name}"]
        return found[-1] if found else DiagnosticStatus()

    assert spin_until(node, lambda: latest("heat").level == DiagnosticStatus.WARN)
    assert (latest("heat").message, latest("heat").hardware_id) == ("warm", "camera0")
    assert latest("heat").values[0].value == "70"
