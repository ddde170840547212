"""Which detection is which track: one affinity from masks, motion, range, class and looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.optimize import linear_sum_assignment

from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.motion import RANGE, Motion, measurement_noise

_NEVER = 1e3

LEAST_OVERLAP = 0.1  # mask IoU; a pair that overlaps less has to be near by its boxes
NEAR, NEAR_PIXELS = 0.6, 8.0  # centres apart, in boxes and pixels
MAX_CENTRE = 16.0  # squared Mahalanobis distance of the centres
MAX_SIZE_ERROR, MAX_SIZE_ERROR_APART = 1.6, 0.7  # log of the ratio of the sides
LOOKS = 0.6  # weight of the embeddings beside all the rest


@dataclass(eq=False)
class Looks:
    """What association compares of N tracks or detections.

    Attributes:
        amodal: N masks.
        visible: N masks.
        class_ids: (N,) int64.
        embeddings: (N, D) float32 of length one, rows of zeros where unknown; or None.
    """

    amodal: RleMasks
    visible: RleMasks
    class_ids: np.ndarray
    embeddings: np.ndarray | None


@njit(cache=True, nogil=True)
def _fits(whole, shown, values, spread, measured, noise, same, cosine, max_range_error):  # type: ignore[no-untyped-def]
    out = np.full(whole.shape, -np.inf)
    for t in range(whole.shape[0]):
        for d in range(whole.shape[1]):
            width_error = abs(values[t, 2] - measured[d, 2])
            size_error = max(width_error, abs(values[t, 3] - measured[d, 3]))
            if size_error > MAX_SIZE_ERROR:
                continue
            # Whole masks hold still while the visible ones change with what hides them.
            masks = max(whole[t, d], 0.6 * whole[t, d] + 0.4 * shown[t, d])
            du, dv = values[t, 0] - measured[d, 0], values[t, 1] - measured[d, 1]
            centre = du * du / (spread[t, 0] + noise[d, 0] ** 2)
            centre += dv * dv / (spread[t, 1] + noise[d, 1] ** 2)
            if masks <= LEAST_OVERLAP:
                reach_u = NEAR * np.exp(0.5 * (values[t, 2] + measured[d, 2])) + NEAR_PIXELS
                reach_v = NEAR * np.exp(0.5 * (values[t, 3] + measured[d, 3])) + NEAR_PIXELS
                if abs(du) > reach_u or abs(dv) > reach_v or centre > MAX_CENTRE:
                    continue
                if size_error > MAX_SIZE_ERROR_APART:
                    continue
            range_fit = 0.5
            away = abs(values[t, RANGE] - measured[d, RANGE])
            if np.isfinite(away):
                nearer = min(values[t, RANGE], measured[d, RANGE])
                tolerance = 2.0 + max_range_error * nearer
                if away > tolerance:
                    continue
                range_fit = np.exp(-2.0 * (away / tolerance) ** 2)
            fit = 0.55 * masks + 0.2 * np.exp(-0.125 * centre) + 0.25 * range_fit
            if cosine.shape[0] and np.isfinite(cosine[t, d]):
                fit = (fit + LOOKS * max(cosine[t, d], 0.0)) / (1.0 + LOOKS)
            # A class is one frame's opinion: it may decide between equals, not forbid.
            out[t, d] = fit if same[t, d] else 0.85 * fit
    return out


def affinity(
    tracks: Looks,
    shifts: np.ndarray,
    motion: Motion,
    detections: Looks,
    measured: np.ndarray,
    max_range_error: float,
) -> np.ndarray:
    """How well each pair fits.

    Args:
        tracks: T tracks as they were last seen.
        shifts: (T, 2) int, from there to where they are predicted, pixels.
        motion: the T predicted states.
        detections: D detections.
        measured: (D, 8), their quantities.
        max_range_error: share of the range by which a pair may differ beyond 2 m.

    Returns:
        (T, D) float64, 0-1 where a pair is possible, -inf where it is not.
    """
    cosine = np.zeros((0, 0))
    if tracks.embeddings is not None and detections.embeddings is not None:
        a, b = tracks.embeddings, detections.embeddings
        known = np.outer(np.any(a != 0, axis=1), np.any(b != 0, axis=1))
        cosine = np.where(known, a @ b.T, np.nan).astype(np.float64)
    return _fits(
        tracks.amodal.iou(detections.amodal, shifts),
        tracks.visible.iou(detections.visible, shifts),
        motion.values,
        np.ascontiguousarray(motion.covariances[..., 0]),
        measured,
        measurement_noise(measured),
        tracks.class_ids[:, None] == detections.class_ids[None, :],
        cosine,
        max_range_error,
    )


def assign(fits: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of the largest total affinity, each row and column in one at most.

    Args:
        fits: (T, D) affinities, -inf where a pair is impossible.
        least: pairs below this are left apart.

    Returns:
        Row and column indices of the pairs, rows ascending.
    """
    if fits.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cost = np.where(fits >= least, 1.0 - fits, _NEVER)
    rows, columns = linear_sum_assignment(cost)
    keep = cost[rows, columns] < _NEVER
    return rows[keep], columns[keep]
