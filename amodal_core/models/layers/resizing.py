"""Images at the size of a network's input: as floats, or as the bytes that published weights saw.

"pil" is detectron2's ResizeShortestEdge and SAM's ResizeLongestSide: Pillow's bilinear filter on
bytes, smoothed where it shrinks. "opencv" is mmdetection's Resize: OpenCV's bilinear interpolation
on bytes, not smoothed. Both round half a pixel up.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from PIL import Image

Resizing = Literal["torch", "pil", "opencv"]


def input_size(
    size: tuple[int, int],
    short_side: int,
    long_side: int,
    how: Resizing = "torch",
    most_pixels: int = 0,
) -> tuple[int, int]:
    """(height, width) of an image in the network's input, its ratio kept.

    Args:
        size: (height, width) of the image in pixels.
        short_side: pixels of the shorter side; 0 keeps the image's own.
        long_side: most pixels of the longer side; 0 for no limit.
        how: which rounding.
        most_pixels: of both sides' product, but with "pil"; 0 for no limit.
    """
    height, width = size
    ratio = short_side / min(size) if short_side else 1.0
    if how == "pil":  # in detectron2's two steps, each rounded by itself
        sides = [float(short_side) if short_side and n == min(size) else ratio * n for n in size]
        shrink = long_side / max(sides) if 0 < long_side < max(sides) else 1.0
        height, width = (max(1, int(side * shrink + 0.5)) for side in sides)
        return height, width
    if long_side:
        ratio = min(ratio, long_side / max(size))
    if most_pixels:
        ratio = min(ratio, (most_pixels / (height * width)) ** 0.5)
    if how == "opencv":
        return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def resized_bytes(image: np.ndarray, size: tuple[int, int], how: Resizing) -> np.ndarray:
    """(h, w, 3) uint8: an image as Pillow or OpenCV make it at another size.

    Args:
        image: (H, W, 3) uint8.
        size: (height, width).
        how: "pil" or "opencv".
    """
    if image.shape[:2] == size:
        return image
    if how == "opencv":
        return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize(size[::-1], Image.Resampling.BILINEAR))
