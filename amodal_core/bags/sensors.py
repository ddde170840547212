"""Image, PointCloud2, CameraInfo and transform messages to arrays and back, with their validation.

The functions that read take messages of either world (rosbags, rclpy) and raise InputError for what
they cannot read, so that a node and an offline replay refuse the same messages with the same words.
`where` is the topic, for the error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core.bags.factory import MessageFactory
from amodal_core.errors import InputError
from amodal_core.frame import Calibration
from amodal_core.geometry.calibration import from_camera_info

# Encodings of sensor_msgs/image_encodings.hpp that can be turned to RGB: channels, and which
# channels are red, green and blue.
_COLOURS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
_DEPTHS: dict[str, np.dtype] = {"32FC1": np.dtype("f4"), "16UC1": np.dtype("u2")}

# sensor_msgs/PointField's datatype numbers.
_POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
# Names that drivers give to the strength of a return, the usual one first.
_INTENSITIES = ("intensity", "i", "reflectivity", "reflectance", "remission")


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


def _bytes(data: Any) -> np.ndarray:
    """A read-only or writable uint8 view of a `uint8[]` field of either world."""
    if isinstance(data, np.ndarray):
        return data.view(np.uint8).reshape(-1)
    if isinstance(data, (list, tuple)):
        return np.asarray(data, np.uint8)
    return np.frombuffer(data, np.uint8)


def _rows(message: Any, pixel: np.dtype, channels: int, where: str) -> np.ndarray:
    """(H, W, channels) view of an image's pixels, row padding skipped."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = _bytes(message.data)
    need = width * channels * pixel.itemsize
    if height <= 0 or width <= 0:
        raise InputError(f"an image of {width}x{height} pixels", where, "check the camera driver")
    if step < need:
        raise InputError(
            f"step {step} is shorter than {need} bytes, a row of {width} {message.encoding} pixels",
            where,
            "check the camera driver",
        )
    if data.size != step * height:
        raise InputError(
            f"{data.size} bytes of data where height x step needs {step * height}",
            where,
            "the message was cut off or filled wrongly; check the camera driver",
        )
    return np.ndarray(
        (height, width, channels),
        pixel.newbyteorder(">" if message.is_bigendian else "<"),
        data,
        strides=(step, channels * pixel.itemsize, pixel.itemsize),
    )


