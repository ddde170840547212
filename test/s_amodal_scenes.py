"""A tiny S-AModal with random weights."""

from __future__ import annotations

import torch
from training_scenes import CLASSES

from amodal_core.models.s_amodal import SAModal, SAModalConfig

TINY = {"size": "tiny", "image_size": 128}


def made(seed=0, **settings):
    torch.manual_seed(seed)
    return SAModal(SAModalConfig(CLASSES, **(TINY | settings)))
