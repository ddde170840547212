"""The pipeline's stages: depth of a frame, a model's instances, tracks; warnings and timings."""

from __future__ import annotations

import numpy as np
import pytest
from box_scenes import StubModel

from amodal_core.frame import Calibration, Frame, Report
from amodal_core.pipeline import STAGES, Pipeline

SIZE = (40, 60)
CALIBRATION = Calibration(
    np.array([[30.0, 0, 30], [0, 30, 20], [0, 0, 1]]),
    np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
    60,
    40,
)


@pytest.fixture
def frame(rng):
    points = rng.uniform((2, -10, -5, 0), (40, 10, 5, 1), (500, 4)).astype(np.float32)
    return Frame(1_000, np.zeros((*SIZE, 3), np.uint8), points, calibration=CALIBRATION)


def test_projection_gives_the_nearest_return_of_each_pixel(frame):
    report = Report()
    depth = Pipeline(StubModel()).project(frame, report).depth
    expected = np.zeros(SIZE, np.float32)
    for x, y, z, _ in frame.points.astype(float):
        u, v = int(np.floor(30 - 30 * y / x + 0.5)), int(np.floor(20 - 30 * z / x + 0.5))
        if 0 <= u < 60 and 0 <= v < 40 and (expected[v, u] == 0 or x < expected[v, u]):
            expected[v, u] = x
    np.testing.assert_array_equal(depth, expected)
    assert (expected > 0).sum() > 100
    assert set(report.timings) == {"depth_projection"}


def test_a_depth_image_that_is_there_is_kept(frame):
    frame.depth = np.full(SIZE, 7, np.float32)
    assert Pipeline(StubModel()).project(frame, Report()) is frame


def test_a_step_gives_tracks_and_the_time_of_every_stage(frame):
    tracks, report = Pipeline(StubModel()).step(frame)
    assert tracks.ids.tolist() == [0, 1]
    assert set(STAGES) <= set(report.timings)
    assert report.warnings == []


def test_identities_hold_over_frames_and_end_with_a_reset(frame):
    pipeline = Pipeline(StubModel())
    ids = []
    for k in range(4):
        frame.stamp = k * 100_000_000
        ids.append(pipeline.step(frame)[0].ids.tolist())
    assert ids == [[0, 1]] * 4
    pipeline.reset()
    assert pipeline.model.frames == 0
    frame.stamp = 0
    tracks, report = pipeline.step(frame)
    assert tracks.ids.tolist() == [0, 1]
    assert tracks.ages.tolist() == [1, 1]
    assert report.warnings == []


def test_a_frame_that_lacks_what_the_model_needs_is_empty_with_a_warning(frame):
    pipeline = Pipeline(StubModel())
    pipeline.step(frame)
    frame.points, frame.stamp = None, 100_001_000
    result = pipeline.run(frame)
    assert len(result.instances) == 0
    assert [w.text for w in result.report.warnings] == ["stub needs points: frame is empty"]
    # The tracker steps all the same: what was there a moment ago is carried on.
    assert result.tracks.coasted.all()
