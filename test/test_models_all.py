"""What holds for every model of single images, whatever it sees and whatever it finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from eoras_scenes import small_model
from training_scenes import CLASSES, SAM_SETTINGS, SETTINGS, VIDEO_SETTINGS, street

from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.flagship import Flagship
from amodal_core.models.fused import Fused, FusedConfig
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.pointpillars import PointPillars
from amodal_core.models.two_stage import TwoStage
from training.data import with_depth

FEW = {"samples": 8, "proposals": 12, "proposals_train": 20}  # of the two-stage models


@pytest.fixture(params=SETTINGS)
def model(request):
    return made(request.param)


def made(name, **changes):
    torch.manual_seed(0)
    settings = (SETTINGS | VIDEO_SETTINGS)[name]
    settings = settings | (FEW if "samples" in settings else {}) | changes
    return registry.learned(name).from_config({**settings, "classes": CLASSES})


def seen(seed, **scene):
    """A street's frame with the depth image of its points, and its targets."""
    sample = street(seed, **scene)
    return with_depth(sample.frame), targets_of(sample.truth)


def nothing(frame, targets):
    return frame, targets.select(torch.zeros(len(targets), dtype=torch.bool))


def one_pixel(frame, targets):
    one = targets.select(torch.tensor([0]))
    one.amodal[:], one.boxes = False, torch.tensor([[40.0, 30, 41, 31]])
    one.amodal[0, 30, 40] = True
    one.visible, one.visible_boxes = one.amodal.clone(), one.boxes.clone()
    one.boxes3d = torch.tensor([[10.0, 1.0, -1.0, 0.01, 0.01, 0.01, 0.0]])
    return frame, one


def whole_image(frame, targets):
    one = targets.select(torch.tensor([0]))
    one.amodal[:], one.boxes = True, torch.tensor([[0.0, 0, 96, 64]])
    one.visible, one.visible_boxes = one.amodal.clone(), one.boxes.clone()
    one.boxes3d = torch.tensor([[12.0, 0.0, 0.0, 20.0, 20.0, 4.0, 0.0]])
    return frame, one


def hidden(frame, targets):
    targets.visible[:], targets.visible_boxes = False, torch.zeros_like(targets.boxes)
    return frame, targets


def without_extent(frame, targets):
    """As of an object that vanished when the image was made smaller."""
    one = targets.select(torch.tensor([0]))
    one.amodal[:], one.boxes = False, torch.tensor([[40.0, 30, 40, 30]])
    one.visible, one.visible_boxes = one.amodal.clone(), torch.zeros_like(one.boxes)
    one.boxes3d[:] = torch.nan
    return frame, one


def ignored(frame, targets):
    return frame, replace(targets, ignore=torch.ones_like(targets.ignore))


def black(frame, targets):
    none = np.zeros(frame.size, np.float32)
    dark = replace(frame, image=np.zeros_like(frame.image), points=frame.points[:0], depth=none)
    return nothing(dark, targets)


CASES = (nothing, one_pixel, whole_image, hidden, without_extent, ignored, black)


def test_whatever_is_in_the_images_losses_are_finite_and_reach_the_same_weights(model):
    """Processes that train together wait for each other's gradients, be they zero."""
    model.train()
    expected = reached(model, [seen(0), seen(1)])
    assert len(expected) == sum(p.requires_grad for p in model.parameters())
    for case in CASES:
        assert reached(model, [case(*seen(2))]) == expected, case.__name__
    assert reached(model, [case(*seen(2)) for case in CASES]) == expected


def reached(model, pairs):
    """Names of the weights with a gradient; all that comes out is finite."""
    model.zero_grad()
    losses = model.losses(make_batch(*map(list, zip(*pairs, strict=True))))
    assert all(torch.isfinite(v) for v in losses.values()), losses
    sum(losses.values()).backward()
    there = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert all(g.isfinite().all() for g in there.values())
    return set(there)


@pytest.mark.parametrize("name", [n for n in SETTINGS if n not in ("flagship", "pointpillars")])
@pytest.mark.parametrize("objects", [True, False])
def test_without_proposals_losses_are_finite_and_results_empty(name, objects):
    model = made(name, proposals=0, proposals_train=0, min_score=0.0)
    assert isinstance(model, TwoStage)
    frame, targets = seen(0)
    pair = (frame, targets) if objects else nothing(frame, targets)
    losses = model.train().losses(make_batch([pair[0]], [pair[1]]))
    assert all(torch.isfinite(v) for v in losses.values()), losses
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    found = model.infer([frame, frame])
    assert [len(f.numpy()) for f in found] == [0, 0]


