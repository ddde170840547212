"""cv_bridge and point clouds of embedded_ros."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import math

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import Image, PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

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
