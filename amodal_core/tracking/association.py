"""Which detection is which track: one affinity from masks, motion, range, class and looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.motion import RANGE, Motion, measurement_noise

_NEVER = 1e3


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
    whole = tracks.amodal.iou(detections.amodal, shifts)
    shown = tracks.visible.iou(detections.visible, shifts)
    # Whole masks hold still while the visible ones change with what hides them.
    masks = np.maximum(whole, 0.6 * whole + 0.4 * shown)

    values, noise = motion.values, measurement_noise(measured)
    error = values[:, None, :] - measured[None, :, :]
    variance = motion.covariances[:, None, :, 0] + noise[None] ** 2
    centre = (error[..., :2] ** 2 / variance[..., :2]).sum(axis=-1)
    sizes = np.abs(error[..., 2:4]).max(axis=-1)
    reach = np.sqrt(np.exp(values[:, None, 2:4]) * np.exp(measured[None, :, 2:4]))
    near = (np.abs(error[..., :2]) < 0.6 * reach + 8.0).all(axis=-1)

    away = np.abs(error[..., RANGE])
    both = np.isfinite(away)
    far = np.fmin(values[:, None, RANGE], measured[None, :, RANGE])
    tolerance = 2.0 + max_range_error * np.where(both, far, 0.0)
    range_fit = np.where(both, np.exp(-0.5 * (away / (0.5 * tolerance)) ** 2), 0.5)

    total = 0.55 * masks + 0.2 * np.exp(-0.5 * centre / 4.0) + 0.25 * range_fit
    weight = np.ones_like(total)
    possible = (masks > 0.1) | (near & (centre < 16.0) & (sizes < 0.7))
    possible &= ~(both & (away > tolerance)) & (sizes < 1.6)
    if tracks.embeddings is not None and detections.embeddings is not None:
        cosine = tracks.embeddings @ detections.embeddings.T
        known = np.outer(
            np.any(tracks.embeddings != 0, axis=1), np.any(detections.embeddings != 0, axis=1)
        )
        total += np.where(known, 0.6 * np.clip(cosine, 0.0, 1.0), 0.0)
        weight += np.where(known, 0.6, 0.0)
    total /= weight
    # A class is one frame's opinion: it may decide between equals, not forbid.
    total *= np.where(tracks.class_ids[:, None] == detections.class_ids[None, :], 1.0, 0.85)
    return np.where(possible, total, -np.inf)


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
