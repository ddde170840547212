"""From a LiDAR scan to objects' points: range image, ground removal, connected components.

After Bogoslavskyi and Stachniss, "Fast Range Image-Based Segmentation of Sparse 3D Laser Scans for
Online Operation", IROS 2016: the scan is laid out as an image of rows (lasers) and columns
(azimuths); ground is followed up each column by the slope between returns; the rest is joined where
the line between neighbouring returns stands at a steep enough angle to the beam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from amodal_core.geometry.beams import rows_by_beam

_FINEST = 1800
"""Columns at most, 0.2 degrees each: what a 64-beam scanner's 10 Hz turn fills without gaps."""

_COARSEST = 180

_FILLED = 0.9
"""Columns a step of the scanner: fewer than one, so that jitter leaves no gaps."""

_ABOVE_HORIZON = np.tan(np.radians(1.0))

_GLANCE = np.radians(0.8)
"""How far across dark paint and glass, which return nothing, a surface is followed."""

_BRIDGE = 1.0
"""Metres of a surface that a post or a person may hide without splitting it in two."""

_SAME_RANGE = 0.25

_IN_FRONT = 0.5

_STRAIGHT = 0.05
"""Metres off the line between neighbours that bodywork stays below in a quiet scan."""

_CELL = 2.0
_REACH = 100.0
_SIDE = int(2 * _REACH / _CELL)


@dataclass(frozen=True, eq=False)
class RangeImage:
    """A scan laid out by laser and azimuth.

    Attributes:
        index: (R, C) int32, the nearest point in each cell, -1 where there is none; row 0 looks
            highest, columns run clockwise from straight behind.
        cells: (N,) int32, flat cell of each point, -1 for points that are not finite.
    """

    index: np.ndarray
    cells: np.ndarray


@dataclass(frozen=True, eq=False)
class Ground:
    """The ground's height around the sensor.

    Attributes:
        heights: (S, S) float32, metres in the LiDAR frame, of square cells; x is the first axis.
        z0: metres, the ground's height under the sensor.
    """

    heights: np.ndarray
    z0: float

    def at(self, xy: np.ndarray) -> np.ndarray:
        """(N, 2) x, y in metres -> (N,) float32 ground height, bilinear between cells."""
        return _interpolate(self.heights, np.ascontiguousarray(xy, np.float32))


class Evidence(NamedTuple):
    """What the scan says about a cluster beside where its points are; shares are 0-1.

    Attributes:
        hidden_left: share of its rows in which something nearer ends it on the left.
        hidden_right: the same on the right, both seen from the sensor.
        touching: share of its row ends at which something else stands at the same range.
        cut_above: share of its columns in which it reaches the scan's uppermost laser.
        smooth: share of its returns that lie on the line between their neighbours in the row.
        beyond_left: share of its rows in which the scan's field of view ends it on the left.
        beyond_right: the same on the right.
    """

    hidden_left: float = 0.0
    hidden_right: float = 0.0
    touching: float = 0.0
    cut_above: float = 0.0
    smooth: float = 1.0
    beyond_left: float = 0.0
    beyond_right: float = 0.0


def gather_evidence(
    points: np.ndarray, image: RangeImage, labels: np.ndarray, count: int
) -> list[Evidence]:
    """The evidence for each of `count` clusters, `labels` (N,) int32 being -1 for other points."""
    shares = _evidence(points, image.index, labels, count, _straightness(points, image.index))
    return [Evidence._make(row) for row in shares.tolist()]


def range_image(points: np.ndarray) -> RangeImage:
    """Lay a scan out by laser and azimuth.

    Rows are the scanner's lasers: told by their order where the scan lists one laser's turn after
    the other (KITTI's do, whole or cropped), else by the elevations at which the returns gather
    (drivers list firing after firing). Scans without such elevations get equal steps. Columns are
    as wide as the scanner's steps, and never narrower than 0.2 degrees.

    Args:
        points: (N, 3+) float32, LiDAR frame.
    """
    azimuth = np.arctan2(points[:, 1], points[:, 0]).astype(np.float32)
    rows = _rows_by_order(azimuth, points)
    if rows is None:
        rows = rows_by_beam(points)
    height = int(rows.max(initial=0)) + 1
    index = np.full((height, _columns(azimuth, rows)), -1, np.int32)
    cells = np.full(len(points), -1, np.int32)
    _fill_cells(np.ascontiguousarray(points, np.float32), azimuth, rows, index, cells)
    return RangeImage(index, cells)


