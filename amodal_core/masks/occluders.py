"""Who hides whom: the one rule of what counts as an occlusion, from masks and depths."""

from __future__ import annotations

import numpy as np

from amodal_core.masks.mask_set import RleMasks

# Fewer shared pixels, or a smaller share of the hidden object's amodal area, are ragged borders.
MIN_PIXELS, MIN_SHARE = 4, 0.01


def least_shared(areas: np.ndarray) -> np.ndarray:
    """Pixels that another object must show of what an object hides, to be its occluder.

    Args:
        areas: amodal areas of hidden objects in pixels, of any shape.
    """
    return np.maximum(MIN_PIXELS, MIN_SHARE * areas)


def hiding(amodal: RleMasks, visible: RleMasks, pairs: np.ndarray | None = None) -> np.ndarray:
    """(N, N) bool, [i, j] where j shows enough of what i does not (its amodal without its visible).

    Args:
        amodal: N masks.
        visible: N masks, each a subset of its amodal one.
        pairs: (N, N) bool, which to look at, None for all; False of the others.
    """
    shared = (amodal - visible).intersections(visible, pairs=pairs)
    return np.asarray(shared >= least_shared(amodal.areas())[:, None])


def occlusion_order(depths: np.ndarray, amodal: RleMasks, visible: RleMasks) -> np.ndarray:
    """Which object hides part of which: j hides i when it is nearer and `hiding` says so.

    Objects of equal or unknown depth hide nothing of each other, so the result never holds both
    [i, j] and [j, i].

    Args:
        depths: (N,) float metres, 0 or not finite where unknown.
        amodal: N amodal masks.
        visible: N visible masks.

    Returns:
        (N, N) bool, [i, j] where j hides part of i.
    """
    depths = _far_where_unknown(depths)
    nearer = (depths[None, :] < depths[:, None]) & np.isfinite(depths)[:, None]
    return hiding(amodal, visible, nearer)


def visible_from_order(amodal: RleMasks, depths: np.ndarray) -> RleMasks:
    """Visible masks when nothing but these objects hides anything.

    Args:
        amodal: N amodal masks.
        depths: (N,) float metres; 0 or not finite (unknown) counts as farthest, equal depths in
            the order of their indices.
    """
    return amodal.layered(np.argsort(_far_where_unknown(depths), kind="stable"))


def occlusion_rates(amodal: RleMasks, visible: RleMasks) -> np.ndarray:
    """(N,) float32, the share of each amodal area that the visible mask lacks; 0 where empty."""
    areas = amodal.areas()
    rates = 1.0 - visible.areas() / np.maximum(areas, 1)
    return np.where(areas > 0, np.clip(rates, 0.0, 1.0), 0.0).astype(np.float32)


def _far_where_unknown(depths: np.ndarray) -> np.ndarray:
    depths = np.asarray(depths, np.float64)
    return np.where(np.isfinite(depths) & (depths > 0), depths, np.inf)
