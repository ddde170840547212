"""What the scan says about a cluster beside where its returns are: its ends and its surface."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from amodal_core.geometry.config import DEFAULTS, ContextConfig, kernel_values
from amodal_core.geometry.range_image import RangeImage


class ClusterContext(NamedTuple):
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


CONTEXT = np.dtype([(name, np.float64) for name in ClusterContext._fields])


def context_shares(
    points: np.ndarray,
    image: RangeImage,
    labels: np.ndarray,
    count: int,
    config: ContextConfig = DEFAULTS.context,
) -> np.ndarray:
    """(count, 7) float32, the fields of `ClusterContext` of each cluster.

    Args:
        points: (N, 3+) float32, LiDAR frame.
        image: its range image.
        labels: (N,) int32, clusters; -1 for other points, less for clusters that nobody asks about.
        count: of clusters.
        config: what is an end, and what is smooth.
    """
    values = kernel_values(config)
    limits = (
        _straightness(image.index, image.ranges, values),
        np.tan(np.radians(config.above_horizon)),
    )
    return _shares(points, image.index, image.ranges, labels, count, limits, values)


@njit(cache=True)
def _straightness(index: np.ndarray, ranges: np.ndarray, v: ContextConfig) -> float:
    """Metres by which returns of one surface stray from the line between their neighbours.

    Most near returns are of the road, and flat: what they stray by is the scanner's noise.
    """
    bins, total = np.zeros(100, np.int64), 0
    rows, columns = index.shape
    for row in range(rows):
        for column in range(1, columns - 1):
            i, j, k = index[row, column - 1], index[row, column], index[row, column + 1]
            if i < 0 or j < 0 or k < 0:
                continue
            d = ranges[row, column]
            if d < v.noise_nearest or d > v.noise_farthest:
                continue
            before, after = ranges[row, column - 1], ranges[row, column + 1]
            bins[min(int(abs(before - 2 * d + after) / v.noise_bin), 99)] += 1
            total += 1
    if total < v.noise_returns:
        return v.straight
    least, below = 0, bins[0]
    while below < v.noise_share * total:
        least += 1
        below += bins[least]
    # Of normal deviations a quarter is below 0.32 standard deviations, 94 % below 1.85 of them.
    kept = v.noise_bin * (least + 0.5) * v.noise_kept / v.noise_quantile
    return min(max(v.straight, kept), v.straight_most * v.straight)


@njit(cache=True)
def _shares(
    points: np.ndarray,
    index: np.ndarray,
    ranges: np.ndarray,
    labels: np.ndarray,
    count: int,
    limits: tuple[float, float],
    v: ContextConfig,
) -> np.ndarray:
    """(count, 7) float32, `ClusterContext`'s fields of each cluster."""
    rows, columns = index.shape
    straight, horizon = limits
    total = np.zeros((count, 7), np.float32)
    hits = np.zeros((count, 7), np.float32)
    covered = np.zeros(columns, np.bool_)
    owner = np.full((rows, columns), -1, np.int32)
    for row in range(rows):
        for column in range(columns):
            i = index[row, column]
            if i < 0:
                continue
            k = owner[row, column] = labels[i]
            if k >= 0 and not covered[column]:
                # Which clusters the scan's upper end cuts.
                total[k, 3] += 1
                # Scanners look above the horizon: a first row below is the scene's, not theirs.
                hits[k, 3] += row == 0 and points[i, 2] > horizon * ranges[row, column]
            covered[column] = True
    last_row = np.full(count, -1, np.int32)
    ends = np.zeros((count, 2), np.int32)
    beside = np.empty(2, np.float32)
    for row in range(rows):
        # Where each cluster begins and ends in this row: a gap within is no end of it.
        for column in range(columns):
            k = owner[row, column]
            if k >= 0:
                if last_row[k] != row:
                    last_row[k] = row
                    ends[k, 0] = column
                ends[k, 1] = column
        # What stands beside its ends, and how straight its returns lie.
        for column in range(columns):
            k = owner[row, column]
            if k < 0:
                continue
            d = ranges[row, column]
            beside[0] = beside[1] = 0.0
            same = 0
            for side in range(2):
                step = 2 * side - 1
                end = column == ends[k, side]
                bare = 0
                for s in range(1, v.look + 1):
                    at = column + step * s
                    at = at + columns if at < 0 else at - columns if at >= columns else at
                    if index[row, at] < 0:
                        bare += not covered[at]
                        continue
                    other = ranges[row, at]
                    if owner[row, at] == k:
                        beside[side] = other
                        same += s == 1
                    elif end:
                        total[k, side] += 1
                        hits[k, side] += other < v.nearer * d
                        total[k, 2] += 1
                        hits[k, 2] += owner[row, at] != -1 and abs(other - d) < v.touching
                    break
                if end:
                    total[k, 5 + side] += 1
                    hits[k, 5 + side] += bare >= v.bare
            if same == 2:
                total[k, 4] += 1
                bend = abs(beside[0] - 2 * d + beside[1])
                # Along a side seen at a grazing angle the range changes fast, but evenly. Far away
                # such sides are too small to matter, and foliage's steps look even by chance.
                slope = abs(beside[0] - d) + abs(beside[1] - d)
                hits[k, 4] += (
                    bend
                    < straight + v.slant * min(1.0, (v.slant_range / max(d, 1e-6)) ** 2) * slope
                )
    for k in range(count):
        # A few returns prove nothing about smoothness: some of bodywork are assumed beforehand.
        hits[k, 4] = (hits[k, 4] + v.assumed_smooth) / (total[k, 4] + v.assumed)
        for m in range(7):
            if total[k, m] > 0 and m != 4:
                hits[k, m] /= total[k, m]
    return hits
