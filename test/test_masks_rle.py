"""RLE masks do on runs exactly what NumPy does on pixels and pycocotools on whole images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from amodal_core.frame import Instances
from amodal_core.masks.mask_set import RleMasks


@st.composite
def stacks(draw: st.DrawFn, sets: int = 1) -> tuple[np.ndarray, ...]:
    """Sets of 0-5 random masks over one image: empty, full, sparse, dense and blocky ones."""
    height, width, n = draw(st.integers(1, 24)), draw(st.integers(1, 24)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    out = []
    for _ in range(sets):
        share = rng.choice([0.0, 0.05, 0.5, 0.95, 1.0], (n, 1, 1))
        masks = rng.random((n, height, width)) < share
        for mask in masks[::2]:
            v, u = rng.integers(0, height), rng.integers(0, width)
            mask[v : v + 9, u : u + 9] ^= True
        out.append(masks)
    return tuple(out)


def of_pycocotools(masks: np.ndarray) -> list[bytes]:
    return [coco.encode(np.asfortranarray(m.astype(np.uint8)))["counts"] for m in masks]


@given(stacks())
def test_crops_encode_to_the_bytes_of_pycocotools_for_the_full_mask(sets: tuple) -> None:
    (masks,) = sets
    size = masks.shape[1:]
    crops, offsets = RleMasks(size, of_pycocotools(masks)).crops()
    assert RleMasks.from_crops(crops, offsets, size).counts == of_pycocotools(masks)


@given(stacks(), st.integers(-30, 30), st.integers(-30, 30))
def test_a_crop_anywhere_is_cut_by_the_image(sets: tuple, x: int, y: int) -> None:
    (masks,) = sets
    n, height, width = masks.shape
    image = np.zeros((n, 20, 17), bool)
    for v in range(height):
        for u in range(width):
            if 0 <= v + y < 20 and 0 <= u + x < 17:
                image[:, v + y, u + x] = masks[:, v, u]
    made = RleMasks.from_crops(list(masks), np.tile([x, y], (n, 1)), (20, 17))
    assert made.counts == of_pycocotools(image)


@given(stacks())
def test_crops_are_the_tight_boxes(sets: tuple) -> None:
    (masks,) = sets
    result, offsets = RleMasks.from_dense(masks).crops()
    assert len(result) == len(masks)
    for mask, crop, (x, y) in zip(masks, result, offsets, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            assert crop.size == 0
            continue
        assert (x, y) == (columns[0], rows[0])
        np.testing.assert_array_equal(
            crop, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        )


@given(stacks())
def test_areas_and_boxes_are_those_of_the_pixels(sets: tuple) -> None:
    (masks,) = sets
    rle = RleMasks(masks.shape[1:], of_pycocotools(masks))
    np.testing.assert_array_equal(rle.areas(), masks.sum((1, 2)))
    for mask, box in zip(masks, rle.boxes(), strict=True):
        v, u = np.nonzero(mask)
        truth = [u.min(), v.min(), u.max() + 1, v.max() + 1] if len(u) else [0, 0, 0, 0]
        assert box.tolist() == truth


@given(stacks(sets=2))
def test_iou_is_that_of_the_pixels(sets: tuple) -> None:
    a, b = sets
    shared = (a[:, None] & b[None]).sum((2, 3))
    union = (a[:, None] | b[None]).sum((2, 3))
    ours = RleMasks.from_dense(a).iou(RleMasks.from_dense(b))
    np.testing.assert_allclose(ours, shared / np.maximum(union, 1))


@given(stacks(sets=2), st.integers(0, 2**25 - 1))
def test_pairs_that_are_not_asked_for_share_nothing(sets: tuple, bits: int) -> None:
    a, b = (RleMasks.from_dense(s) for s in sets)
    pairs = np.array([bits >> k & 1 for k in range(25)], bool).reshape(5, 5)[: len(a), : len(b)]
    every, some = a.intersections(b), a.intersections(b, pairs=pairs)
    np.testing.assert_array_equal(some, every * pairs)
    np.testing.assert_array_equal(a.iou(b, pairs=pairs), a.iou(b) * pairs)


def test_iou_agrees_with_pycocotools(rng: np.random.Generator) -> None:
    masks = rng.random((6, 40, 60)) < 0.4
    rle = RleMasks.from_dense(masks)
    np.testing.assert_allclose(rle.iou(rle), coco.iou(rle.coco(), rle.coco(), [0] * 6))


@given(stacks(sets=2))
def test_and_or_minus_are_those_of_the_pixels(sets: tuple) -> None:
    a, b = sets
    left, right = RleMasks.from_dense(a), RleMasks.from_dense(b)
    assert (left & right).counts == of_pycocotools(a & b)
    assert (left | right).counts == of_pycocotools(a | b)
    assert (left - right).counts == of_pycocotools(a & ~b)


@given(stacks())
def test_runs_are_of_pixels_column_after_column(sets: tuple) -> None:
    (masks,) = sets
    runs, first = RleMasks.from_dense(masks).runs()
    for n, mask in enumerate(masks):
        pixels = [np.arange(*run) for run in runs[first[n] : first[n + 1]]]
        column_wise = np.flatnonzero(mask.T)
        np.testing.assert_array_equal(np.concatenate([np.zeros(0, int), *pixels]), column_wise)


@given(stacks(), st.randoms(use_true_random=False))
def test_union_and_layers_are_those_of_the_pixels(sets: tuple, random) -> None:  # type: ignore[no-untyped-def]
    (masks,) = sets
    rle = RleMasks.from_dense(masks)
    assert rle.union().counts == of_pycocotools(masks.any(0)[None])
    order = list(range(len(masks)))
    random.shuffle(order)
    shown, covered = np.zeros_like(masks), np.zeros(masks.shape[1:], bool)
    for n in order:
        shown[n] = masks[n] & ~covered
        covered |= masks[n]
    assert rle.layered(np.array(order, np.int64)).counts == of_pycocotools(shown)


@given(stacks(sets=2), st.lists(st.integers(-6, 6), min_size=10, max_size=10))
def test_shifted_intersections_are_those_of_moved_masks(sets: tuple, steps: list[int]) -> None:
    # A margin of empty rows: whole columns are outside of what shifting promises.
    a, b = (np.pad(s, ((0, 0), (8, 8), (8, 8))) for s in sets)
    shifts = np.array(steps, np.int64).reshape(5, 2)[: len(a)]
    moved = np.stack(
        [np.roll(m, (dy, dx), (0, 1)) for m, (dx, dy) in zip(a, shifts, strict=True)]
        or [np.zeros(a.shape[1:], bool)]
    )[: len(a)]
    ours = RleMasks.from_dense(a).intersections(RleMasks.from_dense(b), shifts)
    np.testing.assert_array_equal(ours, (moved[:, None] & b[None]).sum((2, 3)))


@given(stacks(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_moved_masks_are_resampled_at_the_nearest_pixel(sets: tuple, seed: int) -> None:
    (masks,) = sets
    n, height, width = masks.shape
    rng = np.random.default_rng(seed)
    # Sixteenths: sums and products are exact, so that no pixel centre falls on a rounding border.
    corner = rng.integers(-160, 320, (2, n, 2)) / 16
    source = np.concatenate([corner[0], corner[0] + 2.0 ** rng.integers(-1, 5, (n, 2))], 1)
    target = np.concatenate([corner[1], corner[1] + 2.0 ** rng.integers(-1, 5, (n, 2))], 1)
    truth = np.zeros_like(masks)
    for i in range(n):
        sx, sy, tx, ty = *source[i, :2], *target[i, :2]
        fx = (source[i, 2] - sx) / (target[i, 2] - tx)
        fy = (source[i, 3] - sy) / (target[i, 3] - ty)
        for v in range(height):
            for u in range(width):
                x = int(np.floor(sx + (u + 0.5 - tx) * fx))
                y = int(np.floor(sy + (v + 0.5 - ty) * fy))
                truth[i, v, u] = 0 <= x < width and 0 <= y < height and masks[i, y, x]
    moved = RleMasks.from_dense(masks).moved(source, target)
    np.testing.assert_array_equal(moved.dense(), truth)


def test_a_mask_moved_into_nothing_is_empty() -> None:
    masks = RleMasks.from_boxes(np.array([[2, 2, 8, 8]] * 4), (10, 12))
    boxes = np.array([[2.0, 2, 8, 8]] * 4)
    target = np.array([[3, 3, 3, 9], [9, 9, 4, 4], [np.nan, 0, 1, 1], [50, 2, 56, 8]], np.float64)
    assert masks.moved(boxes, target).areas().tolist() == [0, 0, 0, 0]


def test_filled_boxes_hold_the_pixels_whose_centres_they_hold() -> None:
    boxes = np.array([[1, 1, 3, 2], [0.6, 0.4, 2.6, 1.5], [-9, 3, 99, 9], [4, 4, 4, 9]], np.float32)
    dense = RleMasks.from_boxes(boxes, (5, 6)).dense()
    truth = np.zeros((4, 5, 6), bool)
    truth[0, 1, 1:3] = True
    truth[1, 0, 1:3] = True
    truth[2, 3:5, :] = True
    np.testing.assert_array_equal(dense, truth)


def test_sets_of_no_masks_work_everywhere() -> None:
    none, some = RleMasks.empty((7, 9)), RleMasks.empty((7, 9), 3)
    assert (len(none), len(some)) == (0, 3)
    assert none.dense().shape == (0, 7, 9)
    assert none.crops()[0] == []
    assert none.boxes().shape == (0, 4)
    assert none.iou(some).shape == (0, 3)
    assert some.areas().tolist() == [0, 0, 0]
    assert none.union().areas().tolist() == [0]
    assert len(none & none) == len(none.layered(np.zeros(0))) == 0
    assert none.moved(np.zeros((0, 4)), np.zeros((0, 4))).counts == []
    assert RleMasks.from_crops([], np.zeros((0, 2)), (7, 9)).counts == []
    assert len(Instances.empty((7, 9))[[]]) == 0


@given(stacks(sets=2), st.booleans())
def test_selecting_and_joining_keep_the_masks(sets: tuple, parsed: bool) -> None:
    a, b = sets
    left, right = (RleMasks(s.shape[1:], of_pycocotools(s)) for s in (a, b))
    if parsed:
        left.areas()
        right.areas()
    both = RleMasks.concatenated([left, right])
    full = np.concatenate([a, b])
    assert both.counts == of_pycocotools(full)
    assert both[::-1].counts == of_pycocotools(full[::-1])
    flags = np.arange(len(full)) % 2 == 0
    assert both[flags].counts == of_pycocotools(full[flags])
    assert both[[0] * min(len(full), 1)].counts == of_pycocotools(full[:1])
    order = np.arange(len(full))[::-2]
    picked = left.picked(right, order)
    assert picked.counts == of_pycocotools(full[order])
    assert picked.areas().tolist() == full[order].sum((1, 2)).tolist()
    assert np.array_equal(picked.boxes(), RleMasks.from_dense(full[order]).boxes())


@pytest.mark.parametrize(
    "counts",
    [
        b"",
        b"n",
        b"n0n0",
        b"m0",
        b"o0",
        b"\x00",
        b"~",
        b"\xff\xff",
        b"P" * 40,
        b"6O",
    ],
)
def test_counts_that_are_not_of_the_image_are_refused(counts: bytes) -> None:
    valid = RleMasks.empty((5, 6), 1).counts[0]  # b"n0": one run of 30 zeros
    RleMasks((5, 6), [valid]).check()
    with pytest.raises(ValueError, match=r"mask 1: .* is not the RLE of an image of 30 pixels"):
        RleMasks((5, 6), [valid, counts]).check()


def test_runs_of_no_length_are_read_and_written_away() -> None:
    masks = RleMasks((5, 6), [b"0n00"])  # no zeros, 30 ones, no zeros
    assert masks.areas().tolist() == [30]
    assert (masks | masks).counts == [b"0n0"]


@given(st.lists(st.binary(max_size=12), max_size=4))
def test_no_bytes_from_outside_crash_the_parser(counts: list[bytes]) -> None:
    masks = RleMasks((5, 6), counts)
    try:
        masks.check()
    except ValueError:
        return
    assert (masks.areas() <= 30).all()
    assert (masks.boxes()[:, 2:] <= (6, 5)).all()


def test_masks_of_different_images_do_not_mix() -> None:
    a, b = RleMasks.empty((5, 6), 2), RleMasks.empty((6, 5), 2)
    with pytest.raises(ValueError, match="do not compare"):
        a.iou(b)
    with pytest.raises(ValueError, match="do not compare"):
        RleMasks.concatenated([a, b])
    with pytest.raises(ValueError, match="one by one"):
        _ = a & a[:1]
