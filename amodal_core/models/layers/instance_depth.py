"""What the LiDAR that falls on the visible part of instances says: their depth, and whether.

It is looked up on the host, whatever device the network is on: a few hundred numbers an object.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numba import njit

from amodal_core.arrays import floats, host

# A 64-beam LiDAR leaves about 6 px between beams and 3 px along one at KITTI's focal length.
_SPREAD = (7, 5)
_LOG_FAR = math.log(80.0)
_BEHIND, _BEHIND_SHARE = 3.0, 0.1  # metres, and share of the depth


class Returns(NamedTuple):
    """What falls on N objects: the nearest return near each visible cell that has one near.

    Attributes:
        values: (N, M) float32 log depths as in the depth channels, ascending; inf behind the last.
        counts: (N,) int64, how many there are of each object.
    """

    values: np.ndarray
    counts: np.ndarray


def returns_on(channels: Any, boxes: Any, visible: Any) -> Returns:
    """The returns on the visible cells of instances.

    Args:
        channels: (2, H, W) depth channels of the image (`batch.depth_channels`), or None.
        boxes: (N, 4) float32 xyxy in pixels.
        visible: (N, S, S) float logits in the boxes.
    """
    count, side = len(boxes), visible.shape[-1]
    if channels is None or count == 0:
        return Returns(np.zeros((count, 0), np.float32), np.zeros(count, np.int64))
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    corners, cells = (np.ascontiguousarray(host(floats(v))) for v in (boxes, visible))
    values, counts = _looked_up(spread_returns(host(floats(channels))), corners, cells, centres)
    values.sort(axis=1)
    return Returns(values, counts)


def instance_depths(returns: Returns) -> np.ndarray:
    """(N,) float32 metres, the lower median of each object's returns; 0 where none falls on it."""
    values, counts = returns
    if not values.shape[1]:
        return np.zeros(len(counts), np.float32)
    median = values[np.arange(len(counts)), np.maximum(counts - 1, 0) // 2]
    known = np.where(counts > 0, median, 0)
    return np.where(counts > 0, np.exp(known * np.float32(_LOG_FAR)), 0).astype(np.float32)


def share_seen_through(returns: Returns, depths: np.ndarray) -> np.ndarray:
    """How much of an object is not there: the LiDAR looks through it.

    Args:
        returns: on N objects.
        depths: (N,) float32 metres, 0 where unknown.

    Returns:
        (N,) float32 share, 0-1, of the returns that lie clearly behind the object: by 3 m and by a
        tenth of its depth. 0 where there are none.
    """
    behind = np.maximum(depths + np.float32(_BEHIND), depths * np.float32(1 + _BEHIND_SHARE))
    limit = np.log(np.maximum(behind, np.float32(1e-3))) / np.float32(_LOG_FAR)
    through = _behind(returns.values, returns.counts, limit).astype(np.float32)
    share = through / np.maximum(returns.counts, 1).astype(np.float32)
    return np.where(depths > 0, share, np.float32(0))


@njit(cache=True, nogil=True)
def _behind(values: np.ndarray, counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(N,) int64, how many of the first (N,) of each row's rising values are above its limit."""
    result = np.empty(len(counts), np.int64)
    for n in range(len(counts)):
        low, high = 0, counts[n]
        while low < high:
            middle = (low + high) // 2
            if values[n, middle] > limits[n]:
                high = middle
            else:
                low = middle + 1
        result[n] = counts[n] - low
    return result


def spread_returns(channels: np.ndarray) -> np.ndarray:
    """(H, W) float32 log depth of the nearest return near each pixel, inf without one."""
    depth = _known(channels[0], channels[1])
    return np.asarray(cv2.erode(depth, np.ones(_SPREAD, np.uint8), depth, borderValue=np.inf))


@njit(cache=True, nogil=True)
def _known(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The depth (H, W) float32 where it is valid, inf elsewhere."""
    result = np.empty(depth.shape, np.float32)
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            result[y, x] = depth[y, x] if valid[y, x] > 0 else np.float32(np.inf)
    return result


@njit(cache=True, nogil=True)
def _looked_up(
    spread: np.ndarray, boxes: np.ndarray, visible: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The finite values under each object's visible cells in any order, and how many there are."""
    masks, side = visible.shape[0], visible.shape[1]
    height, width = spread.shape
    values = np.empty((masks, side * side), np.float32)
    counts = np.zeros(masks, np.int64)
    columns = np.empty(side, np.int64)
    most = 0
    for n in range(masks):
        x, y = boxes[n, 0], boxes[n, 1]
        for k in range(side):
            column = int(x + centres[k] * (boxes[n, 2] - x))
            columns[k] = min(max(column, 0), width - 1)
        count = 0
        for k in range(side):
            row = min(max(int(y + centres[k] * (boxes[n, 3] - y)), 0), height - 1)
            for m in range(side):
                value = spread[row, columns[m]]
                values[n, count] = value
                count += visible[n, k, m] > 0 and np.isfinite(value)
        counts[n] = count
        most = max(most, count)
    for n in range(masks):
        values[n, counts[n] : most] = np.inf
    return values[:, :most].copy(), counts
