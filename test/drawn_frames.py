"""Frames of drawn objects with their whole truth: cheap, and hard enough to need learning."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Frame, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates, visible_from_order

CLASSES = ("car", "pedestrian")


def drawn_frame(
    seed: int, size: tuple[int, int] = (96, 160), objects: int = 5
) -> tuple[Frame, Tracks]:
    """Rounded cars and elliptic pedestrians before each other, over noise, with a sparse scan."""
    rng = np.random.default_rng(seed)
    height, width = size
    v, u = np.mgrid[:height, :width] + 0.5
    image = rng.integers(90, 130, (height, width, 3))
    metres = np.full(size, 70.0, np.float32)
    order = np.sort(rng.uniform(5, 50, objects))[::-1]  # the farthest first
    labels = rng.integers(0, 2, objects)
    masks = np.zeros((objects, height, width), bool)
    for k, (depth, label) in enumerate(zip(order, labels, strict=True)):
        half = height * np.array([0.26, 0.16] if label == 0 else [0.07, 0.24])
        half *= rng.uniform(0.7, 1.3) * (1.2 - depth / 80)
        x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.35, 0.7) * height
        power = 6 if label == 0 else 2
        masks[k] = abs((u - x) / half[0]) ** power + abs((v - y) / half[1]) ** power < 1
        colour = rng.integers(0, 255, 3)
        # The front half is brighter: a car's parts differ.
        shade = np.where(v < y, 0.6, 1.0)[..., None]
        image = np.where(masks[k, ..., None], colour * shade + rng.normal(0, 6, image.shape), image)
        metres[masks[k]] = depth
    amodal = RleMasks.from_dense(masks)
    visible = visible_from_order(amodal, order)
    depth = np.where((rng.random(size) < 0.3) & (v.astype(int) % 3 == 0), metres, 0)
    frame = Frame(
        seed, image=np.clip(image, 0, 255).astype(np.uint8), depth=depth.astype(np.float32)
    )
    truth = Tracks(
        size,
        amodal.boxes(),
        visible.boxes(),
        np.ones(objects, np.float32),
        labels.astype(np.int64),
        amodal,
        visible,
        occlusion_rates(amodal, visible),
        order.astype(np.float32),
        occlusion_order(order, amodal, visible),
        ids=np.arange(objects),
        ages=np.ones(objects, np.int64),
        coasted=np.zeros(objects, bool),
    )
    # What is wholly hidden cannot be learned from one frame.
    return frame, truth[visible.areas() > 0.25 * amodal.areas()]
