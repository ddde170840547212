"""KITTI's object and tracking annotations: 2D and 3D boxes. KITTI has no amodal masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError, foreign
from amodal_core.frame import Tracks
from amodal_core.geometry.calibration import KittiCalibration
from amodal_core.masks.mask_set import RleMasks

DONT_CARE = "DontCare"  # a region that nobody annotated
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
    DONT_CARE,
)


# Of easy, moderate and hard: least height of the box in the image in pixels, most occlusion (level)
# and truncation (share); development kit of the object benchmark.
MIN_HEIGHT = (40.0, 25.0, 25.0)
MAX_OCCLUSION = (0, 1, 2)
MAX_TRUNCATION = (0.15, 0.3, 0.5)
# What the truth says of the hidden share: the middle of what each level of occlusion means.
_OCCLUSION_RATES = {1: 0.25, 2: 0.75}


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

    @property
    def difficulty(self) -> int:
        """0 easy, 1 moderate, 2 hard, the first whose limits it keeps; -1 for none of them."""
        height = self.box[3] - self.box[1]
        for level in range(len(MIN_HEIGHT)):
            if (
                self.occluded <= MAX_OCCLUSION[level]
                and self.truncated <= MAX_TRUNCATION[level]
                and height >= MIN_HEIGHT[level]
            ):
                return level
        return -1


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
        if label.type == DONT_CARE:
            continue
        height, width, length = label.size
        x, y, z = label.location
        # y points down: the centre is half a height above the bottom.
        centre = lidar_from_rect @ (x, y - height / 2, z, 1.0)
        ahead = lidar_from_rect[:3, :3] @ (np.cos(label.rotation_y), 0.0, -np.sin(label.rotation_y))
        row[:3] = centre[:3]
        row[3:] = length, width, height, np.arctan2(ahead[1], ahead[0])
    return boxes


def truth_of(
    labels: Sequence[KittiLabel],
    calibration: KittiCalibration,
    size: tuple[int, int],
    classes: Sequence[str],
) -> Tracks:
    """The labels as ground truth: boxes in the image and in the LiDAR frame, no masks.

    The hidden share is no more than KITTI's level of occlusion says: 0, .25 or .75, and 0 where it
    is unknown.

    Args:
        labels: of the objects of one image.
        calibration: of that image.
        size: (height, width) of the image in pixels.
        classes: names that class ids are to index into; all types of the labels are among them.
    """
    n = len(labels)
    numbers = [x.track_id for x in labels]
    ids = numbers if min(numbers, default=-1) >= 0 else list(range(n))
    nothing = RleMasks.empty(size, n)
    truth = make_truth(
        nothing,
        nothing,
        [list(classes).index(x.type) for x in labels],
        ids,
        boxes3d=boxes_in_lidar(labels, calibration),
    )
    boxes = np.array([x.box for x in labels], np.float32).reshape(n, 4)
    rates = [_OCCLUSION_RATES.get(x.occluded, 0.0) for x in labels]
    return replace(truth, amodal_boxes=boxes, occlusion_rates=np.array(rates, np.float32))
