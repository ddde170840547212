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
    height, width = instances.size
    by_depth = np.argsort(z, kind="stable")
    u, v = pixels[by_depth].T
    runs, first = instances.visible.rle().runs()
    chosen, last = _groups(runs, first, u * height + v, height * width, z[by_depth])
    return [by_depth[chosen[a:b]] for a, b in pairwise([0, *last.tolist()])]


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
    runs: np.ndarray, first: np.ndarray, places: np.ndarray, pixels: int, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each mask the returns under it, the largest group between which no depth is missing.

    Args:
        runs: see `RleMasks.runs`.
        first: see there.
        places: (M,) the pixel of each return as runs count them.
        pixels: of the image.
        z: (M,) float32 metres, rising.

    Returns:
        Indices of returns, mask by mask, and (N,) where those of each end.
    """
    # The returns pixel by pixel.
    begin = np.zeros(pixels + 1, np.int64)
    for i in range(len(places)):
        begin[places[i] + 1] += 1
    for k in range(pixels):
        begin[k + 1] += begin[k]
    at, returns = begin.copy(), np.empty(len(places), np.int64)
    for i in range(len(places)):
        returns[at[places[i]]] = i
        at[places[i]] += 1
    under = np.zeros(len(places), np.bool_)
    last = np.zeros(len(first) - 1, np.int64)
    total = 0
    for m in range(len(runs)):
        total += begin[runs[m, 1]] - begin[runs[m, 0]]
    out = np.empty(total, np.int64)
    total = 0
    for n in range(len(last)):
        low, high = len(places), 0
        for m in range(first[n], first[n + 1]):
            for k in range(begin[runs[m, 0]], begin[runs[m, 1]]):
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
