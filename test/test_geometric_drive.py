"""The drive that comes with the project: exact truth for what the geometric model finds in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amodal_core.drive.bag_drive import BagDrive
from amodal_core.geometry.classification import CLASSES
from amodal_core.geometry.range_image import range_image
from amodal_core.models.geometric import Geometric

DRIVE = Path(__file__).parents[1] / "data" / "sample_drive"
KINDS = {
    "car": "car",
    "van": "car",
    "truck": "truck",
    "bus": "truck",
    "pedestrian": "pedestrian",
    "cyclist": "cyclist",
}


@pytest.fixture(scope="module")
def frames():
    if not DRIVE.exists():
        pytest.skip("no sample drive in this checkout")
    with BagDrive(DRIVE) as drive:
        return [(made.frame, made.truth, made.truth_classes) for made in drive]


@pytest.fixture(scope="module")
def matches(frames):
    """Rows of kind, visible pixels, hidden share, best amodal IoU and the class of who has it."""
    model = Geometric()
    rows = []
    for frame, truth, names in frames:
        detections = model.infer([frame])[0]
        iou = detections.amodal.rle().iou(truth.amodal.rle())
        for j, pixels in enumerate(truth.visible.rle().areas()):
            best = int(iou[:, j].argmax())
            rows.append(
                (
                    KINDS[names[int(truth.class_ids[j])]],
                    int(pixels),
                    float(truth.occlusion_rates[j]),
                    float(iou[best, j]),
                    CLASSES[detections.class_ids[best]],
                )
            )
    return rows


def test_vehicles_that_are_clearly_visible_are_found(matches):
    clear = [r for r in matches if r[0] in ("car", "truck") and r[1] > 1500 and r[2] < 0.5]
    assert len(clear) > 100
    assert np.mean([r[3] >= 0.5 for r in clear]) >= 0.85
    assert np.mean([r[3] for r in clear]) >= 0.72


def test_people_that_are_large_enough_are_found(matches):
    people = [r for r in matches if r[0] in ("pedestrian", "cyclist") and r[1] > 600]
    assert len(people) >= 20
    assert np.mean([r[3] >= 0.5 for r in people]) >= 0.9


def test_cars_and_trucks_are_told_apart(matches):
    hits = [r for r in matches if r[0] in ("car", "truck") and r[1] > 600 and r[3] >= 0.5]
    assert np.mean([r[0] == r[4] for r in hits]) >= 0.95


def test_its_scanners_lasers_and_steps_are_recognised(frames):
    """64 lasers, 1024 steps a turn, a quarter of it kept, rounded to a centimetre."""
    for frame, *_ in frames[::10]:
        image = range_image(frame.points)
        assert image.index.shape[0] == 64
        assert 850 < image.index.shape[1] <= 1024
        assert (image.index >= 0).sum() > 0.85 * len(frame.points)