def test_nothing_found_is_empty_and_a_black_image_is_no_error(model):
    model.config = replace(model.config, min_score=1.0)
    if isinstance(model, Flagship):  # random weights are sure of everything
        torch.nn.init.zeros_(model.head.classes.weight)
    if isinstance(model, TwoStage):
        model.heads.score_thresh = 1.1
    frame, targets = seen(0)
    for result in model.infer([frame, black(frame, targets)[0]]):
        assert len(result.numpy()) == 0
        assert result.occluders.shape == (0, 0)
        assert result.size == (64, 96)
    assert model.infer([]) == []


def test_a_frame_is_seen_alike_alone_and_among_others(model):
    settle(model)
    frames = [seen(seed)[0] for seed in range(3)]
    together = [r.numpy() for r in model.infer(frames)]
    assert sum(len(r) for r in together) > 0
    for frame, expected in zip(frames, together, strict=True):
        alone = model.infer([frame])[0].numpy()
        assert len(alone) == len(expected)
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(alone.amodal_boxes, expected.amodal_boxes, atol=1e-2)
        np.testing.assert_allclose(alone.depths, expected.depths, rtol=1e-3)
        for kind in ("amodal", "visible"):
            ours, theirs = getattr(alone, kind), getattr(expected, kind)
            ious = ours.iou(theirs).diagonal()
            assert (ious[ours.areas() > 0] > 0.98).all()


def settle(model):
    """Scores high enough that a model with random weights finds something."""
    if isinstance(model, PointPillars):
        with torch.no_grad():
            model.head.conv_cls.weight *= 100
    model.config = replace(model.config, min_score=0.0)
    if isinstance(model, TwoStage):
        model.heads.score_thresh = 0.0


def test_images_of_any_size_are_seen(model):
    """Two images of different sizes share a batch; a strip of few pixels is an image, too."""
    settle(model)
    frame = seen(0)[0]
    small = replace(
        frame,
        image=frame.image[20:29, 40:43].copy(),
        depth=frame.depth[20:29, 40:43].copy(),
        calibration=replace(frame.calibration, width=3, height=9),
    )
    for result, size in zip(model.infer([frame, small]), [(64, 96), (9, 3)], strict=True):
        host = result.numpy()
        assert host.size == size
        assert (host.amodal_boxes <= [size[1], size[0]] * 2).all()
        assert (host.amodal_boxes >= 0).all()
        assert np.isfinite(host.scores).all()


def test_a_checkpoint_gives_the_model_back(model, tmp_path):
    settle(model)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, CheckpointInfo(model.name, model.config_json(), CLASSES))
    again = registry.create(model.name, checkpoint=str(path), runtime="torch")
    frame = seen(0)[0]
    ours, theirs = model.infer([frame])[0].numpy(), again.infer([frame])[0].numpy()
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    np.testing.assert_allclose(ours.amodal_boxes, theirs.amodal_boxes, atol=0.1)


@pytest.mark.parametrize("name", registry.available())
def test_what_shows_of_an_object_is_within_its_amodal_mask_pixel_for_pixel(name):
    """With random weights nothing but the model's own care keeps the one within the other."""
    frame, geometric = seen(0)[0], registry.create("geometric", masks={"min_pixels": 1})
    if name == "geometric":
        model = geometric
    elif name == "fused":
        settle(flagship := made("flagship"))
        model = Fused(FusedConfig(), flagship, geometric)
    elif name in SETTINGS or name in VIDEO_SETTINGS:
        settle(model := made(name))
    else:
        torch.manual_seed(0)
        settings = SAM_SETTINGS | {"classes": CLASSES, "union": False, "min_score": 0}
        model = small_model() if name == "eoras" else registry.learned(name).from_config(settings)
        model._detector = (geometric,)
    (result,) = model.infer([frame])
    host = result.numpy()
    assert host.visible.areas().any()
    assert not (host.visible - host.amodal).areas().any()
    assert (host.occlusion_rates >= 0).all()
