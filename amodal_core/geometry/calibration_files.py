"""A camera's calibration from the files that calibration tools write, in place of camera_info."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.errors import InputError, foreign
from amodal_core.geometry.calibration import read_kitti, read_kitti_raw
from amodal_core.geometry.camera import Camera, make_camera
from amodal_core.yaml_texts import read_yaml

_KNOWN = (
    "give a camera_info YAML of camera_calibration, a calib file of KITTI, or a camchain of Kalibr"
)
# Kalibr's distortion models by ROS' names.
_KALIBR = {"radtan": "plumb_bob", "equidistant": "equidistant", "none": "plumb_bob"}


@dataclass(frozen=True, eq=False)
class FileCalibration:
    """What a calibration file says.

    Attributes:
        camera: its size is 0 where the file tells none.
        camera_from_lidar: (4, 4) float64, None where the file does not place the LiDAR.
    """

    camera: Camera
    camera_from_lidar: np.ndarray | None = None


def read_calibration(path: str | Path, image_topic: str = "") -> FileCalibration:
    """Read a camera's calibration; the kind of file is recognised.

    Args:
        path: the camera_info YAML of ROS' camera_calibration, a camchain of Kalibr (the LiDAR's
            place as T_cam_lidar, where it is written), or a file of KITTI: object, tracking, or
            calib_cam_to_cam.txt beside calib_velo_to_cam.txt. Of KITTI's cameras it is the left
            colour one.
        image_topic: chooses among several cameras of a camchain, by their rostopic.

    Raises:
        InputError: the file cannot be read, is of no known kind, or says nothing that makes a
            camera.
    """
    path = Path(path).expanduser()
    where = str(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        if path.is_dir() or path.name == "calib_cam_to_cam.txt":
            kitti = read_kitti_raw(path if path.is_dir() else path.parent)
        else:
            kitti = read_kitti(path)
        height, width = kitti.size or (0, 0)
        camera = make_camera((), (), "", (), kitti.P, (width, height), where)
        return FileCalibration(camera, kitti.camera_from_lidar)
    values = read_yaml(path, "cannot read the calibration", _KNOWN)
    with foreign(where, "a calibration file that is incomplete", _KNOWN):
        if isinstance(values, dict) and "camera_matrix" in values:
            return FileCalibration(_camera_info(values, where))
        if isinstance(values, dict) and "cam0" in values:
            return _kalibr(values, where, image_topic)
    raise InputError("neither camera_matrix nor cam0 is in it", where, _KNOWN)


def _camera_info(values: dict[str, Any], where: str) -> Camera:
    """Of ROS' camera_calibration."""

    def matrix(name: str) -> np.ndarray:
        return np.array((values.get(name) or {}).get("data", ()), np.float64)

    return make_camera(
        matrix("camera_matrix"),
        matrix("distortion_coefficients"),
        str(values.get("distortion_model", "")),
        matrix("rectification_matrix"),
        matrix("projection_matrix"),
        (int(values["image_width"]), int(values["image_height"])),
        where,
    )


def _kalibr(values: dict[str, Any], where: str, image_topic: str) -> FileCalibration:
    """Of the image's camera, the only one, or cam0."""
    cameras = {name: c for name, c in values.items() if name.startswith("cam")}
    topics = {str(c.get("rostopic", "")).lstrip("/"): name for name, c in cameras.items()}
    topic = image_topic.lstrip("/").removesuffix("/compressed")
    if len(cameras) > 1 and topic not in topics:
        listed = ", ".join(f"/{t}" for t in topics)
        raise InputError(f"{len(cameras)} cameras, none of '{image_topic}'", where, f"has {listed}")
    chosen = cameras[topics.get(topic, "cam0")]
    distortion = str(chosen.get("distortion_model", "none"))
    if chosen.get("camera_model") != "pinhole" or distortion not in _KALIBR:
        raise InputError(
            f"a camera that is {chosen.get('camera_model')} with {distortion}",
            where,
            "calibrate it as pinhole-radtan or pinhole-equi",
        )
    fx, fy, cx, cy = (float(v) for v in chosen["intrinsics"])
    width, height = (int(v) for v in chosen["resolution"])
    camera = make_camera(
        (fx, 0, cx, 0, fy, cy, 0, 0, 1),
        chosen.get("distortion_coeffs", ()),
        _KALIBR[distortion],
        (),
        (),
        (width, height),
        where,
    )
    placed = chosen.get("T_cam_lidar")
    matrix = None if placed is None else np.array(placed, np.float64).reshape(4, 4)
    return FileCalibration(camera, matrix)
