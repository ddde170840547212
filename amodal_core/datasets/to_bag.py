"""Videos of a data set to rosbag2 bags, with the topics and frames of `amodal_core.bags.kitti`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.kitti import (
    CAMERA_FRAME,
    CAMERA_INFO,
    IMAGE,
    LIDAR_FRAME,
    POINTS,
)
from amodal_core.bags.messages import instances_message
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.base import Dataset
from amodal_core.errors import InputError
from amodal_core.frame import Sample

GROUND_TRUTH = "/ground_truth"


def write_video(
    data: Dataset,
    video: str,
    out: str | Path,
    *,
    storage: str = "mcap",
    compress: bool = False,
    limit: int | None = None,
) -> Iterator[str]:
    """Write one video as a bag; yields each sample's name.

    Image and ground truth are always written, camera_info where the camera is known, points and
    /tf_static where there are scans.

    Args:
        data: a data set of videos.
        video: one of `data.videos`.
        out: the bag's folder.
        storage: "mcap" or "sqlite3".
        compress: zstd.
        limit: write so many samples at most.

    Raises:
        InputError: there is no such video, a frame cannot be read, or the bag not be written.
    """
    indices = data.in_video(video)[:limit]
    if not indices:
        raise InputError(f"no video '{video}'", str(data.path), "`amodal data stats` lists them")
    born: dict[int, int] = {}
    with BagWriter(out, storage, compress=compress) as bag:
        first = data.frame(indices[0])
        bag.add_topic(IMAGE, "sensor_msgs/msg/Image")
        bag.add_topic(GROUND_TRUTH, "amodal_msgs/msg/AmodalInstanceArray")
        if first.calibration is not None:
            bag.add_topic(CAMERA_INFO, "sensor_msgs/msg/CameraInfo")
        if first.points is not None:
            bag.add_topic(POINTS, "sensor_msgs/msg/PointCloud2")
            bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
            _write_tf(bag, data[indices[0]])
        for turn, index in enumerate(indices):
            sample = data[index]
            _write_sample(bag, sample, data.classes, born, turn)
            yield sample.name


def _write_tf(bag: BagWriter, sample: Sample) -> None:
    calibration = sample.frame.calibration
    if calibration is None:
        return
    factory, stamp = RosbagsFactory(), sample.frame.stamp
    lidar_from_camera = np.linalg.inv(calibration.camera_from_lidar)
    link = transform_message(factory, LIDAR_FRAME, CAMERA_FRAME, lidar_from_camera, stamp)
    bag.write("/tf_static", factory.create("tf2_msgs/msg/TFMessage", transforms=[link]), stamp)


def _write_sample(
    bag: BagWriter, sample: Sample, classes: tuple[str, ...], born: dict[int, int], turn: int
) -> None:
    factory, frame = RosbagsFactory(), sample.frame
    stamp = frame.stamp
    if frame.image is None:
        raise InputError("a frame without an image", sample.name)
    if frame.calibration is not None:
        camera = frame.calibration
        info = camera_info_message(
            factory, camera.K, camera.width, camera.height, stamp, CAMERA_FRAME
        )
        bag.write(CAMERA_INFO, info, stamp)
    if sample.truth is not None:
        truth = sample.truth.numpy()
        ages = [turn - born.setdefault(i, turn) + 1 for i in truth.ids.tolist()]
        truth = replace(truth, ages=np.array(ages, np.int64))
        message = instances_message(
            factory, truth, stamp=stamp, frame_id=CAMERA_FRAME, classes=classes
        )
        bag.write(GROUND_TRUTH, message, stamp)
    bag.write(IMAGE, image_message(factory, frame.image, stamp, CAMERA_FRAME), stamp)
    if frame.points is not None:
        at = stamp if frame.points_stamp is None else frame.points_stamp
        bag.write(POINTS, points_message(factory, frame.points, at, LIDAR_FRAME), at)
