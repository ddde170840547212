"""VRSP-Net: every flag trains, priors come from the codebook, the original's defects are absent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from model_scenes import frame, truth
from torchvision.ops import box_iou
from training_scenes import CLASSES, run_config, write_streets
from typer.testing import CliRunner

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.layers.attended_masks import (
    feature_distance,
    mask_ious,
    prior_factor,
    weighted_mask_loss,
)
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.shape_prior import (
    Codebook,
    MaskAutoEncoder,
    MaskCollection,
    prior_shapes,
    turns,
)
from amodal_core.models.vrsp import Vrsp, VrspConfig
from amodal_ros.cli.main import app
from training.codebook import build_codebook
from training.config import as_values, read
from training.train import train

SIZE = (64, 96)
SMALL = {
    "classes": ("car", "pedestrian"), "backbone": "resnet18", "norm": "group", "frozen_stages": 0,
    "samples": 4, "positive_share": 0.5, "proposals": 3, "proposals_train": 20, "min_score": 0.0,
    "reclassification_hidden": 8, "centres": 32, "priors": 4, "encoder_convolutions": 3,
}  # fmt: skip
PLAIN = {"reclassification": False, "prior_refinement": False, "prior_rescoring": False,
         "feature_matching": False}  # fmt: skip
BOXES = [(6, 8, 50, 50), (40, 20, 80, 60)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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


# Auto-encoder and codebook


@pytest.mark.parametrize(("convolutions", "width"), [(2, 392), (3, 128)])
def test_the_auto_encoder_learns_to_return_masks(convolutions, width):
    auto_encoder = MaskAutoEncoder(convolutions)
    masks = shapes(16)
    assert auto_encoder.encode(masks).shape == (16, width)
    optimizer = torch.optim.Adam(auto_encoder.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        auto_encoder.loss(masks).backward()
        optimizer.step()
    with torch.no_grad():
        back = auto_encoder.decode(auto_encoder.encode(masks)) > 0.5
    assert mask_ious(back, masks > 0).mean() > 0.8
    assert auto_encoder.decode(torch.zeros(0, width)).shape == (0, 28, 28)


def test_nearest_shapes_are_those_of_a_slow_search_within_the_class():
    codebook = Codebook(3, 20, 16)
    draw = np.random.default_rng(0)
    latents = {0: draw.normal(size=(20, 16)), 1: draw.normal(size=(3, 16))}
    codebook.fill({k: v.astype(np.float32) for k, v in latents.items()})
    queries = draw.normal(size=(50, 16)).astype(np.float32)
    labels = draw.integers(0, 3, 50)
    found, known = codebook.nearest(torch.from_numpy(queries), torch.from_numpy(labels), 5)
    assert found.shape == (50, 5, 16)
    for query, label, rows, is_known in zip(queries, labels, found, known, strict=True):
        assert bool(is_known) == (label != 2)
        if label == 2:
            assert not rows.any()
            continue
        own = latents[label]
        order = sorted(range(len(own)), key=lambda m: ((own[m] - query) ** 2).sum())[:5]
        order = [order[k % len(order)] for k in range(5)]
        np.testing.assert_allclose(rows.numpy(), own[order], rtol=1e-5)


def test_a_codebook_keeps_few_masks_in_all_turns_and_thins_many_by_k_means():
    auto_encoder = MaskAutoEncoder(3)
    half = torch.zeros(28, 28)
    half[:9, :20] = 1  # eight different turns
    masks = MaskCollection(3)
    masks.add(torch.stack([half, half, torch.zeros(28, 28)]), torch.tensor([1, 1, 2]))
    few = masks.latents(auto_encoder, 1024)
    assert {k: v.shape for k, v in few.items()} == {1: (8, 128)}
    with torch.no_grad():
        for turned in turns(half.numpy()[None]):
            latent = auto_encoder.encode(torch.from_numpy(turned.copy())[None]).numpy()
            assert np.abs(few[1] - latent).max(1).min() < 1e-6
    masks.add(shapes(30), torch.ones(30, dtype=torch.int64))
    many = masks.latents(auto_encoder, 10)[1]
    assert many.shape == (10, 128)
    assert np.array_equal(many, masks.latents(auto_encoder, 10)[1])
    with torch.no_grad():
        every = auto_encoder.encode(torch.from_numpy(turns(shapes(30).numpy()))).numpy()

    def left(centres):
        return ((every[:, None] - centres[None]) ** 2).sum(2).min(1).mean()

    draw = np.random.default_rng(0)
    assert left(many) < min(left(every[draw.choice(240, 10)]) for _ in range(5))


def test_a_codebook_built_from_frames_travels_in_the_checkpoint(tmp_path):
    model = vrsp(prior_iou=1.0)
    assert model.build_codebook([batch(BOXES, []), batch([])]) == [1, 1]  # squares stay squares
    assert model.codebook.built
    path = tmp_path / "vrsp.safetensors"
    save_checkpoint(path, model, CheckpointInfo("vrsp", model.config_json(), model.classes))
    again = registry.create("vrsp", checkpoint=str(path), runtime="torch")
    assert torch.equal(again.codebook.centres, model.codebook.centres)
    assert torch.equal(again.codebook.counts, model.codebook.counts)
    one = frame(*SIZE)
    ours, theirs = model.infer([one])[0].numpy(), again.infer([one])[0].numpy()
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    # One without a codebook has the same tensors, so that the second run begins with either.
    assert {k: v.shape for k, v in vrsp().state_dict().items()} == {
        k: v.shape for k, v in again.state_dict().items()
    }


def test_a_codebook_also_takes_predictions_that_are_nearly_right_and_truth_in_their_boxes():
    objects = batch([(10, 10, 50, 50)]).targets
    boxes = torch.tensor([[10.0, 10, 50, 54], [10, 10, 50, 50], [10, 10, 50, 80]])
    rois = PositiveRois([boxes], objects, [torch.zeros(3, dtype=torch.int64)])
    inside = rois.amodal(28) > 0
    predicted = inside.clone()
    predicted[1, :14] = False  # a good box with a bad mask; the third has a bad box
    taken, labels = prior_shapes(rois, predicted, inside, least_iou=0.95)
    assert len(taken) == len(labels) == 3  # the truth, one prediction, the truth in its box
    assert taken[0].all()
    assert torch.equal(taken[1] > 0, inside[0])
    truth_alone, _ = prior_shapes(rois, predicted, inside, least_iou=1.0)
    assert len(truth_alone) == 1


def test_masks_for_a_codebook_are_drawn_in_close_boxes_alone_and_are_those_of_inference():
    model = vrsp(**PLAIN | {"prior_rescoring": True}, prior_iou=0.0, max_instances=50).eval()
    some = batch([(10, 10, 50, 50)], [])
    (truth_box,) = some.targets[0].boxes
    near, far = truth_box + 1, torch.tensor([60.0, 5, 90, 60])
    boxes = [torch.stack([near, far, near]), far[None]]
    labels = [torch.tensor([0, 0, 1]), torch.tensor([0])]  # the last near one is of another class
    model.find = lambda *_: (boxes, [torch.ones(3), torch.ones(1)], labels)
    asked = []
    look = model._look
    model._look = lambda x, ids: asked.append(len(ids)) or look(x, ids)
    masks, kinds = model._shapes_of(some)
    assert asked == [1]
    assert kinds.tolist() == [0, 0, 0]  # the truth, the prediction, the truth in its box
    with torch.no_grad():
        features = model.features(some)
        amodal, _ = model.masks(features, [near[None], far[:0].view(0, 4)], [kinds[:1]], some)
    assert torch.equal(masks[1] > 0, amodal[0] > 0)


@pytest.mark.parametrize("rescored", [True, False])
def test_features_are_looked_up_for_some_candidates_at_a_time(monkeypatch, rescored):
    model = (with_codebook(vrsp(candidates=0)) if rescored else vrsp(**PLAIN)).eval()
    some = batch(BOXES, BOXES[:1])
    with torch.no_grad():
        at_once = model.detect(some)
        pooled, pool = [], model.pool.forward
        model.pool.forward = lambda *given: pooled.append(len(torch.cat(given[1]))) or pool(*given)
        monkeypatch.setattr("amodal_core.models.vrsp._AT_ONCE", 2)
        in_portions = model.detect(some)
    assert max(pooled) == 2
    assert len(pooled) > 2
    for a, b in zip(at_once, in_portions, strict=True):
        assert len(a.boxes) > 0
        for name in ("boxes", "scores", "labels", "amodal", "visible"):
            torch.testing.assert_close(getattr(b, name), getattr(a, name))


def test_a_sample_of_very_many_masks_is_the_same_whatever_their_order(tmp_path):
    made = shapes(60)
    labels = torch.ones(60, dtype=torch.int64)
    auto_encoder = MaskAutoEncoder(3)

    def latents(order, seed=0, stop=None):
        masks = MaskCollection(2, seed, most=10)
        for k, n in enumerate(order):
            if k == stop:  # interrupted: what was saved goes on in a new collection
                masks.save(tmp_path / "shapes.part", k, "run")
                masks = MaskCollection(2, seed, most=10)
                assert masks.load(tmp_path / "shapes.part", "another run") == 0
                assert masks.load(tmp_path / "shapes.part", "run") == k
            masks.add(made[n : n + 1], labels[n : n + 1])
            assert sum(map(len, masks._rows[1])) <= 20
        return masks.latents(auto_encoder, 1024)[1]

    forth = latents(range(60))
    assert len(forth) == 80  # ten masks in eight turns
    assert np.array_equal(forth, latents(range(59, -1, -1)))
    assert np.array_equal(forth, latents(range(60), stop=35))
    assert not np.array_equal(forth, latents(range(60), seed=1))


def test_a_model_without_priors_or_data_without_objects_builds_no_codebook():
    with pytest.raises(InputError, match="no shape prior"):
        vrsp(**PLAIN).build_codebook([batch(BOXES)])
    with pytest.raises(InputError, match="no object"):
        vrsp().build_codebook([batch([])])


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


# From the command line


def run_file(tmp_path):
    """A configuration of one step, written to a file."""
    data = write_streets(tmp_path / "streets", 2)
    settings = {k: v for k, v in SMALL.items() if k != "classes"}
    told = run_config(
        tmp_path / "first", data, model="vrsp", settings=settings, steps=1,
        optimiser={"name": "sgd", "rate": 0.001, "weight_decay": 0.01},
    )  # fmt: skip
    file = tmp_path / "vrsp.yaml"
    file.write_text(yaml.safe_dump(as_values(told)))
    return file


def with_shapes(file, checkpoint, out):
    done = CliRunner().invoke(app, ["codebook", str(file), str(checkpoint), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out)
    return Vrsp.from_checkpoint(str(out))


def test_an_interrupted_codebook_goes_on_where_it_stopped(tmp_path, monkeypatch):
    file, first = run_file(tmp_path), tmp_path / "first.safetensors"
    model = vrsp(classes=CLASSES)
    save_checkpoint(first, model, CheckpointInfo("vrsp", model.config_json(), CLASSES))
    at_once = with_shapes(file, first, tmp_path / "at_once.safetensors")
    monkeypatch.setattr("training.codebook._SAVE_EVERY", 0.0)
    looked, shapes_of = [], Vrsp._shapes_of

    def stopped(model, some):
        looked.append(len(some))
        if len(looked) == 2:
            raise KeyboardInterrupt
        return shapes_of(model, some)

    monkeypatch.setattr(Vrsp, "_shapes_of", stopped)
    config, out = read(file, ["batch_size=1"]), tmp_path / "again.safetensors"
    with pytest.raises(KeyboardInterrupt):
        build_codebook(config, first, out, "cpu", lambda *_: None)
    assert not out.exists()
    assert out.with_suffix(".part").exists()
    build_codebook(config, first, out, "cpu", lambda *_: None)
    assert looked == [1, 1, 1]  # the second frame twice, the first one once
    assert not out.with_suffix(".part").exists()
    again = Vrsp.from_checkpoint(str(out))
    assert torch.equal(again.codebook.centres, at_once.codebook.centres)


def test_a_command_adds_the_codebook_to_a_checkpoint(tmp_path):
    file, first = run_file(tmp_path), tmp_path / "first.safetensors"
    before = vrsp(classes=CLASSES)
    save_checkpoint(first, before, CheckpointInfo("vrsp", before.config_json(), CLASSES))
    after = with_shapes(file, first, tmp_path / "shapes.safetensors")
    assert after.codebook.built
    kept, old = after.state_dict(), before.state_dict()
    assert all(torch.equal(kept[n], old[n]) for n in old if not n.startswith("codebook."))


@pytest.mark.slow
def test_two_runs_with_the_codebook_between_them(tmp_path):
    file = run_file(tmp_path)
    train(read(file, []))
    out = tmp_path / "shapes.safetensors"
    model = with_shapes(file, tmp_path / "first" / "final.safetensors", out)
    assert model.codebook.built
    outcome = train(read(file, [f"out={tmp_path / 'second'}", f"init={out}"]))
    again = Vrsp.from_checkpoint(str(outcome.checkpoints[-1]))
    # The second run moves the heads; the shapes and the encoder that made them stay.
    assert torch.equal(again.codebook.centres, model.codebook.centres)
    for name, value in model.auto_encoder.state_dict().items():
        assert torch.equal(again.auto_encoder.state_dict()[name], value)
    assert not torch.equal(again.amodal_head.weight, model.amodal_head.weight)
