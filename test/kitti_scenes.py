"""KITTI by hand: labels and detections (random, ties, values on every limit), and a raw drive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

TYPES = ("Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "Misc", "DontCare")
_SIZES = {"Car": (1.5, 1.6, 3.9), "Van": (2.2, 1.9, 5.0)}  # height, width, length
CASES = ("random", "ties", "limits")
_RAW_SIZE = (48, 96)  # height, width in pixels
_RAW_FOCAL = 60.0
_RAW_STAMPS = tuple(f"2011-09-26 13:02:25.{100 * k:03d}123456" for k in range(5))


def scenes(case: str) -> Iterator[tuple[list[str], list[str]]]:
    """Lines of label_2 and of a result file, frame by frame; equal for equal names."""
    draw = np.random.default_rng(CASES.index(case))
    for number in range(60 if case != "limits" else 90):
        objects = int(draw.integers(0, 9))
        truth, detections = [], []
        for _ in range(objects):
            kind = str(draw.choice(TYPES, p=(0.4, 0.08, 0.2, 0.04, 0.16, 0.04, 0.08)))
            left, top = draw.uniform(0, 1000), draw.uniform(100, 250)
            tall = draw.uniform(15, 90)
            if case == "limits":
                tall = float(draw.choice((24.99, 25, 25.5, 39.99, 40, 40.5, 60)))
            box = np.array([left, top, left + draw.uniform(20, 120), top + tall])
            height, width, length = _SIZES.get(kind, (1.7, 0.6, 1.0))
            x, z = draw.uniform(-20, 20), draw.uniform(5, 60)
            turn = draw.uniform(-np.pi, np.pi)
            occluded = int(draw.choice(4, p=(0.5, 0.2, 0.2, 0.1)))
            truncated = float(draw.choice((0, 0.15, 0.16, 0.3, 0.31, 0.5, 0.51)))
            solid = np.array([height, width, length, x, 1.6, z, turn])
            if kind == "DontCare":
                truth.append(_line(kind, -1, -1, -10, box, [-1, -1, -1, -1000, -1000, -1000, -10]))
            else:
                truth.append(_line(kind, truncated, occluded, turn - 0.1, box, solid))
            for _ in range(int(draw.choice(3, p=(0.15, 0.6, 0.25)))):
                score = float(draw.random())
                if case != "random":
                    score = round(score, 1)
                noisy = box + draw.normal(0, 3, 4) * (draw.random() < 0.8)
                moved = solid + draw.normal(0, (0.1, 0.05, 0.1, 0.15, 0.1, 0.2, 0.1))
                if kind == "DontCare":
                    moved = solid
                own = kind if kind in ("Car", "Pedestrian", "Cyclist") else "Car"
                if draw.random() < 0.1:
                    own = str(draw.choice(("Car", "Pedestrian", "Cyclist")))
                alpha = moved[6] - 0.1 + np.pi * (draw.random() < 0.2)
                detections.append(_line(own, 0, 0, alpha, noisy, moved) + f" {score:.4f}")
        if number % 17 == 5:
            detections = []
        yield truth, detections


def _line(kind, truncated, occluded, alpha, box, solid) -> str:  # type: ignore[no-untyped-def]
    numbers = " ".join(f"{v:.2f}" for v in (alpha, *box, *solid))
    return f"{kind} {truncated:.2f} {occluded} {numbers}"


def write_scenes(case: str, root: Path) -> tuple[Path, Path]:
    """A folder of labels and one of results, one file a frame."""
    labels, results = root / "label_2", root / "results"
    labels.mkdir(parents=True)
    results.mkdir()
    for number, sides in enumerate(scenes(case)):
        for folder, lines in zip((labels, results), sides, strict=True):
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{number:06d}.txt").write_text(text)
    return labels, results


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{v:.9e}" for v in np.asarray(values, float).ravel())


def write_raw(root: Path, name: str) -> Path:
    """A KITTI raw drive of five images; scan 3 was dropped (blank line, no file).

    The LiDAR looks along its x axis, the camera stands 0.5 m to its right and 0.25 m ahead; each
    scan holds a wall 10 m ahead of the LiDAR. GPS/IMU packets drive north at 10 m/s.
    """
    rng = np.random.default_rng(20110926)
    date = root / "2011_09_26"
    drive = date / name
    height, width = _RAW_SIZE
    K = np.array([[_RAW_FOCAL, 0, width / 2], [0, _RAW_FOCAL, height / 2], [0, 0, 1]])
    # Like KITTI's camera 2: the fourth column holds a camera 0.06 m beside camera 0.
    P = np.column_stack([K, K @ (0.06, 0.0, 0.0)])
    images, lidar, oxts = drive / "image_02", drive / "velodyne_points", drive / "oxts"
    for folder in (images, lidar, oxts):
        (folder / "data").mkdir(parents=True)
    (date / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: {width:.6e} {height:.6e}\nR_rect_00: {_numbers(np.eye(3))}\n"
        f"P_rect_02: {_numbers(P)}\n"
    )
    R = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    (date / "calib_velo_to_cam.txt").write_text(
        f"R: {_numbers(R)}\nT: {_numbers(np.array([-0.56, 0.0, -0.25]))}\n"
    )
    (date / "calib_imu_to_velo.txt").write_text(
        f"R: {_numbers(np.eye(3))}\nT: {_numbers(np.array([-0.81, 0.32, -0.80]))}\n"
    )
    y, z = np.meshgrid(np.linspace(-4, 4, 40), np.linspace(-1.5, 1.5, 16))
    for k in range(5):
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        cv2.imwrite(str(images / "data" / f"{k:010d}.png"), pixels)
        if k != 3:
            wall = np.stack([np.full(y.size, 10.0), y.ravel(), z.ravel(), np.full(y.size, 0.5)])
            wall.T.astype("<f4").tofile(lidar / "data" / f"{k:010d}.bin")
        packet = np.zeros(30)
        packet[:3] = 49.0 + 10 * 0.1 * k / 111_319.49, 8.4, 112.0
        packet[5] = np.pi / 2
        packet[8] = 10.0
        (oxts / "data" / f"{k:010d}.txt").write_text(_numbers(packet))
    (images / "timestamps.txt").write_text("\n".join(_RAW_STAMPS) + "\n")
    (oxts / "timestamps.txt").write_text("\n".join(_RAW_STAMPS) + "\n")
    scans = [s.replace("123456", "456789") if k != 3 else "" for k, s in enumerate(_RAW_STAMPS)]
    (lidar / "timestamps.txt").write_text("\n".join(scans) + "\n")
    return drive
