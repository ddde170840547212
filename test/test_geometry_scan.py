"""A frame's scan is laid out once, for the model and for the boxes in space."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from amodal_core.frame import Report
from amodal_core.geometry import assembly, scan
from amodal_core.geometry.boxes3d import points_in_boxes
from amodal_core.geometry.config import DEFAULTS
from amodal_core.geometry.lifting import lift
from amodal_core.geometry.scalars import median, middle, nth, quantile, within
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


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_median_and_quantile_are_numpys_to_the_bit(rng, count, dtype):
    values = rng.normal(0, 30, count).astype(dtype)
    assert median(values) == middle(values.copy()) == float(np.median(values))
    ties = np.rint(values / 20)
    for n in range(0, count, 1 + count // 10):
        assert nth(values.copy(), n) == np.sort(values)[n]
        assert nth(ties.copy(), n) == np.sort(ties)[n]
    assert middle(ties.copy()) == np.median(ties)
    for share in (0.0, 0.02, 0.5, 0.73, 0.98, 1.0):
        assert quantile(values.copy(), share) == float(np.quantile(values, share))
    assert [within(v, 0, 1) for v in (-1, 0.5, 2)] == [0, 0.5, 1]


def test_clusters_are_inside_a_box_when_most_of_them_is_by_points_in_boxes(rng):
    centres = rng.uniform(-2, 2, (60, 3))
    points = (centres[:, None] + rng.normal(0, 0.4, (60, 20, 3))).reshape(-1, 3).astype(np.float32)
    box = np.array([1.0, -0.5, 0.2, 4.0, 2.0, 1.5, 0.7])
    share = points_in_boxes(points, box[None], 0.3)[0].reshape(60, 20).mean(axis=1)
    taken = rng.random(60) < 0.3
    expected = (share > 0.6) & ~taken & points_in_boxes(centres, box[None], 0.6)[0]
    assert 3 < expected.sum() < (share > 0.6).sum()
    size, turn = np.full(60, 20), (np.cos(box[6]), np.sin(box[6]))
    order, last = np.arange(1200), np.cumsum(size)
    inside = assembly._inside(points, order, last, size, taken, centres, box, turn, (0.3, 0.6))
    assert inside.tolist() == np.flatnonzero(expected).tolist()


def test_the_census_counts_members_and_centres_by_cluster(rng):
    points = rng.normal(0, 9, (200, 4)).astype(np.float32)
    labels = rng.integers(-1, 6, 200).astype(np.int32)
    in_view = rng.random(200) < 0.5
    order, size, visible, centres = assembly._census(points, labels, np.flatnonzero(in_view), 7)
    assert order.tolist() == [i for k in range(7) for i in range(200) if labels[i] == k]
    for k in range(6):
        own = labels == k
        assert (size[k], visible[k]) == (own.sum(), (own & in_view).sum())
        np.testing.assert_allclose(centres[k], points[own, :3].mean(0), rtol=1e-4, atol=1e-4)
    assert (size[6], visible[6]) == (0, 0)
