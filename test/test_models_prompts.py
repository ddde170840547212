"""Point prompts on hand-made masks whose right answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.models.layers.prompts import (
    KINDS,
    crop_of,
    patch_entropy,
    prompt_points,
    spectral_residual,
)

SIZE = (60, 80)
GREY = np.full((*SIZE, 3), 120, np.uint8)


def mask(*boxes):
    """A mask of boxes x0, y0, x1, y1, as a crop."""
    dense = np.zeros(SIZE, bool)
    for x0, y0, x1, y1 in boxes:
        dense[y0:y1, x0:x1] = True
    return crop_of(dense)


def points(kind, *masks, image=GREY, seed=0, **options):
    return prompt_points(kind, masks, image, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_points_lie_on_the_mask_and_follow_from_the_seed(kind, rng):
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    some = [mask((5, 5, 9, 40), (5, 30, 50, 40)), mask((79, 59, 80, 60)), mask((0, 0, 80, 60))]
    found = points(kind, *some, image=image, count=3)
    assert found.shape == (3, 3, 2)
    for (crop, (x, y)), own in zip(some, found.astype(int), strict=True):
        assert all(crop[v - y, u - x] for u, v in own)
    np.testing.assert_array_equal(found, points(kind, *some, image=image, count=3))
    assert (found != points(kind, *some, image=image, count=3, seed=1)).any()
    assert points(kind).shape == (0, 1, 2)


def test_random_points_fill_the_eroded_mask():
    found = points("random", *[mask((10, 20, 22, 40))] * 4000)[:, 0]
    # 12x20 less 3 pixels all around.
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([13, 23], [18, 36])
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 6 * 14
    assert counts.max() < 2.2 * counts.min() + 20


def test_at_the_image_border_a_mask_is_eroded_as_elsewhere():
    found = points("random", *[mask((0, 0, 9, 60))] * 500)[:, 0]
    assert found.min(0).tolist()[0] == 3
    assert found.max(0).tolist()[0] == 5


def test_a_mask_that_erosion_would_take_away_is_left_as_it_is():
    found = points("random", *[mask((10, 20, 16, 26))] * 500)[:, 0]
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([10, 20], [15, 25])
    found = points("random", *[mask((10, 20, 22, 40))] * 2000, erode=0)[:, 0]
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([10, 20], [21, 39])


def test_maxdis_is_the_pixel_farthest_from_a_random_one():
    """Of a bar with a short arm, one end or the other, never anything between."""
    found = points("maxdis", *[mask((5, 30, 70, 31), (30, 30, 31, 35))] * 40)[:, 0]
    assert set(map(tuple, found.astype(int).tolist())) == {(5, 30), (69, 30)}


def test_maxent_is_where_the_patch_is_most_unlike_the_first_one(rng):
    image = GREY.copy()
    image[25:34, 55:64] = rng.permutation(81).reshape(9, 9, 1)  # as varied as a patch can be
    (found,) = points("maxent", mask((10, 15, 40, 45), (40, 28, 61, 31)), image=image)
    # The first point lies in the flat square, the only wide part; the centre of noise wins.
    assert found[0].tolist() == [59, 29]


def test_patch_entropy_is_that_of_the_values_around_each_pixel(rng):
    grey = rng.integers(0, 6, (12, 15)).astype(np.uint8)
    found = patch_entropy(grey, 5)
    for y, x in ((0, 0), (5, 7), (11, 3)):
        patch = grey[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        share = np.unique(patch, return_counts=True)[1] / patch.size
        assert found[y, x] == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-4)
    assert np.abs(patch_entropy(np.full((9, 9), 7, np.uint8))).max() < 1e-6


def test_saliency_is_where_something_breaks_the_pattern():
    stripes = np.tile(np.where(np.arange(80) % 8 < 4, 60, 180), (60, 1)).astype(np.uint8)
    stripes[28:34, 50:56] = 255 - stripes[28:34, 50:56]
    saliency = spectral_residual(stripes)
    y, x = np.unravel_index(saliency.argmax(), SIZE)
    assert abs(x - 52.5) <= 5
    assert abs(y - 30.5) <= 5
    image = np.repeat(stripes[..., None], 3, 2)
    found = points("saliency", *[mask((10, 10, 70, 50))] * 20, image=image)[:, 0]
    assert np.abs(found - [52.5, 30.5]).max() <= 8
    # Where nothing of the mask is salient, its most salient pixel is taken.
    assert len(points("saliency", mask((10, 10, 14, 50)), image=image)) == 1


def test_further_points_are_random_ones_of_the_whole_mask():
    found = points("random", *[mask((10, 20, 22, 40))] * 2000, count=2)
    assert found[:, 0].min(0).tolist() == [13, 23]
    assert found[:, 1].min(0).tolist() == [10, 20]
