"""The lasers of a scanner, told from the elevations at which its returns gather."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter1d

from amodal_core.geometry.config import RangeImageConfig


def rows_by_beam(elevation: np.ndarray, config: RangeImageConfig) -> np.ndarray:
    """The laser of each return, whatever order the scan is in.

    Lasers of a scanner keep their elevations, and nothing is measured between them: the returns'
    density over elevation has one peak a laser. Where it has not (lasers off the common centre,
    points moved after the measurement) the rows are equal steps of elevation.

    Args:
        elevation: (N,) float32 radians of each return; others than finite ones get row 0.
        config: `elevation_bin` and what follows it.

    Returns:
        (N,) int32, 0 looks highest.
    """
    finite = np.isfinite(elevation)
    if not finite.any():
        return np.zeros(len(elevation), np.int32)
    known = elevation if finite.all() else elevation[finite]
    low, high = known.min(), known.max()
    step = np.radians(config.elevation_bin)
    bins, histogram = _binned(elevation, high, step, int(np.float64(high - low) / step) + 1)
    borders = _borders(histogram, config)
    if borders is not None:
        row = np.searchsorted(borders, np.arange(len(histogram)), side="right")
        return row.astype(np.int32).take(bins)
    scale = np.float32((config.even_rows - 1) / max(float(high) - float(low), 1e-3))
    return np.rint((high - np.where(finite, elevation, high)) * scale).astype(np.int32)


@njit(cache=True)
def _binned(
    elevation: np.ndarray, high: float, step: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The bin below the highest of each return, 0 of others than finite ones; returns by bin."""
    bins = np.empty(len(elevation), np.int32)
    for i in range(len(elevation)):
        known = np.isfinite(elevation[i])
        bins[i] = np.int32((high - elevation[i]) / step) if known else np.int32(0)
    histogram = np.zeros(count, np.int64)
    for i in range(len(elevation)):
        histogram[bins[i]] += np.isfinite(elevation[i])
    return bins, histogram


def _borders(histogram: np.ndarray, config: RangeImageConfig) -> np.ndarray | None:
    """Bins at which one laser's returns end and the next one's begin; None where they run on."""
    density = gaussian_filter1d(
        histogram.astype(np.float64), config.elevation_blur, mode="constant"
    )
    before, after = np.append(-1.0, density[:-1]), np.append(density[1:], -1.0)
    # On a level stretch the first bin is the peak.
    peaks = np.flatnonzero(
        (density > before) & (density >= after) & (density > config.least_density)
    )
    if not config.fewest_lasers <= len(peaks) <= config.most_lasers:
        return None
    if histogram.sum() < config.laser_returns * len(peaks):
        return None
    borders = _valleys(density, peaks)
    lower = np.minimum(density[peaks[:-1]], density[peaks[1:]])
    apart = density[borders] < config.valley * lower
    # Lasers are apart nearly everywhere, or these are not lasers.
    return borders[apart] if np.mean(apart) > config.apart else None


@njit(cache=True)
def _valleys(density: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """The first of the lowest places between each two peaks."""
    lowest = peaks[:-1].copy()
    for k in range(len(lowest)):
        for place in range(peaks[k], peaks[k + 1] + 1):
            if density[place] < density[lowest[k]]:
                lowest[k] = place
    return lowest
