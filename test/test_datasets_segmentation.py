"""Segmentations in every form become the same mask, and polygons come back bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from amodal_core.datasets.segmentation import SegmentationError, to_polygons, to_rle
from amodal_core.masks.mask_set import RleMasks

SIZE = (40, 50)


@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
@settings(max_examples=300, deadline=None)
def test_polygons_rasterise_to_the_very_mask_whatever_its_shape(mask: np.ndarray) -> None:
    masks = RleMasks.from_dense(mask[None])
    polygons = to_polygons(masks)[0]
    if not mask.any():
        assert polygons == []
        return
    # pycocotools itself is the judge, since all tools of the field rasterise with it.
    parts = coco.frPyObjects(polygons, *mask.shape)
    assert np.array_equal(coco.decode(coco.merge(parts)).astype(bool), mask)
    assert all(len(p) >= 8 for p in polygons)


def test_polygons_of_large_smooth_masks_with_holes_are_exact(rng: np.random.Generator) -> None:
    noise = cv2.GaussianBlur(rng.random((375, 1242)), (0, 0), 9)
    mask = noise > np.median(noise)
    masks = RleMasks.from_dense(mask[None])
    assert to_rle(to_polygons(masks)[0], mask.shape) == masks.counts[0]


def test_every_form_of_one_mask_gives_the_same_counts() -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[5:20, 10:30] = 1
    counts = coco.encode(np.asfortranarray(mask))["counts"]
    flat = [10, 5, 30, 5, 30, 20, 10, 20]
    runs = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.reshape(-1), [2]])))
    uncompressed = np.diff(np.concatenate([[0], runs])).tolist()
    if sum(uncompressed) < mask.size:
        uncompressed.append(mask.size - sum(uncompressed))
    forms = [
        [flat],
        flat,
        {"size": list(SIZE), "counts": counts},
        {"size": list(SIZE), "counts": counts.decode()},
        {"size": list(SIZE), "counts": [counts.decode()]},
        {"size": list(SIZE), "counts": uncompressed},
    ]
    assert {to_rle(form, SIZE) for form in forms} == {counts}


def test_a_polygon_beyond_the_border_is_cut_by_the_image() -> None:
    counts = to_rle([[-10, -10, 60, -10, 60, 5, -10, 5]], SIZE)
    dense = RleMasks(SIZE, [counts]).dense()[0]
    assert dense[:5].all()
    assert not dense[6:].any()


@pytest.mark.parametrize(
    ("form", "rule"),
    [
        ([], "empty-polygon"),
        ([[]], "empty-polygon"),
        ([[1, 2, 3, 4]], "short-polygon"),
        ([[1, 2, 3, 4, 5, 6, 7]], "short-polygon"),
        ([[1, 2, 3, "x", 5, 6]], "segmentation-unreadable"),
        ([[1, 2, 3, float("nan"), 5, 6]], "outside-image"),
        ([[1, 2, 1e9, 4, 5, 6]], "outside-image"),
        ({"size": [10, 10], "counts": "PPYo1"}, "wrong-size"),
        ({"size": list(SIZE), "counts": "PPYo1"}, "rle-broken"),
        ({"size": list(SIZE), "counts": [3, 4]}, "rle-broken"),
        ({"counts": "0"}, "segmentation-unreadable"),
        (None, "segmentation-unreadable"),
        ("text", "segmentation-unreadable"),
    ],
)
def test_what_is_no_mask_is_named(form: object, rule: str) -> None:
    with pytest.raises(SegmentationError) as error:
        to_rle(form, SIZE)
    assert error.value.rule == rule


def test_a_short_polygon_beside_a_good_one_is_left_out() -> None:
    good = [[10, 5, 30, 5, 30, 20, 10, 20]]
    assert to_rle([*good, [1, 2]], SIZE) == to_rle(good, SIZE)
