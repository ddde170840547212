"""Live as offline: scans moved by odometry and transforms, by the node that projects them."""

from __future__ import annotations

import time

import motion_scenes
import numpy as np
import pytest
from motion_scenes import MS, START, events, frames_of, write
from node_bench import start  # noqa: F401 - a fixture

from amodal_core.bags.images import read_depth
from amodal_core.bags.sensors import stamp_of
from amodal_core.drive.topics import CAMERA_INFO, DEPTH, IMAGE, ODOM, POINTS, TF, TF_STATIC
from amodal_core.frame import Report
from amodal_core.pipeline import Pipeline
from amodal_ros.conversions import FACTORY
from amodal_ros.nodes.depth_projection import DepthProjection


@pytest.mark.parametrize("motion", ["odometry", "tf"])
def test_live_depth_of_a_fast_camera_is_that_of_the_bag(start, tmp_path, monkeypatch, motion):  # noqa: F811
    def drive():
        return [e for e in events(motion, image_every=33) if e[0] < START + 480 * MS]

    made, _ = frames_of(write(tmp_path / "bag", drive()))
    offline = {f.frame.stamp: Pipeline.project(f.frame, Report()).depth for f in made}
    assert len(offline) > 10
    monkeypatch.setattr(motion_scenes, "F", FACTORY)
    moving = TF.name if motion == "tf" else ODOM.name
    inputs = [IMAGE.name, CAMERA_INFO.name, POINTS.name, TF_STATIC.name, moving]
    bench = start(DepthProjection, inputs, queue=0, reliability="reliable", sync_timeout=2.0)
    for _, topic, message in drive():
        bench.send(topic, message)
        time.sleep(0.002)
    live = {stamp_of(m.header): read_depth(m) for m in bench.outputs(DEPTH.name, len(offline) - 1)}
    # The last moment, after which no motion comes, waits as long as messages do.
    for stamp, depth in live.items():
        np.testing.assert_array_equal(depth, offline[stamp])
