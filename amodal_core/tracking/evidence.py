"""What became of a track that no detection explains: hidden, gone, or merely overlooked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.masks.mask_set import RleMasks

_REACHED = 0.4  # share of a place's height from which on nearer returns hide it


@dataclass(eq=False)
class PlaceEvidence:
    """What speaks for and against T unmatched tracks.

    Attributes:
        hidden: (T,) bool, something nearer lies over most of the place where it should be.
        absent: (T,) bool, returns from clearly beyond show that the place is empty.
    """

    hidden: np.ndarray
    absent: np.ndarray


def weigh_evidence(
    masks: RleMasks,
    ranges: np.ndarray,
    deviations: np.ndarray,
    others: RleMasks,
    other_depths: np.ndarray,
    depth: np.ndarray | None,
    min_returns: int = 6,
) -> PlaceEvidence:
    """Look at the place of each unmatched track.

    Args:
        masks: T predicted amodal masks.
        ranges: (T,) predicted ranges in metres, NaN where unknown.
        deviations: (T,) their standard deviations.
        others: visible masks of the S tracks that are matched in this frame.
        other_depths: (S,) metres, 0 where unknown.
        depth: (H, W) float32 metres, 0 where no return falls; or None.
        min_returns: fewer returns than this say nothing.
    """
    areas = masks.areas()
    gap = 1.0 + 0.03 * np.nan_to_num(ranges) + np.minimum(np.nan_to_num(deviations), 3.0)
    # Where either range is unknown, a mask that lies over the place may well be in front.
    both_ranges = np.isfinite(ranges)[:, None] & (other_depths > 0)[None, :]
    in_front = ~both_ranges | (other_depths[None, :] < (ranges - 0.5 * gap)[:, None])
    shared = masks.intersections(others)
    covered = np.where(in_front, shared, 0).sum(axis=1) / np.maximum(areas, 1)
    hidden = covered >= 0.5
    absent = np.zeros(len(masks), bool)
    if depth is None or len(masks) == 0:
        return PlaceEvidence(hidden, absent)
    crops, offsets = masks.crops()
    for i, (crop, (x, y)) in enumerate(zip(crops, offsets.tolist(), strict=True)):
        if not np.isfinite(ranges[i]):
            continue
        window = np.where(crop, depth[y : y + crop.shape[0], x : x + crop.shape[1]], 0.0)
        returns = window[window > 0]
        if len(returns) < min_returns:
            continue
        nearer = float((returns < ranges[i] - gap[i]).mean())
        beyond = float((returns > ranges[i] + gap[i]).mean())
        # A scan ends somewhere above: what no return reaches is not hidden by those below it.
        rows = np.flatnonzero((window > 0).any(axis=1))
        reached = (rows[-1] - rows[0] + 1) / len(crop)
        hidden[i] |= nearer >= 0.5 and nearer * reached >= _REACHED
        absent[i] = beyond >= 0.5 and nearer < 0.3 and covered[i] < 0.5
    return PlaceEvidence(hidden, absent)
