"""What people see of a run: its page, its pictures, services that are told, and a run tried dry."""

from __future__ import annotations

import json
import re
import sys
import types

import cv2
import numpy as np
import pytest
from training_scenes import data, run_config, tiny

from amodal_core.errors import InputError
from amodal_core.views.report import learning
from training import dry_run, loggers, state
from training.config import as_values
from training.train import train

__all__ = ["data", "tiny"]


def test_a_run_leaves_its_pictures_and_one_page(data, tmp_path):
    out = tmp_path / "run"
    config = run_config(
        out, data, held_out=[{"path": str(data), "stop": 3}], samples_every=2, samples=2,
        steps=5, evaluate_every=2, log_every=1,
    )  # fmt: skip
    outcome = train(config)
    names = sorted(p.name for p in (out / "samples").iterdir())
    assert names == [f"step_0000000{step}.jpg" for step in (2, 4, 5)]  # and after the last
    picture = cv2.imread(str(out / "samples" / names[0]))
    # Two samples one above the other, each 640 wide twice.
    assert picture.shape[1] == 2 * (640 + 6)
    assert picture.shape[0] == 2 * (round(64 * 640 / 96) + 22 + 6)
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing from elsewhere
    assert f"{100 * outcome.best:.1f}" in page
    assert "5 of 5 steps" in page
    assert "rate: 0.1" in page  # the settings


def test_short_runs_and_runs_without_pictures_draw_none(data, tmp_path):
    train(run_config(tmp_path / "short", data, samples_every=7, steps=2))
    train(run_config(tmp_path / "none", data, samples_every=0, steps=2))
    assert not (tmp_path / "short" / "samples").exists()
    assert not (tmp_path / "none" / "samples").exists()
    assert "<svg" in (tmp_path / "short" / "report.html").read_text()


def test_a_curve_stands_where_its_values_are():
    rows = [
        {"step": s, "group": "train", "loss": v, "rate": 0.1, "images_per_second": 1.0}
        for s, v in ((0, 1.0), (50, 10.0), (100, 100.0))
    ]
    page = learning.render("run", "tiny", rows, (100, 100), "amodal AP", [], "")
    loss = re.search(r'<polyline points="([^"]+)" class="curve"', page)[1]
    points = np.array([p.split(",") for p in loss.split()], float)
    left, top, width, height = (
        learning._LEFT, learning._TOP, learning._WIDTH, learning._HEIGHT
    )  # fmt: skip
    # Two decades: the middle of the steps is the middle of the values.
    expected = [
        (left, top + height), (left + width / 2, top + height / 2), (left + width, top)
    ]  # fmt: skip
    np.testing.assert_allclose(points, expected, atol=0.06)


class Service(types.ModuleType):
    """Stands for wandb or mlflow: remembers what it is called with."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []
        self.id = self.run_id = "abc123"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return types.SimpleNamespace(info=self) if name == "start_run" else self

        return call


def test_a_run_that_goes_on_is_the_same_run_of_weights_and_biases(data, tmp_path, monkeypatch):
    service = Service("wandb")
    monkeypatch.setitem(sys.modules, "wandb", service)
    config = run_config(
        tmp_path / "run", data, log_to=["wandb"], project="streets", samples_every=6
    )
    for _ in range(2):
        train(config)
    begun = [kwargs for name, _, kwargs in service.calls if name == "init"]
    assert [b["id"] for b in begun] == [None, "abc123"]
    assert begun[0]["project"] == "streets"
    assert begun[0]["config"] == as_values(config)
    logged = [args[0] for name, args, _ in service.calls if name == "log"]
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert logged[0] == {
        f"train/{k}" if k != "step" else k: v for k, v in row.items() if k != "group"
    }
    assert {"step", "samples"} in map(set, logged)


def test_mlflow_is_told_settings_once_and_values_by_name(data, tmp_path, monkeypatch):
    service = Service("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", service)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = run_config(tmp_path / "run", data, log_to=["mlflow"], held_out=[{"path": str(data)}])
    for _ in range(2):
        train(config)
    settings = [args[0] for name, args, _ in service.calls if name == "log_params"]
    assert len(settings) == 1
    assert settings[0]["optimiser.rate"] == 0.1
    uris = {args[0] for name, args, _ in service.calls if name == "set_tracking_uri"}
    assert uris == {(tmp_path / "run" / "mlflow").as_uri()}
    names = {n for name, args, _ in service.calls if name == "log_metrics" for n in args[0]}
    assert {"train/loss", "held_out/amodal AP", "held_out/box AR_100"} <= names


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_that_is_not_installed_is_named_before_anything_else(
    name, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, name, None)
    missing = run_config(tmp_path / "run", tmp_path / "no data", log_to=[name])
    with pytest.raises(InputError, match=rf"{name} is not installed \(pip .*\[{name}\]"):
        train(missing)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_services_write_offline(name, data, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = run_config(tmp_path / "run", data, log_to=[name], samples_every=6)
    for _ in range(2):
        train(config)
    written = {p.suffix for p in (tmp_path / "run" / name).rglob("*") if p.is_file()}
    assert ".png" in written
    assert written & {".wandb", ".yaml"}
    assert len((tmp_path / "run" / f"{name}_run.txt").read_text().strip()) > 4


def test_a_dry_run_says_what_a_run_takes_and_keeps_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run.tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    config = run_config(
        tmp_path / "run", data, held_out=[{"path": str(data), "stop": 2}], steps=3000,
        batch_size=4, classes=["car", "person", "cyclist"], accumulate=2,
    )  # fmt: skip
    lines = dict(dry_run.dry_run(config, processes=2))
    assert lines["classes"] == "car, person, cyclist"
    assert lines["class map"] == "pedestrian -> person"
    assert lines["samples"] == "5, 2 held out"
    # Four samples a step, over two processes and two parts of a step.
    assert lines["batch"].startswith("images 1x3x64x96, depth 1x2x64x96, ")
    seconds = float(lines["a step"].split()[0])
    assert lines["time"].endswith(" for 3000 steps, without evaluations")
    assert seconds < 5
    assert [p.name for p in tmp_path.iterdir()] == ["scratch"]
    assert not list((tmp_path / "scratch").iterdir())
    with pytest.raises(InputError, match="a multiple of 6"):
        dry_run.dry_run(config, processes=3)


def test_a_dry_run_refuses_what_the_run_would(data, tmp_path):
    train(run_config(tmp_path / "run", data, steps=2))
    config = run_config(tmp_path / "run", data, batch_size=1, steps=4)
    with pytest.raises(InputError, match="a run with other settings: batch_size"):
        dry_run.dry_run(config)
    lines = dict(dry_run.dry_run(run_config(tmp_path / "run", data, steps=4)))
    assert lines["time"].endswith(" for 2 steps, without evaluations")
    assert state.LAST in [p.name for p in (tmp_path / "run").iterdir()]


def test_loggers_are_those_asked_for(data, tmp_path):
    config = run_config(tmp_path / "run", data, log_to=[])
    train(config)
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert loggers.loggers(config, tmp_path, 0) == []
