"""Frames, transforms and truth to a bag: the one writer of drives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.messages import instances_message
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.topics import (
    CAMERA_FRAME,
    CAMERA_INFO,
    GROUND_TRUTH,
    IMAGE,
    LIDAR_FRAME,
    POINTS,
    TF_STATIC,
    Topic,
)
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Tracks

SENSOR_TOPICS = (TF_STATIC, IMAGE, CAMERA_INFO, POINTS)
# Parent, child, parent_from_child (4, 4).
Link = tuple[str, str, np.ndarray]


class DriveWriter:
    """Writes drives with the topics and frames of `amodal_core.drive.topics`.

    Args:
        bag: is written to; who opened it closes it.
        topics: that the drive has, in the order of their announcement.
    """

    def __init__(self, bag: BagWriter, topics: Iterable[Topic]) -> None:
        self.bag = bag
        self.factory = RosbagsFactory()
        for topic in topics:
            self.add(topic)

    def add(self, topic: Topic) -> None:
        """Announce a topic."""
        self.bag.add_topic(topic.bag_name, topic.type, latched=topic.qos.startswith("latched"))

    def transforms(self, topic: Topic, links: Iterable[Link], stamp: int) -> None:
        """Write links to TF_STATIC or TF."""
        made = [transform_message(self.factory, p, c, m, stamp) for p, c, m in links]
        message = self.factory.create(topic.type, transforms=made)
        self.bag.write(topic.bag_name, message, stamp)

    def frame(self, frame: Frame, truth: Tracks | None = None, classes: Sequence[str] = ()) -> None:
        """Write what a frame has of image, camera_info and scan, and its truth.

        Raises:
            InputError: there is no image.
        """
        factory, stamp = self.factory, frame.stamp
        if frame.image is None:
            raise InputError("a frame without an image", str(stamp))
        image = image_message(factory, frame.image, stamp, CAMERA_FRAME)
        self.bag.write(IMAGE.bag_name, image, stamp)
        if frame.calibration is not None:
            camera = frame.calibration
            info = camera_info_message(
                factory, camera.K, camera.width, camera.height, stamp, CAMERA_FRAME
            )
            self.bag.write(CAMERA_INFO.bag_name, info, stamp)
        if frame.points is not None:
            at = stamp if frame.points_stamp is None else frame.points_stamp
            scan = points_message(factory, frame.points, at, LIDAR_FRAME)
            self.bag.write(POINTS.bag_name, scan, at)
        if truth is not None:
            message = instances_message(
                factory,
                truth,
                stamp=stamp,
                frame_id=CAMERA_FRAME,
                classes=classes,
                lidar_frame=LIDAR_FRAME,
            )
            self.bag.write(GROUND_TRUTH.bag_name, message, stamp)


def camera_link(frame: Frame) -> Link:
    """Where a frame's camera stands in its LiDAR."""
    assert frame.calibration is not None
    return LIDAR_FRAME, CAMERA_FRAME, np.linalg.inv(frame.calibration.camera_from_lidar)
