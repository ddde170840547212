"""Masks: mask head output to RLE within 5 ms for 30 objects (60 masks), beside the naive ways."""

from __future__ import annotations

from typing import Any

import cv2
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


def naive_paste(grids: np.ndarray, boxes: np.ndarray) -> list[bytes]:
    """The usual way: resize into the box, put it into a full image, and encode that."""
    height, width = SIZE
    counts = []
    for grid, box in zip(grids, boxes, strict=True):
        x0, y0, x1, y1 = np.rint(box).astype(int)
        crop = cv2.resize(grid, (x1 - x0, y1 - y0)) > 0
        image = np.zeros(SIZE, np.uint8)
        u0, v0, u1, v1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if u1 > u0 and v1 > v0:
            image[v0:v1, u0:u1] = crop[v0 - y0 : v1 - y0, u0 - x0 : u1 - x0]
        counts.append(coco.encode(np.asfortranarray(image))["counts"])
    return counts


@pytest.mark.benchmark(group="30 objects: mask heads to RLE (budget 5 ms)")
def test_paste_ours(benchmark: Any, heads: Any) -> None:
    assert len(benchmark(lambda: BoxMasks(SIZE, *heads).rle().counts)) == 2 * OBJECTS


@pytest.mark.benchmark(group="30 objects: mask heads to RLE (budget 5 ms)")
def test_paste_torch_full_image(benchmark: Any, heads: Any) -> None:
    benchmark(lambda: RleMasks.from_dense(paste_dense(*heads, SIZE).numpy()))


@pytest.mark.benchmark(group="30 objects: mask heads to RLE (budget 5 ms)")
def test_paste_naive(benchmark: Any, heads: Any) -> None:
    grids, boxes = (h.numpy() for h in heads)
    benchmark(naive_paste, grids, boxes)


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

    def naive() -> None:
        for crop, (x, y) in zip(crops, offsets, strict=True):
            image = np.zeros(SIZE, np.uint8, order="F")
            image[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
            coco.encode(image)

    benchmark(naive)


@pytest.mark.benchmark(group="30 x 30 mask IoU")
def test_iou_ours(benchmark: Any, masks: RleMasks) -> None:
    benchmark(lambda: RleMasks(SIZE, masks.counts).iou(RleMasks(SIZE, masks.counts)))


@pytest.mark.benchmark(group="30 x 30 mask IoU")
def test_iou_pycocotools(benchmark: Any, masks: RleMasks) -> None:
    benchmark(lambda: coco.iou(masks.coco(), masks.coco(), [False] * OBJECTS))


@pytest.mark.benchmark(group="30 x 30 mask IoU")
def test_iou_naive(benchmark: Any, masks: RleMasks) -> None:
    dense = masks.dense()[:, ::1].reshape(OBJECTS, -1)

    def naive() -> np.ndarray:
        shared = np.array([[(a & b).sum() for b in dense] for a in dense])
        areas = dense.sum(1)
        return shared / np.maximum(areas[:, None] + areas[None] - shared, 1)

    benchmark.pedantic(naive, rounds=1)


@pytest.mark.benchmark(group="30 masks: visible masks and occlusion order")
def test_order_ours(benchmark: Any, masks: RleMasks) -> None:
    depths = np.linspace(5, 60, OBJECTS)

    def ours() -> np.ndarray:
        amodal = RleMasks(SIZE, masks.counts)
        return occlusion_order(depths, amodal, visible_from_order(amodal, depths))

    benchmark(ours)


@pytest.mark.benchmark(group="30 masks: visible masks and occlusion order")
def test_order_naive(benchmark: Any, masks: RleMasks) -> None:
    amodal = masks.dense()

    def naive() -> np.ndarray:
        visible, covered = np.zeros_like(amodal), np.zeros(SIZE, bool)
        for n in range(OBJECTS):
            visible[n] = amodal[n] & ~covered
            covered |= amodal[n]
        hidden = amodal & ~visible
        return np.array(
            [
                [j < i and (hidden[i] & visible[j]).sum() > 4 for j in range(OBJECTS)]
                for i in range(OBJECTS)
            ]
        )

    benchmark.pedantic(naive, rounds=1)
