"""The VATrack family: likeness learnt as written down, two boxes at any scale, one backbone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_scenes import frame, truth
from torchvision.ops import box_iou

from amodal_core.masks.mask_set import BoxMasks, RleMasks
from amodal_core.models import registry
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.layers.quasi_dense import EMBEDDING, sample_rois, track_losses
from amodal_core.models.vatrack import VaTrackConfig, regrid

CONFIG = VaTrackConfig(
    classes=("car", "pedestrian"), backbone="resnet18", norm="group", frozen_stages=0, samples=32,
    proposals=20, proposals_train=50, max_instances=10, track_samples=32,
)  # fmt: skip
NAMES = ("qdtrack", "amodal_track", "vatrack", "vatrack_two_box")
SIZE = (96, 128)
BOXES = [(10, 10, 60, 50), (40, 30, 90, 80)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def made(name, **changes):
    kind = registry.learned(name)
    return kind(replace(CONFIG, **changes))


def scene(boxes, ids=None, visible=None):
    """Targets with the visible boxes given, or all visible."""
    one = truth(SIZE, boxes)
    one.class_ids = np.arange(len(boxes)) % 2
    if ids is not None:
        one.ids = np.array(ids)
    if visible is not None:
        one.visible = RleMasks.from_boxes(np.array(visible, np.float32), SIZE)
        one.visible_boxes = one.visible.boxes()
    return targets_of(one)


def pairs(*scenes):
    """A batch of pairs from targets, key frames and references in turn."""
    frames = [frame(*SIZE, seed=n) for n in range(len(scenes))]
    batch = make_batch(frames, list(scenes))
    batch.clip = 2
    return batch


def finite(losses):
    return all(torch.isfinite(v) for v in losses.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_trained(name):
    model = made(name).train()
    losses = model.losses(pairs(scene(BOXES), scene([(12, 12, 62, 52), (42, 30, 92, 80)])))
    assert finite(losses)
    assert losses["track"] > 0
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_objects_no_proposals_one_pixel_and_wholly_hidden_objects_give_finite_losses(name):
    model = made(name).train()
    nothing, dot = scene([]), scene([(5, 5, 6, 6)])
    unseen = scene(BOXES[:1], visible=[(0, 0, 0, 0)])
    whole = scene([(0, 0, 128, 96)], ids=[7])
    losses = model.losses(pairs(nothing, scene(BOXES), dot, dot, unseen, scene(BOXES), whole, dot))
    assert finite(losses)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    none = made(name, proposals=0, proposals_train=0).train()
    for key, reference in ((nothing, nothing), (scene(BOXES), nothing), (nothing, dot)):
        losses = none.losses(pairs(key, reference))
        assert finite(losses)
        assert losses["track"] == losses["track_auxiliary"] == 0
        sum(losses.values()).backward()


@pytest.mark.parametrize("name", NAMES)
def test_batched_and_single_inference_agree_and_nothing_found_is_empty(name):
    model = made(name, min_score=0.0).eval()
    frames = [frame(*SIZE, seed=n) for n in range(2)]
    together = [r.numpy() for r in model.infer(frames)]
    assert together[0].embeddings.shape == (10, EMBEDDING)
    for one, expected in zip(frames, together, strict=True):
        alone = model.infer([one])[0].numpy()
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(alone.amodal_boxes, expected.amodal_boxes, atol=1e-2)
        np.testing.assert_allclose(alone.visible_boxes, expected.visible_boxes, atol=1e-2)
        np.testing.assert_allclose(alone.embeddings, expected.embeddings, atol=1e-4)
    nothing = made(name, min_score=1.0).eval().infer(frames[:2])
    assert [len(r.numpy()) for r in nothing] == [0, 0]
    assert nothing[0].embeddings.shape == (0, EMBEDDING)


@pytest.mark.parametrize("name", NAMES)
def test_the_backbone_sees_every_frame_once(name):
    model, counted = made(name), []
    model.backbone.register_forward_hook(lambda _, given, __: counted.append(len(given[0])))
    model.train().losses(pairs(*[scene(BOXES)] * 4))
    assert counted == [4]
    model.infer([frame(*SIZE), frame(*SIZE)])
    assert counted == [4, 2]


def test_the_one_mask_models_let_it_stand_for_the_other_and_say_nothing_is_hidden():
    for name in ("qdtrack", "amodal_track"):
        model = made(name, min_score=0.0).eval()
        torch.nn.init.constant_(model.mask_branch.logits.bias, 5.0)
        found = model.infer([frame(*SIZE)])[0].numpy()
        assert found.amodal.counts == found.visible.counts
        assert (found.amodal.areas() > 0).any()
        assert not found.occlusion_rates.any()
        assert not found.occluders.any()


def test_qdtrack_looks_for_visible_boxes_of_what_shows_and_the_others_for_amodal_ones():
    half = [(10, 10, 30, 50), (0, 0, 0, 0)]
    targets = scene(BOXES, visible=half)
    assert made("qdtrack").wanted(targets).boxes.tolist() == [list(half[0])]
    assert made("vatrack").wanted(targets).boxes.tolist() == [list(b) for b in BOXES]


def slow_track_loss(keys, references, same):
    rows = []
    for k, row in zip(keys.tolist(), same.tolist(), strict=True):
        if not any(row):
            continue
        dots = [sum(a * b for a, b in zip(k, r, strict=True)) for r in references.tolist()]
        up = sum(np.exp(-s) for s, positive in zip(dots, row, strict=True) if positive)
        down = sum(np.exp(s) for s, positive in zip(dots, row, strict=True) if not positive)
        rows.append(np.log1p(up * down))
    return np.mean(rows) if rows else 0.0


def slow_auxiliary_loss(keys, references, same):
    positives, negatives = [], []
    for k, row in zip(keys.numpy().astype(float), same.tolist(), strict=True):
        for r, positive in zip(references.numpy().astype(float), row, strict=True):
            cosine = k @ r / np.linalg.norm(k) / np.linalg.norm(r)
            if positive:
                positives.append((min(max(cosine, 0), 1) - 1) ** 2)
            else:
                negatives.append(min(max(cosine - 0.3, 0), 1) ** 2)
    hardest = sorted(negatives, reverse=True)[: 3 * len(positives)]
    total = positives + hardest
    return np.mean(total) if total else 0.0


@pytest.mark.parametrize("shared", [0.0, 0.1, 0.6, 1.0])
def test_both_losses_of_likeness_are_those_of_their_definitions(shared):
    draw = torch.Generator().manual_seed(3)
    keys, references = (torch.randn(n, 8, generator=draw) for n in (7, 11))
    same = torch.rand(7, 11, generator=draw) < shared
    same[2] = False  # a row without a positive counts for nothing
    track, auxiliary = track_losses(keys, references, same, 0.0)
    assert track.item() == pytest.approx(slow_track_loss(keys, references, same), rel=1e-5)
    assert auxiliary.item() == pytest.approx(slow_auxiliary_loss(keys, references, same), rel=1e-5)


def test_embeddings_of_any_length_give_finite_losses_and_the_temperature_takes_length_out():
    keys, references = torch.randn(6, 8) * 1e3, torch.randn(9, 8) * 1e3
    keys.requires_grad_()
    same = torch.rand(6, 9) < 0.3
    track, auxiliary = track_losses(keys, references, same, 0.0)
    (track + auxiliary).backward()
    assert torch.isfinite(keys.grad).all()
    longer, _ = track_losses(keys * 7, references * 2, same, 0.1)
    assert longer.item() == pytest.approx(track_losses(keys, references, same, 0.1)[0].item())


def test_embeddings_learnt_by_cosines_are_found_at_the_length_at_which_they_were_compared():
    for temperature, product in ((0.0, None), (0.1, 10.0)):
        model = made("vatrack", min_score=0.0, temperature=temperature).eval()
        (found,) = model.infer([frame(*SIZE)])
        own = (found.embeddings**2).sum(1)
        assert torch.allclose(own, torch.full_like(own, 10.0), atol=1e-3) == (product is not None)


def test_a_single_frame_is_its_own_reference():
    torch.manual_seed(1)
    batch = pairs(scene(BOXES))
    batch.clip = 1
    losses = made("vatrack").train().losses(batch)
    assert losses["track"] > 0
    assert finite(losses)


def test_embeddings_that_are_all_alike_and_long_are_pushed_apart():
    keys = (torch.full((2, 8), 10.0) + torch.randn(2, 8)).requires_grad_()
    references = torch.full((2, 8), 10.0) + torch.randn(2, 8)
    track, _ = track_losses(keys, references, torch.eye(2, dtype=torch.bool), 0.0)
    track.backward()
    assert track > 0.1
    assert keys.grad.abs().max() > 0.1


def test_rois_show_each_object_alike_and_background_of_every_overlap():
    wanted = scene([(10, 10, 50, 50), (60, 10, 100, 50)])
    many = torch.tensor([[10.0, 10, 50, 50]]) + torch.rand(300, 4)
    few = torch.tensor([[60.0, 10, 100, 50]]) + torch.rand(40, 4)
    # Shifted by s of 40 the overlap is (40 - s) / (40 + s): 1000 RoIs beside it, 30 on each bin.
    beside = torch.tensor([[10.0, 50, 50, 90]]) + torch.rand(1000, 4)
    shift = torch.tensor([[0.0, 1, 0, 1]])
    middle = torch.tensor([[10.0, 10, 50, 50]]) + shift * torch.linspace(28, 32, 30)[:, None]
    near = torch.tensor([[10.0, 10, 50, 50]]) + shift * torch.linspace(22.5, 26, 30)[:, None]
    proposals = torch.cat([many, few, beside, middle, near])
    rois = sample_rois(proposals, wanted, torch.zeros(0, 4), 64)
    assert len(rois) == 64
    assert (rois.ids == -1).sum() == 32
    assert 14 <= (rois.ids == 1).sum() <= 18
    overlaps = box_iou(rois.boxes, wanted.boxes)
    shown = rois.ids >= 0
    assert (overlaps[shown, rois.ids[shown]] >= 0.7).all()
    background = overlaps[~shown].amax(1)
    assert (background < 0.3).all()
    bins = torch.histc(background, 3, 0, 0.3)
    assert bins.min() >= 10


def test_negatives_are_at_most_three_for_each_positive_and_never_on_ignored_objects():
    wanted = scene([(10, 10, 50, 50)], ids=[42])
    corner = torch.rand(500, 2) * 60
    proposals = torch.cat([corner, corner + 30], 1)
    ignored = torch.tensor([[70.0, 60, 110, 90]])
    rois = sample_rois(proposals, wanted, ignored, 64)
    on = int((rois.ids == 42).sum())
    assert on >= 1  # the object itself is a proposal
    assert (rois.ids == -1).sum() == min(3 * on, 64 - on)
    assert (box_iou(rois.boxes[rois.ids < 0], ignored) < 0.3).all()
    assert set(rois.objects.ids.tolist()) == {42}


def test_looking_up_a_grid_in_its_own_box_and_in_another_keeps_the_mask_in_place():
    y, x = torch.meshgrid(*[torch.arange(28) - 13.5] * 2, indexing="ij")
    disc = (10.0 - (x**2 + y**2).sqrt())[None]
    small, large = torch.tensor([[40.0, 30, 68, 58]]), torch.tensor([[20.0, 10, 100, 90]])
    before = BoxMasks((96, 128), disc, small).rle()
    for target, least in ((small, 0.98), (large, 0.9)):
        after = BoxMasks((96, 128), regrid(disc, small, target, 56), target).rle()
        assert before.iou(after).item() > least


def slow_visible_boxes(model, features, found, batch, n):
    """As the published code does it: one detection at a time, its box the only proposal."""
    heads, size = model.visible_heads, batch.sizes[n]
    one = {k: v[n : n + 1] for k, v in features.items()}
    boxes = []
    for box in found.boxes:
        proposal = [box[None]]
        pooled = heads.box_head(heads.box_roi_pool(one, proposal, [size]))
        every, scores, _ = heads.postprocess_detections(
            *heads.box_predictor(pooled), proposal, [size]
        )
        boxes.append(every[0][scores[0].argmax()] if len(scores[0]) else box)
    return torch.stack(boxes)


@pytest.mark.parametrize("short_side", [64, 96, 160])
def test_two_boxes_are_right_at_any_scale(short_side):
    model = made("vatrack_two_box", min_score=0.01, short_side=short_side).eval()
    torch.nn.init.normal_(model.visible_heads.box_predictor.bbox_pred.weight, std=0.05)
    for branch in (model.amodal_branch, model.visible_branch):
        torch.nn.init.constant_(branch.logits.bias, 5.0)
    frames = [frame(*SIZE, seed=n) for n in range(2)]
    with torch.inference_mode():
        batch = make_batch(frames, short_side=short_side)
        features = model.backbone(batch.inputs(True))
        found = model.detect(batch)
        slow = [slow_visible_boxes(model, features, f, batch, n) for n, f in enumerate(found)]
    ratio = batch.scales[0].flip(0).repeat(2).numpy()
    for one, expected, result in zip(found, slow, model.infer(frames), strict=True):
        torch.testing.assert_close(one.visible_boxes, expected, atol=0.02, rtol=0)
        assert (expected - one.boxes).abs().max() > 2  # the heads differ
        host = result.numpy()
        shown = host.visible.areas() > 0
        assert shown.any()
        np.testing.assert_allclose(
            host.visible_boxes[shown], expected.numpy()[shown] / ratio, atol=0.1
        )
        # Masks that fill their boxes: what shows is where both boxes are.
        both = np.concatenate(
            [
                np.maximum(host.amodal_boxes[:, :2], (expected.numpy() / ratio)[:, :2]),
                np.minimum(host.amodal_boxes[:, 2:], (expected.numpy() / ratio)[:, 2:]),
            ],
            axis=1,
        )
        filled = RleMasks.from_boxes(both, SIZE)
        large = filled.areas() > 150
        assert large.any()
        assert (host.visible.iou(filled).diagonal()[large] > 0.85).all()


def test_without_a_visible_box_the_amodal_one_stands_in():
    model = made("vatrack_two_box", min_score=0.0).eval()
    predictor = model.visible_heads.box_predictor.cls_score
    torch.nn.init.zeros_(predictor.weight)
    predictor.bias.data = torch.tensor([20.0, 0, 0])  # all background
    (found,) = model.detect(make_batch([frame(*SIZE)]))
    assert torch.equal(found.visible_boxes, found.boxes)
