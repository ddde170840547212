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
from amodal_core.geometry.projection import pixels_of
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
        pixels: (N, 2) int32, column and row of each point in the image, -1 where outside.
        z: (N,) float32, metres of each point along the optical axis, 0 where outside.
        inside: (M,) int64, the points that fall into the image.
    """

    points: np.ndarray
    image: RangeImage
    ground: Ground
    heights: np.ndarray
    pixels: np.ndarray
    z: np.ndarray
    inside: np.ndarray


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
    ground, heights = remove_ground(image, config.ground)
    scan = Scan(points, image, ground, heights, *pixels_of(points, frame.calibration))
    if not last:
        if len(_scans) >= _KEPT:
            _scans.clear()
        _scans[frame] = config, scan
    return scan


def usable(points: np.ndarray, minimum_range: float) -> np.ndarray:
    """The (M, 4) finite ones of (N, 4) points that are no nearer than metres; most often all."""
    points = np.ascontiguousarray(points, np.float32)
    good = _usable(points.reshape(-1), max(minimum_range, limits.RANGE))
    return points if good.all() else points[good]


@njit(cache=True)
def _usable(values: np.ndarray, minimum_range: float) -> np.ndarray:
    """(N,) bool, of x, y, z and intensity of one point after the other."""
    good = np.empty(len(values) // 4, np.bool_)
    least = minimum_range * minimum_range
    for i in range(len(good)):
        x, y, z = np.float64(values[4 * i]), np.float64(values[4 * i + 1]), values[4 * i + 2]
        square = x * x + y * y + np.float64(z) * z
        # False for NaN.
        good[i] = (least <= square) & (square < np.inf) & np.isfinite(values[4 * i + 3])
    return good
