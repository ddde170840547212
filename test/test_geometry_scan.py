"""A frame's scan is laid out once, for the model and for the boxes in space."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from amodal_core.frame import Report
from amodal_core.geometry import scan
from amodal_core.geometry.config import DEFAULTS
from amodal_core.geometry.lifting import lift
from amodal_core.geometry.scan import scan_of, usable
from amodal_core.models.geometric import Geometric
from amodal_core.warm_up import warm_up_frame


@pytest.fixture
def laid_out(monkeypatch):
    """Numbers of points of the scans that are laid out."""
    counts = []
    inner = scan.range_image

    def counted(points, config):
        counts.append(len(points))
        return inner(points, config)

    monkeypatch.setattr(scan, "range_image", counted)
    scan._scans.clear()
    return counts


def test_the_model_and_the_boxes_share_one_layout(laid_out):
    frame, model = warm_up_frame(), Geometric()
    instances = model.infer([frame])[0]
    assert len(instances) >= 2
    alone = lift(replace(instances, boxes3d=None), warm_up_frame(), model.classes, Report())
    assert len(laid_out) == 2
    shared = lift(replace(instances, boxes3d=None), frame, model.classes, Report())
    assert len(laid_out) == 2
    np.testing.assert_array_equal(shared.boxes3d, alone.boxes3d)
    # Nobody asks after the boxes: nothing is kept.
    assert not scan._scans


def test_other_settings_and_other_frames_are_laid_out_anew(laid_out):
    frame = warm_up_frame()
    first = scan_of(frame, DEFAULTS)
    assert scan_of(frame, replace(DEFAULTS)) is first
    other = scan_of(frame, replace(DEFAULTS, minimum_range=12.0))
    assert len(other.points) < len(first.points)
    scan_of(replace(frame), DEFAULTS)
    assert len(laid_out) == 3


def test_no_more_than_a_few_scans_are_kept_and_none_without_its_frame(laid_out):
    frames = [replace(warm_up_frame()) for _ in range(scan._KEPT + 1)]
    for frame in frames:
        scan_of(frame, DEFAULTS)
    assert len(scan._scans) == 1
    del frames, frame
    gc.collect()
    assert not scan._scans


def test_points_that_are_not_finite_or_too_near_are_left_out():
    points = np.array([[3, 0, 0, 0.5], [0.4, 0, 0, 0.5], [np.nan, 5, 0, 0.5], [9, 9, 9, np.inf]])
    np.testing.assert_array_equal(usable(points.astype(np.float32), 0.5), points[:1])
    frame = replace(warm_up_frame(), points=points[1:].astype(np.float32))
    assert scan_of(frame, DEFAULTS) is None
