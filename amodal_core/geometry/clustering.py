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
    if columns is None:
        columns = np.ones(image.index.shape[1], bool)
    labels = _label_cells(pts, image.index, image.ranges, keep, columns, (sine, across), values)
    return _label_points(pts, image.index, image.cells, keep, labels, values)


@njit(cache=True)
def _cell_points(
    points: np.ndarray, index: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(R * C, 3) the points, cell by cell: neighbours lie side by side; state of each cell.

    The state is -1 for a cell without a point, 0 for one whose point is not kept, 1 for others.
    """
    flat = index.ravel()
    cells = np.zeros((len(flat), 3), np.float32)
    state = np.full(len(flat), -1, np.int8)
    for cell in range(len(flat)):
        i = flat[cell]
        if i >= 0:
            cells[cell, 0], cells[cell, 1], cells[cell, 2] = (
                points[i, 0],
                points[i, 1],
                points[i, 2],
            )
            state[cell] = 1 if keep[i] else 0
    return cells, state


@njit(cache=True)
def _links(
    cells: np.ndarray, state: np.ndarray, rows: int, columns: int, sine: float, v: ClusterConfig
) -> np.ndarray:
    """Of each cell whether it belongs with the next one right (1) and below (2)."""
    links = np.zeros(rows * columns, np.uint8)
    for row in range(rows):
        begin = row * columns
        for column in range(columns):
            cell = begin + column
            if state[cell] < 1:
                continue
            other = cell + 1 if column + 1 < columns else begin
            if state[other] == 1 and _joined(cells, cell, other, v.beside * sine, v):
                links[cell] |= 1
            other = cell + columns
            if row + 1 < rows and state[other] == 1 and _joined(cells, cell, other, sine, v):
                links[cell] |= 2
    return links


@njit(cache=True)
def _label_cells(
    points: np.ndarray,
    index: np.ndarray,
    ranges: np.ndarray,
    keep: np.ndarray,
    chosen: np.ndarray,
    limits: tuple[float, int],
    v: ClusterConfig,
) -> np.ndarray:
    """(R * C,) int32, component of each cell, -1 where it holds no kept point.

    -2 where no cell of its component is in the chosen columns.
    """
    rows, columns = index.shape
    cells, state = _cell_points(points, index, keep)
    links = _links(cells, state, rows, columns, limits[0], v)
    labels = np.empty(rows * columns, np.int32)
    for cell in range(rows * columns):
        labels[cell] = -2 if state[cell] == 1 else -1
    queue = np.empty(rows * columns, np.int32)
    ranges = ranges.ravel()
    label = 0
    for seed in range(rows * columns):
        if labels[seed] != -2 or not chosen[seed % columns]:
            continue
        # Flood from the first cell that is in no component yet.
        labels[seed] = label
        queue[0] = seed
        head, tail = 0, 1
        while head < tail:
            cell = queue[head]
            head += 1
            row = cell // columns
            begin, end = row * columns, row * columns + columns
            right = cell + 1 if cell + 1 < end else begin
            left = cell - 1 if cell > begin else end - 1
            above = cell - columns
            for way in range(4):
                # Mostly it belongs with the next cell, else perhaps with one behind that.
                other = -1
                if way == 0:
                    other = right if links[cell] & 1 else -1
                elif way == 1:
                    other = left if links[left] & 1 else -1
                elif way == 2:
                    other = cell + columns if links[cell] & 2 else -1
                elif row > 0:
                    other = above if links[above] & 2 else -1
                if other < 0:
                    other = _look_past(cells, state, ranges, cell, way, begin, end, limits, v)
                if other >= 0 and labels[other] < 0:
                    labels[other] = label
                    queue[tail] = other
                    tail += 1
        label += 1
    return labels


@njit(cache=True, inline="always")
def _look_past(
    cells: np.ndarray,
    state: np.ndarray,
    ranges: np.ndarray,
    cell: int,
    way: int,
    begin: int,
    end: int,
    limits: tuple[float, int],
    v: ClusterConfig,
) -> int:
    """The cell that belongs to a cell's object past the next one: right, left, below or above.

    -1 for none. The row is [begin, end) of the flat cells.
    """
    columns = end - begin
    sine, glance = limits
    d = ranges[cell]
    across = way < 2
    step = 1 - 2 * (way & 1)
    reach = furthest = glance if across else v.rows
    if across:
        # Past what stands in front, too, as far as it can be a post or a person.
        width = 2 * np.pi / columns
        furthest = max(reach, int(min(v.bridge / max(d * width, 1e-9), columns - 1)))
    empty, strangers, bridged = 0, 0, False
    other, result = cell, -1
    for s in range(furthest):
        if across:
            other += step
            other = begin if other >= end else end - 1 if other < begin else other
        else:
            other += step * columns
            if other < 0 or other >= len(state):
                break
        if state[other] < 0:
            empty += 1
            if empty >= reach:
                break
            continue
        e = ranges[other]
        if s > 0 and state[other] == 1:
            belongs = abs(e - d) < v.same_range if bridged else _joined(cells, cell, other, sine, v)
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
