"""KITTI drives, object images and tracking sequences to rosbag2 bags.

Topics and frames are those of kitti2bag and its descendants. Its known mistakes are not repeated:
the images are rectified, and so camera_info has the rectified K, D = 0, R = I and P = [K | 0] (the
transform tree already places camera 2); points carry `intensity`; stamps are UTC; /tf_static is
written once and latched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import header_message, vector_message
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.base import Dataset
from amodal_core.datasets.kitti import KittiObject, KittiRaw, KittiTracking
from amodal_core.datasets.kitti_files import read_stamps
from amodal_core.datasets.kitti_labels import KittiLabel, boxes_in_lidar
from amodal_core.datasets.kitti_oxts import pose, read_oxts
from amodal_core.datasets.to_bag import LABELS, labels_message
from amodal_core.drive.topics import (
    BASE_FRAME,
    CAMERA_FRAME,
    LIDAR_FRAME,
    TF,
    TF_STATIC,
    WORLD_FRAME,
)
from amodal_core.drive.writer import SENSOR_TOPICS, DriveWriter, Link, camera_link
from amodal_core.errors import foreign
from amodal_core.frame import Frame, Report
from amodal_core.geometry.calibration import KittiCalibration
from amodal_core.progress import Progress

IMU = "/kitti/oxts/imu"
FIX = "/kitti/oxts/gps/fix"
VELOCITY = "/kitti/oxts/gps/vel"

IMU_FRAME = "imu_link"
# Where KITTI's car carries the IMU, in metres, as all converters place it.
_BASE_FROM_IMU = np.array([[1, 0, 0, -1.405], [0, 1, 0, 0.32], [0, 0, 1, 0.93], [0, 0, 0, 1.0]])


def convert_raw(
    drive: str | Path,
    out: str | Path,
    *,
    storage: str = "mcap",
    compress: bool = False,
    max_frames: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write a raw drive's left colour camera, scans and, where they are, GPS/IMU packets to a bag.

    Args:
        drive: such as `2011_09_26/2011_09_26_drive_0009_sync`.
        out: the bag's folder.
        storage: "mcap" or "sqlite3".
        compress: zstd.
        max_frames: stop after so many images.
        progress: is called with (images done, images in all).

    Returns:
        warnings about what the drive lacks.

    Raises:
        InputError: the drive cannot be read or the bag not written; no bag is left then.
    """
    data = KittiRaw(drive)
    count, report = _count(data, max_frames), Report()
    imu = _velo_from_imu(data.drive.resolve().parent / "calib_imu_to_velo.txt")
    if imu is None:
        report.warn(
            "no IMU",
            f"no calib_imu_to_velo.txt: the tree of frames begins at {LIDAR_FRAME}, "
            "and GPS/IMU packets are left out",
        )

    with BagWriter(out, storage, compress=compress) as bag:
        _write(bag, data, count, imu, progress, report)
        if imu is not None and (data.drive / "oxts" / "data").is_dir():
            stamps = sorted(data.stamps.values())
            _write_oxts(bag, data.drive / "oxts", stamps[count - 1] if count else 0)
    return report


