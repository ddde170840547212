"""S-AModal: what is trained and what rests, prompts in one batch, weights of both layouts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from s_amodal_scenes import TINY, made
from training_scenes import CLASSES, run_config, street, write_streets

from amodal_core.frame import Instances, Report
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.layers import sam_adapter
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.s_amodal import SAModal, SAModalConfig
from training import state
from training.train import train


@pytest.fixture(scope="module")
def model():
    """A tiny model that draws something of everything: random weights with a lively decoder."""
    lively = made(detector="geometric").eval()
    with torch.no_grad():
        for name, value in lively.sam.mask_decoder.named_parameters():
            if name.startswith("output_hypernetworks_mlps"):
                value.mul_(20)
        lively.sam.mask_decoder.iou_prediction_head.proj_out.bias.fill_(0.7)
    return lively


def batch(*seeds, objects=4):
    samples = [street(k, objects) for k in seeds]
    return make_batch([s.frame for s in samples], [targets_of(s.truth) for s in samples])


def shown(sample):
    return sample.truth[sample.truth.visible.areas() > 0]


@pytest.fixture
def encoded(monkeypatch):
    """Images that went through the encoder, call by call."""
    calls, real = [], sam_adapter.encode

    def counting(encoder, images, *rest):
        calls.append(len(images))
        return real(encoder, images, *rest)

    monkeypatch.setattr("amodal_core.models.s_amodal.encode", counting)
    return calls


def test_an_image_is_encoded_once_whatever_is_in_it(model, encoded, monkeypatch):
    asked = []
    real = sam_adapter.decoded
    monkeypatch.setattr(
        "amodal_core.models.s_amodal.decoded",
        lambda sam, embedding, points, *rest: (
            asked.append(points.shape) or real(sam, embedding, points, *rest)
        ),
    )
    samples = [street(1, 5), street(2, 3)]
    model.draw([s.frame for s in samples], [shown(s) for s in samples])
    assert encoded == [2]
    assert asked == [(1, len(shown(s)), 1, 2) for s in samples]
    model.losses(batch(1, 2))
    assert encoded == [2, 2]


def test_frames_together_give_what_each_gives_alone(model):
    samples = [street(k) for k in (1, 2, 3)]
    together = model.draw([s.frame for s in samples], [shown(s) for s in samples])
    for sample, one in zip(samples, together, strict=True):
        (alone,) = model.draw([sample.frame], [shown(sample)])
        assert alone.amodal.counts == one.amodal.counts
        np.testing.assert_allclose(alone.scores, one.scores, atol=1e-5)
        for n in range(len(one)):
            (single,) = model.draw([sample.frame], [shown(sample)[[n]]])
            assert len(single) == 1
    repeated = model.draw([samples[0].frame], [shown(samples[0])])[0]
    assert repeated.amodal.counts == together[0].amodal.counts


def test_one_prompt_gives_the_same_mask_among_others_and_alone(model):
    one = batch(4)
    with torch.inference_mode():
        embedding = model.embed(one.images, one.sizes)
        points = torch.tensor([[[20.0, 30]], [[60, 40]], [[80, 20]]])
        logits, scores = model.ask(embedding, points, one.sizes[0])
        for k in range(3):
            single, score = model.ask(embedding, points[k : k + 1], one.sizes[0])
            torch.testing.assert_close(single[0], logits[k], atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(score[0], scores[k], atol=1e-4, rtol=1e-4)
    assert logits.shape == (3, 64, 96)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_a_mask_comes_back_to_the_pixels_that_it_was_drawn_for(model, monkeypatch):
    """SAM draws its square's own coordinates; (x + 0.5) 128 / 96 belongs to pixel x of 96."""
    cells = (torch.arange(64.0) + 0.5) * 2
    ramps = torch.stack([cells.expand(64, 64), cells[:, None].expand(64, 64)])[:, None]
    asked = []
    monkeypatch.setattr(
        "amodal_core.models.s_amodal.decoded",
        lambda sam, embedding, points, labels: asked.append(points) or (ramps, torch.ones(2)),
    )
    points = torch.tensor([[[40.0, 30]], [[0, 0]]])
    logits, _ = model.ask(torch.zeros(1, 64, 16, 16), points, (64, 96))
    x, y = (torch.arange(96) + 0.5) * 128 / 96, (torch.arange(64) + 0.5) * 85 / 64
    torch.testing.assert_close(logits[0, 30, 1:-1], x[1:-1])
    torch.testing.assert_close(logits[1, 1:-1, 30], y[1:-1])
    # SAM adds half a pixel to prompts of its own.
    assert (asked[0][0, 0, 0] + 0.5).tolist() == pytest.approx([40.5 * 128 / 96, 30.5 * 85 / 64])


