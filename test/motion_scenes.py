"""A still world of posts, seen by a LiDAR on a vehicle that moves: messages and exact truth."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import (
    camera_info_message,
    header_message,
    image_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, ODOM, POINTS, TF, TF_STATIC

F = RosbagsFactory()
MS, SECOND = 1_000_000, 1_000_000_000
START = 1_700_000_000 * SECOND
K = np.array([[300.0, 0, 320], [0, 300, 96], [0, 0, 1]])
CAMERA_FROM_LIDAR = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3], [0, 0, 0, 1.0]])
BASE_FROM_LIDAR = np.eye(4)
BASE_FROM_LIDAR[:3, :3] = Rotation.from_euler("zyx", (0.1, -0.02, 0.03)).as_matrix()
BASE_FROM_LIDAR[:3, 3] = 1.2, 0.1, 1.8


def world_from_base(stamp: int) -> np.ndarray:
    """The vehicle at a moment: 12 m/s, braking, in a bend that it leans into; in UTM's numbers."""
    t = (stamp - START) * 1e-9
    pose = np.eye(4)
    angles = 0.3 + 0.4 * t, 0.02 * np.sin(3 * t), 0.03 * np.cos(2 * t)
    pose[:3, :3] = Rotation.from_euler("zyx", angles).as_matrix()
    pose[:3, 3] = 500_000 + 12 * t - t * t, 5_400_000 + 3 * np.sin(t), 0.1 * np.sin(2 * t)
    return pose


def lidar_at(stamp: int) -> np.ndarray:
    return world_from_base(stamp) @ BASE_FROM_LIDAR


RNG = np.random.default_rng(3)
# Posts around the way, in the LiDAR's frame at the start: 5 to 60 m away.
WORLD = (
    np.stack([*RNG.uniform((5, -25, -1.5), (60, 25, 3), (400, 3)).T, np.ones(400)], axis=1)
    @ lidar_at(START).T
)


def seen(stamp: int) -> np.ndarray:
    """(400, 3) the world in the LiDAR's frame at a moment: the truth."""
    return (WORLD @ np.linalg.inv(lidar_at(stamp)).T)[:, :3]


@lru_cache(maxsize=32)
def scan(begin: int) -> tuple[np.ndarray, np.ndarray]:
    """Points as they are measured one after the other in a turn, and when, nanoseconds."""
    after = np.linspace(0, 100 * MS, len(WORLD)).astype(np.int64)
    points = [
        np.linalg.inv(lidar_at(int(t))) @ p for t, p in zip(begin + after, WORLD, strict=True)
    ]
    return np.array(points)[:, :3], after


TIMES = {  # name, PointField datatype, dtype, values of nanoseconds after the scan's begin
    "ouster": ("t", 6, "<u4", lambda after, stamp: after),
    "velodyne": ("time", 7, "<f4", lambda after, stamp: after * 1e-9),
    "hesai": ("timestamp", 8, "<f8", lambda after, stamp: (stamp + after) * 1e-9),
    "livox": ("timestamp", 8, "<f8", lambda after, stamp: (stamp + after).astype(np.float64)),
}


def cloud(begin: int, driver: str = "ouster", stamp: int | None = None):
    """A PointCloud2 with a field of times; of driver "" without."""
    points, after = scan(begin)
    stamp = begin if stamp is None else stamp
    fields = [("x", 7, "<f4"), ("y", 7, "<f4"), ("z", 7, "<f4")]
    name, number, kind, values = TIMES.get(driver, ("", 0, "", None))
    if name:
        fields.append((name, number, kind))
    rows = np.zeros(len(points), [(n, d) for n, _, d in fields])
    for k, axis in enumerate("xyz"):
        rows[axis] = points[:, k]
    if name:
        rows[name] = values(after - (stamp - begin), stamp)
    layout, offset = [], 0
    for n, number, d in fields:
        layout.append(
            F.create("sensor_msgs/msg/PointField", name=n, offset=offset, datatype=number, count=1)
        )
        offset += np.dtype(d).itemsize
    return F.create(
        "sensor_msgs/msg/PointCloud2",
        header=header_message(F, stamp, "lidar"),
        height=1,
        width=len(rows),
        fields=layout,
        point_step=rows.itemsize,
        row_step=rows.nbytes,
        data=rows.view(np.uint8).reshape(-1),
    )


