"""Occlusion order in scenes where the right answer can be counted by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates, visible_from_order

SIZE = (20, 30)


def boxes(*corners: tuple[int, int, int, int]) -> RleMasks:
    return RleMasks.from_boxes(np.array(corners, np.float32).reshape(-1, 4), SIZE)


def test_the_nearer_of_two_overlapping_boxes_hides_part_of_the_other() -> None:
    amodal = boxes((2, 2, 12, 12), (6, 6, 20, 16))
    depths = np.array([5.0, 9.0])
    visible = visible_from_order(amodal, depths)
    assert visible.areas().tolist() == [100, 140 - 36]
    assert occlusion_order(depths, amodal, visible).tolist() == [[False, False], [True, False]]
    np.testing.assert_allclose(occlusion_rates(amodal, visible), [0.0, 36 / 140], rtol=1e-6)


def test_a_chain_hides_link_by_link_and_not_through() -> None:
    # The nearest lies over the middle one only where the farthest is not.
    amodal = boxes((0, 0, 10, 10), (5, 0, 20, 10), (15, 0, 28, 10))
    depths = np.array([3.0, 6.0, 9.0])
    order = occlusion_order(depths, amodal, visible_from_order(amodal, depths))
    assert np.argwhere(order).tolist() == [[1, 0], [2, 1]]


def test_only_what_is_seen_hides() -> None:
    # The middle one lies wholly behind the nearest: what hides the farthest there is the nearest.
    amodal = boxes((5, 5, 20, 15), (6, 6, 18, 14), (7, 7, 25, 13))
    depths = np.array([3.0, 6.0, 9.0])
    order = occlusion_order(depths, amodal, visible_from_order(amodal, depths))
    assert np.argwhere(order).tolist() == [[1, 0], [2, 0]]


def test_unknown_and_equal_depths_make_no_order() -> None:
    amodal = boxes((0, 0, 10, 10), (5, 0, 20, 10), (8, 0, 28, 10), (2, 0, 18, 10))
    depths = np.array([4.0, 4.0, 0.0, np.nan])
    visible = boxes((0, 0, 10, 10), (10, 0, 20, 10), (20, 0, 28, 10), (0, 0, 0, 0))
    assert not occlusion_order(depths, amodal, visible).any()


def hidden_below(shared: int, area: int) -> np.ndarray:
    """The order of a row of pixels and an object of that area with so many pixels below it."""
    size = (2, 1000)
    amodal = RleMasks.from_boxes(
        np.array([(0, 0, 600, 1), (600 - shared, 0, 600 - shared + area, 1)]), size
    )
    depths = np.array([3.0, 6.0])
    return occlusion_order(depths, amodal, visible_from_order(amodal, depths))


def test_less_than_four_pixels_are_a_ragged_border() -> None:
    assert not hidden_below(3, 50).any()
    assert np.argwhere(hidden_below(4, 50)).tolist() == [[1, 0]]


def test_less_than_a_hundredth_of_a_large_object_is_a_ragged_border() -> None:
    assert not hidden_below(4, 401).any()
    assert np.argwhere(hidden_below(4, 400)).tolist() == [[1, 0]]


def test_none_and_one_object_make_empty_orders() -> None:
    for n in (0, 1):
        amodal = boxes(*[(0, 0, 5, 5)] * n)
        depths = np.full(n, 3.0)
        visible = visible_from_order(amodal, depths)
        assert visible.counts == amodal.counts
        assert occlusion_order(depths, amodal, visible).shape == (n, n)
        assert occlusion_rates(amodal, visible).shape == (n,)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_visible_masks_tile_the_union_and_order_is_acyclic(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 18, (n, 2))
    amodal = boxes(*np.concatenate([corner, corner + rng.integers(1, 14, (n, 2))], 1))
    depths = rng.integers(0, 5, n).astype(np.float64)
    visible = visible_from_order(amodal, depths)
    dense = visible.dense()
    assert (dense.sum(0) <= 1).all()
    np.testing.assert_array_equal(dense.any(0), amodal.dense().any(0))
    order = occlusion_order(depths, amodal, visible)
    for i, j in np.argwhere(order):
        assert depths[j] < depths[i]
        assert (amodal.dense()[i] & ~dense[i] & dense[j]).any()
