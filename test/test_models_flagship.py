"""The flagship: finite everywhere, batched as single, sound without LiDAR, the same in ONNX."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_frames import CLASSES, drawn_frame
from evaluation_data import make_set
from model_scenes import frame, truth

from amodal_core.errors import InputError
from amodal_core.evaluation import image_level
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.sets import ImageRecord
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.flagship import Flagship, FlagshipConfig, Outputs
from amodal_core.models.layers.batch import (
    DEPTH_CHANNELS,
    depth_channels,
    make_batch,
    targets_of,
)
from amodal_core.models.layers.dense_head import Dense
from amodal_core.models.onnx_export import export_onnx

CONFIG = FlagshipConfig.compact(CLASSES, max_instances=20)
SIZE = (96, 160)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batch(*boxes, size=SIZE):
    frames = [frame(*size, seed=n) for n in range(len(boxes))]
    truths = [targets_of(truth(size, b)) for b in boxes]
    return make_batch(frames, [replace(t, labels=t.labels % len(CLASSES)) for t in truths])


def drawn(*seeds, **options):
    return [drawn_frame(s, SIZE, **options) for s in seeds]


def drawn_batch(*seeds):
    pairs = drawn(*seeds)
    return make_batch([f for f, _ in pairs], [targets_of(t) for _, t in pairs])


@pytest.fixture(scope="module")
def trained():
    """A compact model after a few steps on two frames, and its losses before and after them."""
    torch.manual_seed(0)
    model = Flagship(replace(CONFIG, min_score=0.0)).train()
    one = drawn_batch(0, 1)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    first = model.losses(one)
    for _ in range(30):
        optimizer.zero_grad()
        last = model.losses(one)
        sum(last.values()).backward()
        optimizer.step()
    return model.eval(), first, last


@pytest.fixture
def settled(trained):
    """That model, for inference."""
    return trained[0]


# Training


@pytest.mark.parametrize("variant", ["compact", "lite", "nanodet", "r50"])
def test_every_weight_is_trained(variant):
    config = getattr(FlagshipConfig, variant)(CLASSES, mask_side=14)
    # Objects of all sizes, for all levels.
    boxes = [(10, 10, 30, 30), (30, 20, 80, 70), (50, 15, 190, 125), (0, 0, 192, 128)]
    one = batch(boxes, boxes, size=(128, 192))
    for n, target in enumerate(one.targets):
        target.depths = torch.tensor([5.0, 6.0, 7.0, 8.0])
        target.occluders[3, 2] = n == 0
    model = Flagship(config).train()
    losses = model.losses(one)
    assert all(torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    still = [n for n, p in model.named_parameters() if not p.grad.any()]
    # Which level learns a box is up to the assignment; none but boxes' norms may be left out.
    # What detail adds begins at zero: its first layer learns from the second step on.
    assert [n for n in still if not n.startswith(("head.box_tower", "detail.0."))] == []
    norms = [n for n in still if n.startswith("head.box_tower")]
    assert len(norms) <= 2 * len(model.head.class_tower) * (len(model.head.strides) - 1)


@pytest.mark.parametrize(
    "boxes", [[], [(5, 5, 6, 6)], [(0, 0, 160, 96)], [(3, 3, 3, 9)], [(9, 9, 40, 40)] * 3]
)
def test_no_objects_one_pixel_the_whole_image_and_twins_give_finite_losses(boxes):
    model = Flagship(CONFIG).train()
    for one in (batch(boxes), batch(boxes, [(10, 10, 60, 50)])):
        model.zero_grad()
        losses = model.losses(one)
        assert all(torch.isfinite(v) for v in losses.values())
        sum(losses.values()).backward()
        # Processes that train together need a gradient, be it zero, of every weight.
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_image_of_which_all_is_ignored_trains_nothing_but_its_background():
    model = Flagship(CONFIG).train()
    one = batch([(0, 0, 160, 96)])
    one.targets[0].ignore[:] = True
    assert {k: round(v.item(), 6) for k, v in model.losses(one).items() if v != 0} == {}


def test_a_few_steps_lower_every_loss(trained):
    _, first, last = trained
    for name in ("class", "box", "visible_box", "amodal", "visible", "occluder", "depth"):
        assert last[name] < 0.8 * first[name], name


def test_half_precision_training_is_finite_and_near_single_precision():
    model = Flagship(CONFIG).train()
    one = drawn_batch(0, 1)
    exact = model.losses(one)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.losses(one)
    sum(rounded.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    for name in ("class", "box", "depth"):
        assert rounded[name].item() == pytest.approx(exact[name].item(), rel=0.1), name


# Assignment


# Parts


def test_candidates_beyond_those_of_one_object_let_others_be_detected(monkeypatch):
    # An object detected at 150 locations, and one of a lower score beside it at a single one.
    near = torch.tensor([10.0, 10.0, 60.0, 60.0])
    boxes = torch.cat([near.expand(150, 4), torch.tensor([[100.0, 20.0, 140.0, 80.0]])])[None]
    logits = torch.full((1, 151, len(CLASSES)), -9.0)
    logits[0, :150, 0], logits[0, 150, 0] = 2.0, 1.0
    for candidates, detections in ((100, 1), (200, 2)):
        model = Flagship(replace(CONFIG, candidates=candidates)).eval()
        features = torch.zeros(1, 151, model.head.channels)
        dense = Dense(logits, boxes, boxes, features, torch.zeros(151, 2), torch.ones(151))
        mask_features = torch.zeros(1, model.shape.mask_channels, 24, 40)
        monkeypatch.setattr(model, "_see", lambda *_, d=dense, m=mask_features: (d, m))
        with torch.no_grad():
            out = model(torch.zeros(1, 3, *SIZE))
        assert out.scores.shape == (1, 20)
        assert (out.scores[0] > 0).sum() == detections


def test_identities_are_shared_by_frames_of_a_video_only():
    model = Flagship(CONFIG).train()
    one = drawn_batch(0, 1)
    for target in one.targets:
        target.ids = torch.arange(len(target))
    apart = model.losses(one)["embedding"]
    together = model.losses(replace(one, videos=["a", "a"], indices=[0, 1]))["embedding"]
    assert together != apart


# Inference


def test_batched_and_single_inference_agree(settled):
    frames = [f for f, _ in drawn(2, 3, 4)]
    together = [r.numpy() for r in settled.infer(frames)]
    for one, expected in zip(frames, together, strict=True):
        (alone,) = [r.numpy() for r in settled.infer([one])]
        assert len(alone) == len(expected) > 0
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(alone.amodal_boxes, expected.amodal_boxes, atol=1e-2)
        np.testing.assert_allclose(alone.embeddings, expected.embeddings, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(alone.embeddings, axis=1), 1, atol=1e-5)
        ious = alone.amodal.iou(expected.amodal).diagonal()
        assert (ious[alone.amodal.areas() > 0] > 0.99).all()


def test_probabilities_of_classes_add_up_and_the_label_is_the_likeliest(settled):
    (result,) = settled.infer([drawn_frame(2, (90, 150))[0]])
    likely = result.numpy().class_probabilities
    assert likely.shape == (len(result), len(settled.classes))
    np.testing.assert_allclose(likely.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(likely.argmax(1), result.numpy().class_ids)


def test_visible_masks_lie_within_amodal_ones_and_boxes_within_the_image(settled):
    (result,) = settled.infer([drawn_frame(2, (90, 150))[0]])
    result = result.numpy()
    assert ((result.visible - result.amodal).areas() == 0).all()
    assert (result.amodal_boxes >= 0).all()
    assert (result.amodal_boxes <= [150, 90, 150, 90]).all()


def test_nothing_found_gives_empty_instances(settled):
    model = copy.deepcopy(settled)
    torch.nn.init.zeros_(model.head.classes.weight)
    model.config = replace(model.config, min_score=1.0)
    (result,) = model.infer([frame(96, 128)])
    assert len(result.numpy()) == 0


def test_without_lidar_the_image_alone_decides_to_the_bit(settled):
    one = drawn_batch(2)
    with torch.inference_mode():
        missing = settled(one.images, None)
        zeros = settled(one.images, torch.zeros_like(one.depth))
        lidar, settled.lidar = settled.lidar, None
        without = settled(one.images)
        settled.lidar = lidar
        present = settled(one.images, one.depth)
    for a, b, c in zip(missing, zeros, without, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert not torch.allclose(missing.boxes, present.boxes, atol=1e-3)


def test_lidar_reaches_no_farther_than_its_returns_let_it(settled):
    """A return at the left says nothing about the right edge of a wide image."""
    images = torch.randn(1, 3, 32, 640)
    depth = torch.zeros(1, DEPTH_CHANNELS, 32, 640)
    depth[0, :, 16, 4] = 1
    sensed = settled.lidar(depth, torch.float32)
    image = [torch.randn(1, w, 32 // s, 640 // s) for w, s in ((32, 4), (64, 8), (128, 16))]
    for fusion, (features, support), level in zip(settled.fusions, sensed, image, strict=True):
        changed = (fusion(level, features, support) != level).any(1)[0]
        assert changed[:, :4].any()
        assert not changed[:, changed.shape[1] // 4 :].any()
    assert images.shape == (1, 3, 32, 640)


def test_depth_is_the_lidars_where_it_falls_on_the_object_and_the_models_elsewhere(settled):
    one = drawn_batch(2)
    one.depth = depth_channels(torch.full(SIZE, 12.0))[None]
    with torch.inference_mode():
        (measured,) = settled.detect(one)
        covered = (measured.visible > 0).any((1, 2))
        assert covered.any()
        np.testing.assert_allclose(measured.depths[covered], 12.0, rtol=1e-5)
        (guessed,) = settled.detect(replace(one, depth=None))
    assert (guessed.depths > 0).all()
    assert np.abs(guessed.depths - 12).max() > 1e-3


def test_folded_norms_change_nothing(settled):
    one = drawn_batch(2, 3)
    folded = copy.deepcopy(settled).fuse()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.inference_mode():
        exact, masks = settled._see(one.images, one.depth)
        dense, folded_masks = folded._see(one.images, one.depth)
    for name in ("logits", "boxes", "visible_boxes", "features"):
        a, b = getattr(exact, name), getattr(dense, name)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(masks, folded_masks, rtol=1e-3, atol=1e-3)


def test_norms_of_a_resnet_fold_too():
    model = Flagship(FlagshipConfig.r50(CLASSES, mask_side=14, max_instances=5)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before = model.backbone(images)
        after = model.fuse().backbone(images)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_bfloat16_weights_give_finite_results_near_the_exact_ones(settled):
    one = drawn_batch(2)
    with torch.inference_mode():
        exact = settled(one.images, one.depth)
        rounded = copy.deepcopy(settled).bfloat16()(one.images, one.depth)
    assert all(part.isfinite().all() for part in rounded)
    assert rounded.boxes.dtype == rounded.amodal.dtype == torch.float32
    torch.testing.assert_close(rounded.scores.amax(), exact.scores.amax(), rtol=0.1, atol=0.05)


def test_nothing_in_the_forward_path_waits_for_the_device(settled):
    """A whole-graph export refuses whatever reads a tensor's value on the host."""
    one = drawn_batch(2)
    program = torch.export.export(settled, (one.images, one.depth))
    names = " ".join(str(n.target) for n in program.graph.nodes)
    assert "aten.topk" in names
    assert not any(n in names for n in ("aten.item", "nonzero", "_local_scalar", "masked_select"))


