"""Who stands before whom: footprints compared along the camera's lines of sight."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Calibration


class SightLines:
    """How far each box is in every direction of the image's field of view.

    Args:
        boxes: (N, 7), see `amodal_core.geometry.boxes3d`.
        calibration: camera and pose.
        directions: how many lines of sight there are.
    """

    def __init__(self, boxes: np.ndarray, calibration: Calibration, directions: int = 512) -> None:
        inverse = np.linalg.inv(calibration.camera_from_lidar)
        self._origin = inverse[:2, 3]
        # One line of sight for each of evenly spaced columns, along the image's middle row.
        column = (np.arange(directions) + 0.5) * calibration.width / directions - 0.5
        K = calibration.K
        rays = np.stack([(column - K[0, 2]) / K[0, 0], np.zeros(directions), np.ones(directions)])
        across = (inverse[:3, :3] @ rays)[:2].T
        self._rays = across / np.linalg.norm(across, axis=1, keepdims=True)
        self._width = calibration.width
        self.near, self.far = self._cross(np.asarray(boxes, np.float64).reshape(-1, 7))

    def _cross(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, D) metres to where each line enters and leaves each footprint; inf if it misses."""
        c, s = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
        dx, dy = (self._origin - boxes[:, :2]).T[:, :, None]
        start = np.stack([c * dx + s * dy, c * dy - s * dx])
        x, y = self._rays.T
        way = np.stack([c * x + s * y, c * y - s * x])
        way = np.where(np.abs(way) < 1e-9, 1e-9, way)
        half = boxes[:, 3:5].T / 2
        a = (-half[:, :, None] - start) / way
        b = (half[:, :, None] - start) / way
        enter = np.minimum(a, b).max(axis=0)
        leave = np.maximum(a, b).min(axis=0)
        hit = (leave > 0) & (enter <= leave)
        return np.where(hit, np.maximum(enter, 0), np.inf), np.where(hit, leave, np.inf)

    def direction(self, columns: np.ndarray) -> np.ndarray:
        """(M,) image columns -> (M,) indices of the nearest line of sight."""
        index = (np.asarray(columns) + 0.5) * (len(self._rays) / self._width)
        return np.clip(index.astype(np.int64), 0, len(self._rays) - 1)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """(M, 2+) LiDAR points -> (M,) metres from the camera, on the ground plane."""
        return np.hypot(points[:, 0] - self._origin[0], points[:, 1] - self._origin[1])

    def in_front(self, depths: np.ndarray) -> np.ndarray:
        """(N, N) bool, [i, j] where j stands before i.

        Decided where lines of sight meet both, by which one most of them meet first; by the depths
        (N,) where none does.
        """
        n = len(self.near)
        front = np.zeros((n, n), bool)
        for i in range(n):
            both = np.isfinite(self.near) & np.isfinite(self.near[i])
            count = both.sum(axis=1)
            # Comparing the middles: footprints that touch may overlap a little at their borders.
            mine, theirs = self.near[i] + self.far[i], self.near + self.far
            first = (both & (theirs < mine)).sum(axis=1)
            front[i] = np.where(count > 0, 2 * first > count, depths < depths[i])
        # Of ties neither is first: no object may hide one that hides it.
        return front & ~(front & front.T) & ~np.eye(n, dtype=bool)
