"""Runs: exact resume, averages, checkpoints, and stops that lose nothing."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from training_scenes import CLASSES, Tiny, data, last, run_config, tiny

from amodal_core.errors import InputError
from amodal_core.models.checkpoint import CheckpointInfo, read_info, save_checkpoint
from amodal_core.models.flagship import Flagship, FlagshipConfig
from training import engine, hooks, state
from training.setup import begin_with
from training.train import train

FULL = {
    "settings": {"dropout": 0.3},
    "augment": {"flip": 0.5, "scale": [0.8, 1.2], "brightness": 0.2, "depth_dropout": 0.3},
    "ema": 0.9,
    "accumulate": 2,
    "log_every": 1,
    "optimiser": {"name": "adamw", "rate": 0.01, "clip": 1.0},
}


__all__ = ["data", "tiny"]


def same(a, b):
    """Equal to the last bit, whatever the nesting."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def stopped_at(step, monkeypatch, config):
    """Run until a signal comes during a step, as a scheduler or Ctrl-C would send it."""
    taken = engine.Trainer.step

    def told(self, number, *rest):
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "step", told)
        outcome = train(config)
    assert not outcome.finished
    return outcome


def test_a_stopped_run_goes_on_to_the_very_same_weights(data, tmp_path, monkeypatch):
    whole = run_config(tmp_path / "whole", data, **FULL)
    train(whole)
    config = run_config(tmp_path / "parts", data, **FULL)
    assert stopped_at(2, monkeypatch, config).steps == 3
    torch.manual_seed(99)  # what else the process draws is of no account
    np.random.default_rng().random()
    outcome = train(config)
    assert (outcome.steps, outcome.finished) == (6, True)
    a, b = last(tmp_path / "whole"), last(tmp_path / "parts")
    for part in ("model", "optimizer", "ema", "scaler"):
        assert same(a[part], b[part]), part
    steps = [json.loads(s)["step"] for s in (tmp_path / "parts/metrics.jsonl").open()]
    assert steps == sorted(set(steps))


