"""Files of numbers and texts: labels, stamps, calibrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from datasets_scenes import calibration

from amodal_core.datasets import kitti_write
from amodal_core.datasets.kitti_files import read_scan as read_kitti_scan
from amodal_core.datasets.kitti_files import read_stamps
from amodal_core.datasets.kitti_labels import read_object_labels, read_tracking_labels
from amodal_core.datasets.kitti_oxts import pose, read_oxts
from amodal_core.datasets.kitti_to_bag import _velo_from_imu
from amodal_core.datasets.sailvos_cut import read_structure
from amodal_core.evaluation.kitti_files import read_names, read_pairs
from amodal_core.geometry.calibration import read_kitti, read_kitti_raw
from amodal_core.geometry.calibration_files import read_calibration
from fuzzing import mutations as spoil

from .base import RNG, add, file_of

_TRACKING = b"0 7 Car 0 0 -1.5 10 20 50 60 1.5 1.6 4.0 1.0 1.5 20 0.1\n" * 2
_OBJECT = b"Car 0 0 -1.5 10 20 50 60 1.5 1.6 4.0 1.0 1.5 20 0.1 0.9\n" * 3
_STAMPS = b"2011-09-26 13:02:25.000123456\n2011-09-26 13:02:25.100123456\n"
_OXTS = b" ".join(b"%d.5" % (k % 40) for k in range(30))
_K = "70 0 50 0 0 70 30 0 0 0 1 0"
_CAM = f"S_rect_02: 100 60\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: {_K}\n".encode()
_VELO = b"R: 0 -1 0 0 0 -1 1 0 0\nT: 0.1 0.2 0.3\n"


def _kitti_raw(cam: bytes, folder: Path) -> None:
    (folder / "calib_velo_to_cam.txt").write_bytes(_VELO)
    file_of("calib_cam_to_cam.txt", lambda p: read_kitti_raw(p.parent))(cam, folder)


def _oxts(path: Path) -> None:
    packet = read_oxts(path)
    pose(packet, packet)


def _pairs(data: bytes, folder: Path) -> None:
    for part in ("label_2", "kitti"):
        (folder / part).mkdir(exist_ok=True)
    (folder / "label_2" / "000001.txt").write_bytes(_OBJECT)
    (folder / "kitti" / "000001.txt").write_bytes(data)
    read_pairs(folder / "label_2", folder / "kitti")


add("tracking_labels", [_TRACKING], spoil.of_text, file_of("0000.txt", read_tracking_labels))
add("object_labels", [_OBJECT], spoil.of_text, file_of("0.txt", read_object_labels))
add("kitti_results", [_OBJECT], spoil.of_text, _pairs)
add("names", [b"000001\n000002\n"], spoil.of_text, file_of("val.txt", read_names))
add("stamps", [_STAMPS], spoil.of_text,
     file_of("timestamps.txt", lambda p: read_stamps(p.parent, {0: p, 1: p})))  # fmt: skip
add("oxts", [_OXTS], spoil.of_text, file_of("0.txt", _oxts))
add("imu_to_velo", [_VELO], spoil.of_text, file_of("i.txt", _velo_from_imu))
add("scan_file", [RNG.normal(0, 9, 40).astype("<f4").tobytes()], spoil.of_floats,
     file_of("0.bin", read_kitti_scan))  # fmt: skip
add("structure", [b'{"a__1": ["a.png", "b.png"], "b": []}'], spoil.of_json,
     file_of("s.json", read_structure))  # fmt: skip


_CAMERA_YAML = yaml.safe_dump(
    {
        "image_width": 100,
        "image_height": 60,
        "camera_matrix": {"rows": 3, "cols": 3, "data": [70.0, 0, 50, 0, 70, 30, 0, 0, 1]},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.1, 0, 0, 0, 0]},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1.0, 0, 0, 0, 1, 0, 0, 0, 1]},
        "projection_matrix": {"data": [70.0, 0, 50, 0, 0, 70, 30, 0, 0, 0, 1, 0]},
    }
).encode()
_KALIBR = yaml.safe_dump(
    {
        "cam0": {
            "camera_model": "pinhole",
            "intrinsics": [70.0, 70.0, 50.0, 30.0],
            "distortion_model": "equidistant",
            "distortion_coeffs": [0.1, 0.0, 0.0, 0.0],
            "resolution": [100, 60],
            "rostopic": "/cam0/image_raw",
            "T_cam_lidar": np.eye(4).tolist(),
        }
    }
).encode()


def _use_calibration(path: Path) -> None:
    """Read it and use it as a drive does."""
    read = read_calibration(path)
    camera = read.camera.of_size(100, 60)
    place = np.eye(4) if read.camera_from_lidar is None else read.camera_from_lidar
    camera.calibration(place)
    if camera.distorted and camera.width * camera.height < 1e6:
        camera.rectify(np.zeros((camera.height, camera.width, 3), np.uint8))


add("calibration_yaml", [_CAMERA_YAML, _KALIBR], spoil.of_yaml, file_of("c.yaml", _use_calibration))
add("calibration_txt", [kitti_write.calibration_lines(calibration()).encode()], spoil.of_text,
     file_of("c.txt", _use_calibration))  # fmt: skip
add("calibration_kitti", [kitti_write.calibration_lines(calibration()).encode()], spoil.of_text,
     file_of("k.txt", read_kitti))  # fmt: skip
add("calibration_raw", [_CAM], spoil.of_text, _kitti_raw)
