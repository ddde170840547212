"""A small EoRaS, and a detector that finds what it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from training_scenes import CLASSES

from amodal_core.frame import Frame, Instances, Report
from amodal_core.models import registry
from amodal_core.models.checkpoint import CheckpointInfo, save_checkpoint
from amodal_core.models.eoras import Eoras
from amodal_core.settings import settings_type

SMALL = {
    "backbone": "resnet18", "crop": 32, "features": 16, "cells": 8, "width": 32, "slots": 4,
    "layers": 1, "heads": 4, "hidden": 64, "detector": "", "objects": 8,
}  # fmt: skip


def small_model() -> Eoras:
    """Random weights of which something is drawn."""
    torch.manual_seed(1)
    made = Eoras.from_config(SMALL | {"classes": list(CLASSES)}).eval()
    assert isinstance(made, Eoras)
    for decoder in made.decoders.values():
        torch.nn.init.normal_(decoder.layers[-1].weight, std=0.5)
    return made


def save_small(path: Path, detector: str = "told") -> Path:
    """The same as a checkpoint whose configuration names a detector."""
    model = small_model()
    values = model.config_json() | {"detector": detector}
    save_checkpoint(path, model, CheckpointInfo("eoras", values, CLASSES))
    return path


@settings_type
class ToldConfig:
    """There is nothing to set."""


class Told:
    """Finds what `scenes` holds under a frame's stamp."""

    name = "told"
    inputs = frozenset({"image"})
    classes = ("thing", "wall")
    Config = ToldConfig
    scenes: dict[int, Instances] = {}  # noqa: RUF012
    asked = 0

    def __init__(self, config: ToldConfig, device: str = "cpu") -> None:
        self.resets = 0

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        Told.asked += len(frames)
        return [self.scenes.get(f.stamp, Instances.empty(f.size)) for f in frames]

    def reset(self) -> None:
        self.resets += 1


def register_told() -> None:
    """Make the detector known by its name."""
    registry._MODELS["told"] = ("eoras_scenes:Told", "for tests")


def count_crops(model, monkeypatch):
    """Crops of each call of the encoder from now on."""
    counts = []
    forward = model.encoder.forward

    def counted(crops):
        counts.append(len(crops))
        return forward(crops)

    monkeypatch.setattr(model.encoder, "forward", counted)
    return counts