def static():
    links = [
        ("base_link", "lidar", BASE_FROM_LIDAR),
        ("lidar", "cam", np.linalg.inv(CAMERA_FROM_LIDAR)),
    ]
    made = [transform_message(F, *link, START) for link in links]
    return F.create("tf2_msgs/msg/TFMessage", transforms=made)


def tf(stamp: int, parent: str = "odom"):
    link = transform_message(F, parent, "base_link", world_from_base(stamp), stamp)
    return F.create("tf2_msgs/msg/TFMessage", transforms=[link])


def odometry(stamp: int, child: str = "base_link"):
    pose = world_from_base(stamp)
    x, y, z, w = (float(v) for v in Rotation.from_matrix(pose[:3, :3]).as_quat())
    position = dict(zip("xyz", pose[:3, 3].tolist(), strict=True))
    made = F.create(
        "geometry_msgs/msg/Pose",
        position=F.create("geometry_msgs/msg/Point", **position),
        orientation=F.create("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
    )
    return F.create(
        "nav_msgs/msg/Odometry",
        header=header_message(F, stamp, "odom"),
        child_frame_id=child,
        pose=F.create("geometry_msgs/msg/PoseWithCovariance", pose=made),
    )


def image(stamp: int):
    return image_message(F, np.zeros((192, 640, 3), np.uint8), stamp, "cam")


def info(stamp: int):
    return camera_info_message(F, K, 640, 192, stamp, "cam")


def events(motion: str, driver: str = "ouster", image_every: int = 100, **odom):
    """A second of a drive: (time of recording, topic, message)."""
    at = [(START, TF_STATIC.name, static()), (START, CAMERA_INFO.name, info(START))]
    stamps = [START + ms * MS for ms in range(0, 1000, image_every)]
    at += [(stamp + MS, IMAGE.name, image(stamp)) for stamp in stamps]
    for ms in range(0, 1000, 100):
        # Turns begin 5 ms before every third image of 30 Hz, and are sent when they are over.
        begin = START + (ms - 5) * MS
        at.append((begin + 101 * MS, POINTS.name, cloud(begin, driver)))
    for ms in range(-50, 1200, 10):
        stamp = START + ms * MS
        make = {"odometry": (ODOM.name, odometry), "tf": (TF.name, tf)}.get(motion)
        if make:
            at.append((stamp + 2 * MS, make[0], make[1](stamp, **odom)))
    return sorted(at, key=lambda event: event[0])


def write(path, at):
    """A bag of these events, under the names of some vehicle."""
    """A bag of these events, under the names of some vehicle."""
    names = {
        IMAGE.name: ("/cam/image", IMAGE.type),
        CAMERA_INFO.name: ("/cam/camera_info", CAMERA_INFO.type),
        POINTS.name: ("/lidar/points", POINTS.type),
        ODOM.name: ("/vehicle/odometry", ODOM.type),
        TF.name: (TF.name, TF.type),
        TF_STATIC.name: (TF_STATIC.name, TF_STATIC.type),
    }
    with BagWriter(path) as writer:
        for role in dict.fromkeys(role for _, role, _ in at):
            writer.add_topic(*names[role])
        for stamp, role, message in at:
            writer.write(names[role][0], message, stamp)
    return path


def frames_of(path, **options):
    """The frames of a bag, and all that they and it warn of."""
    settings = DriveSettings(**options.pop("settings", {}))
    with BagDrive(path, settings=settings, **options) as drive:
        made = list(drive)
        return made, [w for f in made for w in f.warnings] + drive.warnings
