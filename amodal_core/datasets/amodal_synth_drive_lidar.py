"""AmodalSynthDrive's scans and 3D boxes: pickles in CARLA's left-handed axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from amodal_core import pickles
from amodal_core.datasets.categories import ASD_THINGS
from amodal_core.errors import foreign

# Boxes are grown by so many metres when points in them are counted.
_MARGIN = 0.3


def read_lidar(path: Path) -> dict[str, Any]:
    """A scan: `points` (N, 4) float32 in our LiDAR frame, `labels` (N,) class ids, `transform`.

    `transform` is the (4, 4) float64 pose of the sensor in CARLA's world, None where it is not one.

    Raises:
        InputError: the pickle is broken or holds something else.
    """
    value = pickles.load(path)
    with foreign(path, "no scan", "download it again"):
        points = np.asarray(value["points"], np.float32)
        if points.ndim != 2 or points.shape[1] not in (3, 4):
            raise ValueError(f"points of shape {points.shape}")
        labels = np.asarray(value.get("labels", np.zeros(len(points))), np.int64).reshape(-1)
        if len(labels) != len(points):
            raise ValueError(f"{len(labels)} labels for {len(points)} points")
        pose = np.asarray(value.get("transform", ()), np.float64)
    scan = np.zeros((len(points), 4), np.float32)
    scan[:, : points.shape[1]] = points
    scan[:, 1] *= -1
    return {"points": scan, "labels": labels, "transform": pose if pose.shape == (4, 4) else None}


def read_boxes(path: Path) -> dict[int, np.ndarray]:
    """(8, 3) float64 corners in CARLA's axes by track id.

    Raises:
        InputError: the pickle is broken or holds something else.
    """
    value = pickles.load(path)
    with foreign(path, "no boxes", "download it again"):
        corners = {int(k): np.asarray(v, np.float64)[..., :3] for k, v in value.items()}
        bad = [k for k, v in corners.items() if v.shape != (8, 3) or not np.isfinite(v).all()]
        if bad:
            raise ValueError(f"box {bad[0]} is not 8 finite corners")
    return corners


def mirrored(corners: np.ndarray) -> np.ndarray:
    """Corners (N, 3) with y to the left instead of to the right, or the other way round."""
    return corners * np.array([1.0, -1.0, 1.0])


def in_sensor(
    corners: dict[int, np.ndarray], pose: np.ndarray | None
) -> dict[int, np.ndarray] | None:
    """Corners of the world in the sensor's frame, None without a pose."""
    if pose is None or abs(np.linalg.det(pose)) < 1e-9:
        return None
    T = np.linalg.inv(pose)
    return {t: c @ T[:3, :3].T + T[:3, 3] for t, c in corners.items()}


def box_of(corners: np.ndarray) -> np.ndarray:
    """(7,) centre, length, width, height, yaw of 8 corners of an upright box in any order."""
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    height = corners[:, 2].max() - corners[:, 2].min()
    (cx, cy), (a, b), angle = cv2.minAreaRect(corners[:, :2].astype(np.float32))
    # CARLA lists the rear four corners first, and of each four the two of smaller y first.
    ahead = (corners[4:] - corners[:4]).mean(axis=0)[:2]
    aside = (corners[[2, 3, 6, 7]] - corners[[0, 1, 4, 5]]).mean(axis=0)[:2]
    length, width = np.linalg.norm(ahead), np.linalg.norm(aside)
    if abs(ahead @ aside) <= 1e-2 * length * width and abs(length * width - a * b) <= 1e-2 * a * b:
        yaw = np.arctan2(ahead[1], ahead[0])
        return np.array([cx, cy, centre[2], length, width, height, yaw], np.float32)
    yaw = np.deg2rad(angle)
    if b > a:
        a, b, yaw = b, a, yaw + np.pi / 2
    # Corners in another order do not tell the front: the heading nearer to forwards is taken.
    yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2
    return np.array([cx, cy, centre[2], a, b, height, yaw], np.float32)


def inside_count(scan: dict[str, Any], corners: dict[int, np.ndarray]) -> int:
    """How many points of things lie in a box."""
    points = scan["points"][np.isin(scan["labels"], ASD_THINGS), :3].astype(np.float64)
    inside = np.zeros(len(points), bool)
    for c in corners.values():
        inside |= in_box(points, box_of(mirrored(c)), _MARGIN)
    return int(inside.sum())


def in_box(points: np.ndarray, box: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """(N,) bool, whether points (N, 3) lie in a box (7,) grown by a margin in metres."""
    offset = points - box[:3]
    c, s = np.cos(box[6]), np.sin(box[6])
    along = offset[:, 0] * c + offset[:, 1] * s
    across = offset[:, 1] * c - offset[:, 0] * s
    half = np.asarray(box[3:6], np.float64) / 2 + margin
    return (
        (np.abs(along) <= half[0]) & (np.abs(across) <= half[1]) & (np.abs(offset[:, 2]) <= half[2])
    )