def test_the_visible_mask_stays_and_belongs_to_the_whole_one(model):
    sample = street(3)
    seen = shown(sample)
    (found,) = model.draw([sample.frame], [seen])
    assert found.visible.counts == seen.visible.counts
    assert (found.visible - found.amodal).areas().sum() == 0
    assert found.class_ids.tolist() == seen.class_ids.tolist()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    whole = found.amodal.areas()
    np.testing.assert_allclose(found.occlusion_rates, 1 - found.visible.areas() / whole, atol=1e-6)
    apart = made(union=False).eval()
    apart.load_state_dict(model.state_dict())
    (drawn,) = apart.draw([sample.frame], [seen])
    assert (drawn.amodal | seen.visible).counts == found.amodal.counts
    assert drawn.amodal.counts != found.amodal.counts
    assert (drawn.visible - drawn.amodal).areas().sum() == 0


def test_empty_frames_and_masks_of_one_pixel_or_none_are_results(model):
    sample = street(1)
    frame = sample.frame
    (none,) = model.draw([frame], [Instances.empty(frame.size)])
    assert len(none) == 0
    assert model.draw([], []) == []
    dense = np.zeros((3, *frame.size), bool)
    dense[0, 63, 95] = dense[1, 0, 0] = True
    masks = RleMasks.from_dense(dense)
    zeros = np.zeros(3, np.float32)
    seen = replace(
        Instances.empty(frame.size), scores=zeros + 1, class_ids=np.zeros(3, np.int64),
        visible=masks, amodal=masks, depths=zeros, occlusion_rates=zeros,
        visible_boxes=masks.boxes(), amodal_boxes=masks.boxes(), occluders=np.zeros((3, 3), bool),
    )  # fmt: skip
    (found,) = model.draw([frame], [seen])
    assert np.isfinite(found.scores).all()
    assert (found.amodal.areas() > 0).tolist() == [True, True, False]
    assert found.scores[2] == 0


