"""Scans in the image's moment: a still world, seen by a LiDAR that moves, with exact truth."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from motion_scenes import (
    MS,
    SECOND,
    START,
    TIMES,
    F,
    cloud,
    events,
    frames_of,
    image,
    info,
    lidar_at,
    odometry,
    scan,
    seen,
    static,
    write,
)
from scipy.spatial.transform import Rotation

from amodal_core.bags.clouds import point_times
from amodal_core.bags.sensors import (
    header_message,
    stamp_of,
)
from amodal_core.drive.assembler import Assembler
from amodal_core.drive.poses import Poses
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, ODOM, POINTS, TF, TF_STATIC
from amodal_core.geometry.projection import project


@pytest.mark.parametrize("driver", sorted(TIMES))
@pytest.mark.parametrize("motion", ["odometry", "tf"])
def test_a_still_world_is_where_it_is_at_the_images_time(tmp_path, driver, motion):
    path = write(tmp_path / "bag", events(motion, driver))
    made, warnings = frames_of(path)
    assert len(made) == 10
    for each in made:
        assert each.frame.points_stamp == each.frame.stamp
        error = np.linalg.norm(each.frame.points[:, :3] - seen(each.frame.stamp), axis=1)
        assert error.max() < 1e-3
    (note,) = [w.text for w in warnings if w.kind == "motion"]
    source = {
        "odometry": "/vehicle/odometry (motion of base_link)",
        "tf": "the transforms from odom to lidar",
    }
    how = "scans are moved to the image's time, each point from when it was measured, by"
    assert note == f"/lidar/points: {how} {source[motion]}"
    # Without it the far side of the turn is more than a metre off.
    (still, *_), _ = frames_of(path, settings={"motion": "off"})
    assert np.linalg.norm(still.frame.points[:, :3] - seen(still.frame.stamp), axis=1).max() > 1


def test_every_image_of_a_fast_camera_has_depth_at_its_own_time(tmp_path):
    """30 Hz and 10 Hz: two of three images get the scan before, within a pixel of the truth."""
    path = write(tmp_path / "bag", events("odometry", image_every=33))
    made, _ = frames_of(path)
    stamps = [(f.frame.stamp - START) // MS for f in made]
    assert stamps == list(range(0, 1000, 33))
    for each in made:
        frame = each.frame
        truth = np.hstack([seen(frame.stamp), np.zeros((400, 1))]).astype(np.float32)
        inside = project(truth, frame.calibration).pixels
        own = project(frame.points, frame.calibration).pixels
        both = (inside[:, 0] >= 0) & (own[:, 0] >= 0)
        assert both.sum() > 0.95 * (inside[:, 0] >= 0).sum() > 20
        assert abs(inside[both] - own[both]).max() <= 1
    still, warnings = frames_of(path, settings={"motion": "off"})
    assert len(still) == 10
    lacking = "/cam/image: dropped, no /lidar/points"
    assert sum(w.text.startswith(lacking) for w in warnings) == 21
    optional, _ = frames_of(path, settings={"motion": "off"}, lidar_optional=True)
    assert [f.frame.points is None for f in optional].count(True) == 21
    optional, _ = frames_of(path, lidar_optional=True)
    for a, b in zip(made, optional, strict=True):
        np.testing.assert_array_equal(a.frame.points, b.frame.points)


def test_a_scan_without_times_is_moved_whole(tmp_path):
    path = write(tmp_path / "bag", events("odometry", ""))
    made, warnings = frames_of(path)
    (note,) = [w.text for w in warnings if w.kind == "motion"]
    assert "each point" not in note
    for each in made:
        begin = each.frame.stamp - 5 * MS
        move = np.linalg.inv(lidar_at(each.frame.stamp)) @ lidar_at(begin)
        expected = scan(begin)[0] @ move[:3, :3].T + move[:3, 3]
        np.testing.assert_allclose(each.frame.points[:, :3], expected, atol=1e-3)


def test_a_constant_lag_of_the_lidars_clock_is_taken_off(tmp_path):
    at = events("odometry")
    for _, role, message in at:
        if role == POINTS.name:
            lagging = stamp_of(message.header) + 300 * MS
            message.header = header_message(F, lagging, "lidar")
    made, _ = frames_of(write(tmp_path / "bag", at), settings={"points_offset": 0.3})
    assert len(made) == 10
    for each in made:
        assert abs(each.frame.points[:, :3] - seen(each.frame.stamp)).max() < 1e-3


def test_odometry_of_a_frame_that_nothing_connects_moves_nothing(tmp_path):
    path = write(tmp_path / "bag", events("odometry", child="imu"))
    made, warnings = frames_of(path)
    notes = [w.text for w in warnings if w.kind == "motion"]
    assert notes == [
        "/lidar/points: scans are not moved to the image's time: /vehicle/odometry moves imu, "
        "which no transform connects with lidar"
    ]
    np.testing.assert_allclose(made[0].frame.points[:, :3], scan(START - 5 * MS)[0], atol=1e-5)


def test_the_fixed_frame_can_be_named(tmp_path):
    path = write(tmp_path / "bag", events("tf", parent="local_origin"))
    made, _ = frames_of(path)
    np.testing.assert_allclose(made[1].frame.points[:, :3], scan(START + 95 * MS)[0], atol=1e-5)
    made, _ = frames_of(path, settings={"fixed_frame": "local_origin"})
    assert abs(made[1].frame.points[:, :3] - seen(made[1].frame.stamp)).max() < 1e-3


def test_a_gap_in_the_motion_leaves_scans_as_they_are_and_is_told(tmp_path):
    at = [e for e in events("odometry") if e[1] != ODOM.name or not 300 < (e[0] - START) / MS < 900]
    made, warnings = frames_of(write(tmp_path / "bag", at))
    gap = [f.frame.points_stamp != f.frame.stamp for f in made]
    # The third turn ends after the last pose; the last one begins before the first after the gap.
    assert gap == [False] * 2 + [True] * 8
    assert sum(w.kind == "no motion" for w in warnings) == 8


def test_static_links_that_are_published_on_tf_are_no_motion(tmp_path):
    at = [e for e in events("odometry") if e[1] != TF_STATIC.name]
    at += [(START + k * SECOND // 2, TF.name, static()) for k in range(2)]
    made, _ = frames_of(write(tmp_path / "bag", sorted(at, key=lambda e: e[0])))
    assert len(made) == 10
    for each in made:
        assert abs(each.frame.points[:, :3] - seen(each.frame.stamp)).max() < 1e-3


def _assembler():
    made = Assembler((IMAGE.name, POINTS.name), DriveSettings())
    made.take(TF_STATIC.name, static())
    made.take(CAMERA_INFO.name, info(START))
    return made


def test_live_motion_that_is_on_its_way_is_waited_for_and_late_motion_ever_less():
    made = _assembler()
    for ms in range(-50, 60, 10):
        made.take(ODOM.name, odometry(START + ms * MS))
    made.take(IMAGE.name, image(START))
    (moment,) = made.take(POINTS.name, cloud(START - 5 * MS)).moments
    late = [odometry(START + ms * MS) for ms in range(60, 110, 10)]
    timer = threading.Timer(0.1, lambda: [made.take(ODOM.name, m) for m in late])
    timer.start()
    each = made.read(moment, wait=True)
    timer.join()
    assert abs(each.frame.points[:, :3] - seen(START)).max() < 1e-3
    took = []
    for k in (1, 2, 3):
        made.take(IMAGE.name, image(START + k * 1000 * MS))
        (moment,) = made.take(POINTS.name, cloud(START + (k * 1000 - 5) * MS)).moments
        begin = time.monotonic()
        assert made.read(moment, wait=True).frame.points_stamp == START + (k * 1000 - 5) * MS
        took.append(time.monotonic() - begin)
    assert took[0] >= 0.5 > took[2]


def test_after_a_jump_back_the_old_motion_is_forgotten():
    made = _assembler()
    for k in range(110):
        made.take(ODOM.name, odometry(START + (k * 10 - 50) * MS))
    for k in range(10):
        made.take(IMAGE.name, image(START + k * 100 * MS))
        made.take(POINTS.name, cloud(START + (k * 100 - 5) * MS))
    # The second time round the vehicle stands.
    still = odometry(START)
    for k in range(30):
        still.header = header_message(F, START + (k * 10 - 50) * MS, "odom")
        made.take(ODOM.name, still)
    made.take(IMAGE.name, image(START))
    moments = made.take(POINTS.name, cloud(START - 5 * MS)).moments
    assert moments[0].reset
    points = made.read(moments[0]).frame.points[:, :3]
    np.testing.assert_allclose(points, scan(START - 5 * MS)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 50_000_000, 99_000_000], np.uint32), (0, 0.05, 0.099)),
        (np.array([-0.1, -0.05, 0], np.float32), (-0.1, -0.05, 0)),
        (np.array([0, 50, 99], np.float32), (0, 0.05, 0.099)),  # milliseconds
        (np.array([0, 5e4, 9.9e4], np.float32), (0, 0.05, 0.099)),  # microseconds
        (np.array([0, 5e7, 9.9e7]), (0, 0.05, 0.099)),
        (np.array([1.7e9, 1.7e9 + 0.05, 1.7e9 + 0.099]), (0, 0.05, 0.099)),
        (np.array([START, START + 50 * MS, START + 99 * MS]), (0, 0.05, 0.099)),
        (np.array([START, START + 50 * MS, START + 99 * MS], np.float64), (0, 0.05, 0.099)),
        (np.array([0.0, 0.0, 0.0]), (0, 0, 0)),
        (np.array([12.0, 12.05, 12.1]), None),  # of a clock since boot
        (np.array([0.0, np.nan, 0.1]), None),
        (np.array([0, 5_000_000_000, 1], np.uint64), None),
    ],
)
def test_times_of_points_are_seconds_after_the_stamp(values, expected):
    times = point_times(values, START)
    if expected is None:
        assert times is None
    else:
        np.testing.assert_allclose(times, expected, atol=1e-6)


def test_poses_between_others_are_interpolated_and_others_unknown():
    poses = Poses()
    assert poses.at(np.array([0])) is None
    first, last = np.eye(4), np.eye(4)
    last[:3, :3] = Rotation.from_euler("z", 1.0).as_matrix()
    last[:3, 3] = 2, 4, 6
    poses.add(START + 100 * MS, last)
    poses.add(START, first)  # late
    (quarter, end) = poses.at(np.array([START + 25 * MS, START + 100 * MS]))
    np.testing.assert_allclose(quarter[:3, 3], (0.5, 1, 1.5))
    np.testing.assert_allclose(quarter[:3, :3], Rotation.from_euler("z", 0.25).as_matrix())
    np.testing.assert_allclose(end, last)
    assert poses.at(np.array([START - 1])) is None
    assert poses.at(np.array([START + 100 * MS + 1])) is None
    poses.add(START + 700 * MS, last)
    assert poses.at(np.array([START + 400 * MS])) is None
    np.testing.assert_array_equal(poses.at(np.array([START + 700 * MS]))[0], last)
