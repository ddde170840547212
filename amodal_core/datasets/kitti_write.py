"""Write frames in the layout of KITTI's object benchmark: images, scans, calibration, labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from amodal_core.classes import ClassMap
from amodal_core.datasets.base import new_folder
from amodal_core.datasets.categories import KITTI
from amodal_core.datasets.image_files import write_bytes, write_image
from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame, Sample, Tracks

# From which occlusion rate on KITTI's annotators call an object partly and largely occluded.
_PARTLY, _LARGELY = 0.05, 0.5


def write(
    root: str | Path,
    samples: Iterable[Sample],
    classes: Sequence[str],
    *,
    split: str = "training",
    class_map: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Write `<root>/<split>/{image_2,velodyne,calib,label_2}`; yields each sample's stem.

    KITTI has no masks: what the truth knows of 2D and 3D boxes goes into the labels.

    Args:
        root: a folder that is made.
        samples: frames, each with an image.
        classes: names of the truth's class ids.
        split: "training" or "testing"; the latter has no labels.
        class_map: names of KITTI for names of `classes` where they are not the same.

    Raises:
        InputError: the folder is not empty, a frame has no image, a class has no name in KITTI.
    """
    folder = new_folder(Path(root)) / split
    types = list(KITTI.values())
    index = ClassMap.between(classes, list(KITTI), class_map).complete()
    for number, sample in enumerate(samples):
        stem = f"{number:06d}"
        write_sensors(folder, stem, sample.frame)
        if sample.truth is not None and split == "training":
            names = [types[index[c]] for c in sample.truth.class_ids.tolist()]
            text = label_lines(sample.truth, names, sample.frame.calibration)
            write_bytes(folder / "label_2" / f"{stem}.txt", text.encode())
        yield stem


def write_sensors(folder: Path, stem: str, frame: Frame) -> None:
    """Write a frame's image, and its scan and calibration where there are any.

    Raises:
        InputError: the frame has no image, or the place cannot be written.
    """
    if frame.image is None:
        raise InputError("a frame without an image", str(folder / stem))
    write_image(folder / "image_2" / f"{stem}.png", frame.image)
    if frame.points is not None:
        scan = np.ascontiguousarray(frame.points, "<f4")
        write_bytes(folder / "velodyne" / f"{stem}.bin", scan.tobytes())
    if frame.calibration is not None:
        text = calibration_lines(frame.calibration)
        write_bytes(folder / "calib" / f"{stem}.txt", text.encode())


def calibration_lines(calibration: Calibration) -> str:
    """A calibration as KITTI's object benchmark writes it; the camera becomes camera 0."""
    P = np.hstack([calibration.K, np.zeros((3, 1))])
    rows = {f"P{k}": P for k in range(4)}
    rows["R0_rect"] = np.eye(3)
    rows["Tr_velo_to_cam"] = calibration.camera_from_lidar[:3]
    rows["Tr_imu_to_velo"] = np.eye(4)[:3]
    lines = (
        f"{key}: {' '.join(f'{v:.17g}' for v in matrix.reshape(-1))}"
        for key, matrix in rows.items()
    )
    return "\n".join(lines) + "\n"


def label_lines(truth: Tracks, types: Sequence[str], calibration: Calibration | None) -> str:
    """Label file of one image; 3D fields are KITTI's "unknown" where the truth has no box."""
    lines = []
    for k, kind in enumerate(types):
        rate = float(truth.occlusion_rates[k])
        occluded = 0 if rate < _PARTLY else 1 if rate < _LARGELY else 2
        box = np.asarray(truth.amodal_boxes[k], np.float64)
        truncated, alpha = -1.0, -10.0
        solid: tuple[float, ...] = (-1.0, -1.0, -1.0, -1000.0, -1000.0, -1000.0, -10.0)
        has_box = truth.boxes3d is not None and np.isfinite(truth.boxes3d[k]).all()
        if has_box and calibration is not None:
            assert truth.boxes3d is not None
            row = np.asarray(truth.boxes3d[k], np.float64)
            solid = _in_camera(row, calibration)
            x, z, rotation = solid[3], solid[5], solid[6]
            alpha = (rotation - np.arctan2(x, z) + np.pi) % (2 * np.pi) - np.pi
            truncated = _truncation(row, calibration)
        numbers = (alpha, *box, *solid)
        lines.append(f"{kind} {truncated:.2f} {occluded} " + " ".join(f"{v:.4f}" for v in numbers))
    return "".join(line + "\n" for line in lines)


def _in_camera(box: np.ndarray, calibration: Calibration) -> tuple[float, ...]:
    """KITTI's h, w, l, x, y, z (bottom centre) and rotation_y of a box of the LiDAR frame."""
    T = calibration.camera_from_lidar
    length, width, height = box[3:6]
    centre = T @ (*box[:3], 1.0)
    ahead = T[:3, :3] @ (np.cos(box[6]), np.sin(box[6]), 0.0)
    bottom = centre[1] + height / 2
    rotation = float(np.arctan2(-ahead[2], ahead[0]))
    return (height, width, length, centre[0], bottom, centre[2], rotation)


def _truncation(box: np.ndarray, calibration: Calibration) -> float:
    """The share of a 3D box's image that lies outside the picture."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    c, s = np.cos(box[6]), np.sin(box[6])
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    corners = box[:3] + (signs * box[3:6] / 2) @ turn.T
    in_camera = (
        corners @ calibration.camera_from_lidar[:3, :3].T + calibration.camera_from_lidar[:3, 3]
    )
    if (in_camera[:, 2] <= 0.1).any():
        return 1.0 if (in_camera[:, 2] <= 0.1).all() else 0.99
    pixels = in_camera @ calibration.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    limit = np.array([calibration.width, calibration.height], np.float64)
    inside = np.clip(high, 0, limit) - np.clip(low, 0, limit)
    return float(1 - np.prod(inside) / max(np.prod(high - low), 1e-9))