def test_losses_of_empty_images_and_one_pixel_objects_are_finite_and_reach_all_that_is_trained():
    model = made(freeze=False)
    full = batch(1, 2)
    assert full.targets is not None
    tiny = replace(full.targets[0].select(torch.tensor([0])))
    tiny.amodal, tiny.visible = torch.zeros_like(tiny.amodal), torch.zeros_like(tiny.visible)
    tiny.amodal[0, 63, 95] = True  # and nothing of it visible
    for targets in ([t.select(torch.zeros(len(t), dtype=torch.bool)) for t in full.targets],
                    [tiny, full.targets[1]]):  # fmt: skip
        losses = model.losses(replace(full, targets=targets))
        assert set(losses) == {"focal", "dice", "score"}
        assert all(torch.isfinite(v) for v in losses.values())
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_the_loss_is_twenty_times_the_focal_of_the_mean_entropy_and_dice():
    """Of known logits, against a slow way through NumPy."""
    model, one = made(), batch(5)
    assert one.targets is not None
    drawn = torch.randn(len(one.targets[0]), 64, 96, generator=torch.Generator().manual_seed(1))
    expected = torch.full((len(drawn),), 0.25)
    model.ask = lambda *_: (drawn, expected)
    losses = model.losses(one)
    focal, dice, score = [], [], []
    whole = one.targets[0].amodal[:, :64, :96].numpy()
    for x, y in zip(drawn.double().numpy(), whole, strict=True):
        p = 1 / (1 + np.exp(-x))
        b = -np.where(y, np.log(p), np.log(1 - p)).mean()
        focal.append(0.8 * (1 - np.exp(-b)) ** 2 * b)
        dice.append(1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
        score.append((0.25 - ((x > 0) & y).sum() / ((x > 0) | y).sum()) ** 2)
    assert float(losses["focal"]) == pytest.approx(20 * np.mean(focal), rel=1e-5)
    assert float(losses["dice"]) == pytest.approx(np.mean(dice), rel=1e-5)
    assert float(losses["score"]) == pytest.approx(np.mean(score), rel=1e-4)


def test_the_error_of_the_score_reaches_the_iou_head_alone():
    model = made()
    model.losses(batch(1))["score"].backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved
    assert all(".iou_prediction_head." in name for name in moved)


@pytest.mark.parametrize("encoder", ["samadpt", "adapt", "normal"])
def test_the_adapter_and_the_decoder_learn_and_the_rest_of_sam_rests(encoder, tmp_path):
    data = write_streets(tmp_path / "streets", 2)
    settings = TINY | {"encoder": encoder}
    values = {
        "model": "s_amodal", "settings": settings, "steps": 1, "schedule": {"kind": "cosine"},
        "optimiser": {"name": "adamw", "rate": 1e-3, "weight_decay": 0.0}, "save_every": 1,
        "augment": {"flip": 0.0},
    }  # fmt: skip
    outcome = train(run_config(tmp_path / "run", data, **values))
    saved = torch.load(tmp_path / "run" / state.LAST, weights_only=True)["model"]
    state.seed_step(0, 0, 0)
    before = SAModal(SAModalConfig(CLASSES, **settings)).state_dict()
    moved = {name for name in before if not torch.equal(before[name], saved[name])}
    added = {n for n in before if n.startswith(("generator.", "adapters."))}
    assert added <= moved
    assert bool(added) == (encoder != "normal")
    assert {n.split(".")[1] for n in moved - added} == {"mask_decoder"}
    told = registry.create("s_amodal", "cpu", checkpoint=str(outcome.checkpoints[-1]))
    assert told.config.encoder == encoder


def test_from_random_weights_everything_that_a_point_reaches_learns():
    frozen, free = made(), made(freeze=False)
    trained = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (frozen, free)]
    assert trained[0] < trained[1]
    assert any(n.startswith("sam.vision_encoder.") for n in trained[1])
    free.losses(batch(1, 2))["dice"].backward()
    idle = [
        n
        for n, p in free.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert all(".iou_prediction_head." in name for name in idle)


def test_the_high_pass_takes_what_is_flat_and_keeps_edges():
    flat = torch.full((1, 3, 64, 48), 2.5)
    assert sam_adapter.high_pass(flat).abs().max() < 1e-5
    checks = ((torch.arange(64)[:, None] + torch.arange(48)) % 2 * 2.0 - 1).expand(1, 3, -1, -1)
    torch.testing.assert_close(sam_adapter.high_pass(checks), torch.ones_like(checks))
    # Half the square's side is floor(sqrt(64 * 48 / 4) / 2) = 13: waves up to 12 a side are taken.
    for waves, kept in ((12, False), (14, True)):
        wave = torch.cos(2 * torch.pi * waves * torch.arange(64) / 64)[:, None].expand(1, 3, 64, 48)
        assert (sam_adapter.high_pass(wave).max() > 0.5) == kept


def test_an_adapter_of_zeros_leaves_sam_as_it_is():
    plain = made(encoder="normal")
    images = torch.randn(2, 3, 128, 128)
    wanted = plain.sam.vision_encoder(images).last_hidden_state
    torch.testing.assert_close(sam_adapter.encode(plain.sam.vision_encoder, images), wanted)
    for encoder in ("samadpt", "adapt"):
        other = made(encoder=encoder)
        other.sam.load_state_dict(plain.sam.state_dict())
        rest = other.generator, other.adapters
        with torch.no_grad():
            assert (sam_adapter.encode(other.sam.vision_encoder, images, *rest) - wanted).any()
            for part in rest:
                for value in part.parameters() if part is not None else ():
                    value.zero_()
        silent = sam_adapter.encode(other.sam.vision_encoder, images, *rest)
        torch.testing.assert_close(silent, wanted, atol=1e-4, rtol=1e-4)


def test_the_score_is_the_detectors_times_the_expected_iou(model):
    sample = street(3)
    certain = shown(sample)
    doubtful = replace(certain, scores=np.linspace(0.2, 0.9, len(certain), dtype=np.float32))
    (expected,) = model.draw([sample.frame], [replace(certain, scores=certain.scores * 0 + 1)])
    (scored,) = model.draw([sample.frame], [doubtful])
    np.testing.assert_allclose(scored.scores, expected.scores * doubtful.scores, rtol=1e-5)
    alone = made(detector_score=False).eval()
    alone.load_state_dict(model.state_dict())
    (published,) = alone.draw([sample.frame], [doubtful])
    np.testing.assert_allclose(published.scores, expected.scores, rtol=1e-5)


@pytest.mark.parametrize("prompt", ["none", "maxdis", "maxent", "saliency"])
def test_every_prompt_trains_and_infers(prompt):
    model = made(prompt=prompt, num_points=2)
    losses = model.losses(batch(1))
    torch.stack(list(losses.values())).sum().backward()
    sample = street(1)
    (found,) = model.draw([sample.frame], [shown(sample)])
    assert len(found) == len(shown(sample))
    if prompt == "none":  # nothing tells the objects apart
        with torch.inference_mode():
            one = batch(1)
            logits, _ = model.ask(
                model.embed(one.images, one.sizes), torch.rand(2, 2, 2) * 60, one.sizes[0]
            )
        torch.testing.assert_close(logits[0], logits[1])


def test_live_the_detector_of_the_registry_is_asked(model, tmp_path):
    sample = street(3)
    info = CheckpointInfo("s_amodal", model.config_json(), CLASSES)
    save_checkpoint(tmp_path / "m.safetensors", model, info)
    live = registry.create("s_amodal", "cpu", checkpoint=str(tmp_path / "m.safetensors"))
    assert live.inputs == {"image", "points", "calibration"}
    report = Report()
    (found,) = live.infer([sample.frame], report)
    (seen,) = registry.create("geometric").infer([sample.frame])
    assert live.classes == registry.create("geometric").classes
    assert len(found) == len(seen) > 0
    assert found.class_ids.tolist() == seen.class_ids.tolist()
    assert found.visible.counts == seen.visible.counts
    stages = ("detect", "encode", "masks", "carry")
    assert {f"s_amodal.{stage}" for stage in stages} <= set(report.timings)
    assert live.infer([]) == []
    assert not any("geometric" in name for name in live.state_dict())


def test_many_images_are_encoded_a_few_at_once(model, encoded):
    samples = [street(k, 2) for k in range(6)]
    model.draw([s.frame for s in samples], [shown(s) for s in samples])
    assert encoded == [4, 2]


def test_importing_the_core_does_not_import_transformers():
    code = (
        "import sys, amodal_core.models.registry as r, amodal_core.models.s_amodal\n"
        "assert 'transformers' not in sys.modules\n"
        "sys.modules['transformers'] = None\n"
        "from amodal_core.errors import InputError\n"
        "from amodal_core.models.s_amodal import SAModal, SAModalConfig\n"
        "try:\n    SAModal(SAModalConfig(('car',), size='tiny'))\n"
        "except InputError as error:\n    assert 'amodal_ros[sam]' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
