"""Messages of sensors and of ours, as bags have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets_scenes import CLASSES, calibration

from amodal_core.bags.clouds import read_scan
from amodal_core.bags.factory import RosbagsFactory, typestore
from amodal_core.bags.images import read_depth, read_image
from amodal_core.bags.messages import instances_message, read_instances, read_tracks
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    pose_message,
    read_pose,
    read_transform,
    transform_message,
)
from amodal_core.datasets.base import BEGIN
from amodal_core.errors import InputError
from amodal_core.frame import Tracks
from amodal_core.geometry.camera import read_camera
from fuzzing import mutations as spoil

from .base import RNG, SAMPLES, add
from .binaries import PICTURES, PIXELS

FACTORY = RosbagsFactory()
STORE = typestore()
CALIBRATION = calibration()
SAMPLES_ON_THE_WIRE: list[tuple[str, bytes]] = []  # types and a valid message of each


def _cdr(message: Any, kind: str) -> bytes:
    return bytes(STORE.serialize_cdr(message, kind))


def tracks() -> Tracks:
    truth = SAMPLES[0].truth
    assert truth is not None
    return truth


def _message(name: str, kind: str, messages: Sequence[Any], read: Callable[[Any], Any]) -> None:
    def on(data: bytes, _: Path) -> None:
        try:
            message = STORE.deserialize_cdr(data, kind)
        except MemoryError:
            raise
        except Exception:  # rosbags' own errors; the reader of bags turns them into ours
            return
        read(message)

    seeds = [_cdr(m, kind) for m in messages]
    SAMPLES_ON_THE_WIRE.append((kind, seeds[0]))
    add(name, seeds, spoil.of_message(lambda: STORE.fielddefs, STORE, kind), on)


def _info(message: Any) -> None:
    camera = read_camera(message, "camera_info").of_size(100, 60)
    camera.calibration(np.eye(4))
    if camera.distorted and camera.width * camera.height < 1e6:
        camera.rectify(np.zeros((camera.height, camera.width, 3), np.uint8))


def _image_messages() -> list[Any]:
    made = [image_message(FACTORY, PIXELS, BEGIN, "camera")]
    grey = np.ascontiguousarray(PIXELS[..., 0])
    made += [image_message(FACTORY, grey, BEGIN, "c", e) for e in ("mono8", "bayer_rggb8")]
    two = np.ascontiguousarray(PIXELS[..., :2])
    made += [FACTORY.image(two, e, made[0].header) for e in ("yuv422", "yuyv")]
    for rows, encoding in ((18, "nv12"), (36, "nv24")):
        message = image_message(FACTORY, np.zeros((rows, 16), np.uint8), BEGIN, "c", encoding)
        message.height = 12
        made.append(message)
    return made


def _compressed() -> list[Any]:
    kind = "sensor_msgs/msg/CompressedImage"
    names = ("png", "rgb8; jpeg compressed bgr8", "bmp", "webp", "bayer_rggb8; png")
    bodies = [np.frombuffer(p, np.uint8) for p in PICTURES]
    return [FACTORY.create(kind, format=n, data=b) for n, b in zip(names, bodies, strict=True)]


_where = "topic"
POINTS = np.column_stack([RNG.uniform(1, 30, (30, 3)), RNG.random(30)]).astype(np.float32)
_depth = image_message(FACTORY, np.full((12, 16), 5, np.float32), BEGIN, "camera")
_millimetres = image_message(FACTORY, np.full((12, 16), 5, np.uint16), BEGIN, "c", "16UC1")
_ARRAY = instances_message(
    FACTORY, tracks(), stamp=BEGIN, frame_id="camera", classes=CLASSES, lidar_frame="lidar"
)
_message("image", "sensor_msgs/msg/Image", _image_messages(), partial(read_image, where=_where))
_message("compressed", "sensor_msgs/msg/CompressedImage", _compressed(),
         partial(read_image, where=_where))  # fmt: skip
_message("depth", "sensor_msgs/msg/Image", [_depth, _millimetres],
         partial(read_depth, where=_where))  # fmt: skip
_message("points", "sensor_msgs/msg/PointCloud2",
         [points_message(FACTORY, POINTS, BEGIN, "lidar")],
         partial(read_scan, where=_where, minimum_range=0.5, stamp=BEGIN))  # fmt: skip
_pinhole = camera_info_message(FACTORY, CALIBRATION.K, 100, 60, BEGIN, "camera")
_message("camera_info", "sensor_msgs/msg/CameraInfo", [_pinhole], _info)
_message("transform", "geometry_msgs/msg/TransformStamped",
         [transform_message(FACTORY, "camera", "lidar", CALIBRATION.camera_from_lidar, BEGIN)],
         partial(read_transform, where=_where))  # fmt: skip
_message("pose", "geometry_msgs/msg/Pose", [pose_message(FACTORY, np.ones(3), 0.5)],
         partial(read_pose, where=_where))  # fmt: skip


def _array(message: Any) -> None:
    for read in (read_instances, read_tracks):
        with suppress(InputError):
            made = read(message, _where)
            made.amodal.rle().areas()


_message("instances", "amodal_msgs/msg/AmodalInstanceArray", [_ARRAY], _array)
