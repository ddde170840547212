"""PointPillars with imported weights finds what the public implementations find in a real scan."""

from __future__ import annotations

import numpy as np
import pytest
import seeded_weights
import torch
from seeded_pillars import scan_of, weights_of

from amodal_core.models import registry
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.layers.anchor_boxes import from_lidar_boxes


def imported(name, tmp_path, wrapped=lambda state: {"model_state": state}, **options):
    """The model of a recorded original's weights, and what the original found."""
    shapes, theirs = seeded_weights.read(f"pointpillars_{name}")
    path, out = tmp_path / "published.pth", tmp_path / "x.safetensors"
    torch.save(wrapped(weights_of(shapes, theirs["bias"])), path)
    done = import_weights([path], "pointpillars", out, **options)
    assert done.taken == done.tensors
    return registry.create("pointpillars", checkpoint=out), theirs


@pytest.fixture(scope="module")
def scan(kitti_object_root):
    return scan_of(kitti_object_root)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        pytest.param("pure", ("pedestrian", "cyclist", "car"), marks=pytest.mark.slow),
        ("pcdet", ("car", "pedestrian", "cyclist")),
        ("mmdet3d", ("pedestrian", "cyclist", "car")),
        pytest.param("mmdet3d_0", ("pedestrian", "cyclist", "car"), marks=pytest.mark.slow),
    ],
)
def test_boxes_and_scores_of_a_real_scan_are_the_originals(name, classes, scan, tmp_path):
    model, theirs = imported(name, tmp_path)
    assert model.classes == classes
    with torch.inference_mode():
        (detections,) = model.detect3d([scan])
    boxes = from_lidar_boxes(detections.boxes, model.config.heading).numpy()
    assert len(boxes) == len(theirs["boxes"]) >= 50
    assert len(set(theirs["labels"])) > 1
    np.testing.assert_array_equal(detections.labels, theirs["labels"])
    np.testing.assert_allclose(detections.scores, theirs["scores"], atol=1e-5)
    np.testing.assert_allclose(boxes[:, :6], theirs["boxes"][:, :6], atol=1e-4)
    turned = (boxes[:, 6] - theirs["boxes"][:, 6] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turned).max() < 1e-4
