"""Who stands before whom: footprints compared along the camera's lines of sight."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit

from amodal_core.frame import Calibration
from amodal_core.geometry.config import MasksConfig


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
        boxes = np.ascontiguousarray(boxes, np.float64).reshape(-1, 7)
        turns = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
        # (N, D) metres to where each line enters and leaves each footprint; inf if it misses.
        self.near, self.far = _cross(boxes, turns, self._origin, self._rays)

    def in_front(self, depths: np.ndarray) -> np.ndarray:
        """(N, N) bool, [i, j] where j stands before i.

        Decided where lines of sight meet both, by which one most of them meet first; by the depths
        (N,) where none does.
        """
        front = _in_front(self.near, self.far, np.asarray(depths, np.float64))
        # Of ties neither is first: no object may hide one that hides it.
        return front & ~(front & front.T) & ~np.eye(len(front), dtype=bool)

    def covers(
        self,
        points: np.ndarray,
        pixels: np.ndarray,
        crops: Sequence[np.ndarray],
        offsets: Sequence[tuple[int, int]],
        config: MasksConfig,
    ) -> list[np.ndarray]:
        """What returns that are nearer than an object cover of its crop of the image.

        Args:
            points: (M, 3+) LiDAR frame.
            pixels: (M, 2) int, where they fall in the image.
            crops: N arrays (h, w), of the boxes' objects.
            offsets: N times column and row of a crop's first pixel.
            config: how much nearer, how many, and what a return stands for.

        Returns:
            N arrays (h, w) uint8, 1 where covered.
        """
        splat = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, config.splat)
        away = np.hypot(points[:, 0] - self._origin[0], points[:, 1] - self._origin[1])
        line = (pixels[:, 0] + 0.5) * (len(self._rays) / self._width)
        line = np.clip(line.astype(np.int64), 0, len(self._rays) - 1)
        result: list[np.ndarray] = []
        for near, crop, (x, y) in zip(self.near, crops, offsets, strict=True):
            cover = np.zeros(crop.shape, np.uint8)
            count = _mark(near - config.before, away, line, pixels, x, y, cover)
            few = count < config.clutter
            result.append(np.zeros_like(cover) if few else cv2.dilate(cover, splat))
        return result


@njit(cache=True)
def _cross(
    boxes: np.ndarray, turns: tuple[np.ndarray, np.ndarray], origin: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    near, far = np.empty((len(boxes), len(rays))), np.empty((len(boxes), len(rays)))
    for i in range(len(boxes)):
        c, s = turns[0][i], turns[1][i]
        dx, dy = origin[0] - boxes[i, 0], origin[1] - boxes[i, 1]
        start = c * dx + s * dy, c * dy - s * dx
        for d in range(len(rays)):
            x, y = rays[d, 0], rays[d, 1]
            way = c * x + s * y, c * y - s * x
            enter, leave = -np.inf, np.inf
            for k in range(2):
                step = 1e-9 if abs(way[k]) < 1e-9 else way[k]
                half = boxes[i, 3 + k] / 2
                one, other = (-half - start[k]) / step, (half - start[k]) / step
                enter, leave = max(enter, min(one, other)), min(leave, max(one, other))
            hit = leave > 0 and enter <= leave
            near[i, d] = max(enter, 0.0) if hit else np.inf
            far[i, d] = leave if hit else np.inf
    return near, far


@njit(cache=True)
def _in_front(near: np.ndarray, far: np.ndarray, depths: np.ndarray) -> np.ndarray:
    n = len(near)
    front = np.zeros((n, n), np.bool_)
    for i in range(n):
        for j in range(n):
            count = first = 0
            for d in range(near.shape[1]):
                if np.isfinite(near[i, d]) and np.isfinite(near[j, d]):
                    count += 1
                    # The middles: footprints that touch may overlap a little at their borders.
                    first += near[j, d] + far[j, d] < near[i, d] + far[i, d]
            front[i, j] = 2 * first > count if count > 0 else depths[j] < depths[i]
    return front


@njit(cache=True)
def _mark(
    limits: np.ndarray,
    away: np.ndarray,
    line: np.ndarray,
    pixels: np.ndarray,
    x: int,
    y: int,
    cover: np.ndarray,
) -> int:
    """Marks the returns that are nearer than the limit of their line; returns how many."""
    height, width = cover.shape
    count = 0
    for i in range(len(pixels)):
        column, row = pixels[i, 0] - x, pixels[i, 1] - y
        if 0 <= column < width and 0 <= row < height:
            limit = limits[line[i]]
            if away[i] < limit and np.isfinite(limit):
                cover[row, column] = 1
                count += 1
    return count
