"""A bag's camera and LiDAR as frames: gaps, clocks, refusals, jumps of time."""

from __future__ import annotations

import numpy as np
import pytest
from bag_scenes import MS, PIXELS, PLACE, POINTS, START, F, K, bag, read

from amodal_core.bags.messages import instances_message
from amodal_core.bags.sensors import camera_info_message, points_message
from amodal_core.datasets.kitti import KittiRaw
from amodal_core.drive import bag_drive
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.errors import InputError
from amodal_core.frame import TIME_JUMP, FrameWarning, Tracks
from amodal_core.models.registry import create
from amodal_core.pipeline import Pipeline
from amodal_core.replay import replay

__all__ = ["bag"]


def test_frames_hold_image_points_and_calibration(bag):
    bag.tf()
    for ms in (0, 100, 200):
        bag.image(ms)
        bag.info(ms)
        bag.points(ms + 3)
    frames, drive = read(bag)
    assert [f.frame.stamp for f in frames] == [START + ms * MS for ms in (0, 100, 200)]
    assert [f.frame.points_stamp - f.frame.stamp for f in frames] == [3 * MS] * 3
    frame = frames[0].frame
    np.testing.assert_array_equal(frame.image, PIXELS)
    np.testing.assert_array_equal(frame.points, POINTS)
    np.testing.assert_allclose(frame.calibration.camera_from_lidar, PLACE, atol=1e-12)
    np.testing.assert_array_equal(frame.calibration.K, K)
    assert frames[0].frame_id == "cam"
    assert drive.warnings == []


