"""Checkpoints made of checkpoints are what arithmetic says, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_scenes import frame
from safetensors.torch import load_file
from training_scenes import SETTINGS
from typer.testing import CliRunner

from amodal_core.errors import InputError
from amodal_core.models import mixing, registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint, save_tensors
from amodal_core.models.checkpoint_info import read_info
from amodal_ros.cli.main import app

CLASSES = ("car", "truck", "pedestrian")


def checkpoint(path, seed, name="flagship", dtype=None, data="", partial=False, **changes):
    """Weights of a seed."""
    torch.manual_seed(seed)
    model = registry.learned(name).from_config(SETTINGS[name] | {"classes": CLASSES} | changes)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.randn_like(value) * 0.01)
    info = CheckpointInfo(
        name, model.config_json(), CLASSES, data, f"c{seed}", {"amodal AP": 1.0}, partial
    )
    save_checkpoint(path, model, info, dtype)
    return path


@pytest.fixture
def pair(tmp_path):
    return [checkpoint(tmp_path / f"{k}.safetensors", k, data="two drives") for k in (1, 2)]


@pytest.mark.parametrize("shares", [(), (3.0, 1.0)])
def test_a_mean_is_the_mean_of_every_weight(pair, tmp_path, shares):
    mixing.mean(pair, tmp_path / "m.safetensors", shares)
    a, b, m = (load_file(p) for p in (*pair, tmp_path / "m.safetensors"))
    share = 0.75 if shares else 0.5
    assert set(m) == set(a)
    for name, value in m.items():
        wanted = a[name].double() * share + b[name].double() * (1 - share)
        assert value.dtype == a[name].dtype
        assert torch.equal(value, wanted.to(value)), name
    info = read_info(tmp_path / "m.safetensors")
    assert (info.model, info.classes, info.metrics) == ("flagship", CLASSES, {})
    assert (info.data, info.commit) == ("two drives", "c1; c2")


def test_runs_of_other_lengths_have_a_mean(pair, tmp_path):
    """Norms count their batches: the mean has the first one's."""
    for k, path in enumerate(pair):
        state = load_file(path)
        counters = {n: v + 100 * (k + 1) for n, v in state.items() if n.endswith("batches_tracked")}
        assert counters
        save_tensors(path, state | counters, read_info(path))
    mixing.mean(pair, tmp_path / "m.safetensors")
    done = load_file(tmp_path / "m.safetensors")
    assert {int(v) for n, v in done.items() if n.endswith("batches_tracked")} == {100}


def test_a_mean_has_the_number_types_of_the_first(pair, tmp_path):
    half = checkpoint(tmp_path / "half.safetensors", 1, dtype=torch.float16)
    mixing.mean([half, pair[1]], tmp_path / "m.safetensors")
    kinds = {v.dtype for v in load_file(tmp_path / "m.safetensors").values()}
    assert torch.float16 in kinds
    assert torch.float32 not in kinds


def test_what_has_no_mean_is_refused_and_nothing_written(pair, tmp_path):
    out = tmp_path / "m.safetensors"

    def refused(paths, match, shares=()):
        with pytest.raises(InputError, match=match):
            mixing.mean(paths, out, shares)
        assert not out.exists()

    refused(pair[:1], "a mean is of two different files or more")
    refused([pair[0], pair[0]], "two different files")
    refused(pair, "1 shares of 2 checkpoints", (1.0,))
    refused(pair, "2 shares of 2 checkpoints", (1.0, float("nan")))
    refused([pair[0], tmp_path / "none.safetensors"], "there is no such checkpoint")
    other = checkpoint(tmp_path / "x.safetensors", 1, "mask_rcnn")
    refused([pair[0], other], "another .*model.* than in .*1.safetensors")
    other = checkpoint(tmp_path / "x.safetensors", 1, most_pixels=9000, min_score=0.2)
    refused([pair[0], other], "another most_pixels than in")
    other = checkpoint(tmp_path / "x.safetensors", 1, partial=True)
    refused([pair[0], other], "a part of the weights alone")


def test_what_is_given_out_of_what_is_found_is_the_firsts(pair, tmp_path):
    chosen = {"min_score": 0.2, "max_instances": 7, "nms": 0.4, "candidates": 50, "mask_side": 12}
    other = checkpoint(tmp_path / "x.safetensors", 3, **chosen)
    for paths, wanted in (([other, pair[0]], chosen), ([pair[0], other], None)):
        mixing.mean(paths, tmp_path / "m.safetensors")
        config = read_info(tmp_path / "m.safetensors").config
        expected = wanted or {k: read_info(pair[0]).config[k] for k in chosen}
        assert {k: config[k] for k in chosen} == expected


def test_where_weights_lie_and_what_runs_them_need_not_be_the_same(pair, tmp_path):
    other = checkpoint(tmp_path / "x.safetensors", 3, weights="", runtime="torch")
    mixing.mean([pair[0], other], tmp_path / "m.safetensors")


def test_codebooks_have_no_mean(tmp_path):
    paths = []
    for seed in (1, 2):
        path = checkpoint(tmp_path / f"v{seed}.safetensors", seed, "vrsp")
        paths.append(path)
    with pytest.raises(InputError, match=r"codebook\.centres is another than .*`amodal codebook`"):
        mixing.mean(paths, tmp_path / "m.safetensors")


def test_shifted_scores_are_other_by_just_that_in_log_odds(pair, tmp_path):
    mixing.shifted(pair[0], tmp_path / "s.safetensors", {"truck": -1.5, "car": 0.25})
    said = []
    for path in (pair[0], tmp_path / "s.safetensors"):
        model = registry.create("flagship", checkpoint=str(path), runtime="torch")
        model.head.register_forward_hook(lambda _, given, dense: said.append(dense.logits))
        model.infer([frame(64, 96)])
    by = (said[1] - said[0]).numpy().reshape(-1, 3)
    assert by == pytest.approx(np.tile([0.25, -1.5, 0], (len(by), 1)), abs=1e-4)


def test_only_classes_of_a_model_with_scores_of_their_own_are_shifted(pair, tmp_path):
    out = tmp_path / "s.safetensors"
    with pytest.raises(InputError, match="no class 'lorry' in the checkpoint"):
        mixing.shifted(pair[0], out, {"lorry": 1.0})
    other = checkpoint(tmp_path / "x.safetensors", 1, "mask_rcnn")
    with pytest.raises(InputError, match="'mask_rcnn' has no logits with a bias for each class"):
        mixing.shifted(other, out, {"car": 1.0})
    assert not out.exists()


def test_both_are_commands(pair, tmp_path):
    run = CliRunner().invoke
    mixed, out = tmp_path / "m.safetensors", tmp_path / "s.safetensors"
    done = run(
        app,
        ["weights", "mean", *map(str, pair), "--out", str(mixed), "--share", "1", "--share", "2"],
    )
    assert done.exit_code == 0, done.output
    done = run(app, ["weights", "shift", str(mixed), "--logit", "car=-0.5", "--out", str(out)])
    assert done.exit_code == 0, done.output
    bias = [load_file(p)["head.classes.bias"] for p in (mixed, out)]
    assert (bias[1] - bias[0]).tolist() == pytest.approx([-0.5, 0, 0])
    for wrong in ("car=low", "car=.nan", "car=yes", "car"):
        done = run(app, ["weights", "shift", str(mixed), "--logit", wrong, "--out", str(out)])
        assert isinstance(done.exception, InputError), wrong
