"""RoIAlign on a CPU as two sums along the axes: a box's samples lie on a grid of rows and columns.

Of torchvision's bilinear samples each is weighed by row and column alone, and so is their mean in a
cell: rows first, then columns, over channels that lie side by side, a tenth of the time.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _weigh(
    start: np.float32, extent: np.float32, side: int, samples: int, weights: np.ndarray
) -> tuple[int, int]:
    """Weights of the pixels of one axis in each cell; the first pixel that has one, and the last.

    Args:
        start: of the box, in pixels whose centres are whole.
        extent: of the box.
        side: cells.
        samples: of a cell; 0 for as many as it has pixels.
        weights: (side, size) to be written.
    """
    size = weights.shape[1]
    cell = extent / np.float32(side)
    count = samples if samples > 0 else int(np.ceil(cell))
    first, last = size, -1
    for i in range(side):
        weights[i] = 0
        for k in range(count):
            at = start + i * cell + (k + np.float32(0.5)) * cell / np.float32(count)
            if at < -1 or at > size:
                continue
            at = max(at, np.float32(0))
            low = min(int(at), size - 1)
            high = min(low + 1, size - 1)
            share = np.float32(0) if high == low else at - np.float32(low)
            weights[i, low] += (1 - share) / count
            weights[i, high] += share / count
            first, last = min(first, low), max(last, high)
    return first, last


@njit(cache=True, nogil=True, fastmath=True)
def pool(
    level: np.ndarray,
    boxes: np.ndarray,
    places: np.ndarray,
    scale: np.float32,
    aligned: bool,
    samples: int,
    result: np.ndarray,
) -> None:
    """Write the features in boxes of one image and level.

    Args:
        level: (H, W, C) float32, contiguous.
        boxes: (N, 4) float32 xyxy in pixels of the image.
        places: (N,) int64, each box's place in the result.
        scale: from the image to the level.
        aligned: cells' centres lie where the box has them; else half a pixel farther, and boxes
            have at least one pixel.
        samples: along each side of a cell; 0 for as many as it has pixels.
        result: (M, C, S, S) float32 to be written.
    """
    height, width, channels = level.shape
    side = result.shape[2]
    shift, least = np.float32(0.5 if aligned else 0), np.float32(0 if aligned else 1)
    across = np.empty((side, width), np.float32)
    down = np.empty((side, height), np.float32)
    row = np.empty((width, channels), np.float32)
    cells = np.empty((side, channels), np.float32)
    for n in range(len(boxes)):
        x, y = boxes[n, 0] * scale - shift, boxes[n, 1] * scale - shift
        wide = max(boxes[n, 2] * scale - shift - x, least)
        high = max(boxes[n, 3] * scale - shift - y, least)
        left, right = _weigh(x, wide, side, samples, across)
        top, bottom = _weigh(y, high, side, samples, down)
        for i in range(side):
            row[left : right + 1] = 0
            for v in range(top, bottom + 1):
                weight = down[i, v]
                if weight != 0:
                    for u in range(left, right + 1):
                        for c in range(channels):
                            row[u, c] += weight * level[v, u, c]
            for j in range(side):
                cells[j] = 0
                for u in range(left, right + 1):
                    weight = across[j, u]
                    if weight != 0:
                        for c in range(channels):
                            cells[j, c] += weight * row[u, c]
            for c in range(channels):
                for j in range(side):
                    result[places[n], c, i, j] = cells[j, c]
