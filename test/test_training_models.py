"""Each model trains: a few steps quickly, eight frames by heart slowly."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from training_scenes import Streets, run_config, write_drives, write_streets

from amodal_core.frame import Report
from amodal_core.inference import tracks_of
from amodal_core.models import registry
from training import state
from training.train import train

TWO_STAGE = {
    "backbone": "resnet18", "norm": "group", "frozen_stages": 0, "proposals_train": 100,
    "proposals": 40, "samples": 16, "anchor_scale": 4.0, "max_instances": 20,
}  # fmt: skip
GRID = {"low": [0, -10.24, -3], "high": [25.6, 10.24, 1]}  # the streets' volume
SETTINGS = {
    "mask_rcnn": TWO_STAGE,
    "orcnn": TWO_STAGE,
    "aisformer": TWO_STAGE | {"hidden": 128},
    "qdtrack": TWO_STAGE,
    "amodal_track": TWO_STAGE,
    "vatrack": TWO_STAGE,
    "vatrack_two_box": TWO_STAGE,
    "flagship": {},
    "pointpillars": {"grid": GRID, "lidar": False},
    "s_amodal": {"size": "tiny", "image_size": 128, "freeze": False, "detector": "geometric"},
}


def clip_of(name):
    """What the configuration says of clips."""
    return {} if registry.learned(name).clip else None


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    return write_streets(tmp_path_factory.mktemp("streets") / "train", 4)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_few_steps_reach_the_weights_and_leave_a_checkpoint(name, streets, tmp_path):
    values = {
        "model": name, "settings": SETTINGS[name], "steps": 2, "clip": clip_of(name),
        "schedule": {"kind": "cosine"}, "optimiser": {"name": "sgd", "rate": 0.01, "clip": 5.0},
        "augment": {"flip": 0.5, "depth_dropout": 0.2, "scale": [0.9, 1.1]},
        "held_out": [{"path": str(streets), "stop": 1}],
    }  # fmt: skip
    outcome = train(run_config(tmp_path / "run", streets, **values))
    assert "amodal AP50" in outcome.metrics
    saved = torch.load(tmp_path / "run" / state.LAST, weights_only=True)
    moved = [s["momentum_buffer"].any() for s in saved["optimizer"]["state"].values()]
    # In so small a picture no object is as large as the flagship's coarsest level looks for.
    assert sum(moved) > (0.9 if name == "flagship" else 0.999) * len(moved)
    assert len(moved) == sum(len(g["params"]) for g in saved["optimizer"]["param_groups"])
    loaded = registry.create(name, "cpu", checkpoint=str(outcome.checkpoints[-1]), min_score=0.0)
    (found,) = tracks_of(loaded, [Streets(1).samples[0].frame], Report())
    assert found.amodal.size == (64, 96)


# Steps that sufficed with this data; the learning rate falls to 0 over them.
OVERFIT = {
    "mask_rcnn": (400, 5e-4),
    "orcnn": (400, 5e-4),
    "aisformer": (400, 5e-4),
    "flagship": (400, 1e-3),
}


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", OVERFIT)
def test_eight_frames_of_a_synthetic_drive_are_learnt_by_heart(name, project_root, tmp_path):
    drive = tmp_path / "drive"
    shutil.copytree(project_root / "data" / "sample_drive", drive)
    steps, rate = OVERFIT[name]
    settings = SETTINGS[name]
    if name != "flagship":
        settings = settings | {"samples": 32, "proposals_train": 300, "proposals": 150}
        settings |= {"max_instances": 100}
    values = {
        "model": name, "settings": settings, "steps": steps, "batch_size": 4,
        # At this size (540x163) smaller ones are a handful of pixels.
        "smallest": 60,
        "train": [{"path": str(drive), "stop": 8}], "held_out": [{"path": str(drive), "stop": 8}],
        "augment": {"flip": 0.0}, "schedule": {"kind": "cosine", "warm_up": 20},
        "optimiser": {"name": "adamw", "rate": rate, "clip": 5.0, "weight_decay": 0.0},
        "evaluate_every": 100, "metric": "amodal AP50",
    }  # fmt: skip
    outcome = train(run_config(tmp_path / "run", drive, **values))
    assert outcome.metrics["amodal AP50"] > 0.9


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["qdtrack", "amodal_track", "vatrack", "vatrack_two_box"])
def test_models_for_videos_learn_eight_frames_by_heart(name, tmp_path):
    data = write_drives(tmp_path / "drives", 4, 4)
    kind = "visible" if name == "qdtrack" else "amodal"
    values = {
        "model": name, "settings": TWO_STAGE | {"samples": 32}, "steps": 300, "batch_size": 2,
        "clip": {}, "smallest": 30, "held_out": [{"path": str(data)}], "metric": f"{kind} AP50",
        "augment": {"flip": 0.0}, "schedule": {"kind": "cosine", "warm_up": 20},
        "optimiser": {"name": "adamw", "rate": 5e-4, "clip": 5.0, "weight_decay": 0.0},
    }  # fmt: skip
    outcome = train(run_config(tmp_path / "run", data, **values))
    assert outcome.metrics[f"{kind} AP50"] > 0.9, json.dumps(outcome.metrics)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pointpillars_learns_eight_scans_by_heart(tmp_path):
    # Its norms follow the data by a hundredth a step: inference lags some hundred steps behind.
    data = write_streets(tmp_path / "streets", 8)
    values = {
        "model": "pointpillars", "settings": SETTINGS["pointpillars"], "steps": 700,
        "batch_size": 4, "held_out": [{"path": str(data)}], "metric": "amodal AP50",
        "augment": {"flip": 0.0}, "schedule": {"kind": "one_cycle"},
        "optimiser": {"name": "adamw", "rate": 2e-3, "clip": 35.0},
    }  # fmt: skip
    outcome = train(run_config(tmp_path / "run", data, **values))
    assert outcome.metrics["amodal AP50"] > 0.9, json.dumps(outcome.metrics)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_s_amodal_learns_eight_frames_by_heart_from_visible_masks(tmp_path):
    data = write_streets(tmp_path / "streets", 8)
    values = {
        "model": "s_amodal", "settings": SETTINGS["s_amodal"], "steps": 600, "batch_size": 4,
        "held_out": [{"path": str(data)}], "metric": "amodal AP50", "augment": {"flip": 0.0},
        "schedule": {"kind": "cosine", "warm_up": 40},
        "optimiser": {"name": "adamw", "rate": 5e-4, "clip": 1.0, "weight_decay": 0.0},
        "evaluate_every": 100,
    }  # fmt: skip
    outcome = train(run_config(tmp_path / "run", data, **values))
    assert outcome.metrics["amodal AP50"] > 0.9, json.dumps(outcome.metrics)
