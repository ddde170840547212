"""A scan laid out as an image of rows (lasers) and columns (azimuths).

As Bogoslavskyi and Stachniss do in "Fast Range Image-Based Segmentation of Sparse 3D Laser Scans
for Online Operation", IROS 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from amodal_core.geometry.beams import rows_by_beam
from amodal_core.geometry.config import DEFAULTS, RangeImageConfig
from amodal_core.geometry.scalars import median


@dataclass(frozen=True, eq=False)
class RangeImage:
    """A scan laid out by laser and azimuth.

    Attributes:
        index: (R, C) int32, the nearest point in each cell, -1 where there is none; row 0 looks
            highest, columns run clockwise from straight behind.
        cells: (N,) int32, flat cell of each point, -1 for points that are not finite.
        ranges: (R, C) float32, metres on the plane to the nearest point, 0 where there is none.
        xyz: (3, N) float32, the points' coordinates side by side, which is quicker to go through.
    """

    index: np.ndarray
    cells: np.ndarray
    ranges: np.ndarray
    xyz: np.ndarray


def range_image(points: np.ndarray, config: RangeImageConfig = DEFAULTS.range_image) -> RangeImage:
    """Lay a scan out by laser and azimuth.

    Rows are the scanner's lasers: told by their order where the scan lists one laser's turn after
    the other (KITTI's do, whole or cropped), else by the elevations at which the returns gather
    (drivers list firing after firing). Scans without such elevations get equal steps. Columns are
    as wide as the scanner's steps, within the bounds set.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        config: what tells lasers and steps.
    """
    points = np.ascontiguousarray(points, np.float32)
    xyz = np.ascontiguousarray(points[:, :3].T)
    azimuth = np.arctan2(xyz[1], xyz[0])
    rows = _rows_by_order(azimuth, points, config)
    if rows is None:
        rows = rows_by_beam(np.arctan2(xyz[2], _away(xyz)), config)
    height = int(rows.max(initial=0)) + 1
    index = np.full((height, _columns(azimuth, rows, config)), -1, np.int32)
    cells = np.empty(len(points), np.int32)
    ranges = np.zeros(index.shape, np.float32)
    _fill_cells(xyz, azimuth, rows, index, cells, ranges)
    return RangeImage(index, cells, np.sqrt(ranges, out=ranges), xyz)


@njit(cache=True)
def _away(xyz: np.ndarray) -> np.ndarray:
    """(N,) float32, metres away on the plane."""
    away = np.empty(xyz.shape[1], np.float32)
    for i in range(len(away)):
        away[i] = np.sqrt(np.float64(xyz[0, i]) ** 2 + np.float64(xyz[1, i]) ** 2)
    return away


def columns_in_view(image: RangeImage, inside: np.ndarray, margin: float) -> np.ndarray:
    """(C,) bool, the columns of a range image in which a camera shows a point, and those beside.

    Args:
        image: (R, C) cells.
        inside: (M,) int64, the points that fall into the camera's image.
        margin: degrees to each side.
    """
    count = image.index.shape[1]
    reach = min(int(np.ceil(margin / 360 * count)), count)
    return _columns_in_view(image.cells, inside, count, reach)


@njit(cache=True)
def _columns_in_view(cells: np.ndarray, inside: np.ndarray, count: int, reach: int) -> np.ndarray:
    hit = np.zeros(count, np.bool_)
    for i in inside:
        if cells[i] >= 0:
            hit[cells[i] % count] = True
    chosen = np.zeros(count, np.bool_)
    for c in range(count):
        if hit[c]:
            for near in range(c - reach, c + reach + 1):
                chosen[near % count] = True
    return chosen


def _rows_by_order(
    azimuth: np.ndarray, points: np.ndarray, config: RangeImageConfig
) -> np.ndarray | None:
    """(N,) int32 rows where the scan lists laser after laser, else None."""
    if len(azimuth) < config.fewest_points or not np.isfinite(azimuth).all():
        return None
    clockwise = _clockwise(azimuth)
    # Every turn goes one way; lasers without a return are gaps, small ones back are jitter.
    if max(clockwise, 1.0 - clockwise) < config.turn_share:
        return None
    direction = np.float32(-1.0 if clockwise > 0.5 else 1.0)
    elevation = points[:, 2] / np.maximum(np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2), 1e-3)
    best, spread = None, np.inf
    # A turn ends ahead or behind, by the sensor's make: the right cut mixes no lasers in a row.
    for cut in (0.0, np.pi):
        rows = _cut_rows(azimuth, direction, np.float32(cut), config.turn_jitter)
        count = np.bincount(rows)
        if not config.fewest_lasers <= len(count) <= config.most_lasers:
            continue
        mean = np.bincount(rows, elevation) / np.maximum(count, 1)
        remaining = _spread(elevation, rows, mean)
        if remaining < spread:
            spread = remaining
            order = np.argsort(-mean, kind="stable")
            rank = np.empty(len(order), np.int32)
            rank[order] = np.arange(len(order), dtype=np.int32)
            best = rank[rows]
    return best


@njit(cache=True)
def _clockwise(azimuth: np.ndarray) -> float:
    """Share of the steps from point to point that turn clockwise."""
    turn = np.float32(2 * np.pi)
    count = 0
    for i in range(len(azimuth) - 1):
        d = azimuth[i + 1] - azimuth[i]
        # More than half a turn is the rest of it the other way.
        if abs(d / turn) > 0.5:
            d = d - turn if d > 0 else d + turn
        count += d < 0
    return count / (len(azimuth) - 1)


@njit(cache=True)
def _spread(elevation: np.ndarray, rows: np.ndarray, mean: np.ndarray) -> float:
    total = 0.0
    for i in range(len(rows)):
        total += (elevation[i] - mean[rows[i]]) ** 2
    return total / len(rows)


@njit(cache=True)
def _cut_rows(azimuth: np.ndarray, direction: float, cut: float, jitter: float) -> np.ndarray:
    """A row ends where the turn's phase falls: at the cut, or where a cropped scan jumps back."""
    rows = np.zeros(len(azimuth), np.int32)
    turn = np.float32(2 * np.pi)
    row, before = 0, np.float32(0.0)
    for i in range(len(azimuth)):
        phase = (azimuth[i] - cut) * direction
        phase -= np.floor(phase / turn) * turn
        if phase < before - jitter:
            row += 1
        elif phase > before + turn - jitter and row > 0:
            # Jitter back over the cut.
            row -= 1
        rows[i] = row
        before = phase
    return rows


def _columns(azimuth: np.ndarray, rows: np.ndarray, config: RangeImageConfig) -> int:
    """Columns that the scanner's own steps fill: from the usual step within the fullest rows."""
    count = _counts(rows, int(rows.max(initial=-1)) + 1)
    fullest = np.argsort(-count, kind="stable")[: config.step_rows]
    turns = _azimuths_of(azimuth, rows, len(count), fullest, int(count.max(initial=0)))
    turns.sort(axis=1)
    # What rounding and jitter put in one place is one step's, not none's.
    every = _steps(turns, config.least_step)
    if len(every) < config.fewest_steps:
        return config.finest_columns
    columns = config.fill * 2 * np.pi / np.float32(median(every))
    return int(np.clip(columns, config.coarsest_columns, config.finest_columns))


@njit(cache=True)
def _counts(rows: np.ndarray, height: int) -> np.ndarray:
    """As `np.bincount`, which would first make 64 bits of 32."""
    count = np.zeros(height, np.int64)
    for i in range(len(rows)):
        count[rows[i]] += 1
    return count


@njit(cache=True)
def _azimuths_of(
    azimuth: np.ndarray, rows: np.ndarray, height: int, chosen: np.ndarray, most: int
) -> np.ndarray:
    """(C, most) float32, the azimuths of the chosen rows, infinity behind each row's last."""
    slot = np.full(height, -1, np.int64)
    for k in range(len(chosen)):
        slot[chosen[k]] = k
    at = np.zeros(len(chosen), np.int64)
    out = np.full((len(chosen), most), np.float32(np.inf))
    for i in range(len(rows)):
        k = slot[rows[i]]
        if k >= 0 and np.isfinite(azimuth[i]):
            out[k, at[k]] = azimuth[i]
            at[k] += 1
    return out


@njit(cache=True)
def _steps(turns: np.ndarray, least: float) -> np.ndarray:
    """(S,) float32, the steps of more than the least between neighbours in each row."""
    steps = np.empty(turns.size, np.float32)
    count = 0
    for k in range(len(turns)):
        for i in range(1, turns.shape[1]):
            step = turns[k, i] - turns[k, i - 1]
            if least < step < np.inf:
                steps[count] = step
                count += 1
    return steps[:count]


@njit(cache=True)
def _fill_cells(
    xyz: np.ndarray,
    azimuth: np.ndarray,
    rows: np.ndarray,
    index: np.ndarray,
    cells: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Indices and cells as in `RangeImage`, and squares of its ranges."""
    columns = index.shape[1]
    scale = columns / (2 * np.pi)
    for i in range(len(cells)):
        # Columns run clockwise, as the image's do; -pi and pi are one.
        c = np.int32((np.pi - azimuth[i]) * scale)
        c = c - columns if c >= columns else c
        finite = np.isfinite(xyz[0, i] + xyz[1, i] + xyz[2, i])
        cells[i] = rows[i] * columns + c if finite else -1
    index, squares = index.ravel(), squares.ravel()
    for i in range(len(cells)):
        if cells[i] >= 0:
            # Unsigned, it is not looked whether it counts from the end.
            cell = np.uint32(cells[i])
            square = xyz[0, i] * xyz[0, i] + xyz[1, i] * xyz[1, i]
            if index[cell] < 0 or square < squares[cell]:
                index[cell], squares[cell] = i, square
