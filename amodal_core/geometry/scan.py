"""A frame's scan as the geometry sees it: laid out, on its ground, in the image; once a frame."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numba import njit

from amodal_core import limits
from amodal_core.frame import Frame
from amodal_core.geometry.config import GeometricConfig
from amodal_core.geometry.ground import Ground, remove_ground
from amodal_core.geometry.projection import Projection, project
from amodal_core.geometry.range_image import RangeImage, range_image

_KEPT = 8  # scans that wait for who asks next


@dataclass(frozen=True, eq=False)
class Scan:
    """What is known of a scan before anything in it has a name.

    Attributes:
        points: (N, 4) float32 x, y, z, intensity, LiDAR frame; the usable ones of the frame's.
        image: its range image.
        ground: the ground's shape.
        heights: (N,) float32, metres above the ground.
        projection: where the points fall in the image.
    """

    points: np.ndarray
    image: RangeImage
    ground: Ground
    heights: np.ndarray
    projection: Projection


_scans: WeakKeyDictionary[Frame, tuple[GeometricConfig, Scan]] = WeakKeyDictionary()


def scan_of(frame: Frame, config: GeometricConfig, *, last: bool = False) -> Scan | None:
    """The scan of a frame with points and calibration; None where no point is usable.

    A frame that is asked for again, by the model and for 3D boxes, is not laid out again.

    Args:
        frame: whose points must not change in place between the two.
        config: what tells lasers and ground.
        last: nobody asks after this one.
    """
    kept = _scans.get(frame)
    if kept is not None and (kept[0] is config or kept[0] == config):
        if last:
            _scans.pop(frame, None)
        return kept[1]
    assert frame.points is not None
    assert frame.calibration is not None
    points = usable(frame.points, config.minimum_range)
    if not len(points):
        return None
    image = range_image(points, config.range_image)
    ground, heights = remove_ground(points, image, config.ground)
    scan = Scan(points, image, ground, heights, project(points, frame.calibration))
    if not last:
        if len(_scans) >= _KEPT:
            _scans.clear()
        _scans[frame] = config, scan
    return scan


def usable(points: np.ndarray, minimum_range: float) -> np.ndarray:
    """The (M, 4) finite ones of (N, 4) points that are no nearer than metres; most often all."""
    points = np.ascontiguousarray(points, np.float32)
    good = np.empty(len(points), np.bool_)
    minimum_range = max(minimum_range, limits.RANGE)
    return points if _check(points, minimum_range, good) == len(points) else points[good]


@njit(cache=True)
def _check(points: np.ndarray, minimum_range: float, good: np.ndarray) -> int:
    """Marks the usable points; returns how many there are."""
    count = 0
    for i in range(len(points)):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        # False for NaN. What is not finite leaves no finite sum.
        far = x * x + y * y + z * z >= minimum_range * minimum_range
        total = x + y + z
        for k in range(3, points.shape[1]):
            total += points[i, k]
        far &= total - total == 0
        good[i] = far
        count += far
    return count
