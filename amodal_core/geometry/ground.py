"""The ground: a plane first, then a map of heights, followed up each column of the range image.

Along a column the ground goes on while the slope between neighbouring returns is small
(Bogoslavskyi and Stachniss, IROS 2016).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from amodal_core.geometry.config import DEFAULTS, GroundConfig, kernel_values
from amodal_core.geometry.range_image import RangeImage

_BLOCK = 512  # places whose heights are looked up before they are blended


class Ground(NamedTuple):
    """The ground's height around the sensor.

    Attributes:
        heights: (S, S) float32, metres in the LiDAR frame, of square cells; x is the first axis.
        z0: metres, the ground's height under the sensor.
        cell: metres, side of a cell.
        reach: metres from the sensor to the map's border.
    """

    heights: np.ndarray
    z0: float
    cell: float
    reach: float

    def at(self, xy: np.ndarray) -> np.ndarray:
        """(N, 2) x, y in metres -> (N,) float32 ground height, bilinear between cells."""
        x, y = np.ascontiguousarray(np.asarray(xy, np.float32)[:, :2].T)
        return _interpolate(self.heights, x, y, self.cell, self.reach)


def remove_ground(
    image: RangeImage, config: GroundConfig = DEFAULTS.ground
) -> tuple[Ground, np.ndarray]:
    """Find the ground.

    Args:
        image: a scan's range image.
        config: what is ground.

    Returns:
        The ground's shape, and (N,) float32: each point's height above it in metres.
    """
    values = kernel_values(config)
    z0, a, b = _ground_plane(image.xyz, values)
    side = int(2 * config.reach / config.cell)
    sums = np.zeros((side, side), np.float32)
    counts = np.zeros((side, side), np.int32)
    # Columns are walked: their cells lie side by side in the transposed image.
    columns = np.ascontiguousarray(image.index.T)
    _follow_ground(image.xyz, columns, (z0, a, b), values, sums, counts)
    heights = _fill_heights(sums, counts, (z0, a, b), values)
    x, y, z = image.xyz
    above = z - _interpolate(heights, x, y, config.cell, config.reach)
    return Ground(heights, z0, config.cell, config.reach), above


@njit(cache=True)
def _ground_plane(xyz: np.ndarray, v: GroundConfig) -> tuple[float, float, float]:
    """Height z0 under the sensor and slopes a, b of the plane with most of the low returns."""
    # The level at which most near returns lie.
    count = int((v.highest - v.lowest) / v.bin + 0.5)
    level = np.empty(xyz.shape[1], np.int16)
    for i in range(len(level)):
        x, y, z = xyz[0, i], xyz[1, i], xyz[2, i]
        r2 = x * x + y * y
        near = (v.nearest**2 < r2) & (r2 < v.farthest**2) & (v.lowest - v.bin < z) & (z < v.highest)
        level[i] = int((z - v.lowest) / v.bin) if near else count
    bins = np.zeros(max(count, 1) + 1, np.int64)
    for i in range(len(level)):
        bins[min(level[i], count)] += 1
    k = 0
    for m in range(count):
        k = m if bins[m] > bins[k] else k
    z0, a, b = v.lowest + v.bin * k + v.bin / 2, 0.0, 0.0
    if bins[k] == 0:
        return -v.sensor_height, 0.0, 0.0
    # Normal equations of the plane through the returns near the last one.
    for reach in v.plane_reaches:
        sums = _sums_near(xyz, (z0, a, b), reach, v.plane_range**2)
        n, sx, sy, sz, sxx, sxy, syy, sxz, syz = sums
        if n < v.plane_returns:
            break
        # Cramer's rule about the centroid; np.linalg would cost seconds of compilation.
        mx, my, mz = sx / n, sy / n, sz / n
        cxx, cxy, cyy = sxx / n - mx * mx, sxy / n - mx * my, syy / n - my * my
        cxz, cyz = sxz / n - mx * mz, syz / n - my * mz
        det = cxx * cyy - cxy * cxy
        if det < 1e-3:
            break
        a, b = (cxz * cyy - cyz * cxy) / det, (cyz * cxx - cxz * cxy) / det
        z0 = mz - a * mx - b * my
    return z0, a, b


@njit(cache=True, fastmath={"reassoc"})
def _sums_near(
    xyz: np.ndarray, plane: tuple[float, float, float], reach: float, square: float
) -> tuple[int, float, float, float, float, float, float, float, float]:
    """How many points are near a plane, sums of their coordinates and of products of these.

    The sums may be added in any order, several points at once.
    """
    z0, a, b = plane
    n = 0
    sx = sy = sz = sxx = sxy = syy = sxz = syz = 0.0
    for i in range(xyz.shape[1]):
        x, y, z = xyz[0, i], xyz[1, i], xyz[2, i]
        if (abs(z - z0 - a * x - b * y) < reach) & (x * x + y * y < square):
            n += 1
            sx += x
            sy += y
            sz += z
            sxx += x * x
            sxy += x * y
            syy += y * y
            sxz += x * z
            syz += y * z
    return n, sx, sy, sz, sxx, sxy, syy, sxz, syz


@njit(cache=True)
def _follow_ground(
    xyz: np.ndarray,
    cells: np.ndarray,
    plane: tuple[float, float, float],
    v: GroundConfig,
    sums: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Walk each column from the lowest row up, and collect the returns that continue the ground."""
    columns, rows = cells.shape
    side = sums.shape[0]
    z0, a, b = plane
    for c in range(columns):
        r_last, z_last = 0.0, z0
        for row in range(rows - 1, -1, -1):
            i = cells[c, row]
            if i < 0:
                continue
            x, y, z = xyz[0, i], xyz[1, i], xyz[2, i]
            r = np.sqrt(x * x + y * y)
            level = z0 + a * x + b * y
            # The road may leave the plane slowly; a step up of more than a kerb is no ground.
            if abs(z - level) > v.off_plane + v.off_plane_slope * r:
                continue
            kerb = v.step + v.step_slope * max(r - r_last, 0.0)
            breaks = r < r_last - v.step_back or abs(z - z_last) > kerb
            if breaks and (z > level + v.above or z < level - v.below):
                continue
            r_last, z_last = r, z
            k, m = int((x + v.reach) / v.cell), int((y + v.reach) / v.cell)
            if 0 <= k < side and 0 <= m < side:
                sums[k, m] += z
                counts[k, m] += 1


