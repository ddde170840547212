"""What networks see of a frame, and how it comes to that without PyTorch.

`batch.make_batch` does the same for several frames as tensors, on any device; what `network_inputs`
gives differs from its by rounding alone.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit
from PIL import Image

from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame
from amodal_core.geometry.horizon import horizon
from amodal_core.models.layers.resizing import Resizing, input_size, resized_bytes

# ImageNet's statistics: the public backbones were trained with them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Depth enters as two channels: log depth scaled to about 0-1 at 1-80 m, and whether it is known.
DEPTH_CHANNELS = 2
LOG_FAR = float(np.log(80.0))
TALLEST = 4.0  # metres above or below the camera that heights end at
STRIDE = 32  # padded sizes are multiples of the coarsest feature's stride


class NetworkInputs(NamedTuple):
    """One frame, padded at the right and bottom.

    Attributes:
        image: (1, 3, H, W) float32, as `Batch.images`.
        depth: (1, 2, H, W) float32, as `Batch.depth`, or None.
        heights: (1, 1, H, W) float32, as `Batch.heights`, or None where depth is.
        size: (height, width) at this scale, without padding.
        original_size: (height, width) of the frame.
        scale: (2,) float32, y and x scale from frame to input.
    """

    image: np.ndarray
    depth: np.ndarray | None
    heights: np.ndarray | None
    size: tuple[int, int]
    original_size: tuple[int, int]
    scale: np.ndarray


def network_inputs(
    frame: Frame, short_side: int, long_side: int, resize: Resizing, most_pixels: int
) -> NetworkInputs:
    """Resize (keeping the ratio), normalise and pad a frame; see `batch.make_batch`.

    Args:
        frame: with an image; depth is taken along where it is there.
        short_side: pixels of the shorter side; 0 keeps the frame's own size.
        long_side: most pixels of the longer side; 0 for no limit.
        resize: how the image is; see `layers.resizing`.
        most_pixels: of both sides' product; 0 for no limit.

    Raises:
        InputError: no image, or a depth image of another size.
    """
    own = image_of(frame).shape[0], image_of(frame).shape[1]
    height, width = size = input_size(own, short_side, long_side, resize, most_pixels)
    high, wide = (-(-length // STRIDE) * STRIDE for length in size)
    image = np.empty((1, 3, high, wide), np.float32)
    if own == size:
        normalise(image_of(frame), image[0])
    else:
        mean, deviation = _statistics()
        values = (_resized(image_of(frame), size, resize) - mean) / deviation
        image.fill(0)
        image[0, :, :height, :width] = values.transpose(2, 0, 1)
    scale = np.array([height / own[0], width / own[1]], np.float32)
    channels = heights = None
    if frame.depth is not None:
        channels = np.zeros((1, DEPTH_CHANNELS, high, wide), np.float32)
        heights = np.zeros((1, 1, high, wide), np.float32)
        camera = camera_of(frame.calibration, float(scale[0]))
        enter_depth(checked_depth(frame), size, camera, channels[0], heights[0, 0])
    return NetworkInputs(image, channels, heights, size, own, scale)


def camera_of(calibration: Calibration | None, scale: float) -> tuple[float, float]:
    """Focal length in rows and row of the horizon; both 0 without a calibration.

    Args:
        calibration: of the frame at its own size.
        scale: rows of the network's input for one of the frame's.
    """
    if calibration is None:
        return 0.0, 0.0
    return calibration.K[1, 1] * scale, (horizon(calibration) + 0.5) * scale - 0.5


def enter_depth(
    depth: np.ndarray,
    size: tuple[int, int],
    camera: tuple[float, float],
    channels: np.ndarray,
    heights: np.ndarray,
) -> None:
    """Write what a depth image tells into the top left corner of zeros.

    Args:
        depth: metres, 0 for unknown.
        size: (height, width) that it gets.
        camera: of `camera_of`.
        channels: (2, H, W) float32, takes log depth / log 80 m and validity.
        heights: (H, W) float32, takes how far above the camera returns lie, in `TALLEST` metres,
            within -1 and 1.
    """
    depth = np.ascontiguousarray(_nearest_depth(depth, size))
    index = _returns(depth.ravel())  # few pixels have one
    logs = np.log(np.maximum(depth.ravel().take(index), 0.1)) / np.float32(LOG_FAR)
    focal, row = np.array(camera, np.float32)
    slopes = np.zeros(size[0], np.float32)
    if focal > 0:
        slopes = (row - np.arange(size[0], dtype=np.float32)) / focal
    _enter(index, logs, np.exp(logs * LOG_FAR) / TALLEST, slopes, size[1], channels, heights)


@njit(cache=True, nogil=True)
def _returns(depth: np.ndarray) -> np.ndarray:
    """Places of what is above 0."""
    index = np.empty(len(depth), np.int64)
    count = 0
    for n in range(len(depth)):
        index[count] = n
        count += depth[n] > 0
    return index[:count]


@njit(cache=True, nogil=True)
def _enter(
    index: np.ndarray,
    logs: np.ndarray,
    metres: np.ndarray,
    slopes: np.ndarray,
    width: int,
    channels: np.ndarray,
    heights: np.ndarray,
) -> None:
    line, start = 0, 0
    for n in range(len(index)):
        while index[n] >= start + width:
            line, start = line + 1, start + width
        x = index[n] - start
        channels[0, line, x], channels[1, line, x] = logs[n], 1
        heights[line, x] = min(max(slopes[line] * metres[n], np.float32(-1)), np.float32(1))


def normalise(image: np.ndarray, out: np.ndarray) -> None:
    """Write an image, less the mean and over the deviation, into the top left corner; 0 beside.

    Args:
        image: (h, w, 3) uint8 RGB.
        out: (3, H, W) float32, no smaller.
    """
    _look_up(np.ascontiguousarray(image), _of_bytes(), out)


@njit(cache=True, nogil=True)
def _look_up(image: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    height, width, colours = image.shape
    for y in range(height):
        # One by one: planes may lie so that a cache takes the same place in each for one.
        for c in range(colours):
            for x in range(width):
                out[c, y, x] = table[c, image[y, x, c]]
            out[c, y, width:] = 0
    out[:, height:] = 0


@cache
def _of_bytes() -> np.ndarray:
    """(3, 256) float32: what each byte of each colour becomes."""
    mean, deviation = _statistics()
    return np.ascontiguousarray(((np.arange(256, dtype=np.float32)[:, None] - mean) / deviation).T)


def _statistics() -> tuple[np.ndarray, np.ndarray]:
    """(3,) float32 each: mean and deviation of bytes."""
    mean, deviation = (np.array(v, np.float32) * np.float32(255) for v in (MEAN, STD))
    return mean, deviation


def image_of(frame: Frame) -> np.ndarray:
    """A frame's image.

    Raises:
        InputError: it has none.
    """
    if frame.image is None:
        raise InputError("a frame has no image", f"stamp {frame.stamp}", "check the image topic")
    return frame.image


def checked_depth(frame: Frame) -> np.ndarray:
    """A frame's depth image.

    Raises:
        InputError: it is not of the image's size.
    """
    assert frame.image is not None
    assert frame.depth is not None
    if frame.depth.shape != frame.image.shape[:2]:
        (high, wide), (height, width) = frame.depth.shape, frame.image.shape[:2]
        raise InputError(
            f"depth of {wide}x{high}, image of {width}x{height}",
            f"stamp {frame.stamp}",
            "project the LiDAR into the image's own size",
        )
    return frame.depth


def _resized(image: np.ndarray, size: tuple[int, int], resize: Resizing) -> np.ndarray:
    """(h, w, 3) float32 of 0-255; smoothed where it shrinks, if not as OpenCV does it."""
    if resize != "torch":
        image = resized_bytes(image, size, resize)
    values = image.astype(np.float32)
    if values.shape[:2] == size:
        return values
    if size[0] < image.shape[0] or size[1] < image.shape[1]:
        # Pillow's filter is torch's with antialias, here on floats.
        planes = [Image.fromarray(np.ascontiguousarray(values[..., k])) for k in range(3)]
        shrunk = [p.resize(size[::-1], Image.Resampling.BILINEAR) for p in planes]
        return np.stack([np.asarray(p) for p in shrunk], axis=-1)
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR))


def _nearest_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32: the nearest return of each cell, so that none is lost; 0 without one."""
    depth = np.asarray(depth, np.float32)
    if depth.shape == size:
        return depth
    if size[0] > depth.shape[0]:
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * (side / n)).astype(np.int64), side - 1)
            for n, side in zip(size, depth.shape, strict=True)
        )
        return depth[rows[:, None], columns]
    near = np.where(depth > 0, depth, np.float32(np.inf))
    for axis, count in enumerate(size):
        side = near.shape[axis]
        first = np.arange(count) * side // count
        last = -(-(np.arange(1, count + 1) * side) // count) - 1  # the windows may overlap
        least = near.take(first, axis)
        for step in range(1, int((last - first).max()) + 1):
            least = np.minimum(least, near.take(np.minimum(first + step, last), axis))
        near = least
    return np.where(np.isinf(near), np.float32(0), near)
