"""Which returns of a scan are an object's: those under its visible mask, together in depth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit

from amodal_core.frame import Frame, Instances
from amodal_core.geometry.projection import pixels_of

_GAP, _GAP_SHARE = 1.2, 0.03  # metres, or share of the depth, that no object's returns jump over


def returns_of_objects(instances: Instances, pixels: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    """For each object the indices of its returns, from the nearest on.

    Of the returns under its visible mask, the largest group in depth: masks leave windows open and
    reach over edges.

    Args:
        instances: N objects, on the host.
        pixels: (M, 2) int, column and row of each return, all in the image.
        z: (M,) metres along the optical axis.
    """
    by_depth = _by_depth(np.ascontiguousarray(z, np.float32))
    rank = np.empty(len(z), np.int64)
    rank[by_depth] = np.arange(len(z))
    # Runs count pixels column by column.
    places = pixels[:, 0].astype(np.int64) * instances.size[0] + pixels[:, 1]
    by_place = np.argsort(places, kind="stable")
    runs, first = instances.visible.rle().runs()
    spans = np.searchsorted(places[by_place], runs)
    chosen, last = _groups(spans, first, rank[by_place], z[by_depth])
    return [by_depth[chosen[a:b]] for a, b in pairwise([0, *last.tolist()])]


def _by_depth(z: np.ndarray) -> np.ndarray:
    """Indices of (M,) positive float32 in their order, as `np.argsort(z, kind="stable")`."""
    # Positive numbers are ordered as their bits are; sixteen of these NumPy sorts in no time.
    bits = z.view(np.uint32)
    low = np.argsort(bits.astype(np.uint16), kind="stable")
    return low[np.argsort((bits >> 16).astype(np.uint16)[low], kind="stable")]


def points_of_objects(instances: Instances, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The scan's points that lie on objects, object by object.

    Args:
        instances: of the frame, on the host.
        frame: with points and calibration.

    Returns:
        (M, 4) float32, the points as in the frame; (M,) int64, the index of each one's object.
    """
    assert frame.points is not None
    assert frame.calibration is not None
    points = frame.points
    pixels, z, inside = pixels_of(points, frame.calibration)
    index = [inside[i] for i in returns_of_objects(instances, pixels[inside], z[inside])]
    owners = np.repeat(np.arange(len(index)), [len(i) for i in index])
    return points[np.concatenate([*index, np.zeros(0, np.int64)])], owners


@njit(cache=True)
def _groups(
    spans: np.ndarray, first: np.ndarray, returns: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each mask the returns under it, the largest group between which no depth is missing.

    Args:
        spans: (R, 2) of each run of the masks, of the returns pixel by pixel those in it.
        first: see `RleMasks.runs`.
        returns: (M,) the returns pixel by pixel, numbered by depth.
        z: (M,) float32 metres, rising.

    Returns:
        Indices of returns, mask by mask, and (N,) where those of each end.
    """
    under = np.zeros(len(z), np.bool_)
    last = np.zeros(len(first) - 1, np.int64)
    total = 0
    for m in range(len(spans)):
        total += spans[m, 1] - spans[m, 0]
    out = np.empty(total, np.int64)
    total = 0
    for n in range(len(last)):
        low, high = len(z), 0
        for m in range(first[n], first[n + 1]):
            for k in range(spans[m, 0], spans[m, 1]):
                i = returns[k]
                under[i] = True
                low, high = min(low, i), max(high, i + 1)
        # Group after group from the nearest on; the largest one moves to the front.
        count = start = largest = most = 0
        for i in range(low, high):
            if not under[i]:
                continue
            under[i] = False
            gap = max(np.float32(_GAP), np.float32(_GAP_SHARE) * z[i])
            if count > 0 and z[i] - z[out[total + count - 1]] > gap:
                start = count
            out[total + count] = i
            count += 1
            if count - start > most:
                largest, most = start, count - start
        for k in range(most):
            out[total + k] = out[total + largest + k]
        total += most
        last[n] = total
    return out[:total], last
