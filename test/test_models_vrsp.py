"""VRSP-Net: every flag trains, priors come from the codebook, the original's defects are absent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_scenes import frame, truth
from torchvision.ops import box_iou
from vrsp_scenes import BOXES, PLAIN, SIZE, SMALL, batch, finite, shapes, vrsp, with_codebook

from amodal_core.errors import InputError
from amodal_core.models.layers.attended_masks import (
    feature_distance,
    mask_ious,
    prior_factor,
    weighted_mask_loss,
)
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.vrsp import Vrsp


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# Training


def test_every_weight_is_trained_before_there_is_a_codebook():
    model = vrsp().train()
    losses = model.losses(batch(BOXES))
    assert set(losses) >= {
        "amodal", "visible", "amodal_refined", "visible_refined", "amodal_guided",
        "visible_guided", "matching", "visible_class", "auto_encoder",
    }  # fmt: skip
    assert finite(losses)
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    # Without a codebook the priors are empty.
    assert not model.prior_fusion.weight.grad[:, 256:].any()


def test_with_a_codebook_the_auto_encoder_rests_and_the_priors_are_learned():
    model = with_codebook(vrsp().train())
    losses = model.losses(batch(BOXES))
    assert "auto_encoder" not in losses
    sum(losses.values()).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still
    assert all(n.startswith("auto_encoder.") for n in still)
    assert model.prior_fusion.weight.grad[:, 256:].any()


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"refinement": "visible"}, {"amodal_guided"}),
        ({"refinement": "visible", "prior_refinement": False}, {"amodal_guided", "amodal_refined"}),
        (PLAIN | {"refinement": "coarse"}, {"amodal_refined", "visible_refined", "matching"}),
        ({"feature_matching": False}, {"matching"}),
        ({"reclassification": False}, {"visible_class"}),
        ({"prior_refinement": False, "prior_rescoring": False}, {"auto_encoder"}),
    ],
)
def test_every_version_trains_and_infers_the_one_whose_amodal_masks_are_coarse_too(changes, absent):
    model = vrsp(**changes).train()
    losses = model.losses(batch(BOXES))
    assert finite(losses)
    assert not absent & set(losses)
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    if model.config.refinement != "cross":
        (found,) = model.infer([frame(*SIZE)])
        assert len(found) > 0


@pytest.mark.parametrize("built", [False, True])
def test_no_objects_one_pixel_and_the_whole_image_give_finite_losses(built):
    model = with_codebook(vrsp()) if built else vrsp()
    together = model.train().losses(batch([], [(5, 5, 6, 6)], [(0, 0, 96, 64)]))
    nothing = model.losses(batch([]))
    assert set(nothing) == set(together)
    assert finite(together)
    assert finite(nothing)
    (sum(together.values()) + sum(nothing.values())).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_an_object_of_which_nothing_shows_gives_finite_losses():
    targets = targets_of(truth(SIZE, BOXES))
    targets.visible[1] = False
    targets.visible_boxes[1] = 0
    assert finite(vrsp().train().losses(make_batch([frame(*SIZE)], [targets])))


def test_no_detections_give_empty_instances():
    (result,) = with_codebook(vrsp(min_score=1.0)).infer([frame(*SIZE)])
    assert len(result.numpy()) == 0


@pytest.mark.parametrize("changes", [{}, PLAIN])
def test_batched_and_single_inference_agree(changes):
    model = vrsp(**changes)
    if not changes:
        with_codebook(model)
    frames = [frame(*SIZE, seed=n) for n in range(2)]
    together = [r.numpy() for r in model.infer(frames)]
    for one, expected in zip(frames, together, strict=True):
        alone = model.infer([one])[0].numpy()
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(alone.amodal_boxes, expected.amodal_boxes, atol=1e-2)
        ious = alone.amodal.iou(expected.amodal).diagonal()
        assert (ious[alone.amodal.areas() > 0] > 0.99).all()


def test_training_steps_lower_the_losses_of_all_looks_and_of_the_prior():
    model = vrsp().train()
    some = batch(BOXES)
    targets = some.targets[0]
    rois = PositiveRois([targets.boxes], [targets], [torch.arange(2)])
    with torch.no_grad():
        features = model.backbone(some.inputs(True))
    trained = [p for n, p in model.named_parameters() if not n.startswith(("backbone", "heads"))]
    optimizer = torch.optim.SGD(trained, 0.1, momentum=0.9)
    history = []
    for _ in range(4):
        losses = model.mask_losses(features, rois, some)
        history.append({n: v.item() for n, v in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 2.0)
        optimizer.step()
    for name in ("amodal", "visible", "amodal_guided", "visible_guided", "auto_encoder"):
        assert history[-1][name] < history[0][name], name


def test_settings_that_exclude_each_other_are_named():
    for wrong, message in (
        ({"refinement": "coarse"}, "feature_matching, reclassification, prior_refinement"),
        ({"refinement": "both"}, "refinement: input should be 'coarse', 'visible' or 'cross'"),
        ({"rescoring_alpha": 1.0}, "rescoring_alpha: input should be greater than 1"),
        ({"encoder_convolutions": 4}, "encoder_convolutions: input should be 2 or 3"),
    ):
        with pytest.raises(InputError, match=message):
            Vrsp.from_config(SMALL | wrong)


# Defects of the original


def test_visible_masks_are_learned_from_visible_truth_not_from_the_amodal_outline():
    targets = targets_of(truth(SIZE, [(10, 10, 50, 50)]))
    targets.visible[0, :, 30:] = False
    some = make_batch([frame(*SIZE)], [targets])
    model = vrsp(**PLAIN).eval()
    rois = PositiveRois([torch.tensor([[10.0, 10, 50, 50]])], some.targets, [torch.tensor([0])])
    # Heads that see the left half: perfect for the visible mask, half wrong for the amodal one.
    half = torch.full((1, 28, 28), -20.0)
    half[:, :, :14] = 20.0
    look = model._look(torch.zeros(1, 256, 14, 14), torch.tensor([0]))
    for one in (look.coarse_amodal, look.coarse_visible):
        one.logits = half
    model._look = lambda *_: look
    features = model.backbone(some.inputs(True))
    losses = model.mask_losses(features, rois, some)
    assert losses["visible"] < 1e-6
    assert losses["amodal"] == pytest.approx(10.0, abs=0.1)


def test_refined_masks_count_by_the_iou_of_their_own_image_and_of_the_other_mask():
    some = batch([(10, 10, 50, 50)], [(20, 10, 60, 50)])
    model = vrsp(**PLAIN).eval()
    first = torch.zeros(1, dtype=torch.int64)
    rois = PositiveRois([t.boxes for t in some.targets], some.targets, [first, first])
    whole, nothing = torch.full((28, 28), 9.0), torch.full((28, 28), -9.0)
    half = torch.where(torch.arange(28) < 14, whole, nothing)
    look = model._look(torch.zeros(2, 256, 14, 14), rois.labels)
    look.coarse_visible.logits = torch.stack([whole, nothing])  # IoU 1 and 0
    look.coarse_amodal.logits = torch.stack([half, whole])  # IoU 0.5 and 1
    look.visible.logits = torch.stack([torch.zeros(28, 28), whole])
    look.amodal.logits = torch.stack([torch.zeros(28, 28), nothing])
    model._look = lambda *_: look
    with torch.no_grad():
        losses = model.mask_losses(model.backbone(some.inputs(True)), rois, some)
    # The first RoI's entropy is log 2; the second one's is 9 for amodal, next to 0 for visible.
    assert losses["amodal_refined"].item() == pytest.approx(np.log(2) / 2, rel=1e-3)
    assert losses["visible_refined"].item() == pytest.approx(0.5 * np.log(2) / 2, rel=1e-3)


def test_a_weight_is_the_iou_of_each_roi_and_an_empty_mask_found_empty_is_right():
    found = torch.zeros(3, 4, 4, dtype=torch.bool)
    true = found.clone()
    found[0, :, :2], true[0], true[1] = True, True, True
    assert mask_ious(found, true).tolist() == [0.5, 0.0, 1.0]
    each = weighted_mask_loss(torch.zeros(3, 4, 4), true.float(), mask_ious(found, true))
    assert each.item() == pytest.approx(np.log(2) / 2, rel=1e-5)


def test_a_head_answers_in_the_channel_of_the_class_that_is_asked():
    head = vrsp(**PLAIN).amodal_head
    x = torch.randn(3, 256, 14, 14)
    labels = torch.tensor([1, 0, 1])
    look = head(x, labels)
    every = torch.nn.functional.conv2d(look.outer, head.weight[:, :, None, None], head.bias)
    assert torch.allclose(look.logits, every[torch.arange(3), labels], atol=1e-5)
    look.logits[0].sum().backward()
    assert head.weight.grad[1].any()
    assert not head.weight.grad[0].any()


def test_priors_are_looked_up_by_binary_masks_whatever_the_size_of_the_logits():
    model = with_codebook(vrsp()).eval()
    mask = shapes(1)
    logits = (mask - 0.5) * torch.rand(1, 28, 28) * 3
    label = torch.tensor([0])
    weak, strong = model._priors(logits * 0.01, label), model._priors(logits * 100, label)
    assert torch.equal(weak, strong)
    with torch.no_grad():
        latent, _ = model.codebook.nearest(model.auto_encoder.encode(mask), label, 4)
        wanted = model.auto_encoder.decode(latent[0])
    assert torch.allclose(strong[0], torch.nn.functional.avg_pool2d(wanted[:, None], 2)[:, 0])


@pytest.mark.parametrize("count", [1, 7, 80])
def test_heads_and_codebook_have_as_many_classes_as_the_data(count):
    names = tuple(f"class {n}" for n in range(count))
    model = vrsp(classes=names, centres=2)
    assert len(model.amodal_head.bias) == len(model.visible_head.bias) == count
    assert len(model.codebook.counts) == model.reclassifier[-1].out_features == count


# Attention


def test_each_refined_look_attends_to_what_the_other_head_saw():
    model = vrsp(prior_refinement=False).eval()
    x, label = torch.rand(1, 256, 14, 14), torch.tensor([0])
    inputs = {}

    def record(head, given):
        inputs.setdefault(head, []).append(given[0])

    for head in (model.amodal_head, model.visible_head):
        head.register_forward_pre_hook(record)
    with torch.no_grad():
        look = model._look(x, label)
    pool = torch.nn.functional.avg_pool2d
    by_amodal = pool(look.coarse_amodal.logits, 2).sigmoid()
    by_visible = pool(look.visible.logits, 2).sigmoid()
    assert torch.allclose(inputs[model.visible_head][1], x * by_amodal[:, None])
    assert torch.allclose(inputs[model.amodal_head][1], x * by_visible[:, None])


def test_feature_matching_pulls_the_coarse_features_to_the_guided_ones_not_back():
    coarse = torch.randn(2, 3, 4, 4, requires_grad=True)
    guided = torch.randn(2, 3, 4, 4, requires_grad=True)
    feature_distance(coarse, guided).backward()
    assert coarse.grad.any()
    assert guided.grad is None
    assert feature_distance(coarse, 3 * coarse).item() == pytest.approx(0.0, abs=1e-6)
    assert feature_distance(coarse, -coarse).item() == pytest.approx(2.0, abs=1e-6)


# Scores


def test_rescoring_is_the_geometric_mean_of_score_class_and_likeness():
    model = with_codebook(vrsp()).eval()
    x, labels = torch.rand(4, 256, 14, 14), torch.tensor([0, 1, 0, 1])
    scores = torch.tensor([0.9, 0.5, 0.1, 0.7])
    with torch.no_grad():
        look = model._look(x, labels)
        new = model._rescored(x, labels, scores, look)
        pool = torch.nn.functional.avg_pool2d(look.visible.logits[:, None], 2)
        p = model.reclassifier(x * pool).softmax(-1)[torch.arange(4), labels]
        mask = look.amodal.logits > 0
        latents, _ = model.codebook.nearest(model.auto_encoder.encode(mask), labels, 1)
        prior = model.auto_encoder.decode(latents[:, 0]) > 0.5
    d = (mask ^ prior).float().mean((1, 2))
    expected = scores * (0.6 + 0.4 * p) * torch.relu(torch.log(2 - d) / np.log(2))
    assert torch.allclose(new, expected ** (1 / 3), atol=1e-6)


def test_likeness_keeps_all_of_a_score_or_nothing():
    wrong = torch.tensor([0.0, 1.0])
    assert prior_factor(wrong, 2.0).tolist() == [1.0, 0.0]
    assert prior_factor(wrong, 3.0)[1] == pytest.approx(np.log(2) / np.log(3))


def test_a_class_without_shapes_keeps_its_score():
    model = vrsp(reclassification=False).eval()
    model.codebook.fill({0: np.zeros((1, 128), np.float32)})
    x, labels = torch.rand(1, 256, 14, 14), torch.tensor([1])
    with torch.no_grad():
        new = model._rescored(x, labels, torch.tensor([0.25]), model._look(x, labels))
    assert new.item() == pytest.approx(0.5)


def test_scores_change_before_overlapping_candidates_suppress_each_other():
    """Of two boxes on each other the one stays that wins after rescoring."""
    model = vrsp(nms=0.3).eval()
    some = batch(BOXES)
    near = torch.tensor([[6.0, 8, 50, 50], [7, 8, 50, 50]])
    assert box_iou(near[:1], near[1:]).item() > 0.9
    features = model.backbone(some.inputs(True))
    model._candidates = lambda _: (
        features, [near], [torch.tensor([0.9, 0.2])], [torch.zeros(2, dtype=torch.int64)],
    )  # fmt: skip
    model._rescored = lambda *_: torch.tensor([0.3, 0.8])
    with torch.no_grad():
        (found,) = model.detect(some)
    assert found.scores.tolist() == pytest.approx([0.8])
    assert found.boxes.tolist() == near[1:].tolist()


def test_candidates_are_those_of_the_trunk_before_its_suppression():
    model = vrsp(**PLAIN, nms=1.0, max_instances=100).eval()
    some = batch(BOXES, BOXES)
    with torch.no_grad():
        _, boxes, scores, labels = model._candidates(some)
        for n, found in enumerate(model.detect(some)):
            order = scores[n].argsort(descending=True)
            assert torch.allclose(found.scores, scores[n][order], atol=1e-6)
            assert torch.allclose(found.boxes, boxes[n][order], atol=1e-4)
            assert torch.equal(found.labels, labels[n][order])