def test_outputs_have_the_size_that_the_configuration_tells(settled):
    with torch.inference_mode():
        out: Outputs = settled(torch.zeros(2, 3, 64, 96))
    assert out.boxes.shape == (2, 20, 4)
    assert out.amodal.shape == out.visible.shape == out.occluder.shape == (2, 20, 28, 28)
    assert out.embeddings.shape == (2, 20, 32)
    assert ((out.occlusion >= 0) & (out.occlusion <= 1)).all()


# Files


def test_a_checkpoint_is_small_and_gives_the_model_back_ready_for_inference(settled, tmp_path):
    path = tmp_path / "flagship.safetensors"
    info = CheckpointInfo("flagship", settled.config_json(), CLASSES)
    save_checkpoint(path, settled, info, torch.float16)
    assert path.stat().st_size < 20e6
    loaded = Flagship.from_checkpoint(str(path), min_score=0.0)
    one = drawn_batch(2)
    with torch.inference_mode():
        a, b = settled(one.images, one.depth), loaded(one.images, one.depth)
    torch.testing.assert_close(a.scores[:, :5], b.scores[:, :5], rtol=0.02, atol=0.02)


def test_what_is_no_variant_or_no_norm_is_refused():
    for wrong in ({"variant": "r51"}, {"norm": "group"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}: input should be "):
            Flagship.from_config({"classes": CLASSES} | wrong)


def test_onnx_of_a_size_that_does_not_fit_is_refused(settled, tmp_path):
    with pytest.raises(InputError, match="150x96"):
        export_onnx(settled, tmp_path / "flagship.onnx", (96, 150))
    assert not list(tmp_path.iterdir())


# Learning


def amodal_ap50(model, pairs) -> float:
    results = [r.numpy() for r in model.infer([f for f, _ in pairs])]
    images = [ImageRecord(n, *SIZE, str(n), "v", n) for n in range(len(pairs))]
    sets = []
    for tracks in ([t for _, t in pairs], results):
        rows = [
            (n, int(label), k, mask, float(score))
            for n, one in enumerate(tracks)
            for k, (label, mask, score) in enumerate(
                zip(one.class_ids, one.amodal.rle().dense(), one.scores, strict=True)
            )
        ]
        sets.append(make_set(rows, images, CLASSES))
    scores = image_level.evaluate(*sets, "amodal", IMAGE_PROTOCOLS["coco"])
    return float(scores.values["AP50"])


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes on an idle core
def test_eight_frames_are_learned_by_heart():
    pairs = drawn(*range(8))
    assert sum((t.occlusion_rates > 0.2).sum() for _, t in pairs) >= 8
    one = drawn_batch(*range(8))
    model = Flagship(FlagshipConfig.compact(CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, 200, pct_start=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        sum(model.losses(one).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
    score = amodal_ap50(model, pairs)
    print(f"amodal AP50 of eight frames: {score:.3f}")
    assert score > 0.9