def remove_ground(points: np.ndarray, image: RangeImage) -> tuple[Ground, np.ndarray]:
    """Find the ground.

    Returns:
        The ground's shape, and (N,) float32: each point's height above it in metres.
    """
    pts = np.ascontiguousarray(points[:, :3], np.float32)
    z0, a, b = _ground_plane(pts)
    sums = np.zeros((_SIDE, _SIDE), np.float32)
    counts = np.zeros((_SIDE, _SIDE), np.int32)
    _follow_ground(pts, image.index, z0, a, b, sums, counts)
    heights = _fill_heights(sums, counts, z0, a, b)
    return Ground(heights, z0), _heights_above(pts, heights)


def connected_components(
    points: np.ndarray,
    image: RangeImage,
    keep: np.ndarray,
    angle: float = np.radians(10.0),
) -> np.ndarray:
    """Join neighbouring returns to objects.

    Two neighbours belong together where they are close, or where the line between them stands
    steeper than `angle` to the farther beam and does not reach farther than the scan's spacing
    explains.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        image: its range image.
        keep: (N,) bool, the points to cluster (not ground, not overhead).
        angle: radians.

    Returns:
        (N,) int32, component of each point, -1 for points not kept. Numbered from 0.
    """
    pts = np.ascontiguousarray(points[:, :3], np.float32)
    return _components(pts, image.index, image.cells, keep, np.float32(np.sin(angle)))


def _rows_by_order(azimuth: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """(N,) int32 rows where the scan lists laser after laser, else None."""
    if len(azimuth) < 100 or not np.isfinite(azimuth).all():
        return None
    clockwise = _clockwise(azimuth)
    # Every turn goes one way; lasers without a return are gaps, small ones back are jitter.
    if max(clockwise, 1.0 - clockwise) < 0.98:
        return None
    direction = np.float32(-1.0 if clockwise > 0.5 else 1.0)
    elevation = points[:, 2] / np.maximum(np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2), 1e-3)
    best, spread = None, np.inf
    # A turn ends ahead or behind, by the sensor's make: the right cut mixes no lasers in a row.
    for cut in (0.0, np.pi):
        rows = _cut_rows(azimuth, direction, np.float32(cut))
        count = np.bincount(rows)
        if not 8 <= len(count) <= 256:
            continue
        mean = np.bincount(rows, elevation) / np.maximum(count, 1)
        left = _spread(elevation, rows, mean)
        if left < spread:
            spread = left
            order = np.argsort(-mean, kind="stable")
            rank = np.empty(len(order), np.int32)
            rank[order] = np.arange(len(order), dtype=np.int32)
            best = rank[rows]
    return best


@njit(cache=True)
def _clockwise(azimuth):  # type: ignore[no-untyped-def]
    """Share of the steps from point to point that turn clockwise."""
    turn = np.float32(2 * np.pi)
    count = 0
    for i in range(len(azimuth) - 1):
        d = azimuth[i + 1] - azimuth[i]
        count += d - turn * np.round(d / turn) < 0
    return count / (len(azimuth) - 1)


@njit(cache=True)
def _spread(elevation, rows, mean):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(rows)):
        total += (elevation[i] - mean[rows[i]]) ** 2
    return total / len(rows)


@njit(cache=True)
def _cut_rows(azimuth, direction, cut):  # type: ignore[no-untyped-def]
    """A row ends where the turn's phase falls: at the cut, or where a cropped scan jumps back."""
    rows = np.zeros(len(azimuth), np.int32)
    turn = np.float32(2 * np.pi)
    jitter = 0.03
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


def _columns(azimuth: np.ndarray, rows: np.ndarray) -> int:
    """Columns that the scanner's own steps fill: from the usual step within the fullest rows."""
    count = np.bincount(rows)
    steps = []
    for row in np.argsort(-count, kind="stable")[:8]:
        turn = np.sort(azimuth[rows == row])
        step = np.diff(turn[np.isfinite(turn)])
        # What rounding and jitter put in one place is one step's, not none's.
        steps.append(step[step > 3e-4])
    every = np.concatenate(steps) if steps else np.zeros(0)
    if len(every) < 50:
        return _FINEST
    return int(np.clip(_FILLED * 2 * np.pi / np.median(every), _COARSEST, _FINEST))


