"""A scan as a LiDAR that stands still would have measured it at one moment."""

from __future__ import annotations

import numpy as np
from numba import njit


def moved(points: np.ndarray, target_from_lidar: np.ndarray) -> np.ndarray:
    """(N, 3+) float32 points of one moment, in another frame; what is not x, y, z stays.

    Args:
        points: (N, 3+) float32.
        target_from_lidar: (4, 4) float64.
    """
    result = np.empty_like(points)
    _move(points, np.ascontiguousarray(target_from_lidar[:3], np.float64), result)
    return result


def deskewed(
    points: np.ndarray, times: np.ndarray, begin: float, step: float, target_from_lidar: np.ndarray
) -> np.ndarray:
    """(N, 3+) float32 points, each moved from where the LiDAR was when it was measured.

    Between two poses matrices are interpolated: at a step of a millisecond and a turn of a radian
    a second that is off by 1e-7 of a point's distance.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        times: (N,) float32, when each was measured, seconds.
        begin: the first pose's time, seconds; points before it are moved as it.
        step: seconds between two poses.
        target_from_lidar: (K, 4, 4) float64 poses, two at least.
    """
    rows = np.ascontiguousarray(target_from_lidar[:, :3], np.float64)
    result = np.empty_like(points)
    _deskew(points, times, begin, 1.0 / step, rows, result)
    return result


@njit(cache=True)
def _move(points: np.ndarray, pose: np.ndarray, result: np.ndarray) -> None:
    for i in range(len(points)):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        for r in range(3):
            result[i, r] = pose[r, 0] * x + pose[r, 1] * y + pose[r, 2] * z + pose[r, 3]
        for c in range(3, points.shape[1]):
            result[i, c] = points[i, c]


@njit(cache=True)
def _deskew(
    points: np.ndarray,
    times: np.ndarray,
    begin: float,
    rate: float,
    poses: np.ndarray,
    result: np.ndarray,
) -> None:
    last = len(poses) - 1
    for i in range(len(points)):
        at = min(max((times[i] - begin) * rate, 0.0), float(last))
        k = min(int(at), last - 1)
        w = at - k
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        for r in range(3):
            a, b = poses[k, r], poses[k + 1, r]
            before = a[0] * x + a[1] * y + a[2] * z + a[3]
            after = b[0] * x + b[1] * y + b[2] * z + b[3]
            result[i, r] = before + w * (after - before)
        for c in range(3, points.shape[1]):
            result[i, c] = points[i, c]
