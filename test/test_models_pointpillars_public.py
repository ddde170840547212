"""PointPillars with imported weights finds what the public implementation finds in a real scan."""

from __future__ import annotations

import numpy as np
import pytest
import seeded_weights
import torch
from record_pointpillars import scan_of, weights_of

from amodal_core.models import registry
from amodal_core.models.imports.importer import import_weights
from amodal_core.models.pointpillars import from_lidar_boxes


@pytest.mark.slow
def test_boxes_and_scores_of_a_real_scan_are_the_originals(kitti_object_root, tmp_path):
    shapes, theirs = seeded_weights.read("pointpillars")
    torch.save(weights_of(shapes), tmp_path / "epoch_160.pth")
    import_weights([tmp_path / "epoch_160.pth"], "pointpillars", tmp_path / "x.safetensors")
    model = registry.create("pointpillars", checkpoint=tmp_path / "x.safetensors")
    with torch.inference_mode():
        (found,) = model.detect3d([scan_of(kitti_object_root)])
    boxes = from_lidar_boxes(found.boxes).numpy()[: len(theirs["boxes"])]
    assert len(theirs["boxes"]) == 30
    np.testing.assert_array_equal(found.labels[:30], theirs["labels"])
    np.testing.assert_allclose(found.scores[:30], theirs["scores"], atol=1e-5)
    np.testing.assert_allclose(boxes[:, :6], theirs["boxes"][:, :6], atol=1e-4)
    turned = (boxes[:, 6] - theirs["boxes"][:, 6] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turned).max() < 1e-4
