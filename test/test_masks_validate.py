"""Whatever files hold as masks becomes RLE, or is refused before compiled code sees it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.rle import MAX_PIXELS, RleError
from amodal_core.masks.runs import Runs
from amodal_core.masks.validate import MAX_BORDER, SegmentationError, to_rle

SIZE = (40, 50)


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
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "outside-image"),
        ([[0, 0, 10**400, 0, 5, 6]], "outside-image"),
        ([[0, 0, float("inf"), 0, 5, 6]], "outside-image"),
        ([[1, 2, None, 4, 5, 6]], "segmentation-unreadable"),
        ([{"a": 1}], "short-polygon"),
        ({"size": [10, 10], "counts": "PPYo1"}, "wrong-size"),
        ({"size": list(SIZE), "counts": "PPYo1"}, "rle-broken"),
        ({"size": list(SIZE), "counts": [3, 4]}, "rle-broken"),
        ({"counts": "0"}, "segmentation-unreadable"),
        ({"size": [float("-inf")], "counts": "0"}, "segmentation-unreadable"),
        ({"size": [float("inf"), 50], "counts": "0"}, "segmentation-unreadable"),
        ({"size": [10**5000, 50], "counts": "0"}, "wrong-size"),
        ({"size": list(SIZE), "counts": 5000000000}, "segmentation-unreadable"),
        ({"size": list(SIZE), "counts": float("nan")}, "segmentation-unreadable"),
        ({"size": list(SIZE), "counts": [2**64]}, "rle-broken"),
        ({"size": list(SIZE), "counts": [2001, -1]}, "rle-broken"),
        ({"size": list(SIZE), "counts": [1999.5, 0.5]}, "rle-broken"),
        (None, "segmentation-unreadable"),
        ("text", "segmentation-unreadable"),
    ],
)
def test_what_is_no_mask_is_named(form: object, rule: str) -> None:
    with pytest.raises(SegmentationError) as error:
        to_rle(form, SIZE)
    assert error.value.rule == rule


def test_a_short_polygon_beside_a_good_one_is_left_out() -> None:
    valid = [[10, 5, 30, 5, 30, 20, 10, 20]]
    assert to_rle([*valid, [1, 2]], SIZE) == to_rle(valid, SIZE)


def test_a_border_that_would_take_gigabytes_to_walk_is_refused() -> None:
    size, zigzag = (32000, 32000), [0, 0, 32000, 32000]
    turns = MAX_BORDER // 32000
    with pytest.raises(SegmentationError, match="border") as error:
        to_rle([zigzag * (turns // 2 + 2)], size)
    assert error.value.rule == "long-polygon"
    counts = to_rle([[0, 0, 32000, 0, 32000, 32000, 0, 32000]], size)
    assert RleMasks(size, [counts]).areas().tolist() == [32000**2]


@pytest.mark.parametrize("size", [(0, 5), (-4, -4), (2**16, 2**15), (2**32 - 1, 2**32 - 1)])
def test_images_without_pixels_or_with_too_many_have_no_masks(size: tuple[int, int]) -> None:
    for form in ([[0, 0, 5, 0, 5, 5]], {"size": list(size), "counts": "0"}):
        with pytest.raises(SegmentationError) as error:
            to_rle(form, size)
        assert error.value.rule == "wrong-size"
    with pytest.raises(ValueError, match="mask 0"):
        RleMasks(size, [b"1"]).check()


def test_the_largest_image_has_masks() -> None:
    masks = RleMasks.empty((2**15, MAX_PIXELS // 2**15), 1)
    RleMasks(masks.size, masks.counts).check()


def test_of_many_masks_the_broken_one_is_named() -> None:
    valid = RleMasks.empty((5, 6), 1).counts[0]
    sides = np.array([5, 5, 3]), np.array([6, 6, 10])
    assert len(Runs.parse([valid, valid, valid], *sides)) == 3
    with pytest.raises(RleError) as error:
        Runs.parse([valid, b"x", valid], *sides)
    assert error.value.index == 1


numbers = st.one_of(
    st.integers(-60, 250),
    st.floats(-60, 250),
    st.sampled_from([0.5, 1e300, -1e9, 2**31, 2**63, 10**30, float("nan"), float("inf"), True]),
)
nonsense = st.one_of(st.none(), st.text(max_size=5), st.dictionaries(st.text(max_size=2), numbers))
polygons = st.lists(st.one_of(numbers, numbers, numbers, nonsense), max_size=14)
dictionaries = st.fixed_dictionaries(
    {},
    optional={
        "size": st.one_of(st.just(list(SIZE)), st.lists(numbers, max_size=3), nonsense, numbers),
        "counts": st.one_of(
            st.binary(max_size=12),
            st.text("0123PQo1lm`", max_size=8),
            st.lists(st.one_of(st.integers(0, 2000), numbers), max_size=5),
            nonsense,
            numbers,
        ),
    },
)


@given(st.one_of(st.lists(st.one_of(polygons, nonsense), max_size=4), polygons, dictionaries))
@settings(max_examples=60)
def test_whatever_a_file_holds_gives_a_mask_of_the_image_or_its_one_error(form: object) -> None:
    try:
        masks = RleMasks(SIZE, [to_rle(form, SIZE)])
    except SegmentationError:
        return
    masks.check()
    assert coco.decode(masks.coco()).shape == (*SIZE, 1)
