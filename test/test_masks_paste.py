"""Pasting gives the mask that a full-image interpolation gives, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amodal_core.masks.mask_set import BoxMasks, Masks, concatenated
from amodal_core.masks.paste import paste_dense

SIZE = (23, 31)


def interpolated(logits: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The obvious way: each pixel of the image for itself; NaN outside the box."""
    side = len(logits)
    out = np.full(size, np.nan)
    x0, y0, x1, y1 = box.astype(np.float64)
    if not (np.isfinite(box).all() and x1 > x0 and y1 > y0):
        return out
    for v in range(size[0]):
        for u in range(size[1]):
            if not (x0 <= u + 0.5 < x1 and y0 <= v + 0.5 < y1):
                continue
            x = min(max((u + 0.5 - x0) / (x1 - x0) * side - 0.5, 0), side - 1)
            y = min(max((v + 0.5 - y0) / (y1 - y0) * side - 0.5, 0), side - 1)
            i, j = min(int(x), max(side - 2, 0)), min(int(y), max(side - 2, 0))
            i1, j1, s, t = min(i + 1, side - 1), min(j + 1, side - 1), x - i, y - j
            top = (1 - s) * logits[j, i] + s * logits[j, i1]
            bottom = (1 - s) * logits[j1, i] + s * logits[j1, i1]
            out[v, u] = (1 - t) * top + t * bottom
    return out


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 4))
def test_both_ways_equal_the_interpolated_image(seed: int, side: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, side, side)).astype(np.float32)
    corner = rng.uniform(-15, 30, (n, 2))
    # Partly outside, thinner than a pixel, and turned inside out.
    boxes = np.concatenate([corner, corner + rng.uniform(-2, 40, (n, 2))], 1).astype(np.float32)
    runs = BoxMasks(SIZE, torch.from_numpy(logits), torch.from_numpy(boxes)).rle()
    pixels = paste_dense(torch.from_numpy(logits), torch.from_numpy(boxes), SIZE).numpy()
    assert len(runs) == len(pixels) == n
    for k in range(n):
        truth = interpolated(logits[k], boxes[k], SIZE)
        clear = np.isnan(truth) | (np.abs(truth) > 1e-4)
        expected = np.nan_to_num(truth, nan=-1.0) > 0
        np.testing.assert_array_equal(runs.dense()[k][clear], expected[clear])
        # In float32 a centre within rounding of the box's edge may fall on either side.
        assert (pixels[k] != expected)[clear].sum() == 0 or _on_edge(boxes[k])


def _on_edge(box: np.ndarray) -> bool:
    return bool((np.abs((box - 0.5) - np.rint(box - 0.5)) < 1e-3).any())


def test_no_masks_give_no_masks() -> None:
    none = torch.zeros((0, 28, 28)), torch.zeros((0, 4))
    assert BoxMasks(SIZE, *none).rle().counts == []
    assert paste_dense(*none, SIZE).shape == (0, *SIZE)


def test_boxes_without_an_area_or_beside_the_image_give_empty_masks() -> None:
    boxes = torch.tensor(
        [
            [5, 5, 5, 9],
            [9, 9, 5, 5],
            [float("nan"), 0, 9, 9],
            [0, 0, float("inf"), 9],
            [-20, -20, -1, -1],
            [40, 2, 60, 9],
        ]
    )
    logits = torch.ones((6, 4, 4))
    assert BoxMasks(SIZE, logits, boxes).rle().areas().tolist() == [0] * 6
    assert not paste_dense(logits, boxes, SIZE).any()


def test_a_grid_of_ones_fills_exactly_its_box() -> None:
    masks = BoxMasks(SIZE, torch.ones((1, 28, 28)), torch.tensor([[4.0, 3.0, 11.0, 8.0]])).rle()
    assert masks.boxes().tolist() == [[4, 3, 11, 8]]
    assert masks.areas().tolist() == [35]


def test_a_pixel_whose_centre_lies_on_an_edge_is_inside_on_the_left_and_above_alone() -> None:
    logits, boxes = torch.ones((1, 4, 4)), torch.tensor([[3.5, 2.5, 7.5, 8.5]])
    expected = np.zeros(SIZE, bool)
    expected[2:8, 3:7] = True
    np.testing.assert_array_equal(BoxMasks(SIZE, logits, boxes).rle().dense()[0], expected)
    np.testing.assert_array_equal(paste_dense(logits, boxes, SIZE)[0].numpy(), expected)


def test_halves_and_enormous_boxes_are_taken() -> None:
    logits = torch.ones((1, 14, 14), dtype=torch.float16)
    box = torch.tensor([[-1e6, -1e6, 1e6, 1e6]], dtype=torch.float64)
    assert BoxMasks(SIZE, logits, box).rle().areas().tolist() == [SIZE[0] * SIZE[1]]


def test_box_masks_become_rle() -> None:
    masks = BoxMasks(SIZE, torch.ones((3, 7, 7)), torch.tensor([[0.0, 0, 4, 4]] * 3))
    assert masks[torch.tensor([2, 0])].rle().areas().tolist() == [16, 16]


def test_grids_and_boxes_that_do_not_fit_are_refused() -> None:
    for logits, boxes in (((2, 7, 7), (3, 4)), ((2, 7, 6), (2, 4)), ((2, 7, 7), (2, 5))):
        with pytest.raises(ValueError, match="do not fit"):
            BoxMasks(SIZE, torch.ones(logits), torch.ones(boxes)).rle()


@pytest.mark.parametrize("sides", [(6, 6), (6, 9)])
def test_sets_one_after_the_other_are_pasted_as_each_is(sides: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    boxes = np.array([[2, 3, 20, 15], [-4, 5, 9, 30]], np.float32)
    sets: list[Masks] = [
        BoxMasks(SIZE, rng.normal(size=(2, side, side)).astype(np.float32), boxes + n)
        for n, side in enumerate(sides)
    ]
    both = concatenated(sets)
    assert isinstance(both, BoxMasks) == (sides[0] == sides[1])  # logits stay so where they can
    assert both.rle().counts == sets[0].rle().counts + sets[1].rle().counts
    mixed = concatenated([sets[0], sets[1].rle()])
    assert mixed.rle().counts == both.rle().counts