def test_the_schedule_is_applied_once(data, tmp_path):
    schedule = {"kind": "step", "milestones": [2, 4], "gamma": 0.1}
    optimiser = {"name": "sgd", "rate": 0.5}
    for steps in (2, 3, 5):  # each goes on from the one before
        train(run_config(tmp_path / "run", data, steps=steps, schedule=schedule,
                         optimiser=optimiser))  # fmt: skip
        rates = [g["lr"] for g in last(tmp_path / "run")["optimizer"]["param_groups"]]
        assert rates == pytest.approx([0.5 * 0.1 ** ((steps - 1) // 2)] * 2)


def test_workers_change_nothing(data, tmp_path):
    for name, workers in (("none", 0), ("two", 2)):
        train(run_config(tmp_path / name, data, **FULL, workers=workers, steps=3))
    assert same(last(tmp_path / "none")["model"], last(tmp_path / "two")["model"])


def test_accumulated_parts_equal_one_whole_batch(data, tmp_path):
    for name, parts in (("whole", 1), ("parts", 2)):
        train(run_config(tmp_path / name, data, batch_size=4, accumulate=parts, steps=3))
    a, b = last(tmp_path / "whole")["model"], last(tmp_path / "parts")["model"]
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def test_a_folder_of_other_settings_is_not_continued(data, tmp_path):
    train(run_config(tmp_path / "run", data, steps=2))
    with pytest.raises(InputError, match="other settings: optimiser"):
        train(run_config(tmp_path / "run", data, steps=3, optimiser={"rate": 0.5}))
    train(run_config(tmp_path / "run", data, steps=3))  # longer is the same run
    assert last(tmp_path / "run")["progressed"]["step"] == 3


def test_a_broken_state_is_named(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / state.LAST).write_bytes(b"half a file")
    with pytest.raises(InputError, match="no state of a run"):
        train(run_config(tmp_path / "run", data))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(data, tmp_path):
    config = run_config(tmp_path / "run", data, settings={"explode": 4}, save_every=2)
    with pytest.raises(InputError, match=r"not finite at step 3: pixels nan"):
        train(config)
    batch = torch.load(tmp_path / "run/broken_batch_rank0.pt", weights_only=True)
    assert batch["step"] == 3
    assert len(batch["names"]) == len(batch["images"]) == len(batch["targets"]) == 2
    assert all(name.startswith("street/") for name in batch["names"])
    kept = last(tmp_path / "run")
    assert kept["progressed"]["step"] == 2
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_gradients_that_are_not_finite_are_never_saved(data, tmp_path, monkeypatch):
    def broken(self, batch):
        zero = self.last.bias.sum() * 0
        return {"pixels": zero.sqrt()}  # 0 forward, NaN backward

    monkeypatch.setattr(Tiny, "losses", broken)
    with pytest.raises(InputError, match="not finite"):
        train(run_config(tmp_path / "run", data, steps=1))
    assert not (tmp_path / "run" / state.LAST).exists()


def test_the_best_checkpoint_is_that_of_the_best_evaluation(data, tmp_path, monkeypatch):
    values = iter([0.2, 0.7, 0.4])
    monkeypatch.setattr(hooks, "judge", lambda *_: {"visible AP50": next(values)})
    config = run_config(
        tmp_path / "run", data, held_out=[{"path": str(data)}], evaluate_every=2, ema=0.5,
        metric="visible AP50",
    )  # fmt: skip
    outcome = train(config)
    assert outcome.best == 0.7
    best, final = read_info(outcome.checkpoints[0]), read_info(outcome.checkpoints[1])
    assert (best.metrics, final.metrics) == ({"visible AP50": 0.7}, {"visible AP50": 0.4})
    assert (best.model, best.classes) == ("tiny", CLASSES)
    assert "train" in best.data
    loaded = Tiny.from_checkpoint(str(outcome.checkpoints[1]))
    averaged = last(tmp_path / "run")["ema"]["module.last.weight"]
    assert torch.equal(loaded.last.weight, averaged)


def test_the_average_trails_the_weights_and_catches_up_in_the_beginning():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = state.MovingAverage(model, 0.99)
    average.update()
    torch.nn.init.ones_(model.weight)
    expected, seen = 0.0, []
    for n in range(1, 6):
        average.update()
        decay = min(0.99, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
        seen.append(float(average.module.weight.detach()))
        assert seen[-1] == pytest.approx(expected)
    assert seen[-1] > 0.9


def test_the_held_out_split_is_judged_by_the_projects_own_evaluation(data, tmp_path):
    config = run_config(tmp_path / "run", data, held_out=[{"path": str(data), "stop": 3}], steps=1)
    outcome = train(config)
    assert {"amodal AP", "visible AP50", "box AR@100"} <= set(outcome.metrics)
    assert all(0 <= v <= 1 for v in outcome.metrics.values())
    with pytest.raises(InputError, match="no metric 'mask AP'"):
        train(run_config(tmp_path / "other", data, metric="mask AP"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(data, tmp_path, precision):
    train(run_config(tmp_path / "run", data, precision=precision, steps=3, store="fp16"))
    model = last(tmp_path / "run")["model"]
    assert all(torch.isfinite(v).all() for v in model.values())
    assert Tiny.from_checkpoint(str(tmp_path / "run/final.safetensors")).last.weight.dtype == (
        torch.float32
    )


def test_a_run_begins_with_the_weights_of_a_checkpoint(data, tmp_path):
    train(run_config(tmp_path / "first", data, steps=2))
    init = str(tmp_path / "first/final.safetensors")
    # A rate that changes nothing: what comes out is what went in.
    second = {"init": init, "steps": 1, "optimiser": {"name": "sgd", "rate": 1e-30}}
    train(run_config(tmp_path / "second", data, **second))
    assert same(last(tmp_path / "first")["model"], last(tmp_path / "second")["model"])
    with pytest.raises(InputError, match="checkpoint with the classes"):
        train(run_config(tmp_path / "x", data, init=init, classes=["car", "bicycle", "person"]))


def test_a_run_begins_with_what_another_model_shares(tmp_path, data):
    small = {"backbone": "resnet18", "norm": "group", "channels": 32, "frozen_stages": 0}
    config = run_config(tmp_path / "first", data, model="mask_rcnn", settings=small, steps=1)
    train(config)
    init = str(tmp_path / "first/final.safetensors")
    still = {"init": init, "steps": 1, "optimiser": {"name": "sgd", "rate": 1e-30}}
    train(run_config(tmp_path / "second", data, model="aisformer", settings=small, **still))
    first, second = (last(tmp_path / run)["model"] for run in ("first", "second"))
    shared = first.keys() & second.keys()
    assert {name.split(".")[0] for name in shared} == {"backbone", "rpn", "heads"}
    assert all(torch.equal(first[name], second[name]) for name in shared)
    wide = {**small, "channels": 64}
    with pytest.raises(InputError, match="of another shape"):
        train(run_config(tmp_path / "x", data, model="aisformer", settings=wide, **still))
    with pytest.raises(InputError, match="shares no tensor"):
        train(run_config(tmp_path / "y", data, init=init))


def test_a_run_of_another_variant_begins_with_the_heads(tmp_path):
    classes = ("car", "person")
    first, second = (
        Flagship(FlagshipConfig(classes, variant=variant)) for variant in ("compact", "lite")
    )
    path = tmp_path / "compact.safetensors"
    save_checkpoint(path, first, CheckpointInfo("flagship", first.config_json(), classes))
    begin_with(second, str(path))
    old, new = first.state_dict(), second.state_dict()
    assert torch.equal(new["head.classes.weight"], old["head.classes.weight"])
    assert new["pyramid.lateral.0.convs.0.weight"].shape[1] == 40  # the backbone's own


def test_losses_go_down_and_are_written(data, tmp_path):
    train(run_config(tmp_path / "run", data, steps=30, log_every=5, optimiser={"rate": 0.05}))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert {"pixels", "gradient_norm", "rate", "images_per_second", "memory_gb"} <= set(rows[0])
    assert list((tmp_path / "run/tensorboard").iterdir())
