"""Visible masks on real street images, camera only: IoU of vehicles, pedestrians and bicyclists.

    PYTHONPATH=. python benchmarks/real_frames/camvid.py FOLDER flagship new=flagship:FILE

FOLDER holds CamVid's validation images (Brostow et al. 2009) in the selection of SegNet: `images`
and `labels` (a class number a pixel) of equal names. A class's prediction is the union of the
visible masks of its detections; what nobody labelled does not count. A model is NAME or LABEL=NAME,
with :CHECKPOINT where it comes with none, and settings after commas (short_side=300).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Report
from amodal_core.inference import tracks_of
from amodal_core.models import registry
from amodal_core.models.base import Model
from amodal_core.settings import parse_rules

SCORE = 0.3
UNLABELLED = 11
# Column -> its number in the labels, and the classes of ours that it is.
GROUPS = {
    "vehicle": (8, ("car", "van", "truck", "bus", "tram")),
    "pedestrian": (9, ("pedestrian",)),
    "bicyclist": (10, ("cyclist",)),
}


def model_of(text: str) -> tuple[str, Model]:
    """A model's label and the model, from LABEL=NAME:CHECKPOINT,setting=value."""
    first, *rules = text.split(",")
    label, equals, name = first.partition("=")
    name, _, checkpoint = (name if equals else first).partition(":")
    settings = parse_rules(rules, text)
    if checkpoint:
        settings["checkpoint"] = checkpoint
    return label.partition(":")[0], registry.create(name, "cpu", **settings)


def scores(model: Model, folder: Path, score: float = SCORE) -> dict[str, float]:
    """IoU of each group over all pixels of all images, 0-1.

    Raises:
        InputError: there are no images, or one without labels.
    """
    paths = sorted((folder / "images").glob("*.png"))
    if not paths:
        raise InputError("no images", str(folder / "images"), "see the head of this file")
    overlap, union = np.zeros(len(GROUPS)), np.zeros(len(GROUPS))
    for path in paths:
        image = cv2.imread(str(path))
        truth = cv2.imread(str(folder / "labels" / path.name), cv2.IMREAD_UNCHANGED)
        if image is None or truth is None:
            raise InputError("no image or no labels", str(path), "copy the data again")
        frame = Frame(0, image=np.ascontiguousarray(image[..., ::-1]))
        (detections,) = tracks_of(model, [frame], Report())
        detections = detections[np.asarray(detections.scores) >= score]
        masks = detections.visible.rle().dense()
        counted = truth != UNLABELLED
        for k, (number, names) in enumerate(GROUPS.values()):
            wanted = [n for n, c in enumerate(detections.class_ids) if model.classes[c] in names]
            predicted = masks[wanted].any(0) if wanted else np.zeros(truth.shape, bool)
            overlap[k] += (predicted & (truth == number)).sum()
            union[k] += ((predicted | (truth == number)) & counted).sum()
    return dict(zip(GROUPS, overlap / np.maximum(union, 1), strict=True))


def main(folder: str, models: list[str]) -> None:
    """Print a row a model."""
    print("| model | " + " | ".join(GROUPS) + " |")
    for text in models:
        label, model = model_of(text)
        values = scores(model, Path(folder))
        print(f"| {label} | " + " | ".join(f"{100 * v:.1f}" for v in values.values()) + " |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
