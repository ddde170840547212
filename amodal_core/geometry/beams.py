"""The lasers of a scanner, told from the elevations at which its returns gather."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter1d

_BIN = np.radians(0.02)
_BLUR = 2.0
"""Bins: rounding and noise spread a laser's returns by about 0.04 degrees."""

_FEWEST, _MOST = 8, 256

_RETURNS = 20
"""Returns a laser: fewer gather here and there by chance."""

_VALLEY = 0.35
"""A laser's density over the one between it and its neighbour: below, the two are apart."""

_EVEN_ROWS = 64


def rows_by_beam(points: np.ndarray) -> np.ndarray:
    """The laser of each return, whatever order the scan is in.

    Lasers of a scanner keep their elevations, and nothing is measured between them: the returns'
    density over elevation has one peak a laser. Where it has not (lasers off the common centre,
    points moved after the measurement) the rows are 64 equal steps of elevation.

    Args:
        points: (N, 3+) float, LiDAR frame; others than finite ones get row 0.

    Returns:
        (N,) int32, 0 looks highest.
    """
    elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    finite = np.isfinite(elevation)
    if not finite.any():
        return np.zeros(len(points), np.int32)
    known = elevation[finite]
    low, high = float(known.min()), float(known.max())
    bins = ((high - np.where(finite, elevation, high)) / _BIN).astype(np.int64)
    borders = _borders(np.bincount(bins[finite]))
    if borders is not None:
        row = np.searchsorted(borders, np.arange(int(bins.max()) + 1), side="right")
        return row.astype(np.int32)[bins]
    scale = (_EVEN_ROWS - 1) / max(high - low, 1e-3)
    return np.rint((high - np.where(finite, elevation, high)) * scale).astype(np.int32)


def _borders(histogram: np.ndarray) -> np.ndarray | None:
    """Bins at which one laser's returns end and the next one's begin; None where they run on."""
    density = gaussian_filter1d(histogram.astype(np.float64), _BLUR, mode="constant")
    before, after = np.append(-1.0, density[:-1]), np.append(density[1:], -1.0)
    # On a level stretch the first bin is the peak.
    peaks = np.flatnonzero((density > before) & (density >= after) & (density > 0.1))
    if not _FEWEST <= len(peaks) <= _MOST or histogram.sum() < _RETURNS * len(peaks):
        return None
    borders = np.array([a + int(np.argmin(density[a : b + 1])) for a, b in pairwise(peaks)])
    lower = np.minimum(density[peaks[:-1]], density[peaks[1:]])
    apart = density[borders] < _VALLEY * lower
    # Lasers are apart nearly everywhere, or these are not lasers.
    return borders[apart] if np.mean(apart) > 0.8 else None
