"""What a network is shown in tests of one step: a frame of noise, and boxes as its truth."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Frame, Tracks
from amodal_core.masks.mask_set import RleMasks


def frame(height=48, width=70, depth=True, seed=0):
    """Noise as an image, and a scan in a tenth of its pixels."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    metres = np.where(rng.random((height, width)) < 0.1, rng.uniform(3, 60, (height, width)), 0)
    return Frame(1, image=image, depth=metres.astype(np.float32) if depth else None)


def truth(size, boxes):
    """A track a box, each of a class of its own; nothing hides anything."""
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    tracks = Tracks.empty(size)
    n = len(boxes)
    tracks.amodal = tracks.visible = RleMasks.from_dense(masks)
    tracks.amodal_boxes = tracks.visible_boxes = np.array(boxes, np.float32).reshape(n, 4)
    tracks.scores, tracks.class_ids = np.ones(n, np.float32), np.arange(n)
    tracks.depths = tracks.occlusion_rates = np.zeros(n, np.float32)
    tracks.occluders, tracks.ids = np.zeros((n, n), bool), np.arange(n)
    tracks.ages, tracks.coasted = np.ones(n, np.int64), np.zeros(n, bool)
    return tracks
