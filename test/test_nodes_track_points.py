"""The cloud of the tracks: whose points they are, their colours, and the same live and offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import node_bench as drive
import numpy as np
import pytest
from node_bench import Bench, start  # noqa: F401 - a fixture
from sensor_msgs_py.point_cloud2 import create_cloud, read_points
from tracking_scenes import SIZE, Thing, view

from amodal_core.bags.factory import RosbagsFactory, typestore
from amodal_core.bags.messages import instances_message
from amodal_core.bags.sensors import (
    cloud_message,
    header_message,
    point_fields,
    points_message,
)
from amodal_core.frame import Frame, Tracks
from amodal_core.tracking import Tracker
from amodal_core.views.palette import track_colour
from amodal_core.views.track_cloud import track_cloud
from amodal_ros.conversions import FACTORY
from amodal_ros.nodes.track_points import TrackPoints

CAR, LORRY = Thing("car", 60, 40, 60, 40, 20.0), Thing("lorry", 100, 10, 120, 90, 10.0, 1)
CLOUD = "sensor_msgs/msg/PointCloud2"


@pytest.fixture(scope="module")
def scene() -> tuple[Tracks, Frame, dict[float, np.ndarray]]:
    """A lorry before a car, scanned; and the points on each, by its depth.

    One return in five goes through a window, to what stands 40 m behind.
    """
    _, instances, _ = view([CAR, LORRY])
    calibration = drive.FRAME.calibration
    assert calibration is not None
    assert drive.FRAME.size == SIZE
    v, u = (a.ravel() for a in np.mgrid[1 : SIZE[0] : 3, 1 : SIZE[1] : 2])
    z = np.full(len(u), 60.0)
    for mask, depth in zip(instances.visible.dense(), instances.depths, strict=True):
        on = np.flatnonzero(mask[v, u])
        z[on] = depth
        z[on[::5]] = depth + 40
    rays = np.linalg.inv(calibration.K) @ np.stack([u, v, np.ones(len(u))]) * z
    lidar_from_camera = np.linalg.inv(calibration.camera_from_lidar)
    points = np.zeros((len(u), 4), np.float32)
    points[:, :3] = (lidar_from_camera[:3, :3] @ rays + lidar_from_camera[:3, 3:]).T
    frame = Frame(drive.stamp(0), points=points, calibration=calibration)
    tracks = Tracker().step(instances, frame.stamp)
    return tracks, frame, {depth: points[z == depth] for depth in (10.0, 20.0)}


def test_a_track_has_the_points_under_what_is_visible_of_it_in_its_colour(scene) -> None:
    tracks, frame, expected = scene
    cloud = track_cloud(tracks, frame)
    assert len(cloud) == sum(map(len, expected.values())) > 500
    for i, depth in zip(tracks.ids.tolist(), tracks.depths.tolist(), strict=True):
        own = cloud[cloud["track_id"] == i]
        given = np.stack([own[name] for name in "xyz"], axis=1)
        order = np.lexsort(given.T), np.lexsort(expected[depth][:, :3].T)
        np.testing.assert_array_equal(given[order[0]], expected[depth][order[1], :3])
        r, g, b = track_colour(i)
        assert set(own["rgb"].view("<u4").tolist()) == {r << 16 | g << 8 | b}
    nothing = replace(tracks, visible=tracks.visible.rle() - tracks.visible.rle())
    assert len(track_cloud(nothing, frame)) == len(track_cloud(tracks[:0], frame)) == 0


def test_its_message_is_the_same_from_ros_and_without(scene) -> None:
    cloud = track_cloud(*scene[:2])
    offline = cloud_message(RosbagsFactory(), cloud, drive.stamp(0), "lidar")
    header = header_message(FACTORY, drive.stamp(0), "lidar")
    live = create_cloud(header, point_fields(FACTORY, cloud.dtype), cloud)
    assert [f.name for f in live.fields] == ["x", "y", "z", "rgb", "track_id"]
    for name in ("height", "width", "point_step", "row_step", "is_bigendian"):
        assert getattr(live, name) == getattr(offline, name)
    assert bytes(live.data) == bytes(offline.data) == cloud.tobytes()
    as_list = [[(f.name, f.offset, f.datatype, f.count) for f in m.fields] for m in (live, offline)]
    assert as_list[0] == as_list[1]
    np.testing.assert_array_equal(read_points(live), cloud)
    typestore().serialize_cdr(offline, CLOUD)


@pytest.mark.dds
def test_the_node_makes_it_of_tracks_and_their_scan_while_someone_listens(
    scene,
    start: Callable[..., Bench],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracks, frame, _ = scene
    bench = start(TrackPoints, ["tracks", "camera_info", "points", "/tf_static"], queue=0)

    def send(index: int) -> None:
        message = instances_message(
            FACTORY,
            tracks,
            stamp=drive.stamp(index),
            frame_id=drive.CAMERA,
            classes=("car", "lorry"),
            lidar_frame=drive.LIDAR,
        )
        at = drive.stamp(index) + 3_000_000
        bench.send("camera_info", drive.info(index))
        bench.send("points", points_message(FACTORY, frame.points, at, drive.LIDAR))
        bench.send("tracks", message)

    bench.send("/tf_static", drive.tf_static())
    send(0)
    message = bench.outputs("tracks/points", 1)[0]
    assert message.header.frame_id == drive.LIDAR
    assert message.header.stamp == drive.info(0).header.stamp
    # The scan is read as any other: returns near the vehicle are dropped, none of them here.
    assert bytes(message.data) == track_cloud(tracks, frame).tobytes()
    monkeypatch.setattr(bench.node, "listeners", lambda topic: 0)
    monkeypatch.setattr("amodal_ros.nodes.track_points.track_cloud", lambda *_: pytest.fail("made"))
    send(1)
    drive.until(lambda: bench.node.health.frames == 2, "the second frame")
    assert bench.node.health.errors == 0