@njit(cache=True)
def _fill_cells(points, azimuth, rows, index, cells):  # type: ignore[no-untyped-def]
    columns = index.shape[1]
    scale = columns / (2 * np.pi)
    for i in range(len(points)):
        if not np.isfinite(points[i, 0] + points[i, 1] + points[i, 2]):
            continue
        # Columns run clockwise, as the image's do.
        c = int((np.pi - azimuth[i]) * scale) % columns
        cells[i] = rows[i] * columns + c
        old = index[rows[i], c]
        if old >= 0:
            d_old = points[old, 0] ** 2 + points[old, 1] ** 2
            if d_old <= points[i, 0] ** 2 + points[i, 1] ** 2:
                continue
        index[rows[i], c] = i


@njit(cache=True)
def _ground_plane(points):  # type: ignore[no-untyped-def]
    """Height z0 under the sensor and slopes a, b of the plane with most of the low returns."""
    bins = np.zeros(100, np.int64)
    for i in range(len(points)):
        r2 = points[i, 0] ** 2 + points[i, 1] ** 2
        # Within 4-25 m: nearer there is the vehicle itself, farther the road's slope matters.
        if 16.0 < r2 < 625.0:
            k = int((points[i, 2] + 4.0) / 0.1)
            if 0 <= k < 40:
                bins[k] += 1
    k = int(np.argmax(bins))
    z0, a, b = -4.0 + 0.1 * k + 0.05, 0.0, 0.0
    if bins[k] == 0:
        return -1.73, 0.0, 0.0
    for reach in (0.4, 0.25, 0.15):
        # Normal equations of the plane through the returns near the last one.
        n = sx = sy = sz = sxx = sxy = syy = sxz = syz = 0.0
        for i in range(len(points)):
            x, y, z = points[i, 0], points[i, 1], points[i, 2]
            if x * x + y * y < 900.0 and abs(z - z0 - a * x - b * y) < reach:
                n += 1.0
                sx += x
                sy += y
                sz += z
                sxx += x * x
                sxy += x * y
                syy += y * y
                sxz += x * z
                syz += y * z
        if n < 50:
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


@njit(cache=True)
def _follow_ground(points, index, z0, a, b, sums, counts):  # type: ignore[no-untyped-def]
    """Walk each column from the lowest row up, and collect the returns that continue the ground."""
    rows, columns = index.shape
    side = sums.shape[0]
    for c in range(columns):
        r_last, z_last = 0.0, z0
        for row in range(rows - 1, -1, -1):
            i = index[row, c]
            if i < 0:
                continue
            x, y, z = points[i, 0], points[i, 1], points[i, 2]
            r = np.sqrt(x * x + y * y)
            plane = z0 + a * x + b * y
            # The road may leave the plane slowly; a step up of more than a kerb is no ground.
            if abs(z - plane) > 0.2 + 0.02 * r:
                continue
            breaks = r < r_last - 0.3 or abs(z - z_last) > 0.04 + 0.1 * max(r - r_last, 0.0)
            if breaks and (z > plane + 0.05 or z < plane - 0.4):
                continue
            r_last, z_last = r, z
            k, m = int((x + _REACH) / _CELL), int((y + _REACH) / _CELL)
            if 0 <= k < side and 0 <= m < side:
                sums[k, m] += z
                counts[k, m] += 1


@njit(cache=True)
def _fill_heights(sums, counts, z0, a, b):  # type: ignore[no-untyped-def]
    """Mean height of each cell; cells without returns get that of the nearest ones around."""
    side = len(sums)
    heights = np.empty((side, side), np.float32)
    for k in range(side):
        for m in range(side):
            x, y = (k + 0.5) * _CELL - _REACH, (m + 0.5) * _CELL - _REACH
            plane = z0 + a * x + b * y
            total, weight = 0.0, 0.0
            for ring in range(4):
                # The deviation from the plane carries over, so that a slope is not flattened.
                for dk in range(-ring, ring + 1):
                    for dm in range(-ring, ring + 1):
                        if max(abs(dk), abs(dm)) != ring:
                            continue
                        i, j = k + dk, m + dm
                        if 0 <= i < side and 0 <= j < side and counts[i, j] >= 2:
                            xi = (i + 0.5) * _CELL - _REACH
                            yi = (j + 0.5) * _CELL - _REACH
                            w = min(counts[i, j], 20)
                            total += w * (sums[i, j] / counts[i, j] - z0 - a * xi - b * yi)
                            weight += w
                if weight >= 3:
                    break
            heights[k, m] = plane + (total / weight if weight > 0 else 0.0)
    return heights


