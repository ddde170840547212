"""Samples beside what a model finds in them, while it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from amodal_core.frame import Sample
from amodal_core.models.learned import LearnedModel
from amodal_core.views.contact_sheets import draw, sheet
from amodal_core.views.overlay import OverlayStyle

from .judge import predicted
from .setup import RunData
from .sources import Samples

NAME = "samples"
_WIDTH = 640  # pixels of each picture
_STYLE = OverlayStyle(min_label_height=45)  # masks matter here, names of the largest will do
LEAST_SCORE = 0.3  # of the predictions that are drawn


def path_of(out: Path, step: int) -> Path:
    """Where the pictures of a step lie."""
    return out / NAME / f"step_{step:08d}.jpg"


def drawn(model: LearnedModel, data: RunData, many: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: truth left, predictions with their scores' lower end cut off right.

    Args:
        model: on its device.
        data: of the run; held-out samples are taken where there are some.
        many: samples, evenly spread over those with annotation.
    """
    samples = data.held_out if data.held_out is not None else data.training
    cells = []
    for index in _chosen(samples, many):
        for record, truth, tracks in predicted(model, samples, [index]):
            sample = samples[index]
            kept = tracks[np.flatnonzero(np.asarray(tracks.scores) >= LEAST_SCORE)]
            for name, shown in (("truth", truth), ("prediction", kept)):
                one = Sample(sample.frame, shown, f"{name}   {record.name}")
                cells.append(draw(one, model.classes, _WIDTH, style=_STYLE))
    return sheet(cells, 2) if cells else np.full((8, 8, 3), 255, np.uint8)


def _chosen(samples: Samples, many: int) -> list[int]:
    """Indices evenly spread, of the first and the last sample too."""
    return np.unique(np.linspace(0, len(samples) - 1, many).round().astype(int)).tolist()
