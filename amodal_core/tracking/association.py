"""Which detection is which track: one affinity from masks, motion, range, class and embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.optimize import linear_sum_assignment

from amodal_core.frame import BORDER
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.motion import RANGE, Motion, measurement_noise

_IMPOSSIBLE = 1e3

_MIN_OVERLAP = 0.3  # mask IoU; a pair that overlaps less has to be near by its boxes
NEAR, NEAR_PIXELS = 0.6, 8.0  # centres apart, in boxes and pixels
MAX_CENTRE = 16.0  # squared Mahalanobis distance of the centres
MAX_SIZE_ERROR, MAX_SIZE_ERROR_APART = 1.6, 0.7  # log of the ratio of the sides
MAX_APART = 1.0  # metres between places in space, of what the image cuts off
EMBEDDING_WEIGHT = 0.6  # weight of the embeddings beside all the rest


@dataclass(eq=False)
class Appearance:
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
def _affinities(
    amodal_iou: np.ndarray,
    visible_iou: np.ndarray,
    values: np.ndarray,
    spread: np.ndarray,
    measured: np.ndarray,
    noise: np.ndarray,
    apart: np.ndarray,
    same_class: np.ndarray,
    cosine: np.ndarray,
    max_range_error: float,
) -> np.ndarray:
    out = np.full(amodal_iou.shape, -np.inf)
    for t in range(amodal_iou.shape[0]):
        for d in range(amodal_iou.shape[1]):
            width_error = abs(values[t, 2] - measured[d, 2])
            size_error = max(width_error, abs(values[t, 3] - measured[d, 3]))
            # What leaves the view at the image's border changes its outline by leaps, not its way.
            on_its_way = apart[t, d] <= MAX_APART
            if size_error > MAX_SIZE_ERROR and not on_its_way:
                continue
            # Amodal masks hold still while the visible ones change with what hides them.
            overlap = max(amodal_iou[t, d], 0.6 * amodal_iou[t, d] + 0.4 * visible_iou[t, d])
            if on_its_way:
                overlap = max(overlap, 1.0 - apart[t, d] / (2 * MAX_APART))
            du, dv = values[t, 0] - measured[d, 0], values[t, 1] - measured[d, 1]
            centre = du * du / (spread[t, 0] + noise[d, 0] ** 2)
            centre += dv * dv / (spread[t, 1] + noise[d, 1] ** 2)
            if overlap <= _MIN_OVERLAP:
                reach_u = NEAR * np.exp(0.5 * (values[t, 2] + measured[d, 2])) + NEAR_PIXELS
                reach_v = NEAR * np.exp(0.5 * (values[t, 3] + measured[d, 3])) + NEAR_PIXELS
                if abs(du) > reach_u or abs(dv) > reach_v or centre > MAX_CENTRE:
                    continue
                if size_error > MAX_SIZE_ERROR_APART:
                    continue
            range_fit = 0.5
            range_error = abs(values[t, RANGE] - measured[d, RANGE])
            if np.isfinite(range_error):
                nearer = min(values[t, RANGE], measured[d, RANGE])
                tolerance = 2.0 + max_range_error * nearer
                if range_error > tolerance:
                    continue
                range_fit = np.exp(-2.0 * (range_error / tolerance) ** 2)
            fit = 0.55 * overlap + 0.2 * np.exp(-0.125 * centre) + 0.25 * range_fit
            if cosine.shape[0] and np.isfinite(cosine[t, d]):
                fit = (fit + EMBEDDING_WEIGHT * max(cosine[t, d], 0.0)) / (1.0 + EMBEDDING_WEIGHT)
            # A class is one frame's opinion: it may decide between equals, not forbid.
            out[t, d] = fit if same_class[t, d] else 0.85 * fit
    return out


def within_image(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What a camera would measure of predictions: the part that lies in its image.

    Args:
        values: (T, 8), see `motion.measure`; its first four are a box's centre and log sides.
        size: (height, width) of the image in pixels.

    Returns:
        (T, 8); predictions that lie wholly outside stay as they are.
    """
    result, centres, half = np.array(values), values[:, :2], np.exp(values[:, 2:4]) / 2
    low, high = (np.minimum(np.maximum(v, 0), size[::-1]) for v in (centres - half, centres + half))
    length = high - low
    cut = length >= 1.0
    np.copyto(result[:, :2], (low + high) / 2, where=cut)
    np.log(length, out=result[:, 2:4], where=cut)
    return result


def _apart(values: np.ndarray, measured: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, D) metres over ground between tracks' and detections' boxes in space.

    NaN where either has none, and where the image shows the whole of a detection.
    """
    half = np.exp(measured[:, 2:4]) / 2
    low, high = measured[:, :2] - half, measured[:, :2] + half
    cut = (low[:, 0] < BORDER) | (high > np.array(size[::-1]) - BORDER).any(axis=1)
    offset = values[:, None, 5:7] - measured[None, :, 5:7]
    apart = np.hypot(offset[..., 0], offset[..., 1])
    return np.where(cut[None], apart, np.nan)


def affinity(
    tracks: Appearance,
    boxes: np.ndarray,
    motion: Motion,
    detections: Appearance,
    measured: np.ndarray,
    max_range_error: float,
) -> np.ndarray:
    """How well each pair fits.

    Args:
        tracks: T tracks as they were last matched.
        boxes: (T, 4) float, where they were then, xyxy in pixels.
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
        available = np.outer(np.any(a != 0, axis=1), np.any(b != 0, axis=1))
        cosine = np.where(available, a @ b.T, np.nan).astype(np.float64)
    # An object that leaves the view is measured by what is left of it.
    measurable = within_image(motion.values, detections.amodal.size)
    shifts = np.rint(measurable[:, :2] - (boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.int64)
    return _affinities(
        tracks.amodal.iou(detections.amodal, shifts),
        tracks.visible.iou(detections.visible, shifts),
        measurable,
        np.ascontiguousarray(motion.covariances[..., 0]),
        measured,
        measurement_noise(measured),
        _apart(motion.values, measured, detections.amodal.size),
        tracks.class_ids[:, None] == detections.class_ids[None, :],
        cosine,
        max_range_error,
    )


def assign(affinities: np.ndarray, minimum: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of the largest total affinity, each row and column in one at most.

    Args:
        affinities: (T, D), -inf where a pair is impossible.
        minimum: pairs below this are left apart.

    Returns:
        Row and column indices of the pairs, rows ascending.
    """
    if affinities.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cost = np.where(affinities >= minimum, 1.0 - affinities, _IMPOSSIBLE)
    rows, columns = linear_sum_assignment(cost)
    keep = cost[rows, columns] < _IMPOSSIBLE
    return rows[keep], columns[keep]