def convert_object(
    root: str | Path,
    out: str | Path,
    *,
    split: str = "training",
    storage: str = "mcap",
    compress: bool = False,
    max_frames: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write object images, scans and labels to a bag; images are unrelated and stand 10 s apart.

    Arguments, result and errors are those of `convert_raw`; `root` holds `training` and `testing`.
    """
    data = KittiObject(Path(root) / split)
    return _convert(data, out, storage, compress, max_frames, progress, split == "training")


def convert_tracking(
    root: str | Path,
    out: str | Path,
    sequence: int,
    *,
    split: str = "training",
    storage: str = "mcap",
    compress: bool = False,
    max_frames: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write a tracking sequence's images, scans and labels to a bag, at its nominal 10 Hz.

    Arguments, result and errors are those of `convert_raw`; `root` holds `training` and `testing`.
    """
    data = KittiTracking(Path(root) / split, sequence)
    return _convert(data, out, storage, compress, max_frames, progress, split == "training")


def _convert(
    data: KittiObject | KittiTracking,
    out: str | Path,
    storage: str,
    compress: bool,
    max_frames: int | None,
    progress: Progress | None,
    labels: bool,
) -> Report:
    count, report = _count(data, max_frames), Report()
    with BagWriter(out, storage, compress=compress) as bag:
        _write(bag, data, count, None, progress, report, labels)
    return report


def _count(data: Dataset, max_frames: int | None) -> int:
    return len(data) if max_frames is None else min(max_frames, len(data))


def _write(
    bag: BagWriter,
    data: KittiRaw | KittiObject | KittiTracking,
    count: int,
    velo_from_imu: np.ndarray | None,
    progress: Progress | None,
    report: Report,
    labels: bool = False,
) -> None:
    """Write sensors, and the transform tree at the first image and whenever it changes."""
    writer = DriveWriter(bag, SENSOR_TOPICS)
    if labels:
        bag.add_topic(LABELS, "vision_msgs/msg/Detection3DArray")
    placed: np.ndarray | None = None
    without = 0
    for index in range(count):
        frame = data[index].frame
        assert frame.calibration is not None
        # One drive has one calibration; the object benchmark mixes days.
        if placed is None or not np.array_equal(placed, frame.calibration.camera_from_lidar):
            placed = frame.calibration.camera_from_lidar
            writer.transforms(TF_STATIC, _links(frame, velo_from_imu), frame.stamp)
        writer.frame(frame)
        without += frame.points is None
        if labels:
            boxes = _boxes(writer.factory, data.labels(index), data.calibration(index), frame.stamp)
            bag.write(LABELS, boxes, frame.stamp)
        if progress is not None:
            progress(index + 1, count)
    if without:
        report.warn("no scan", f"{without} of {count} images have no scan")


def _links(frame: Frame, velo_from_imu: np.ndarray | None) -> list[Link]:
    """Base -> IMU -> LiDAR and camera; LiDAR -> camera where the IMU's place is not known."""
    to_camera = camera_link(frame)
    if velo_from_imu is None:
        return [to_camera]
    imu_from_lidar = np.linalg.inv(velo_from_imu)
    return [
        (BASE_FRAME, IMU_FRAME, _BASE_FROM_IMU),
        (IMU_FRAME, LIDAR_FRAME, imu_from_lidar),
        (IMU_FRAME, CAMERA_FRAME, imu_from_lidar @ to_camera[2]),
    ]


def _boxes(
    factory: RosbagsFactory, labels: Sequence[KittiLabel], calibration: KittiCalibration, stamp: int
) -> Any:
    """KITTI's 3D boxes as a Detection3DArray in the LiDAR frame; DontCare regions have none."""
    return labels_message(
        factory,
        [label.type for label in labels],
        [label.score for label in labels],
        [label.track_id for label in labels],
        boxes_in_lidar(labels, calibration),
        stamp,
    )


def _velo_from_imu(path: Path) -> np.ndarray | None:
    """(4, 4) of calib_imu_to_velo.txt, None where the drive came without it."""
    if not path.exists():
        return None
    matrix = np.eye(4)
    with foreign(path, "malformed R or T", "download the calibration again"):
        lines = path.read_text().splitlines()
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        matrix[:3, :3] = np.array(values["R"].split(), float).reshape(3, 3)
        matrix[:3, 3] = np.array(values["T"].split(), float)
        if not np.isfinite(matrix).all():
            raise ValueError("a number that is not finite")
    return matrix


def _write_oxts(bag: BagWriter, folder: Path, until: int) -> None:
    """Write IMU, fix and velocity, and the car's pose on /tf, up to the last image's stamp."""
    files = {int(p.stem): p for p in sorted((folder / "data").glob("*.txt")) if p.stem.isdigit()}
    stamps = read_stamps(folder, files)
    bag.add_topic(IMU, "sensor_msgs/msg/Imu")
    bag.add_topic(FIX, "sensor_msgs/msg/NavSatFix")
    bag.add_topic(VELOCITY, "geometry_msgs/msg/TwistStamped")
    writer = DriveWriter(bag, (TF,))
    factory = writer.factory
    imu_from_base = np.linalg.inv(_BASE_FROM_IMU)
    origin = None

    for number, path in files.items():
        stamp = stamps[number]
        if stamp > until:
            break
        packet = read_oxts(path)
        origin = origin or packet
        x, y, z, w = Rotation.from_euler("ZYX", (packet.yaw, packet.pitch, packet.roll)).as_quat()
        header = header_message(factory, stamp, IMU_FRAME)
        turn = factory.create(
            "geometry_msgs/msg/Quaternion", x=float(x), y=float(y), z=float(z), w=float(w)
        )
        imu = factory.create(
            "sensor_msgs/msg/Imu",
            header=header,
            orientation=turn,
            angular_velocity=vector_message(factory, packet.rates),
            linear_acceleration=vector_message(factory, packet.acceleration),
        )
        fix = factory.create(
            "sensor_msgs/msg/NavSatFix",
            header=header,
            status=factory.create("sensor_msgs/msg/NavSatStatus", service=1),
            latitude=packet.latitude,
            longitude=packet.longitude,
            altitude=packet.altitude,
            position_covariance=np.eye(3).reshape(-1) * packet.position_deviation**2,
            position_covariance_type=1,
        )
        speed = factory.create(
            "geometry_msgs/msg/TwistStamped",
            header=header,
            twist=factory.create(
                "geometry_msgs/msg/Twist",
                linear=vector_message(factory, packet.velocity),
                angular=vector_message(factory, packet.rates),
            ),
        )
        world_from_base = pose(packet, origin) @ imu_from_base
        bag.write(IMU, imu, stamp)
        bag.write(FIX, fix, stamp)
        bag.write(VELOCITY, speed, stamp)
        writer.transforms(TF, [(WORLD_FRAME, BASE_FRAME, world_from_base)], stamp)
