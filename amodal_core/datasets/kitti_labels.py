"""KITTI's object and tracking annotations: 2D and 3D boxes. KITTI has no amodal masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amodal_core.errors import InputError, foreign
from amodal_core.geometry.calibration import KittiCalibration

TYPES = (
    "Car",
    "Van",
    "Truck",
    "Pedestrian",
    "Person_sitting",
    "Person",
    "Cyclist",
    "Tram",
    "Misc",
    "DontCare",
)


@dataclass(frozen=True)
class KittiLabel:
    """One annotated object of one image.

    Attributes:
        type: one of TYPES.
        truncated: share of the object outside the image (object), or 0, 1, 2 (tracking).
        occluded: 0 fully visible, 1 partly, 2 largely occluded, 3 unknown; -1 in DontCare.
        alpha: observation angle in radians.
        box: (x_min, y_min, x_max, y_max) in pixels, clipped to the image.
        size: height, width, length in metres.
        location: x, y, z of the centre of the bottom in metres, rectified camera 0.
        rotation_y: heading about the camera's y axis in radians, 0 along +x.
        track_id: identity in its sequence, -1 where there is none.
        score: confidence in files of results, 1 in annotations.
    """

    type: str
    truncated: float
    occluded: int
    alpha: float
    box: tuple[float, float, float, float]
    size: tuple[float, float, float]
    location: tuple[float, float, float]
    rotation_y: float
    track_id: int = -1
    score: float = 1.0


def read_object_labels(path: str | Path) -> list[KittiLabel]:
    """Read a file of `label_2`.

    Raises:
        InputError: it cannot be read, or a line is malformed.
    """
    return [label for _, label in _read(Path(path), prefixed=False)]


def read_tracking_labels(path: str | Path) -> dict[int, list[KittiLabel]]:
    """Read a sequence's file of `label_02`: the labels of each frame by its number.

    Raises:
        InputError: it cannot be read, or a line is malformed.
    """
    frames: dict[int, list[KittiLabel]] = {}
    for frame, label in _read(Path(path), prefixed=True):
        frames.setdefault(frame, []).append(label)
    return frames


def _read(path: Path, prefixed: bool) -> list[tuple[int, KittiLabel]]:
    with foreign(path, "cannot read the labels"):
        lines = path.read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            frame, track = (int(words.pop(0)), int(words.pop(0))) if prefixed else (0, -1)
            if len(words) not in (15, 16) or words[0] not in TYPES:
                raise ValueError(f"{len(words)} columns, type '{words[0] if words else ''}'")
            v = [float(w) for w in words[1:]]
            if not np.isfinite(v).all():
                raise ValueError("a number that is not finite")
        except (ValueError, IndexError) as error:
            raise InputError(
                f"malformed label: {error}",
                f"{path}:{number}",
                "lines hold a type and 14 numbers, in tracking after frame and track id",
            ) from None
        label = KittiLabel(
            type=words[0],
            truncated=v[0],
            occluded=int(v[1]),
            alpha=v[2],
            box=(v[3], v[4], v[5], v[6]),
            size=(v[7], v[8], v[9]),
            location=(v[10], v[11], v[12]),
            rotation_y=v[13],
            track_id=track,
            score=v[14] if len(v) == 15 else 1.0,
        )
        rows.append((frame, label))
    return rows


def boxes_in_lidar(labels: Sequence[KittiLabel], calibration: KittiCalibration) -> np.ndarray:
    """(N, 7) float32 as in Instances.boxes3d, in the LiDAR frame; NaN rows for DontCare."""
    lidar_from_rect = np.linalg.inv(calibration.rect_from_cam @ calibration.cam_from_lidar)
    boxes = np.full((len(labels), 7), np.nan, np.float32)
    for row, label in zip(boxes, labels, strict=True):
        if label.type == "DontCare":
            continue
        height, width, length = label.size
        x, y, z = label.location
        # y points down: the centre is half a height above the bottom.
        centre = lidar_from_rect @ (x, y - height / 2, z, 1.0)
        ahead = lidar_from_rect[:3, :3] @ (np.cos(label.rotation_y), 0.0, -np.sin(label.rotation_y))
        row[:3] = centre[:3]
        row[3:] = length, width, height, np.arctan2(ahead[1], ahead[0])
    return boxes
