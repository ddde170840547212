"""A small bag written message by message, and the frames that come of it."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.bag_drive import BagDrive

F = RosbagsFactory()
K = np.array([[60.0, 0, 48], [0, 60, 24], [0, 0, 1]])
PLACE = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1.0]])
PIXELS = np.full((48, 96, 3), 128, np.uint8)
POINTS = np.array([[10, 0, 0, 0.5], [12, 1, 0, 0.5]], np.float32)
MS = 1_000_000
START = 1_000_000_000_000


class Bag:
    """Writes a small bag message by message."""

    def __init__(self, path):
        self.writer = BagWriter(path)
        self.types = {
            "/cam/image": "sensor_msgs/msg/Image",
            "/cam/camera_info": "sensor_msgs/msg/CameraInfo",
            "/points": "sensor_msgs/msg/PointCloud2",
            "/tf_static": "tf2_msgs/msg/TFMessage",
            "/ground_truth": "amodal_msgs/msg/AmodalInstanceArray",
            "/scan": "sensor_msgs/msg/LaserScan",
        }
        self.announced = set()
        self.log = START

    def put(self, topic, message, kind=""):
        if topic not in self.announced:
            self.writer.add_topic(topic, kind or self.types[topic])
            self.announced.add(topic)
        self.log += 1000
        self.writer.write(topic, message, self.log)

    def tf(self, parent="lidar", child="cam", matrix=None):
        matrix = np.linalg.inv(PLACE) if matrix is None else matrix
        message = transform_message(F, parent, child, matrix, START)
        self.put("/tf_static", F.create("tf2_msgs/msg/TFMessage", transforms=[message]))

    def image(self, ms, pixels=PIXELS, encoding=""):
        self.put("/cam/image", image_message(F, pixels, START + ms * MS, "cam", encoding))

    def info(self, ms=0, width=96):
        self.put("/cam/camera_info", camera_info_message(F, K, width, 48, START + ms * MS, "cam"))

    def points(self, ms, points=POINTS):
        self.put("/points", points_message(F, points, START + ms * MS, "lidar"))


@pytest.fixture
def bag(tmp_path):
    """An empty one."""
    return Bag(tmp_path / "bag")


def read(bag):
    """Close a bag; its frames, and the drive that has read them."""
    bag.writer.close()
    with BagDrive(bag.writer.path) as drive:
        return list(drive), drive
