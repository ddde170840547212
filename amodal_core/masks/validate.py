"""The one door for masks from outside: COCO's `segmentation` in every form that files use, to RLE.

What comes through is checked before any compiled code sees it: its type, its numbers, the size of
its image, and how far its border is walked. Nothing is allocated by a number that a file states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco

from amodal_core.masks import rle

# Pixels of border of one segmentation: rasterising takes about 100 bytes for each of them.
MAX_BORDER = 2**20
# A vertex further outside than this many image sizes is a mistake, and walking there takes memory.
_FAR = 4


class SegmentationError(ValueError):
    """A segmentation that is no mask; `rule` names what it breaks."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(what)
        self.rule = rule


def to_rle(segmentation: Any, size: tuple[int, int], walk: bool = True) -> bytes:
    """Compressed RLE counts of polygons, of compressed or of uncompressed RLE.

    Args:
        segmentation: list of polygons [x1, y1, x2, y2, ...], one such polygon, or a dictionary of
            `size` and `counts`. Polygons that break a rule are left out beside one that does not.
        size: (height, width) of the image.
        walk: make sure that compressed counts fill the image; False leaves that to `Runs.parse`,
            which does it for many at once, and must see them before anything else does.

    Raises:
        SegmentationError: it is empty, has no polygon of 3 points, or does not fit the image.
    """
    if not 0 < size[0] * size[1] <= rle.MAX_PIXELS or min(size) < 0:
        raise SegmentationError("wrong-size", f"an image of {size[1]}x{size[0]}")
    if isinstance(segmentation, dict):
        return _from_dictionary(segmentation, size, walk)
    if not isinstance(segmentation, list):
        raise SegmentationError("segmentation-unreadable", f"{type(segmentation).__name__} as mask")
    if not segmentation:
        raise SegmentationError("empty-polygon", "no polygon")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    kept = [p for p in polygons if polygon_problem(p, size) is None]
    if not kept:
        raise SegmentationError(*(polygon_problem(polygons[0], size) or ("", "")))
    if sum(map(_border, kept)) > MAX_BORDER:
        raise SegmentationError("long-polygon", f"a border of over {MAX_BORDER} pixels")
    masks = coco.frPyObjects(kept, *size)
    return bytes((masks[0] if len(masks) == 1 else coco.merge(masks))["counts"])


def polygon_problem(polygon: Any, size: tuple[int, int]) -> tuple[str, str] | None:
    """The rule that a polygon breaks and how, None for a good one."""
    if not isinstance(polygon, list) or not polygon:
        return "empty-polygon", "an empty polygon"
    if len(polygon) % 2 or len(polygon) < 6:
        return "short-polygon", f"a polygon of {len(polygon)} numbers; 3 points need 6"
    if not all(issubclass(kind, (int, float)) for kind in set(map(type, polygon))):
        return "segmentation-unreadable", "a polygon that is not made of numbers"
    try:
        reach = np.abs(np.array(polygon, np.float64)).reshape(-1, 2)
        near = bool((reach <= np.multiply(_FAR, size[::-1])).all())
    except OverflowError:  # an integer of a thousand digits is no float
        near = False
    if not near:
        return "outside-image", "a polygon's vertex far outside the image"
    return None


def _border(polygon: list[float]) -> float:
    """Steps of a pixel from vertex to vertex and back to the first."""
    points = np.array(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _from_dictionary(segmentation: dict[str, Any], size: tuple[int, int], walk: bool) -> bytes:
    try:
        height, width = map(int, segmentation["size"])
        counts = segmentation["counts"]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SegmentationError("segmentation-unreadable", "RLE without size or counts") from None
    if (height, width) != tuple(size):
        shown = f"{width}x{height}" if max(abs(height), abs(width)) < 2**31 else "no size"
        raise SegmentationError(
            "wrong-size", f"a mask of {shown}, the image has {size[1]}x{size[0]}"
        )
    if isinstance(counts, list):
        if len(counts) == 1 and isinstance(counts[0], (str, bytes)):  # AmodalSynthDrive does so
            counts = counts[0]
        else:
            return _from_uncompressed(counts, size)
    if isinstance(counts, str):
        counts = counts.encode("latin-1", "replace")
    if not isinstance(counts, bytes):
        raise SegmentationError("segmentation-unreadable", "RLE counts that are no text")
    if not walk:
        return counts
    try:
        rle.parse([counts], size[0] * size[1])
    except ValueError:
        raise SegmentationError("rle-broken", "RLE counts that do not fill the image") from None
    return counts


def _from_uncompressed(counts: list[Any], size: tuple[int, int]) -> bytes:
    numbers = all(isinstance(c, int) and c >= 0 for c in counts)
    if not numbers or sum(counts) != size[0] * size[1]:
        raise SegmentationError("rle-broken", "RLE counts that do not fill the image")
    return bytes(coco.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"])