def read_image(message: Any, where: str = "image") -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image; a view of the message's bytes where it can be.

    Raises:
        InputError: an encoding other than rgb8, bgr8, rgba8, bgra8 and mono8, or wrong sizes.
    """
    if message.encoding not in _COLOURS:
        raise InputError(
            f"encoding '{message.encoding}' where one of {', '.join(_COLOURS)} is expected",
            where,
            "convert it first, for example with image_proc",
        )
    channels, order = _COLOURS[message.encoding]
    pixels = _rows(message, np.dtype(np.uint8), channels, where)
    if message.encoding == "rgb8":
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(pixels[..., list(order)])


def read_depth(message: Any, where: str = "depth") -> np.ndarray:
    """(H, W) float32 metres of a depth image (REP 118); 0 where there is no valid return.

    Raises:
        InputError: an encoding other than 32FC1 (metres) and 16UC1 (millimetres), or wrong sizes.
    """
    if message.encoding not in _DEPTHS:
        raise InputError(
            f"encoding '{message.encoding}' where one of {', '.join(_DEPTHS)} is expected",
            where,
            "publish depth in metres as 32FC1 or in millimetres as 16UC1",
        )
    pixels = _rows(message, _DEPTHS[message.encoding], 1, where)[..., 0]
    if message.encoding == "16UC1":
        return pixels.astype(np.float32) * np.float32(1e-3)
    depth = pixels.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    return depth


def image_message(
    factory: MessageFactory, image: np.ndarray, stamp: int, frame_id: str, encoding: str = ""
) -> Any:
    """A sensor_msgs/Image of (H, W, 3) uint8 RGB, (H, W) uint8, uint16 or float32.

    The encoding follows from the array (rgb8, mono8, mono16, 32FC1) where none is given.
    """
    natural = {("u1", 3): "rgb8", ("u1", 2): "mono8", ("u2", 2): "mono16", ("f4", 2): "32FC1"}
    pixels = np.ascontiguousarray(image)
    encoding = encoding or natural[(pixels.dtype.str[1:], pixels.ndim)]
    return factory.create(
        "sensor_msgs/msg/Image",
        header=header_message(factory, stamp, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(pixels.dtype.str[0] == ">"),
        step=pixels.strides[0],
        data=pixels.reshape(-1).view(np.uint8),
    )


def read_points(message: Any, where: str = "points") -> np.ndarray:
    """(N, 4) float32 x, y, z and intensity 0-1 of a sensor_msgs/PointCloud2.

    Any order, offset and padding of the fields is read, organised or not, of either endianness.
    Points with a coordinate that is not finite are dropped whole. Intensity is 0 where the cloud
    has none; where it reaches beyond 1 it is taken as 0-255 (0-65535 in a 16-bit field) and scaled.

    Raises:
        InputError: no scalar float x, y, z fields, fields that leave the point, wrong sizes, or a
            cloud of which no point is finite.
    """
    fields = {f.name: f for f in message.fields}
    height, width = int(message.height), int(message.width)
    point_step, row_step = int(message.point_step), int(message.row_step)
    data = _bytes(message.data)
    if height * width == 0:
        return np.zeros((0, 4), np.float32)
    missing = [n for n in "xyz" if n not in fields]
    if missing:
        raise InputError(
            f"no field {', '.join(missing)} among '{', '.join(fields)}'",
            where,
            "publish x, y, z as float32",
        )
    for name in "xyz":
        if fields[name].datatype not in (7, 8) or fields[name].count not in (0, 1):
            raise InputError(
                f"field {name} is {fields[name].count} x "
                f"{_POINT_TYPES.get(fields[name].datatype, '?')}, not one float",
                where,
                "publish x, y, z as float32",
            )
    if row_step < width * point_step or data.size != row_step * height:
        raise InputError(
            f"{data.size} bytes of data in {height} rows of {row_step} do not hold "
            f"{height} x {width} points of {point_step} bytes",
            where,
            "the message was cut off or filled wrongly; check the LiDAR driver",
        )
    order = ">" if message.is_bigendian else "<"

    def column(name: str) -> np.ndarray:
        f = fields[name]
        dtype = np.dtype(order + _POINT_TYPES[f.datatype])
        if f.offset + dtype.itemsize > point_step:
            raise InputError(
                f"field {name} at offset {f.offset} leaves the point of {point_step} bytes",
                where,
                "check the LiDAR driver",
            )
        return np.ndarray(
            (height, width), dtype, data, offset=f.offset, strides=(row_step, point_step)
        ).reshape(-1)

    strength = next((n for n in _INTENSITIES if n in fields), None)
    if strength and fields[strength].datatype not in _POINT_TYPES:
        raise InputError(
            f"field {strength} has the unknown datatype {fields[strength].datatype}", where
        )
    points = np.empty((height * width, 4), np.float32)
    for k, name in enumerate("xyz"):
        points[:, k] = column(name)
    points[:, 3] = _unit_intensity(column(strength)) if strength else 0
    # One sum tells whether any of them is not finite, in a fraction of the time of looking at each.
    if np.isfinite(points.sum()):
        return points
    finite = np.isfinite(points[:, :3]).all(axis=1)
    if finite.all():
        return points
    if not finite.any():
        raise InputError(
            f"none of the {len(points)} points is finite", where, "check the LiDAR driver"
        )
    return points[finite]


def _unit_intensity(raw: np.ndarray) -> np.ndarray:
    """Intensities scaled to 0-1; not finite ones become 0."""
    values = raw.astype(np.float32)
    low, top = values.min(initial=0.0), values.max(initial=0.0)
    if not (np.isfinite(low) and np.isfinite(top)):
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, top = values.min(initial=0.0), values.max(initial=0.0)
    if top > 1:
        values /= 65535 if raw.dtype.kind in "ui" and raw.dtype.itemsize > 1 and top > 255 else 255
    return np.clip(values, 0, 1) if low < 0 or top > 1 else values


def points_message(factory: MessageFactory, points: np.ndarray, stamp: int, frame_id: str) -> Any:
    """An unorganised sensor_msgs/PointCloud2 of (N, 4) float32 x, y, z, intensity."""
    rows = np.ascontiguousarray(points, dtype="<f4")
    fields = [
        factory.create("sensor_msgs/msg/PointField", name=n, offset=4 * k, datatype=7, count=1)
        for k, n in enumerate(("x", "y", "z", "intensity"))
    ]
    return factory.create(
        "sensor_msgs/msg/PointCloud2",
        header=header_message(factory, stamp, frame_id),
        height=1,
        width=len(rows),
        fields=fields,
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(rows),
        data=rows.reshape(-1).view(np.uint8),
        is_dense=bool(np.isfinite(rows).all()),
    )


def read_camera_info(
    message: Any, camera_from_lidar: np.ndarray, where: str = "camera_info"
) -> Calibration:
    """The rectified camera of a sensor_msgs/CameraInfo with the LiDAR's place in its frame.

    Raises:
        InputError: an uncalibrated or distorted camera, numbers that are not finite, no size, or
            binning or a region of interest.
    """
    roi = message.roi
    if message.binning_x > 1 or message.binning_y > 1 or roi.width or roi.height:
        raise InputError("binning or a region of interest", where, "publish the whole image")
    return from_camera_info(message, camera_from_lidar, where)


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
    t, q = message.transform.translation, message.transform.rotation
    numbers = np.array([t.x, t.y, t.z, q.x, q.y, q.z, q.w])
    parent, child = message.header.frame_id.lstrip("/"), message.child_frame_id.lstrip("/")
    if not parent or not child or parent == child:
        raise InputError(f"a transform from '{parent}' to '{child}'", where, "name both frames")
    if not np.isfinite(numbers).all() or np.linalg.norm(numbers[3:]) < 1e-6:
        raise InputError(f"{parent} -> {child} is not a rigid transform: {numbers}", where)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return parent, child, matrix


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
