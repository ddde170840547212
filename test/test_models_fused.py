"""Two witnesses: what both see is one object, what one sees alone counts for less."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame, Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_rates
from amodal_core.models import registry
from amodal_core.models.fused import Fused, FusedConfig

SIZE = (60, 100)
CLASSES = ("car", "van", "truck", "pedestrian")
FOUND_BY_SCANS = ("car", "truck", "pedestrian", "other")
BOX3D = [20.0, 1.0, -1.0, 4.2, 1.8, 1.5, 0.1]


def area(*window):
    x0, y0, x1, y1 = window
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def objects(*rows, classes, boxed):
    """Instances of rows (class, score, depth, amodal window, visible window)."""
    n = len(rows)
    amodal = RleMasks.from_dense(np.array([area(*r[3]) for r in rows]).reshape(n, *SIZE))
    visible = RleMasks.from_dense(np.array([area(*r[4]) for r in rows]).reshape(n, *SIZE))
    return Instances(
        size=SIZE,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.array([r[1] for r in rows], np.float32),
        class_ids=np.array([classes.index(r[0]) for r in rows], np.int64),
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible),
        depths=np.array([r[2] for r in rows], np.float32),
        occluders=np.zeros((n, n), bool),
        boxes3d=np.array([BOX3D] * n, np.float32).reshape(n, 7) if boxed else None,
    )


def fused(network=(), scan=(), points=True, embeddings=None, **settings):
    """What the two witnesses come to in one frame."""
    learned = objects(*network, classes=CLASSES, boxed=False)
    if embeddings is not None:
        learned.embeddings = np.array(embeddings, np.float32)
    geometric = objects(*scan, classes=FOUND_BY_SCANS, boxed=True)
    model = Fused(
        FusedConfig(**settings),
        SimpleNamespace(classes=CLASSES, infer=lambda frames, report: [learned for _ in frames]),
        SimpleNamespace(
            classes=FOUND_BY_SCANS, infer=lambda frames, report: [geometric for _ in frames]
        ),
    )
    frame = Frame(
        0,
        image=np.zeros((*SIZE, 3), np.uint8),
        points=np.zeros((1, 4), np.float32) if points else None,
        calibration=Calibration(np.eye(3), np.eye(4), SIZE[1], SIZE[0]) if points else None,
    )
    (result,) = model.infer([frame])
    return learned, result


def test_the_networks_appearance_goes_with_its_objects():
    seen = ("van", 0.6, 20.5, (12, 20, 52, 40), (12, 20, 40, 40))
    scanned = ("car", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    far = ("car", 0.9, 60.0, (70, 20, 90, 30), (70, 20, 90, 30))
    alone = ("pedestrian", 0.95, 10.0, (60, 40, 66, 58), (60, 40, 66, 58))
    _, result = fused([seen, far], [alone, scanned], embeddings=[[0, 2], [3, 4]])
    given = {int(depth): row for depth, row in zip(result.depths, result.embeddings, strict=True)}
    assert {k: v.tolist() for k, v in given.items()} == {20: [0, 2], 60: [3, 4], 10: [0, 0]}


def test_what_both_see_is_one_object_of_what_both_draw_and_the_networks_class():
    seen = ("van", 0.6, 20.5, (12, 20, 52, 40), (12, 20, 40, 40))
    scanned = ("car", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    _, result = fused([seen], [scanned])
    assert len(result) == 1
    assert result.scores.tolist() == pytest.approx([1 - 0.4 * 0.5])
    assert CLASSES[result.class_ids[0]] == "van"
    assert result.depths.tolist() == [20.0]
    assert result.boxes3d[0].tolist() == pytest.approx(BOX3D)
    np.testing.assert_array_equal(result.amodal.dense()[0], area(12, 20, 50, 40))
    np.testing.assert_array_equal(result.visible.dense()[0], area(12, 20, 40, 40))
    assert result.occlusion_rates.tolist() == pytest.approx([1 - 28 / 38])


@pytest.mark.parametrize(
    "scanned",
    [
        ("pedestrian", 0.5, 20.0, (10, 20, 34, 40), (10, 20, 34, 40)),
        ("car", 0.5, 30.0, (10, 20, 50, 40), (10, 20, 50, 40)),
        ("car", 0.5, 20.0, (60, 20, 90, 40), (60, 20, 90, 40)),
    ],
    ids=["of another kind", "at another depth", "at another place"],
)
def test_what_one_sees_alone_counts_for_less(scanned):
    seen = ("car", 0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    _, result = fused([seen], [scanned])
    assert result.scores.tolist() == pytest.approx([0.48, 0.4])
    assert np.isnan(result.boxes3d[0]).all()
    assert result.boxes3d[1].tolist() == pytest.approx(BOX3D)


def test_each_object_is_confirmed_once_by_the_witness_that_fits_best():
    seen = ("car", 0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    near = ("car", 0.5, 20.0, (14, 20, 54, 40), (14, 20, 54, 40))
    best = ("car", 0.3, 20.0, (11, 20, 51, 40), (11, 20, 51, 40))
    _, result = fused([seen], [near, best])
    assert result.scores.tolist() == pytest.approx([1 - 0.4 * 0.7, 0.8 * 0.5])


def test_what_shows_where_something_nearer_stands_is_a_piece_of_that():
    scanned = ("truck", 0.5, 20.0, (10, 5, 60, 50), (10, 5, 60, 50))
    behind = ("car", 0.6, 25.0, (15, 30, 40, 45), (15, 30, 40, 45))
    _, result = fused([behind], [scanned])
    assert result.scores.tolist() == pytest.approx([0.4, 0.6 * 0.8 * 0.3])
    before = ("car", 0.6, 8.0, (15, 30, 40, 45), (15, 30, 40, 45))
    _, result = fused([before], [scanned])
    assert result.scores.tolist() == pytest.approx([0.48, 0.4])


def test_what_the_network_has_no_class_for_is_left_out_and_nothing_is_no_error():
    other = ("other", 0.9, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    assert len(fused([], [other])[1]) == 0
    assert len(fused([], [])[1]) == 0


def test_without_a_scan_it_is_the_network():
    seen = ("car", 0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    learned, result = fused([seen], [seen], points=False)
    assert result is learned


def test_settings_reach_the_model_that_has_them():
    model = registry.create("fused", alone=0.5, min_score=0.2)
    assert (model.config.alone, model.learned.config.min_score) == (0.5, 0.2)
    with pytest.raises(InputError, match="alon"):
        registry.create("fused", alon=0.5)
    with pytest.raises(InputError, match="has nothing to train"):
        registry.learned("fused")
