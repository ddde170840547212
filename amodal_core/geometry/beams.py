"""The lasers of a scanner, told from the elevations at which its returns gather."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
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
    low, high = float(known.min()), float(known.max())
    below = high - (elevation if known is elevation else np.where(finite, elevation, high))
    bins = (below / np.radians(config.elevation_bin)).astype(np.int64)
    borders = _borders(np.bincount(bins if known is elevation else bins[finite]), config)
    if borders is not None:
        row = np.searchsorted(borders, np.arange(int(bins.max()) + 1), side="right")
        return row.astype(np.int32)[bins]
    scale = (config.even_rows - 1) / max(high - low, 1e-3)
    return np.rint(below * scale).astype(np.int32)


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
    borders = np.array([a + int(np.argmin(density[a : b + 1])) for a, b in pairwise(peaks)])
    lower = np.minimum(density[peaks[:-1]], density[peaks[1:]])
    apart = density[borders] < config.valley * lower
    # Lasers are apart nearly everywhere, or these are not lasers.
    return borders[apart] if np.mean(apart) > config.apart else None
