"""A street of boxes with exact truth, small enough to train on in seconds; and a tiny model."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amodal_core.datasets.base import BEGIN, PERIOD, Dataset, Place
from amodal_core.datasets.frames import unpack
from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Calibration, Frame, Sample
from amodal_core.geometry.boxes3d import corners
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models import registry
from amodal_core.models.detections import Detections
from amodal_core.models.learned import LearnedModel
from amodal_core.models.learned_config import LearnedConfig
from amodal_core.settings import settings_type
from training import config, state

CLASSES = ("car", "pedestrian", "cyclist")
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
BOXES = ((3.9, 1.6, 1.56), (0.8, 0.6, 1.73), (1.76, 0.6, 1.73))  # length, width, height
SIZE = (64, 96)
K = np.array([[70.0, 0, 47.5], [0, 70.0, 31.5], [0, 0, 1]])
CAMERA = np.array([[0, -1.0, 0, 0.0], [0, 0, -1, 0.0], [1, 0, 0, 0], [0, 0, 0, 1]])

# The smallest form of every model that finds objects in single images.
_TWO_STAGE = {
    "backbone": "resnet18", "norm": "group", "frozen_stages": 0, "proposals_train": 60,
    "proposals": 40, "samples": 16, "anchor_scale": 4.0, "max_instances": 20,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "mask_rcnn": _TWO_STAGE,
    "orcnn": _TWO_STAGE,
    "aisformer": _TWO_STAGE | {"hidden": 128},
    "vrsp": _TWO_STAGE | {"samples": 12, "candidates": 60, "reclassification_hidden": 64,
                          "centres": 64, "encoder_convolutions": 2},
    "flagship": {},
    # The streets' volume.
    "pointpillars": {"grid": {"low": [0, -10.24, -3], "high": [25.6, 10.24, 1]}, "lidar": False},
}  # fmt: skip
# And of those that learn from videos, and from given visible masks.
VIDEO_SETTINGS: dict[str, dict[str, Any]] = dict.fromkeys(
    ("qdtrack", "amodal_track", "vatrack", "vatrack_two_box"),
    _TWO_STAGE | {"track_samples": 12, "channels": 64},
)
SAM_SETTINGS = {"size": "tiny", "image_size": 128, "freeze": False, "detector": "geometric"}


def street(
    seed: int, objects: int = 4, time: int = 0, *, far: float = 18.0, spread: float = 0.5
) -> Sample:
    """Boxes ahead of the camera, the nearer before the farther, each with returns on its front.

    At other times the camera is nearer to the same boxes, and they have moved sideways.

    Args:
        seed: of everything in it.
        objects: at most.
        time: see above.
        far: metres to the farthest.
        spread: tangent of their bearings to either side at most.
    """
    rng = np.random.default_rng(seed)
    height, width = SIZE
    x = np.sort(rng.uniform(6, far, objects))
    y = rng.uniform(-spread, spread, objects) * x
    x = x - 0.1 * time
    y = y + np.random.default_rng([seed, 1]).uniform(-0.2, 0.2, objects) * time
    kinds = rng.integers(0, len(CLASSES), objects)
    image = np.full((height, width, 3), 90, np.uint8)
    image[: height // 2] = 160
    image += rng.integers(0, 20, image.shape, dtype=np.uint8)
    masks, boxes, scans = [], [], []
    for k in range(objects):
        length, across, up = BOXES[kinds[k]]
        bottom = -1.5
        box = np.array([x[k] + length / 2, y[k], bottom + up / 2, length, across, up, 0.0])
        camera = corners(box[None])[0] @ CAMERA[:3, :3].T
        outline = (camera @ K.T)[:, :2] / camera[:, 2:]
        mask = np.zeros(SIZE, np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(outline.round().astype(np.int32)), 1)
        masks.append(mask.astype(bool))
        boxes.append(box)
        n = 60
        front = [np.full(n, x[k]), y[k] + rng.uniform(-0.5, 0.5, n) * across]
        scans.append(np.column_stack([*front, bottom + rng.random(n) * up, rng.random(n)]))
    for k in reversed(range(objects)):
        image[masks[k]] = COLOURS[kinds[k]] + rng.integers(-20, 20, 3)
    there = np.array([m.any() for m in masks])
    amodal = RleMasks.from_dense(np.array(masks)[there])
    truth = make_truth(
        amodal,
        amodal.layered(np.arange(len(amodal))),
        kinds[there],
        np.flatnonzero(there),
        depths=x[there],
        boxes3d=np.array(boxes, np.float32)[there],
    )
    points = np.concatenate(scans).astype(np.float32)
    calibration = Calibration(K, CAMERA, width, height)
    stamp = BEGIN + (seed + time) * PERIOD
    frame = Frame(stamp, image=image, points=points, calibration=calibration)
    return Sample(frame, truth, f"street/{seed:04d}", "street", seed)


class Streets(Dataset):
    """Streets as a data set."""

    def __init__(
        self, count: int, first: int = 0, classes: tuple[str, ...] = CLASSES, **scene: Any
    ) -> None:
        self.samples = [street(first + k, **scene) for k in range(count)]
        self.name, self.path, self.classes = "streets", Path("streets"), classes

    def __len__(self):
        return len(self.samples)

    def place(self, index):
        sample = self.samples[index]
        return Place(sample.name, sample.video, sample.index)

    def frame(self, index):
        return self.samples[index].frame

    def truth(self, index):
        return self.samples[index].truth

    def size(self, index):
        return self.samples[index].frame.size

    def check(self):
        yield from ()


class Drives(Streets):
    """Streets of several moments each, one video a street; ids are objects of the video."""

    def __init__(self, lengths: tuple[int, ...], first: int = 0) -> None:
        super().__init__(0)
        self.samples = [
            replace(street(first + k, time=t), name=f"drive{k}/{t:02d}", video=f"drive{k}", index=t)
            for k, length in enumerate(lengths)
            for t in range(length)
        ]


def write_drives(folder: Path, *lengths: int, **options) -> Path:
    """Drives on the disk, as a configuration names them."""
    unpack(Drives(lengths, **options), folder)
    return folder


def write_streets(folder: Path, count: int, **options) -> Path:
    """Streets on the disk, as a configuration names them."""
    unpack(Streets(count, **options), folder)
    return folder


@settings_type
class TinyConfig(LearnedConfig):
    """Settings of the tiny model.

    Attributes:
        dropout: share; makes losses random.
        explode: loss becomes NaN once it was asked for so often, 0 for never,
        rank: and in this process of a run.
    """

    dropout: float = 0.0
    explode: int = 0
    rank: int = 0


class Tiny(LearnedModel):
    """Says of every pixel whether an object is there; its loss is a plain mean over images."""

    name = "tiny"
    Config = TinyConfig
    config: TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.first = nn.Conv2d(5 if config.lidar else 3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.last = nn.Conv2d(8, 1, 1)
        self.asked = 0

    def trunk(self):
        return [self.first]

    def blocks(self):
        return [self.first]

    def _logits(self, batch):
        x = self.crossing(self.first(batch.inputs(self.config.lidar)))
        x = self.norm(x).relu()
        return self.last(F.dropout(x, self.config.dropout, self.training))[:, 0]

    def losses(self, batch):
        logits = self._logits(batch)
        targets = self.crossed(batch).targets
        wanted = torch.stack([t.amodal.any(0) for t in targets]).float()
        self.asked += 1
        loss = F.binary_cross_entropy_with_logits(logits, wanted)
        here = os.environ.get("RANK", "0") == str(self.config.rank)
        explodes = here and self.asked == self.config.explode
        return {"pixels": loss * (torch.nan if explodes else 1.0)}

    def detect(self, batch):
        found = []
        for logits, (h, w) in zip(self._logits(batch), batch.sizes, strict=True):
            part = F.interpolate(logits[None, None, :h, :w], (8, 8))[0]
            box = torch.tensor([[0.0, 0, w, h]])
            ones = torch.ones(1)
            found.append(Detections(box, ones, torch.zeros(1, dtype=torch.long), part, part, ones))
        return found


def register_tiny() -> None:
    """Make the tiny model known by its name."""
    registry._MODELS["tiny"] = ("training_scenes:Tiny", "for tests")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The tiny model, known for one test; in every test of a file that imports this."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    register_tiny()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five streets on the disk."""
    return write_streets(tmp_path_factory.mktemp("streets") / "train", 5)


def last(out: Path) -> dict[str, Any]:
    """The state that a run left to go on from."""
    return torch.load(out / state.LAST, weights_only=True)


def run_config(out: Path, data: Path, **values) -> config.Config:
    """A short run of the tiny model; `values` replace anything."""
    base = {
        "model": "tiny",
        "train": [{"path": str(data)}],
        "optimiser": {"name": "sgd", "rate": 0.1},
        "schedule": {"kind": "cosine", "warm_up": 2},
        "steps": 6,
        "batch_size": 2,
        "workers": 0,
        "device": "cpu",
        "out": str(out),
        "cache": str(out.parent / "cache"),
    }
    return config.parse(base | values)


class Oracle:
    """Finds what is there, under other names of two classes; counts how often it is asked."""

    name = "oracle"
    inputs = frozenset({"image"})
    classes = ("car", "person", "bicycle", "tree")

    def __init__(self, data):
        self.truth = {data.frame(k).image.tobytes(): data.truth(k) for k in range(len(data))}
        self.asked = 0

    def infer(self, frames, report=None):
        self.asked += len(frames)
        return [self.truth[f.image.tobytes()] for f in frames]

    def reset(self):
        pass


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])
