"""EoRaS trains on windows of videos and is judged on true crops."""

from __future__ import annotations

import json

import pytest
import torch
from eoras_scenes import SMALL
from training_scenes import CLASSES, Drives, run_config, write_drives

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.eoras import Eoras
from amodal_core.models.layers.batch import make_batch, targets_of
from training import state
from training.judge import PAIRED_METRICS
from training.train import train


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    return write_drives(tmp_path_factory.mktemp("drives") / "train", 4, 3)


def eoras(drives, out, **values):
    base = {
        "model": "eoras", "settings": SMALL, "clip": {"frames": 3}, "steps": 2, "batch_size": 2,
        "held_out": [{"path": str(drives), "stop": 4}], "metric": "eoras mIoU_full",
        "augment": {"flip": 0.5, "scale": [0.9, 1.1]},
    }  # fmt: skip
    return run_config(out / "run", drives, **(base | values))


def test_a_few_steps_reach_the_weights_and_are_judged_on_true_crops(drives, tmp_path):
    outcome = train(eoras(drives, tmp_path))
    assert set(PAIRED_METRICS) <= set(outcome.metrics)
    assert "amodal AP50" in outcome.metrics
    assert outcome.best == outcome.metrics["eoras mIoU_full"]
    saved = torch.load(tmp_path / "run" / state.LAST, weights_only=True)
    moved = [s["momentum_buffer"].any() for s in saved["optimizer"]["state"].values()]
    assert all(moved)
    loaded = registry.create("eoras", "cpu", checkpoint=str(outcome.checkpoints[-1]))
    samples = Drives((4,)).samples
    found = loaded.complete([s.frame for s in samples], [s.truth for s in samples])
    assert all(len(one) for one in found)


def test_the_same_seed_draws_the_same_objects(drives, tmp_path):
    one = {**SMALL, "objects": 1}
    a = train(eoras(drives, tmp_path / "a", settings=one))
    b = train(eoras(drives, tmp_path / "b", settings=one))
    assert a.metrics == b.metrics


def test_metrics_of_told_masks_belong_to_models_that_are_told(drives, tmp_path):
    with pytest.raises(InputError, match="no metric 'eoras mIoU_full'"):
        train(eoras(drives, tmp_path, model="flagship", settings={}, clip=None))


def test_clips_whose_masks_are_unknown_move_nothing():
    model = Eoras.from_config(SMALL | {"classes": list(CLASSES)})
    samples = Drives((3,)).samples
    targets = [targets_of(s.truth) for s in samples]
    for one in targets:
        one.ignore[:] = True
    batch = make_batch([s.frame for s in samples], targets)
    batch.clip = 3
    sum(model.losses(batch).values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_clip_of_eight_frames_is_learnt_by_heart(tmp_path):
    # Of this street's objects enough shows everywhere: whole masks lie in the windows (98 %).
    data = write_drives(tmp_path / "drive", 8, first=1)
    settings = {
        "backbone": "resnet18", "crop": 64, "features": 32, "cells": 16, "width": 64,
        "slots": 4, "layers": 1, "heads": 4, "hidden": 128, "dropout": 0.0, "objects": 8,
    }  # fmt: skip
    values = {
        "settings": settings, "clip": {"frames": 8}, "steps": 80, "batch_size": 1,
        "held_out": [{"path": str(data)}], "augment": {"flip": 0.0},
        "schedule": {"kind": "cosine", "warm_up": 10},
        "optimiser": {"name": "adamw", "rate": 1e-3, "clip": 1.0, "weight_decay": 0.0},
    }  # fmt: skip
    outcome = train(eoras(data, tmp_path, **values))
    told = json.dumps(outcome.metrics)
    assert outcome.metrics["eoras mIoU_full"] > 0.9, told
    assert outcome.metrics["amodal AP50"] > 0.9, told
