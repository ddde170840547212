"""Who hides whom: pairwise occlusion order from depth and masks."""

from __future__ import annotations

import numpy as np

from amodal_core.masks.mask_set import RleMasks


def occlusion_order(
    depths: np.ndarray,
    amodal: RleMasks,
    visible: RleMasks,
    min_pixels: int = 4,
    min_share: float = 0.01,
) -> np.ndarray:
    """Which object hides part of which.

    j hides i when j is nearer and j's visible mask covers enough of what i does not show (its
    amodal mask without its visible one). Objects of equal or unknown depth hide nothing of each
    other, so
    the result never holds both [i, j] and [j, i].

    Args:
        depths: (N,) float metres, 0 or not finite where unknown.
        amodal: N amodal masks.
        visible: N visible masks.
        min_pixels: fewer shared pixels than this are ragged borders, not an occlusion.
        min_share: nor is a smaller share of i's amodal area.

    Returns:
        (N, N) bool, [i, j] where j hides part of i.
    """
    depths = np.asarray(depths, np.float64)
    known = np.isfinite(depths) & (depths > 0)
    nearer = (depths[None, :] < depths[:, None]) & known[None, :] & known[:, None]
    covered = (amodal - visible).intersections(visible)
    enough = np.maximum(min_pixels, min_share * amodal.areas())[:, None]
    return nearer & (covered >= enough)


def visible_from_order(amodal: RleMasks, depths: np.ndarray) -> RleMasks:
    """Visible masks when nothing but these objects hides anything.

    Args:
        amodal: N amodal masks.
        depths: (N,) float metres; 0 or not finite (unknown) counts as farthest, equal depths in
            the order of their indices.
    """
    depths = np.asarray(depths, np.float64)
    known = np.isfinite(depths) & (depths > 0)
    order = np.argsort(np.where(known, depths, np.inf), kind="stable")
    return amodal.layered(order)


def occlusion_rates(amodal: RleMasks, visible: RleMasks) -> np.ndarray:
    """(N,) float32, the share of each amodal area that the visible mask lacks; 0 where empty."""
    whole = amodal.areas()
    rates = 1.0 - visible.areas() / np.maximum(whole, 1)
    return np.where(whole > 0, np.clip(rates, 0.0, 1.0), 0.0).astype(np.float32)
