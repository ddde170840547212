"""Returns joined to clusters: connected components of the range image.

After Bogoslavskyi and Stachniss, "Fast Range Image-Based Segmentation of Sparse 3D Laser Scans for
Online Operation", IROS 2016: what is joined are neighbours the line between which stands at a steep
enough angle to the beam.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from amodal_core.geometry.config import DEFAULTS, ClusterConfig, kernel_values
from amodal_core.geometry.range_image import RangeImage


def connected_components(
    points: np.ndarray,
    image: RangeImage,
    keep: np.ndarray,
    config: ClusterConfig = DEFAULTS.cluster,
    columns: np.ndarray | None = None,
) -> np.ndarray:
    """Join neighbouring returns to objects.

    Two neighbours belong together where they are close, or where the line between them stands
    steeper than `config.angle` to the farther beam and does not reach farther than the scan's
    spacing explains.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        image: its range image.
        keep: (N,) bool, the points to cluster (not ground, not overhead).
        config: what belongs together.
        columns: (C,) bool, of the range image; components without a point in any of them are left
            out. None for all columns.

    Returns:
        (N,) int32, component of each point, numbered from 0; -1 for points not kept, -2 for those
        of components left out.
    """
    pts = np.ascontiguousarray(points, np.float32)
    values = kernel_values(config)
    sine = np.float32(np.sin(np.radians(config.angle)))
    # Look past a few empty cells: dark paint and glass return nothing.
    across = max(2, int(np.radians(config.glance) / (2 * np.pi / image.index.shape[1]) + 0.5))
    cells = np.arange(image.index.size).reshape(image.index.shape)
    seeds = (cells if columns is None else cells[:, columns]).ravel()
    labels = _label_cells(pts, image.index, image.ranges, keep, seeds, (sine, across), values)
    return _label_points(pts, image.index, image.cells, keep, labels, values)


@njit(cache=True)
def _label_cells(
    points: np.ndarray,
    index: np.ndarray,
    ranges: np.ndarray,
    keep: np.ndarray,
    seeds: np.ndarray,
    limits: tuple[float, int],
    v: ClusterConfig,
) -> np.ndarray:
    """(R * C,) int32, component of each cell, -2 where it holds none of the seeds' cells."""
    rows, columns = index.shape
    count = rows * columns
    flat, ranges = index.ravel(), ranges.ravel()
    labels = np.full(count, -2, np.int32)
    # Of each cell whether it belongs with the next one right (1) and below (2).
    links = np.zeros(count, np.uint8)
    # Cells of the component, and where the row of each begins.
    queue = np.empty((count, 2), np.int32)
    label = 0
    for seed in seeds:
        if labels[seed] >= 0 or flat[seed] < 0 or not keep[flat[seed]]:
            continue
        # Flood from the first cell that is in no component yet.
        labels[seed] = label
        queue[0, 0], queue[0, 1] = seed, seed // columns * columns
        head, past, tail = 0, 0, 1
        while past < tail:
            # Mostly a cell belongs with the next one,
            while head < tail:
                cell, begin = queue[head, 0], queue[head, 1]
                head += 1
                for way in range(4):
                    other = _next(cell, way, begin, columns)
                    forward = way == 0 or way == 2
                    if not 0 <= other < count or (not forward and labels[other] >= 0):
                        continue
                    i, j = flat[cell], flat[other]
                    if j < 0 or not keep[j]:
                        continue
                    if way < 2:
                        joined = _joined(points, i, j, v.beside * limits[0], v)
                    else:
                        joined = _joined(points, i, j, limits[0], v)
                    if joined:
                        links[cell] |= (way + 2) // 2 if forward else 0
                        if labels[other] < 0:
                            labels[other] = label
                            queue[tail, 0] = other
                            queue[tail, 1] = begin if way < 2 else begin + other - cell
                            tail += 1
            # else perhaps with one behind that.
            cell, begin = queue[past, 0], queue[past, 1]
            past += 1
            for way in range(4):
                near = cell if way == 0 or way == 2 else _next(cell, way, begin, columns)
                if near >= 0 and links[near] & (1 if way < 2 else 2):
                    continue
                other = _look_past(
                    points, flat, keep, ranges, labels, cell, way, begin, columns, limits, v
                )
                if other >= 0 and labels[other] < 0:
                    labels[other] = label
                    queue[tail, 0] = other
                    queue[tail, 1] = begin if way < 2 else begin + other - cell
                    tail += 1
        label += 1
    return labels


