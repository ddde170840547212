"""COCO's `segmentation` field, as files hold it; `masks/validate.py` reads it.

Polygons are written so that they rasterise to the very mask they came from: they run along pixel
borders (pixel (u, v) spans u..u+1, v..v+1), where pycocotools' rasteriser makes no error, and a
hole is joined to its outline by a slit that is walked there and back.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numba import njit

from amodal_core.masks.mask_set import RleMasks


def to_dictionary(counts: bytes, size: tuple[int, int]) -> dict[str, Any]:
    """RLE as JSON holds it."""
    return {"size": [int(size[0]), int(size[1])], "counts": counts.decode("ascii")}


def to_polygons(masks: RleMasks) -> list[list[list[int]]]:
    """Polygons of each mask that pycocotools rasterises to the very mask; [] where it is empty."""
    crops, offsets = masks.crops()
    return [
        [_join(loops, x, y) for loops in _components(np.ascontiguousarray(crop))]
        if crop.any()
        else []
        for crop, (x, y) in zip(crops, offsets.tolist(), strict=True)
    ]


def _join(loops: list[np.ndarray], x: int, y: int) -> list[int]:
    """One polygon of an outline and its holes, each reached by a slit from the first corner."""
    points = [loops[0]]
    for hole in loops[1:]:
        # Along the axes: the way there and the way back then cross the same pixels and cancel.
        begin, entry = loops[0][0], hole[0]
        corner = np.array([begin[0], entry[1]])
        points += [np.stack([begin, corner]), hole, hole[:1], np.stack([corner, begin])]
    moved: list[int] = (np.concatenate(points) + np.array([x, y])).reshape(-1).tolist()
    return moved


def _components(mask: np.ndarray) -> list[list[np.ndarray]]:
    """Closed border loops of each 4-connected part, the outline first; corners as (x, y)."""
    corners, first = _trace(mask)
    loops = [corners[a:b] for a, b in pairwise(first.tolist())]
    area = [_signed_area(loop) for loop in loops]
    outlines = [k for k in range(len(loops)) if area[k] > 0]
    if len(outlines) == 1:
        return [[loops[outlines[0]], *(loops[k] for k in range(len(loops)) if area[k] < 0)]]
    _, label = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    owner = {int(label[_inside(loops[k])]): k for k in outlines}
    components = {k: [loops[k]] for k in outlines}
    for k in range(len(loops)):
        if area[k] < 0:
            components[owner[int(label[_inside(loops[k])])]].append(loops[k])
    return list(components.values())


def _signed_area(loop: np.ndarray) -> int:
    following = np.roll(loop, -1, axis=0)
    return int((loop[:, 0] * following[:, 1] - following[:, 0] * loop[:, 1]).sum())


def _inside(loop: np.ndarray) -> tuple[int, int]:
    """(row, column) of the set pixel under a loop's first edge, which runs along +x."""
    return int(loop[0, 1]), int(loop[0, 0])


@njit(cache=True, nogil=True)
def _trace(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of all border loops, set pixels on the right in image axes (y down), and loop starts.

    Every loop begins with an edge along +x. At a corner where two set pixels touch diagonally the
    walk turns so that they stay apart.
    """
    height, width = mask.shape
    # Horizontal borders: above[y, x] is the border between pixels (y - 1, x) and (y, x).
    top = np.zeros((height + 1, width), np.bool_)  # edge to +x, the set pixel below it
    bottom = np.zeros((height + 1, width), np.bool_)  # edge to -x, the set pixel above it
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                if y == 0 or not mask[y - 1, x]:
                    top[y, x] = True
                if y == height - 1 or not mask[y + 1, x]:
                    bottom[y + 1, x] = True
    corners = np.empty((2 * (top.sum() + bottom.sum()) + 4, 2), np.int64)
    first = np.empty(top.sum() + bottom.sum() + 2, np.int64)
    n, loops = 0, 0
    for y0 in range(height + 1):
        for x0 in range(width):
            if not top[y0, x0]:
                continue
            first[loops] = n
            loops += 1
            x, y, dx, dy = x0, y0, 1, 0
            while True:
                corners[n, 0], corners[n, 1] = x, y
                n += 1
                while True:  # along one straight piece
                    if dx == 1:
                        top[y, x] = False
                    elif dx == -1:
                        bottom[y, x - 1] = False
                    x += dx
                    y += dy
                    # The pixels ahead on the right and on the left of the walk.
                    if dx == 1:
                        ry, rx, ly, lx = y, x, y - 1, x
                    elif dx == -1:
                        ry, rx, ly, lx = y - 1, x - 1, y, x - 1
                    elif dy == 1:
                        ry, rx, ly, lx = y, x - 1, y, x
                    else:
                        ry, rx, ly, lx = y - 1, x, y - 1, x - 1
                    right = 0 <= ry < height and 0 <= rx < width and mask[ry, rx]
                    left = 0 <= ly < height and 0 <= lx < width and mask[ly, lx]
                    if not right:
                        dx, dy = -dy, dx  # turn right
                        break
                    if left:
                        dx, dy = dy, -dx  # turn left
                        break
                if x == x0 and y == y0 and dx == 1:
                    break
    first[loops] = n
    return corners[:n], first[: loops + 1]