@njit(cache=True)
def _interpolate(heights, xy):  # type: ignore[no-untyped-def]
    out = np.empty(len(xy), np.float32)
    side = len(heights)
    for i in range(len(xy)):
        gx = min(max((xy[i, 0] + _REACH) / _CELL - 0.5, 0.0), side - 1.001)
        gy = min(max((xy[i, 1] + _REACH) / _CELL - 0.5, 0.0), side - 1.001)
        k, m = int(gx), int(gy)
        fx, fy = gx - k, gy - m
        low = heights[k, m] * (1 - fy) + heights[k, m + 1] * fy
        high = heights[k + 1, m] * (1 - fy) + heights[k + 1, m + 1] * fy
        out[i] = low * (1 - fx) + high * fx
    return out


@njit(cache=True)
def _heights_above(points, heights):  # type: ignore[no-untyped-def]
    out = _interpolate(heights, points)
    for i in range(len(points)):
        out[i] = points[i, 2] - out[i]
    return out


@njit(cache=True)
def _components(points, index, cells, keep, sine):  # type: ignore[no-untyped-def]
    rows, columns = index.shape
    width = 2 * np.pi / columns
    sideways = max(2, int(_GLANCE / width + 0.5))
    labels = np.full(rows * columns, -1, np.int32)
    queue = np.empty(rows * columns, np.int32)
    flat = index.ravel()
    next_label = 0
    for seed in range(rows * columns):
        if flat[seed] < 0 or labels[seed] >= 0 or not keep[flat[seed]]:
            continue
        labels[seed] = next_label
        queue[0] = seed
        head, tail = 0, 1
        while head < tail:
            cell = queue[head]
            head += 1
            row, column = cell // columns, cell % columns
            i = flat[cell]
            d = np.sqrt(points[i, 0] ** 2 + points[i, 1] ** 2)
            for way in range(4):
                across = way < 2
                # Look past a few empty cells: dark paint and glass return nothing.
                reach = sideways if across else 3
                # And past what stands in front, as far as it can be a post or a person.
                furthest = max(reach, int(_BRIDGE / (d * width))) if across else reach
                empty, strange, bridged = 0, 0, False
                for s in range(1, furthest + 1):
                    if way == 0:
                        other = row * columns + (column + s) % columns
                    elif way == 1:
                        other = row * columns + (column - s) % columns
                    elif way == 2:
                        if row + s >= rows:
                            break
                        other = cell + s * columns
                    else:
                        if row - s < 0:
                            break
                        other = cell - s * columns
                    j = flat[other]
                    if j < 0:
                        empty += 1
                        if empty >= reach:
                            break
                        continue
                    e = np.sqrt(points[j, 0] ** 2 + points[j, 1] ** 2)
                    if keep[j] and (
                        abs(e - d) < _SAME_RANGE
                        if bridged
                        else _joined(points, i, j, 0.5 * sine if across and s == 1 else sine)
                    ):
                        if labels[other] < 0:
                            labels[other] = next_label
                            queue[tail] = other
                            tail += 1
                        break
                    if across and e < d - _IN_FRONT:
                        bridged = True
                        continue
                    strange += 1
                    if strange >= 2 or bridged:
                        break
        next_label += 1
    out = np.full(len(points), -1, np.int32)
    for i in range(len(points)):
        if keep[i] and cells[i] >= 0:
            j = flat[cells[i]]
            # Points that share a cell share its object where they are near its nearest point.
            if keep[j] and abs(points[i, 0] - points[j, 0]) + abs(points[i, 1] - points[j, 1]) < 1:
                out[i] = labels[cells[i]]
    return out


@njit(cache=True, inline="always")
def _joined(points, i, j, sine):  # type: ignore[no-untyped-def]
    x1, y1, z1 = points[i, 0], points[i, 1], points[i, 2]
    x2, y2, z2 = points[j, 0], points[j, 1], points[j, 2]
    gap = np.sqrt((x1 - x2) ** 2 + (y1 - y2) ** 2 + (z1 - z2) ** 2)
    d = np.sqrt(max(x1 * x1 + y1 * y1 + z1 * z1, x2 * x2 + y2 * y2 + z2 * z2))
    if gap < 0.25 + 0.008 * d:
        return True
    if gap > 0.6 + 0.02 * d:
        return False
    # |p1 x p2| = d1 d2 sin(alpha); the angle at the farther return has d2 sin(alpha) / gap.
    cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
    return np.sqrt(cx * cx + cy * cy + cz * cz) > sine * d * gap