@njit(cache=True)
def _fill_heights(
    sums: np.ndarray, counts: np.ndarray, plane: tuple[float, float, float], v: GroundConfig
) -> np.ndarray:
    """Mean height of each cell; cells without returns get that of the nearest ones around."""
    side = len(sums)
    z0, a, b = plane
    # The deviation from the plane carries over, so that a slope is not flattened.
    weights, shares = np.zeros((side, side), np.int64), np.zeros((side, side))
    for k in range(side):
        for m in range(side):
            if counts[k, m] >= v.cell_returns:
                x, y = (k + 0.5) * v.cell - v.reach, (m + 0.5) * v.cell - v.reach
                weights[k, m] = min(counts[k, m], v.cell_weight)
                off = sums[k, m] / counts[k, m] - z0 - a * x - b * y
                shares[k, m] = weights[k, m] * off
    # Whether any ring around a cell has returns: most cells are far from all.
    rows, some = np.zeros((side, side), np.bool_), np.zeros((side, side), np.bool_)
    for k in range(side):
        for m in range(side):
            if weights[k, m] > 0:
                for j in range(max(m - v.rings + 1, 0), min(m + v.rings, side)):
                    rows[k, j] = True
    for k in range(side):
        for m in range(side):
            if rows[k, m]:
                for i in range(max(k - v.rings + 1, 0), min(k + v.rings, side)):
                    some[i, m] = True
    heights = np.empty((side, side), np.float32)
    for k in range(side):
        for m in range(side):
            x, y = (k + 0.5) * v.cell - v.reach, (m + 0.5) * v.cell - v.reach
            total, weight = 0.0, 0.0
            for ring in range(v.rings if some[k, m] else 0):
                for i in range(max(k - ring, 0), min(k + ring + 1, side)):
                    # Of the rows between the first and the last only both ends.
                    step = 1 if abs(i - k) == ring else 2 * ring
                    for j in range(m - ring, m + ring + 1, step):
                        if 0 <= j < side and weights[i, j] > 0:
                            total += shares[i, j]
                            weight += weights[i, j]
                if weight >= v.ring_weight:
                    break
            heights[k, m] = z0 + a * x + b * y + (total / weight if weight > 0 else 0.0)
    return heights


@njit(cache=True)
def height_under(ground: Ground, x: float, y: float) -> float:
    """`Ground.at` one place."""
    heights, side = ground.heights, len(ground.heights)
    gx = _place(np.float32(x), side, ground.cell, ground.reach)
    gy = _place(np.float32(y), side, ground.cell, ground.reach)
    k, m = int(gx), int(gy)
    corners = heights[k, m], heights[k, m + 1], heights[k + 1, m], heights[k + 1, m + 1]
    return _blended(corners, gx, gy)


@njit(cache=True)
def _interpolate(
    heights: np.ndarray, x: np.ndarray, y: np.ndarray, cell: float, reach: float
) -> np.ndarray:
    """`height_under` of many places: only what looks up heights is done place by place."""
    side, flat = len(heights), heights.ravel()
    out = np.empty(len(x), np.float32)
    first, corners = np.empty(_BLOCK, np.int32), np.empty((4, _BLOCK), np.float32)
    for begin in range(0, len(x), _BLOCK):
        own = slice(begin, begin + _BLOCK)
        xs, ys, outs = x[own], y[own], out[own]
        for i in range(len(outs)):
            gx, gy = _place(xs[i], side, cell, reach), _place(ys[i], side, cell, reach)
            first[i] = np.int32(gx) * side + np.int32(gy)
        for i in range(len(outs)):
            at = first[i]
            corners[0, i], corners[1, i] = flat[at], flat[at + 1]
            corners[2, i], corners[3, i] = flat[at + side], flat[at + side + 1]
        for i in range(len(outs)):
            gx, gy = _place(xs[i], side, cell, reach), _place(ys[i], side, cell, reach)
            four = corners[0, i], corners[1, i], corners[2, i], corners[3, i]
            outs[i] = _blended(four, gx, gy)
    return out


@njit(cache=True)
def _place(x: float, side: int, cell: float, reach: float) -> float:
    """Where a coordinate lies, in cells from the middle of the first one."""
    return min(max((x + reach) / cell - 0.5, 0.0), side - 1.001)


@njit(cache=True)
def _blended(corners: tuple[float, float, float, float], gx: float, gy: float) -> float:
    fx, fy = gx - np.int32(gx), gy - np.int32(gy)
    low = corners[0] * (1 - fy) + corners[1] * fy
    high = corners[2] * (1 - fy) + corners[3] * fy
    return np.float32(low * (1 - fx) + high * fx)
