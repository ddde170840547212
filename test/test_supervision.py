"""Tracks as supervision's Detections, read and drawn by supervision itself."""

from __future__ import annotations

import numpy as np
import pytest
from box_scenes import PAIR

from amodal_core.errors import InputError
from amodal_core.frame import Tracks

sv = pytest.importorskip("supervision", reason="pip install 'amodal_ros[supervision]'")


@pytest.mark.parametrize("masks", ["amodal", "visible"])
def test_detections_hold_the_masks_that_were_asked_for_and_all_else(masks):
    made = PAIR.to_supervision(("car",), masks)
    assert isinstance(made, sv.Detections)
    np.testing.assert_array_equal(made.mask, getattr(PAIR, masks).dense())
    np.testing.assert_array_equal(made.xyxy, getattr(PAIR, f"{masks}_boxes"))
    assert made.tracker_id.tolist() == [3, 65_540]
    assert made.area.tolist() == getattr(PAIR, masks).areas().tolist()
    assert made.data["class_name"].tolist() == ["car", "car"]
    assert made.data["occlusion_rate"].tolist() == [0, 0.5]
    assert made.data["depth"].tolist() == [8, 16]
    assert made.data["occluder_ids"].tolist() == [(), (3,)]


def test_supervision_selects_merges_and_draws_them():
    made = PAIR.to_supervision()
    hidden = made[made.data["occlusion_rate"] > 0]
    assert hidden.tracker_id.tolist() == [65_540]
    assert hidden.data["occluder_ids"][0] == (3,)
    assert len(sv.Detections.merge([made, hidden])) == 3
    image = np.zeros((40, 60, 3), np.uint8)
    drawn = sv.MaskAnnotator().annotate(image.copy(), made)
    np.testing.assert_array_equal((drawn > 0).any(axis=2), made.mask.any(axis=0))


def test_no_tracks_are_no_detections():
    made = Tracks.empty((40, 60)).to_supervision(("car",))
    assert len(made) == 0
    assert made.mask.shape == (0, 40, 60)


def test_other_masks_are_refused():
    with pytest.raises(InputError, match="choose amodal or visible"):
        PAIR.to_supervision(masks="hidden")
