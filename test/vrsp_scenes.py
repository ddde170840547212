"""A small VRSP-Net, batches for it, and shapes for its codebook."""

from __future__ import annotations

import numpy as np
import torch
from model_scenes import frame, truth

from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.vrsp import Vrsp, VrspConfig

SIZE = (64, 96)
SMALL = {
    "classes": ("car", "pedestrian"), "backbone": "resnet18", "norm": "group", "frozen_stages": 0,
    "samples": 4, "positive_share": 0.5, "proposals": 3, "proposals_train": 20, "min_score": 0.0,
    "reclassification_hidden": 8, "centres": 32, "priors": 4, "encoder_convolutions": 3,
}  # fmt: skip
PLAIN = {"reclassification": False, "prior_refinement": False, "prior_rescoring": False,
         "feature_matching": False}  # fmt: skip
BOXES = [(6, 8, 50, 50), (40, 20, 80, 60)]


def vrsp(**changes):
    return Vrsp(VrspConfig(**(SMALL | changes)))


def batch(*boxes, size=SIZE):
    frames = [frame(*size, seed=n) for n in range(len(boxes))]
    return make_batch(frames, [targets_of(truth(size, b)) for b in boxes])


def finite(losses):
    return all(torch.isfinite(v) for v in losses.values())


def shapes(n=40, draw=None):
    """Ellipses of many forms, (n, 28, 28) of 0 and 1."""
    draw = draw or np.random.default_rng(0)
    y, x = np.mgrid[:28, :28] + 0.5
    made = []
    for _ in range(n):
        cx, cy = draw.uniform(8, 20, 2)
        a, b = draw.uniform(3, 12, 2)
        made.append(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1)
    return torch.from_numpy(np.array(made)).float()


def with_codebook(model, n=6):
    """Some shapes for the first class, fewer than there are priors for the second."""
    made = shapes(n + 2)
    with torch.no_grad():
        latents = model.auto_encoder.encode(made).numpy()
    model.codebook.fill({0: latents[:n], 1: latents[n:]})
    return model
