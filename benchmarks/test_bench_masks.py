"""Masks: mask head output to RLE within 5 ms for 30 objects (60 masks)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from amodal_core.masks.mask_set import BoxMasks, RleMasks
from amodal_core.masks.occluders import occlusion_order, visible_from_order
from amodal_core.masks.paste import paste_dense

SIZE = (375, 1242)
OBJECTS = 30


@pytest.fixture(scope="module")
def heads() -> tuple[torch.Tensor, torch.Tensor]:
    """Grids and boxes of 30 amodal and 30 visible masks, of cars between 10 and 60 m."""
    rng = np.random.default_rng(0)
    n = 2 * OBJECTS
    widths = rng.uniform(25, 250, n)
    x, y = rng.uniform(-30, 1150, n), rng.uniform(130, 200, n)
    boxes = np.stack([x, y, x + widths, y + widths * rng.uniform(0.4, 0.8, n)], 1)
    v, u = np.mgrid[-1:1:28j, -1:1:28j]
    grids = 4 * (1 - u**2 - v**2) + rng.normal(0, 0.7, (n, 28, 28))
    return torch.from_numpy(grids).float(), torch.from_numpy(boxes).float()


@pytest.mark.benchmark(group="30 objects: mask heads to RLE (budget 5 ms)")
def test_paste_ours(benchmark: Any, heads: Any) -> None:
    assert len(benchmark(lambda: BoxMasks(SIZE, *heads).rle().counts)) == 2 * OBJECTS


@pytest.mark.benchmark(group="30 objects: mask heads to RLE (budget 5 ms)")
def test_paste_torch_full_image(benchmark: Any, heads: Any) -> None:
    benchmark(lambda: RleMasks.from_dense(paste_dense(*heads, SIZE).numpy()))


@pytest.fixture(scope="module")
def masks(heads: Any) -> RleMasks:
    return BoxMasks(SIZE, *heads).rle()[:OBJECTS]


@pytest.mark.benchmark(group="30 masks: crops to RLE")
def test_encode_ours(benchmark: Any, masks: RleMasks) -> None:
    crops, offsets = masks.crops()
    benchmark(lambda: RleMasks.from_crops(crops, offsets, SIZE).counts)


@pytest.mark.benchmark(group="30 masks: crops to RLE")
def test_encode_full_images(benchmark: Any, masks: RleMasks) -> None:
    crops, offsets = masks.crops()

    def by_full_images() -> None:
        for crop, (x, y) in zip(crops, offsets, strict=True):
            image = np.zeros(SIZE, np.uint8, order="F")
            image[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
            coco.encode(image)

    benchmark(by_full_images)


@pytest.mark.benchmark(group="30 x 30 mask IoU")
def test_iou_ours(benchmark: Any, masks: RleMasks) -> None:
    benchmark(lambda: RleMasks(SIZE, masks.counts).iou(RleMasks(SIZE, masks.counts)))


@pytest.mark.benchmark(group="30 x 30 mask IoU")
def test_iou_pycocotools(benchmark: Any, masks: RleMasks) -> None:
    benchmark(lambda: coco.iou(masks.coco(), masks.coco(), [False] * OBJECTS))


@pytest.mark.benchmark(group="30 masks: visible masks and occlusion order")
def test_order_ours(benchmark: Any, masks: RleMasks) -> None:
    depths = np.linspace(5, 60, OBJECTS)

    def ours() -> np.ndarray:
        amodal = RleMasks(SIZE, masks.counts)
        return occlusion_order(depths, amodal, visible_from_order(amodal, depths))

    benchmark(ours)
