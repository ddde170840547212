"""EoRaS against its published code: the same weights, images and cameras give the same masks.

What the published network says is recorded by `record_eoras.py`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from eoras_published import CASES, FIXTURE, SIDE, STEP, images, seeded, shapes_of

from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Calibration, Frame
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.eoras import Eoras
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import Source
from amodal_core.models.imports.layouts import layout_of
from amodal_core.models.layers.batch import make_batch, targets_of


def imported(case):
    """Settings and tensors as the importer makes them of a checkpoint with seeded weights."""
    file = WeightFile(Path(case), seeded(shapes_of(case)), {})
    source = Source(file)
    key_map = layout_of(file).map_to("eoras", case)
    tensors, unknown = key_map.apply(source)
    assert unknown == []
    return key_map.settings(tensors, source), tensors


def calibration_of(given):
    """The camera as our readers give it: K in pixels, looking along z."""
    K = np.array(given.intrinsics)
    if given.published == "movi":
        K = np.abs(K) * [[SIDE], [SIDE], [1]] - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    return Calibration(K, np.eye(4), SIDE, SIDE)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_masks_of_the_published_network(case):
    given, recorded = CASES[case], np.load(FIXTURE)
    x, y, z = given.camera
    settings, tensors = imported(case)
    assert (settings["decoder"], settings["positions"]) == (given.decoder, given.positions)
    pitch = math.degrees(math.atan2(z, math.hypot(x, y)))
    fed = {"published": given.published, "pitch": pitch, "classes": ["object"], "detector": ""}
    model = Eoras.from_config(settings | fed).eval()
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict(tensors | counters, assign=True)
    box = RleMasks.from_boxes(np.array([[32.0, 32, 96, 96]]), (SIDE, SIDE))
    truth = make_truth(box, box, [0], [7])
    camera = calibration_of(given)
    frames = [Frame(n, image=image, calibration=camera) for n, image in enumerate(images(given))]
    batch = make_batch(frames, [targets_of(truth)] * len(frames))
    reads = []  # what the decoders draw from, frame by frame
    model.decoders["amodal"].register_forward_hook(lambda module, args, out: reads.append(args[0]))
    model.detect(replace(batch, clip=len(frames)))
    names = {"full_mask": "amodal", "vis_mask": "visible", "occ_mask": "hidden"}
    published = [name for name in names if f"{case}/{name}" in recorded]
    assert [names[name] for name in published] == list(model.decoders)
    for name in published:
        drawn = model.decoders[names[name]](reads[0]).sigmoid()[:, ::STEP, ::STEP]
        assert np.abs(drawn.numpy() - recorded[f"{case}/{name}"]).max() < 1e-5


def test_a_published_checkpoint_has_these_tensors():
    shapes = shapes_of("movi")
    assert len(shapes) == 348
    assert sum(int(np.prod(s)) for s in shapes.values()) == 78_024_783
