"""Headers, transforms and CameraInfo to numbers and back; images and points to messages.

The functions that read take messages of either world (rosbags, rclpy) and raise InputError for what
they cannot read, so that a node and an offline replay refuse the same messages with the same words.
`where` is the topic, for the error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core.bags.clouds import POINT_TYPES
from amodal_core.bags.factory import MessageFactory
from amodal_core.errors import InputError


def stamp_of(header: Any) -> int:
    """Nanoseconds since the epoch of a std_msgs/Header."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def time_message(factory: MessageFactory, stamp: int) -> Any:
    """A builtin_interfaces/Time of nanoseconds since the epoch."""
    sec, nanosec = divmod(int(stamp), 1_000_000_000)
    return factory.create("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def header_message(factory: MessageFactory, stamp: int, frame_id: str) -> Any:
    """A std_msgs/Header."""
    return factory.create(
        "std_msgs/msg/Header", stamp=time_message(factory, stamp), frame_id=frame_id
    )


def image_message(
    factory: MessageFactory, image: np.ndarray, stamp: int, frame_id: str, encoding: str = ""
) -> Any:
    """A sensor_msgs/Image of (H, W, 3) uint8 RGB, (H, W) uint8, uint16 or float32.

    The encoding follows from the array (rgb8, mono8, mono16, 32FC1) where none is given.
    """
    natural = {("u1", 3): "rgb8", ("u1", 2): "mono8", ("u2", 2): "mono16", ("f4", 2): "32FC1"}
    pixels = np.ascontiguousarray(image)
    encoding = encoding or natural[(pixels.dtype.str[1:], pixels.ndim)]
    return factory.image(pixels, encoding, header_message(factory, stamp, frame_id))


def points_message(factory: MessageFactory, points: np.ndarray, stamp: int, frame_id: str) -> Any:
    """An unorganised sensor_msgs/PointCloud2 of (N, 4) float32 x, y, z, intensity."""
    rows = np.ascontiguousarray(points, dtype="<f4")
    columns = np.dtype([(name, "<f4") for name in ("x", "y", "z", "intensity")])
    dense = bool(np.isfinite(rows).all())
    return cloud_message(factory, rows.view(columns).reshape(-1), stamp, frame_id, dense=dense)


def cloud_message(
    factory: MessageFactory, points: np.ndarray, stamp: int, frame_id: str, *, dense: bool = True
) -> Any:
    """An unorganised sensor_msgs/PointCloud2 of a (N,) structured array; `dense`: all finite."""
    return factory.create(
        "sensor_msgs/msg/PointCloud2",
        header=header_message(factory, stamp, frame_id),
        height=1,
        width=len(points),
        fields=point_fields(factory, points.dtype),
        is_bigendian=False,
        point_step=points.dtype.itemsize,
        row_step=points.nbytes,
        data=np.frombuffer(points.tobytes(), np.uint8),
        is_dense=dense,
    )


def point_fields(factory: MessageFactory, dtype: np.dtype) -> list[Any]:
    """The sensor_msgs/PointField of each field of a structured dtype."""
    datatypes = {code: number for number, code in POINT_TYPES.items()}
    return [
        factory.create(
            "sensor_msgs/msg/PointField",
            name=name,
            offset=int(kind[1]),
            datatype=datatypes[kind[0].str[1:]],
            count=1,
        )
        for name, kind in (dtype.fields or {}).items()
    ]


def camera_info_message(
    factory: MessageFactory, K: np.ndarray, width: int, height: int, stamp: int, frame_id: str
) -> Any:
    """A sensor_msgs/CameraInfo of a rectified camera: D = 0, R = I, P = [K | 0]."""
    return factory.create(
        "sensor_msgs/msg/CameraInfo",
        header=header_message(factory, stamp, frame_id),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.asarray(K, np.float64).reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([K, np.zeros((3, 1))]).reshape(-1),
    )


def read_transform(message: Any, where: str = "tf") -> tuple[str, str, np.ndarray]:
    """(parent, child, parent_from_child 4x4) of a geometry_msgs/TransformStamped.

    Raises:
        InputError: numbers that are not finite, a quaternion of length 0, or an empty frame name.
    """
    parent, child = message.header.frame_id.lstrip("/"), message.child_frame_id.lstrip("/")
    if not parent or not child or parent == child:
        raise InputError(f"a transform from '{parent}' to '{child}'", where, "name both frames")
    transform = message.transform
    matrix = _rigid(transform.translation, transform.rotation, f"{parent} -> {child}", where)
    return parent, child, matrix


def read_pose(message: Any, where: str = "pose") -> np.ndarray:
    """(4, 4) float64 of a geometry_msgs/Pose.

    Raises:
        InputError: numbers that are not finite, or a quaternion of length 0.
    """
    return _rigid(message.position, message.orientation, "the pose", where)


def _rigid(t: Any, q: Any, what: str, where: str) -> np.ndarray:
    numbers = np.array([t.x, t.y, t.z, q.x, q.y, q.z, q.w])
    if not np.isfinite(numbers).all() or np.linalg.norm(numbers[3:]) < 1e-6:
        raise InputError(f"{what} is not a rigid transform: {numbers}", where)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix


def transform_message(
    factory: MessageFactory, parent: str, child: str, parent_from_child: np.ndarray, stamp: int
) -> Any:
    """A geometry_msgs/TransformStamped that places `child` in `parent`."""
    x, y, z, w = (float(v) for v in Rotation.from_matrix(parent_from_child[:3, :3]).as_quat())
    tx, ty, tz = (float(v) for v in parent_from_child[:3, 3])
    return factory.create(
        "geometry_msgs/msg/TransformStamped",
        header=header_message(factory, stamp, parent),
        child_frame_id=child,
        transform=factory.create(
            "geometry_msgs/msg/Transform",
            translation=factory.create("geometry_msgs/msg/Vector3", x=tx, y=ty, z=tz),
            rotation=factory.create("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        ),
    )


def pose_message(factory: MessageFactory, centre: np.ndarray, yaw: float) -> Any:
    """A geometry_msgs/Pose at a centre (3,) in metres, turned by yaw (radians) about +z."""
    x, y, z = (float(v) for v in centre)
    return factory.create(
        "geometry_msgs/msg/Pose",
        position=factory.create("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=factory.create(
            "geometry_msgs/msg/Quaternion", z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2))
        ),
    )


def vector_message(factory: MessageFactory, values: np.ndarray) -> Any:
    """A geometry_msgs/Vector3 of (3,) numbers."""
    x, y, z = (float(v) for v in values)
    return factory.create("geometry_msgs/msg/Vector3", x=x, y=y, z=z)
