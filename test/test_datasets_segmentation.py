"""Masks are written as polygons that come back bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from amodal_core.datasets.segmentation import to_polygons
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.validate import to_rle


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