def test_an_image_without_a_scan_is_skipped_and_counted(bag):
    bag.tf()
    bag.info()
    for ms in (0, 100, 200, 300):
        bag.image(ms)
        if ms != 100:
            bag.points(ms)
    frames, _ = read(bag)
    assert [(f.frame.stamp - START) // MS for f in frames] == [0, 200, 300]
    assert FrameWarning("dropped", "/cam/image: dropped, no /points") in frames[1].warnings


def _camera_of_30_hz(bag):
    """24 images 33 ms apart, a scan with every third."""
    bag.tf()
    for k in range(24):
        bag.image(k * 100 // 3)
        bag.info(k * 100 // 3)
        if k % 3 == 0:
            bag.points(k * 100 // 3 + 2)
    bag.writer.close()
    return bag.writer.path


def test_every_image_of_a_fast_camera_is_a_frame_where_the_scan_is_optional(bag):
    path = _camera_of_30_hz(bag)
    with BagDrive(path) as drive:
        assert len(list(drive)) == 8
    with BagDrive(path, lidar_optional=True) as drive:
        frames = list(drive)
    assert [(f.frame.stamp - START) // MS for f in frames] == [k * 100 // 3 for k in range(24)]
    assert [f.frame.points is not None for f in frames] == [k % 3 == 0 for k in range(24)]
    assert [f.frame.calibration is not None for f in frames] == [k % 3 == 0 for k in range(24)]
    lacking = [w for f in frames for w in f.warnings]
    text = "/cam/image: answered without a scan of /points"
    assert lacking == [FrameWarning("no scan", text)] * 16


def test_a_camera_alone_is_a_drive_where_the_scan_is_optional(bag):
    path = _camera_of_30_hz(bag)
    with BagDrive(path, points="none", lidar_optional=True) as drive:
        frames = list(drive)
    assert (len(frames), [w for f in frames for w in f.warnings]) == (24, [])
    assert {f.frame.points is None for f in frames} == {True}
    with pytest.raises(InputError, match="needs a LiDAR"):
        BagDrive(path, points="none")


def test_a_bag_of_images_alone_is_a_drive_where_the_scan_is_optional(bag):
    for ms in (0, 33):
        bag.image(ms)
    bag.writer.close()
    with BagDrive(bag.writer.path, lidar_optional=True) as drive:
        frames = list(drive)
    assert [f.frame_id for f in frames] == ["cam", "cam"]
    np.testing.assert_array_equal(frames[1].frame.image, PIXELS)
    with pytest.raises(InputError, match="no sensor_msgs/msg/CameraInfo for /cam/image"):
        BagDrive(bag.writer.path)


def test_a_camera_alone_whose_driver_knows_no_intrinsics_does_without(bag):
    """Drivers send K and P of zeros; with a LiDAR nothing can be done with such a camera."""
    for ms in (0, 33):
        bag.image(ms)
        bag.put("/cam/camera_info", camera_info_message(F, 0 * K, 96, 48, START + ms * MS, "cam"))
    bag.writer.close()
    with BagDrive(bag.writer.path, lidar_optional=True) as drive:
        frames = list(drive)
    assert [f.frame.calibration for f in frames] == [None, None]
    np.testing.assert_array_equal(frames[1].frame.image, PIXELS)
    (warning,) = [w for f in frames for w in f.warnings]
    assert "/cam/camera_info: K and P are zero, the camera is not calibrated" in str(warning)


def test_with_a_lidar_a_camera_without_intrinsics_is_refused(bag):
    bag.tf()
    bag.image(0)
    bag.put("/cam/camera_info", camera_info_message(F, 0 * K, 96, 48, START, "cam"))
    bag.points(0)
    frames, drive = read(bag)
    assert frames == []
    (warning,) = drive.warnings
    assert "neither P nor K is set" in str(warning)


def _off_by(bag, lag_ms):
    bag.tf()
    for ms in range(0, 1500, 100):
        bag.image(ms)
        bag.info(ms)
        bag.points(ms + lag_ms)
    bag.writer.close()
    return bag.writer.path


@pytest.mark.parametrize("lag_ms", [-12345, -70, 0, 430])
def test_clocks_that_are_off_are_found(bag, lag_ms):
    path = _off_by(bag, lag_ms)
    with BagDrive(path, settings=DriveSettings(auto_points_offset=True)) as drive:
        frames = list(drive)
    assert drive.settings.points_offset == pytest.approx(lag_ms * 1e-3, abs=1e-4)
    assert len(frames) == 15
    assert {f.frame.points_stamp - f.frame.stamp for f in frames} == {lag_ms * MS}


@pytest.mark.parametrize("lag_ms", [0, 30])
def test_scans_that_are_recorded_late_are_not_of_another_clock(bag, lag_ms):
    bag.tf()
    for ms in range(0, 1500, 100):
        for kind, stamp, delay in (("image", ms, 30), ("info", ms, 30), ("points", ms, 110)):
            bag.log = START + (stamp + delay) * MS
            getattr(bag, kind)(stamp + (lag_ms if kind == "points" else 0))
    bag.writer.close()
    with BagDrive(bag.writer.path, settings=DriveSettings(auto_points_offset=True)) as drive:
        frames = list(drive)
    assert drive.settings.points_offset == pytest.approx(lag_ms * 1e-3)
    assert {f.frame.points_stamp - f.frame.stamp for f in frames} == {lag_ms * MS}


def test_a_replay_that_clocks_prevent_says_by_how_much_they_are_off(bag, tmp_path):
    path = _off_by(bag, -12345)
    with pytest.raises(InputError, match=r"scans are stamped -12\.34\d+ s off: give that as"):
        replay(path, tmp_path / "out", Pipeline(create("geometric")))


def _integers():
    cloud = points_message(F, POINTS, START + 300 * MS, "lidar")
    cloud.fields[0].datatype = 5
    return cloud


def test_scans_without_returns_are_frames_with_a_warning_of_the_drives_range(bag):
    bag.tf()
    bag.info()
    bag.image(0)
    bag.points(0, np.full((5, 4), np.nan, np.float32))
    bag.image(100)
    bag.points(100, np.concatenate([POINTS, [[0, 1.5, 0, 1]]]).astype(np.float32))
    bag.writer.close()
    texts = {}
    for least in (0.5, 2.0):
        with BagDrive(bag.writer.path, settings=DriveSettings(minimum_range=least)) as drive:
            frames = list(drive)
        assert [len(f.frame.points) for f in frames] == [0, 3 if least == 0.5 else 2]
        texts[least] = [[w.kind for w in f.warnings] for f in frames]
    assert texts == {0.5: [["empty scan"], []], 2.0: [["empty scan"], ["no return"]]}


def test_bad_messages_are_refused_with_a_line_and_the_rest_goes_on(bag):
    bag.tf()
    bag.info()
    bag.image(0)
    bag.points(0)
    bag.image(100, encoding="yuv444")
    bag.points(100)
    bag.image(200, np.zeros((24, 96, 3), np.uint8))
    bag.points(200)
    bag.image(300)
    bag.put("/points", _integers(), "sensor_msgs/msg/PointCloud2")
    bag.image(400)
    bag.points(400)
    frames, _ = read(bag)
    assert [(f.frame.stamp - START) // MS for f in frames] == [0, 400]
    text = " | ".join(w.text for w in frames[1].warnings)
    assert "/cam/image: encoding 'yuv444'" in text
    assert "the image is 96x24, its camera_info says 96x48" in text
    assert "/points: field x is 1 x i4, not one float" in text


def test_a_bag_that_loops_resets_and_goes_on(bag):
    bag.tf()
    bag.info()
    for _ in range(2):
        for ms in range(0, 1500, 100):
            bag.image(ms)
            bag.points(ms)
    frames, _ = read(bag)
    stamps = [(f.frame.stamp - START) // MS for f in frames]
    assert stamps == [*range(0, 1500, 100)] * 2
    resets = [k for k, f in enumerate(frames) if f.reset]
    assert resets == [15]
    assert [w.kind for w in frames[15].warnings] == [TIME_JUMP]


def test_ground_truth_of_the_same_stamp_comes_with_the_frame(bag):
    bag.tf()
    bag.info()
    for ms in (0, 100, 200):
        bag.image(ms)
        bag.points(ms)
        if ms != 100:
            truth = instances_message(
                F, Tracks.empty((48, 96)), stamp=START + ms * MS, frame_id="cam", classes=()
            )
            bag.put("/ground_truth", truth)
    frames, drive = read(bag)
    assert drive.topics.ground_truth == "/ground_truth"
    assert [f.truth is not None for f in frames] == [True, False, True]


def test_a_converted_drive_gives_back_its_frames(mini_bag, mini_kitti_raw):
    data = [s.frame for s in KittiRaw(mini_kitti_raw) if s.frame.points is not None]
    with BagDrive(mini_bag, settings=DriveSettings(motion="off")) as drive:
        frames = [f.frame for f in drive]
    assert [f.stamp for f in frames] == [f.stamp for f in data]
    for frame, expected in zip(frames, data, strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)
        np.testing.assert_array_equal(frame.points, expected.points)
        np.testing.assert_allclose(
            frame.calibration.camera_from_lidar, expected.calibration.camera_from_lidar, atol=1e-9
        )


def test_images_without_any_scan_say_when_clocks_are_why(bag):
    bag.tf()
    bag.info()
    for ms in (0, 100, 200):
        bag.image(ms)
        bag.points(ms + 5000)
    bag.writer.close()
    with BagDrive(bag.writer.path, lidar_optional=True) as drive:
        assert len(list(drive)) == 3
    (clocks,) = [w.text for w in drive.warnings if w.kind == "clocks"]
    assert clocks.startswith("no image has a scan: scans are stamped +5.0")


def test_broken_truth_is_told_and_the_frame_has_none(bag):
    bag.tf()
    for k, size in enumerate([(48, 96), (24, 48)]):
        bag.image(100 * k)
        bag.info(100 * k)
        bag.points(100 * k)
        stamp = START + 100 * k * MS
        truth = instances_message(
            F, Tracks.empty(size), stamp=stamp, frame_id="cam", classes=("car",)
        )
        bag.put("/ground_truth", truth)
    frames, drive = read(bag)
    assert [f.truth is not None for f in frames] == [True, False]
    text = "/ground_truth: truth of 48x24 pixels, an image of 96x48"
    assert [w.text for f in frames for w in f.warnings] == [
        f"{text} (record the truth of this camera)"
    ]
    assert drive.warnings == []


@pytest.mark.parametrize("ends", ["truth", "camera_info", "points"])
def test_what_ends_early_in_a_bag_is_not_waited_for_with_all_images_in_memory(
    bag, monkeypatch, ends
):
    monkeypatch.setattr(bag_drive, "_WAITING", 8)
    bag.tf()
    for k in range(60):
        if k < 5 or ends != "points":
            bag.points(100 * k)
        if k < 5 or ends != "camera_info":
            bag.info(100 * k)
        bag.image(100 * k)
        if k < 5 or ends != "truth":
            stamp = START + 100 * k * MS
            empty = Tracks.empty((48, 96))
            truth = instances_message(F, empty, stamp=stamp, frame_id="cam", classes=["car"])
            bag.put("/ground_truth", truth)
    bag.writer.close()
    read = []
    with BagDrive(bag.writer.path) as drive:
        messages = drive.bag.messages
        drive.bag.messages = lambda topics: (read.append(m.topic) or m for m in messages(topics))
        ahead = [
            read.count("/cam/image") - (item.frame.stamp - START) // (100 * MS) for item in drive
        ]
    assert len(ahead) == (5 if ends == "points" else 60)
    assert max(ahead) <= 8 + 2
