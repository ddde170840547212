"""The height of an object whose top is above the scan, from the edge that it has in the image."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from amodal_core.frame import Calibration
from amodal_core.geometry.config import DEFAULTS, TopEdgeConfig
from amodal_core.geometry.scalars import quantile


def top_edge(
    image: np.ndarray,
    pixels: np.ndarray,
    z: np.ndarray,
    heights: np.ndarray,
    calibration: Calibration,
    highest: float,
    config: TopEdgeConfig = DEFAULTS.top_edge,
) -> float | None:
    """Look above an object's highest returns for the level edge that ends it.

    Args:
        image: (H, W, 3) uint8 RGB.
        pixels: (N, 2) int, column and row of the object's returns inside the image.
        z: (N,) metres along the optical axis.
        heights: (N,) metres above the ground.
        calibration: the camera.
        highest: metres above the ground at which to give up.
        config: what makes an edge.

    Returns:
        Metres above the ground, or None where no edge is clear enough.
    """
    # The highest return of each column of the image.
    column = _highest(pixels, heights, image.shape[1])
    top = float(quantile(heights.copy(), 0.99))
    # Only columns that reach the top of the returns: others end at a bonnet or a mirror.
    column = column[heights[column] > top - config.near_top]
    if len(column) < config.columns:
        return None
    # The rows at which an edge of each height would be.
    u, v, depth = pixels[column, 0], pixels[column, 1], z[column]
    levels = np.arange(top - config.below, highest, config.step)
    scale = calibration.K[1, 1] / depth
    rows = v[None] - (levels[:, None] - heights[column][None]) * scale[None]
    most = int(np.ceil(config.reach_most))
    low, high = int(max(rows.min() - most, 0)), int(min(rows.max() + most + 1, image.shape[0]))
    if high - low < 2 * config.reach_least + 4:
        return None
    left, right = int(u.min()), int(u.max()) + 1
    # Grey levels right above them less those right below.
    grey = cv2.cvtColor(np.ascontiguousarray(image[low:high, left:right]), cv2.COLOR_RGB2GRAY)
    grey = cv2.blur(grey, (3, 3)).astype(np.float32)
    reach = np.clip(config.reach * scale, config.reach_least, config.reach_most)
    above, below = rows - reach, rows + reach
    inside = (above >= low) & (below < high)
    sample = [
        grey[np.clip(r - low, 0, high - low - 1).astype(np.int64), (u - left)[None]]
        for r in (above, below)
    ]
    step = np.where(inside, sample[0] - sample[1], 0.0)
    count = inside.sum(axis=1)
    contrast = np.abs(step.sum(axis=1)) / np.maximum(count, 1)
    contrast[count < config.inside * len(column)] = 0.0
    # Of edges alike the lower is the object's: the ones above belong to what is behind.
    contrast *= np.exp(-(levels - levels[0]) / config.fade)
    best = int(np.argmax(contrast))
    return float(levels[best]) if contrast[best] > config.contrast else None


@njit(cache=True)
def _highest(pixels: np.ndarray, heights: np.ndarray, width: int) -> np.ndarray:
    """Of each column that returns fall in the index of the highest one, from left to right."""
    best = np.full(width, -1, np.int64)
    for i in range(len(heights)):
        u = pixels[i, 0]
        if best[u] < 0 or heights[i] > heights[best[u]]:
            best[u] = i
    return best[best >= 0]