@njit(cache=True, inline="always")
def _next(cell: int, way: int, begin: int, columns: int) -> int:
    """The cell beside one, right, left, below or above; rows are rings."""
    if way == 0:
        return cell + 1 if cell + 1 < begin + columns else begin
    if way == 1:
        return cell - 1 if cell > begin else begin + columns - 1
    return cell + columns if way == 2 else cell - columns


@njit(cache=True, inline="always")
def _look_past(
    points: np.ndarray,
    flat: np.ndarray,
    keep: np.ndarray,
    ranges: np.ndarray,
    labels: np.ndarray,
    cell: int,
    way: int,
    begin: int,
    columns: int,
    limits: tuple[float, int],
    v: ClusterConfig,
) -> int:
    """The cell that belongs to a cell's object past the next one: right, left, below or above.

    -1 for none, and where none is new. The row begins at `begin` of the flat cells.
    """
    sine, glance = limits
    d = ranges[cell]
    across = way < 2
    reach = furthest = glance if across else v.rows
    if across:
        # Past what stands in front, too, as far as it can be a post or a person.
        width = 2 * np.pi / columns
        furthest = max(reach, int(min(v.bridge / max(d * width, 1e-9), columns - 1)))
    else:
        new = False
        for s in range(2, v.rows + 1):
            other = cell + s * (columns if way == 2 else -columns)
            if 0 <= other < len(flat) and labels[other] < 0:
                new |= flat[other] >= 0 and keep[flat[other]]
        furthest = reach if new else 0
    empty, strangers, bridged = 0, 0, False
    other, result = cell, -1
    for s in range(furthest):
        other = _next(other, way, begin, columns)
        if other < 0 or other >= len(flat):
            break
        j = flat[other]
        if j < 0:
            empty += 1
            if empty >= reach:
                break
            continue
        e = ranges[other]
        if s > 0 and keep[j]:
            if bridged:
                belongs = abs(e - d) < v.same_range
            else:
                belongs = _joined(points, flat[cell], j, sine, v)
            if belongs:
                result = other
                break
        if across and e < d - v.in_front:
            bridged = True
            continue
        strangers += 1
        if strangers >= v.strangers or bridged:
            break
    return result


@njit(cache=True)
def _label_points(
    points: np.ndarray,
    index: np.ndarray,
    cells: np.ndarray,
    keep: np.ndarray,
    labels: np.ndarray,
    v: ClusterConfig,
) -> np.ndarray:
    """(N,) int32, component of each kept point: its cell's, where it is near the cell's point."""
    flat = index.ravel()
    out = np.full(len(points), -1, np.int32)
    for i in range(len(points)):
        if keep[i] and cells[i] >= 0:
            j = flat[cells[i]]
            off = abs(points[i, 0] - points[j, 0]) + abs(points[i, 1] - points[j, 1])
            if keep[j] and off < v.same_cell:
                out[i] = labels[cells[i]]
    return out


@njit(cache=True, inline="always")
def _joined(points: np.ndarray, i: int, j: int, sine: float, v: ClusterConfig) -> bool:
    """Whether two returns that are neighbours lie on one surface."""
    x1, y1, z1 = points[i, 0], points[i, 1], points[i, 2]
    x2, y2, z2 = points[j, 0], points[j, 1], points[j, 2]
    gap = np.sqrt((x1 - x2) ** 2 + (y1 - y2) ** 2 + (z1 - z2) ** 2)
    d = np.sqrt(max(x1 * x1 + y1 * y1 + z1 * z1, x2 * x2 + y2 * y2 + z2 * z2))
    if gap < v.joined + v.joined_slope * d:
        return True
    if gap > v.apart + v.apart_slope * d:
        return False
    # |p1 x p2| = d1 d2 sin(alpha); the angle at the farther return has d2 sin(alpha) / gap.
    cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
    return np.sqrt(cx * cx + cy * cy + cz * cz) > sine * d * gap