@njit(cache=True)
def _straightness(points, index):  # type: ignore[no-untyped-def]
    """Metres by which returns of one surface stray from the line between their neighbours.

    Most near returns are of the road, and flat: what they stray by is the scanner's noise.
    """
    bins = np.zeros(100, np.int64)
    rows, columns = index.shape
    for row in range(rows):
        for column in range(1, columns - 1):
            i, j, k = index[row, column - 1], index[row, column], index[row, column + 1]
            if i < 0 or j < 0 or k < 0:
                continue
            d = np.sqrt(points[j, 0] ** 2 + points[j, 1] ** 2)
            if d < 3.0 or d > 12.0:
                continue
            before = np.sqrt(points[i, 0] ** 2 + points[i, 1] ** 2)
            after = np.sqrt(points[k, 0] ** 2 + points[k, 1] ** 2)
            bins[min(int(abs(before - 2 * d + after) / 0.001), 99)] += 1
    total = bins.sum()
    if total < 500:
        return _STRAIGHT
    least, below = 0, bins[0]
    while below < 0.25 * total:
        least += 1
        below += bins[least]
    # A quarter of normal deviations is below 0.32 of theirs; 1.85 of theirs holds 94%.
    return min(max(_STRAIGHT, 0.001 * (least + 0.5) * 1.85 / 0.32), 2 * _STRAIGHT)


@njit(cache=True)
def _evidence(points, index, labels, count, straight):  # type: ignore[no-untyped-def]
    rows, columns = index.shape
    total = np.zeros((count, 7), np.float32)
    found = np.zeros((count, 7), np.float32)
    covered = np.zeros(columns, np.bool_)
    for row in range(rows):
        for column in range(columns):
            covered[column] |= index[row, column] >= 0
    last_row = np.full(count, -1, np.int32)
    ends = np.zeros((count, 2), np.int32)
    for row in range(rows):
        for column in range(columns):
            i = index[row, column]
            if i >= 0 and labels[i] >= 0:
                k = labels[i]
                if last_row[k] != row:
                    last_row[k] = row
                    ends[k, 0] = column
                ends[k, 1] = column
        for column in range(columns):
            i = index[row, column]
            if i < 0 or labels[i] < 0:
                continue
            k = labels[i]
            d = np.sqrt(points[i, 0] ** 2 + points[i, 1] ** 2)
            beside = np.zeros(2, np.float32)
            same = 0
            for side in range(2):
                step = 2 * side - 1
                # A gap within a row, behind a post or glass, is no end of it.
                end = column == ends[k, side]
                bare = 0
                for s in range(1, 6):
                    at = (column + step * s) % columns
                    j = index[row, at]
                    if j < 0:
                        bare += not covered[at]
                        continue
                    other = np.sqrt(points[j, 0] ** 2 + points[j, 1] ** 2)
                    if labels[j] == k:
                        beside[side] = other
                        same += s == 1
                    elif end:
                        total[k, side] += 1
                        found[k, side] += other < 0.95 * d
                        total[k, 2] += 1
                        found[k, 2] += labels[j] >= 0 and abs(other - d) < 1.0
                    break
                if end:
                    total[k, 5 + side] += 1
                    found[k, 5 + side] += bare >= 3
            if same == 2:
                total[k, 4] += 1
                bend = abs(beside[0] - 2 * d + beside[1])
                # Along a side seen at a grazing angle the range changes fast, but evenly. Far away
                # such sides are too small to matter, and foliage's steps look even by chance.
                slope = abs(beside[0] - d) + abs(beside[1] - d)
                found[k, 4] += bend < straight + 0.25 * min(1.0, (20.0 / d) ** 2) * slope
    for column in range(columns):
        for row in range(rows):
            i = index[row, column]
            if i >= 0:
                if labels[i] >= 0:
                    total[labels[i], 3] += 1
                    r = np.sqrt(points[i, 0] ** 2 + points[i, 1] ** 2)
                    # Scanners look above the horizon: a first row below is the scene's, not theirs.
                    found[labels[i], 3] += row == 0 and points[i, 2] > _ABOVE_HORIZON * r
                break
    for k in range(count):
        # A few returns prove nothing about smoothness: three of bodywork are assumed beforehand.
        found[k, 4] = (found[k, 4] + 2.1) / (total[k, 4] + 3.0)
        for m in range(7):
            if total[k, m] > 0 and m != 4:
                found[k, m] /= total[k, m]
    return found
