"""Which returns of a scan are an object's: those under its visible mask, together in depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from amodal_core.frame import Frame, Instances
from amodal_core.geometry.projection import project

_GAP, _GAP_SHARE = 1.2, 0.03  # metres, or share of the depth, that no object's returns jump over


def returns_of_objects(
    instances: Instances, pixels: np.ndarray, z: np.ndarray
) -> Iterator[np.ndarray]:
    """For each object the indices of its returns.

    Of the returns under its visible mask, the largest group in depth: masks leave windows open and
    reach over edges.

    Args:
        instances: N objects, on the host.
        pixels: (M, 2) int, column and row of each return, all in the image.
        z: (M,) metres along the optical axis.
    """
    u, v = pixels.T
    crops, offsets = instances.visible.rle().crops()
    # Column by column: those of an object's columns stand in a row.
    by_column = np.argsort(u, kind="stable")
    first = np.searchsorted(u[by_column], np.arange(instances.size[1] + 1)).tolist()
    for crop, (x, y) in zip(crops, offsets.tolist(), strict=True):
        height, width = crop.shape
        beside = by_column[first[x] : first[x + width]]
        rows = v[beside]
        near = np.sort(beside[(rows >= y) & (rows < y + height)])
        index = near[crop[v[near] - y, u[near] - x] > 0]
        yield index[_group(z[index])]


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
    projection = project(points, frame.calibration)
    pixels, z = np.asarray(projection.pixels), np.asarray(projection.z)
    inside = np.flatnonzero(pixels[:, 0] >= 0)
    index = [inside[i] for i in returns_of_objects(instances, pixels[inside], z[inside])]
    owners = np.repeat(np.arange(len(index)), [len(i) for i in index])
    return points[np.concatenate([*index, np.zeros(0, np.int64)])], owners


def _group(z: np.ndarray) -> np.ndarray:
    """Indices of the largest group of depths between which nothing is missing."""
    order = np.argsort(z, kind="stable")
    gaps = np.diff(z[order]) > np.maximum(_GAP, _GAP_SHARE * z[order][1:])
    edges = np.concatenate([[0], np.flatnonzero(gaps) + 1, [len(z)]])
    largest = int(np.argmax(np.diff(edges)))
    return order[edges[largest] : edges[largest + 1]]
