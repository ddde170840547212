"""The scorer of the frames drawn by hand: what it says of perfect, shifted and false detections."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks

FOLDER = Path(__file__).parents[1] / "benchmarks/real_frames"
CLASSES = ("car", "pedestrian")


@pytest.fixture(scope="module")
def kitti():
    sys.path.insert(0, str(FOLDER))
    import kitti

    yield kitti
    sys.path.remove(str(FOLDER))


def frame_of(kitti, objects, ignore=()):
    content = {"size": [100, 60], "objects": objects, "ignore": list(ignore)}
    groups, amodal, visible, ignored = kitti.drawn(content)
    return kitti.Labelled("drawn", None, groups, amodal, visible, ignored)


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]


def tracks(amodal, visible, class_ids, scores):
    size, n = amodal.shape[1:], len(amodal)
    whole, shown = RleMasks.from_dense(amodal), RleMasks.from_dense(visible)
    return Tracks(
        size=size,
        amodal_boxes=whole.boxes(),
        visible_boxes=shown.boxes(),
        scores=np.asarray(scores, np.float32),
        class_ids=np.asarray(class_ids, np.int64),
        amodal=whole,
        visible=shown,
        occlusion_rates=np.zeros(n, np.float32),
        depths=np.zeros(n, np.float32),
        occluders=np.zeros((n, n), bool),
        ids=np.arange(n),
        ages=np.ones(n, np.int64),
        coasted=np.zeros(n, bool),
    )


@pytest.fixture
def two(kitti):
    """A car of 20x20 before another of 30x20, of which it hides the left third."""
    objects = [
        {"class": "car", "amodal": box(10, 20, 30, 40)},
        {"class": "van", "amodal": box(20, 20, 50, 40)},
    ]
    return frame_of(kitti, objects, [box(70, 0, 100, 60)])


def test_what_nearer_objects_cover_is_hidden(two):
    assert two.amodal.sum((1, 2)).tolist() == [400, 600]
    assert two.visible.sum((1, 2)).tolist() == [400, 400]


def test_perfect_detections_score_one(kitti, two):
    values = kitti.compare(two, tracks(two.amodal, two.visible, [0, 0], [0.9, 0.8]), CLASSES)
    assert values["amodal"].tolist() == values["visible"].tolist() == [1, 1]
    assert np.isnan(values["hidden"][0])
    assert values["hidden"][1] == 1
    assert values["correct"].tolist() == [1, 1]


def test_a_mask_of_what_shows_alone_has_no_hidden_part(kitti, two):
    values = kitti.compare(two, tracks(two.visible, two.visible, [0, 0], [0.9, 0.8]), CLASSES)
    assert values["amodal"].tolist() == pytest.approx([1, 400 / 600])
    assert values["hidden"][1] == 0


def test_another_kind_a_second_detection_and_a_phantom_are_wrong_an_ignored_one_is_nothing(
    kitti, two
):
    masks = np.zeros((4, 60, 100), bool)
    masks[0] = masks[1] = two.amodal[0]
    masks[2, 45:55, 40:60] = True
    masks[3, 10:30, 75:95] = True
    values = kitti.compare(two, tracks(masks, masks, [0, 0, 0, 0], [0.5, 0.9, 0.8, 0.7]), CLASSES)
    np.testing.assert_array_equal(values["correct"], [0, 1, 0, np.nan])
    assert values["amodal"].tolist() == [1, 0]
    person = kitti.compare(two, tracks(masks[:1], masks[:1], [1], [0.9]), CLASSES)
    assert person["correct"].tolist() == [0]


def test_no_detection_is_no_error(kitti, two):
    none = np.zeros((0, 60, 100), bool)
    values = kitti.compare(two, tracks(none, none, [], []), CLASSES)
    assert values["amodal"].tolist() == [0, 0]
    assert len(values["correct"]) == 0


def test_every_object_drawn_shows_and_lies_in_its_frame(kitti):
    frames = json.loads((FOLDER / "kitti.json").read_text())
    assert sum(len(f["objects"]) for f in frames.values()) == 31
    for content in frames.values():
        groups, amodal, visible, _ = kitti.drawn(content)
        assert all(groups)
        assert (visible.sum((1, 2)) > 0.05 * amodal.sum((1, 2))).all()
        for one in content["objects"]:
            corners = np.array(one["amodal"])
            assert ((corners >= 0) & (corners <= content["size"])).all()
