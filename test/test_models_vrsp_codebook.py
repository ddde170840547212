"""VRSP-Net's prior: the auto-encoder, the codebook of shapes, and how either is built."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from model_scenes import frame
from training_scenes import CLASSES, run_config, write_streets
from typer.testing import CliRunner
from vrsp_scenes import BOXES, PLAIN, SIZE, SMALL, batch, shapes, vrsp, with_codebook

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.layers.attended_masks import mask_ious
from amodal_core.models.layers.positive_rois import PositiveRois
from amodal_core.models.shape_prior import (
    Codebook,
    MaskAutoEncoder,
    MaskCollection,
    prior_shapes,
    turns,
)
from amodal_core.models.vrsp import Vrsp
from amodal_ros.cli.main import app
from training.codebook import build_codebook
from training.config import as_values, read
from training.train import train


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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
