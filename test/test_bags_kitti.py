"""KITTI to bags: topics, frames, calibration, stamps, and what is done about gaps."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.bags.clouds import read_points
from amodal_core.bags.images import read_image
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import stamp_of
from amodal_core.datasets import kitti_to_bag as kitti
from amodal_core.datasets.kitti import KittiRaw
from amodal_core.datasets.kitti_files import parse_stamp
from amodal_core.datasets.kitti_to_bag import convert_object, convert_raw, convert_tracking
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError


def _messages(path, topic):
    with BagReader(path) as bag:
        return [m.message for m in bag.messages([topic])]


def _tree(path):
    tree = TransformTree()
    for message in _messages(path, "/tf_static"):
        tree.add(message)
    return tree


def test_topics_types_and_counts_are_kittis(mini_bag):
    with BagReader(mini_bag) as bag:
        counts = {t.name: (t.type.split("/")[-1], t.count) for t in bag.topics.values()}
    assert counts == {
        "/kitti/camera_color_left/image_raw": ("Image", 5),
        "/kitti/camera_color_left/camera_info": ("CameraInfo", 5),
        "/kitti/velo/pointcloud": ("PointCloud2", 4),
        "/kitti/oxts/imu": ("Imu", 5),
        "/kitti/oxts/gps/fix": ("NavSatFix", 5),
        "/kitti/oxts/gps/vel": ("TwistStamped", 5),
        "/tf": ("TFMessage", 5),
        "/tf_static": ("TFMessage", 1),
    }


def test_images_and_points_are_those_of_the_drive(mini_bag, mini_kitti_raw):
    data = KittiRaw(mini_kitti_raw)
    images = _messages(mini_bag, IMAGE.bag_name)
    clouds = iter(_messages(mini_bag, POINTS.bag_name))
    for sample, image in zip(data, images, strict=True):
        np.testing.assert_array_equal(read_image(image), sample.frame.image)
        assert stamp_of(image.header) == sample.frame.stamp
        if sample.frame.points is not None:
            cloud = next(clouds)
            np.testing.assert_array_equal(read_points(cloud), sample.frame.points)
            assert stamp_of(cloud.header) == sample.frame.points_stamp
            assert [f.name for f in cloud.fields] == ["x", "y", "z", "intensity"]


def test_stamps_have_all_nine_digits_in_utc(mini_bag):
    first = _messages(mini_bag, IMAGE.bag_name)[0]
    assert stamp_of(first.header) == parse_stamp("2011-09-26 13:02:25.000123456")
    assert (first.header.stamp.sec, first.header.stamp.nanosec) == (1_317_042_145, 123_456)


def test_camera_info_is_the_rectified_camera(mini_bag):
    K = [[60, 0, 48], [0, 60, 24], [0, 0, 1]]
    for info in _messages(mini_bag, CAMERA_INFO.bag_name):
        np.testing.assert_allclose(info.k.reshape(3, 3), K)
        np.testing.assert_allclose(info.p.reshape(3, 4), np.c_[K, np.zeros(3)])
        np.testing.assert_array_equal(info.d, np.zeros(5))
        np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))
        assert (info.width, info.height) == (96, 48)
        assert info.header.frame_id == "camera_color_left"


def test_the_transform_tree_holds_the_calibration_once(mini_bag, mini_kitti_raw):
    tree = _tree(mini_bag)
    expected = KittiRaw(mini_kitti_raw)[0].frame.calibration.camera_from_lidar
    np.testing.assert_allclose(tree.lookup("camera_color_left", "velo_link"), expected, atol=1e-9)
    place = tree.lookup("base_link", "imu_link")
    np.testing.assert_allclose(place[:3, 3], (-1.405, 0.32, 0.93))
    np.testing.assert_allclose(
        tree.lookup("velo_link", "imu_link")[:3, 3], (-0.81, 0.32, -0.80), atol=1e-9
    )


def test_the_car_drives_through_the_world_on_tf(mini_bag):
    places = [m.transforms[0].transform.translation for m in _messages(mini_bag, "/tf")]
    moved = np.diff([[p.x, p.y, p.z] for p in places], axis=0)
    np.testing.assert_allclose(moved, np.tile((0, 1.0, 0), (4, 1)), atol=2e-3)
    velocity = _messages(mini_bag, kitti.VELOCITY)[0]
    assert velocity.twist.linear.x == pytest.approx(10.0)
    fix = _messages(mini_bag, kitti.FIX)[0]
    assert (fix.latitude, fix.longitude) == pytest.approx((49.0, 8.4))


def test_a_drive_without_imu_calibration_says_so_and_still_places_the_camera(
    mini_kitti_raw, tmp_path
):
    (mini_kitti_raw.parent / "calib_imu_to_velo.txt").unlink()
    report = convert_raw(mini_kitti_raw, tmp_path / "a")
    assert any("calib_imu_to_velo.txt" in w.text for w in report.warnings)
    expected = KittiRaw(mini_kitti_raw)[0].frame.calibration.camera_from_lidar
    matrix = _tree(tmp_path / "a").lookup("camera_color_left", "velo_link")
    np.testing.assert_allclose(matrix, expected, atol=1e-9)


def test_missing_scans_are_reported_and_frames_can_be_limited(mini_kitti_raw, tmp_path):
    done = []
    report = convert_raw(
        mini_kitti_raw, tmp_path / "a", progress=lambda k, n: done.append((k, n)), storage="sqlite3"
    )
    assert "1 of 5 images have no scan" in [w.text for w in report.warnings]
    assert done == [(k, 5) for k in range(1, 6)]
    convert_raw(mini_kitti_raw, tmp_path / "b", max_frames=2)
    with BagReader(tmp_path / "b") as bag:
        assert bag.topics[IMAGE.bag_name].count == 2
        assert bag.topics[kitti.IMU].count == 2


def test_a_broken_image_leaves_no_bag(mini_kitti_raw, tmp_path):
    (mini_kitti_raw / "image_02" / "data" / "0000000003.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0000000003\.png: cannot read the image"):
        convert_raw(mini_kitti_raw, tmp_path / "out" / "a")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_malformed_imu_calibration_is_named(mini_kitti_raw, tmp_path):
    (mini_kitti_raw.parent / "calib_imu_to_velo.txt").write_text("R: 1 2 3\n")
    with pytest.raises(InputError, match=r"calib_imu_to_velo\.txt: malformed R or T"):
        convert_raw(mini_kitti_raw, tmp_path / "a")


def test_a_tracking_sequence_keeps_its_labels_with_their_ids(mini_kitti_raw, tmp_path):
    root = tmp_path / "tracking" / "training"
    for name in ("image_02/0007", "velodyne/0007", "calib", "label_02"):
        (root / name).mkdir(parents=True)
    for k in range(3):
        for source, target in (("image_02", "image_02"), ("velodyne_points", "velodyne")):
            suffix = "png" if target == "image_02" else "bin"
            data = (mini_kitti_raw / source / "data" / f"{k:010d}.{suffix}").read_bytes()
            (root / target / "0007" / f"{k:06d}.{suffix}").write_bytes(data)
    (root / "calib" / "0007.txt").write_text(
        "P2: 60 0 48 0 0 60 24 0 0 0 1 0\n"
        "R_rect 1 0 0 0 1 0 0 0 1\nTr_velo_cam 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
    )
    (root / "label_02" / "0007.txt").write_text(
        "1 42 Van 0 0 0 10 10 20 20 2.0 1.9 5.0 1.0 1.7 20.0 -1.5707963\n"
        "1 -1 DontCare -1 -1 -10 0 0 5 5 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    convert_tracking(tmp_path / "tracking", tmp_path / "bag", 7)
    labels = _messages(tmp_path / "bag", kitti.LABELS)
    assert [len(m.detections) for m in labels] == [0, 1, 0]
    van = labels[1].detections[0]
    assert (van.id, van.results[0].hypothesis.class_id) == ("42", "Van")
    at, size = van.bbox.center.position, van.bbox.size
    assert (at.x, at.y, at.z) == pytest.approx((20.0, -1.0, -0.7))
    assert (size.x, size.y, size.z) == pytest.approx((5.0, 1.9, 2.0))
    assert van.bbox.center.orientation.w == pytest.approx(1.0)


def test_object_images_of_different_days_get_their_own_transforms(kitti_object_root, tmp_path):
    convert_object(kitti_object_root, tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        calibrations = {
            (kitti_object_root / "training" / "calib" / f"00000{k}.txt").read_text()
            for k in range(3)
        }
        assert bag.topics["/tf_static"].count == len(calibrations)
        assert bag.topics[kitti.LABELS].count == 3


def test_a_real_drive_becomes_a_bag_in_which_points_lie_in_the_image(kitti_raw_drive, tmp_path):
    convert_raw(kitti_raw_drive, tmp_path / "bag", max_frames=2)
    matrix = _tree(tmp_path / "bag").lookup("camera_color_left", "velo_link")
    info = _messages(tmp_path / "bag", CAMERA_INFO.bag_name)[1]
    points = read_points(_messages(tmp_path / "bag", POINTS.bag_name)[1])
    camera = np.c_[points[:, :3], np.ones(len(points))] @ matrix.T
    camera = camera[camera[:, 2] > 1]
    pixels = camera @ info.p.reshape(3, 4).T
    u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
    inside = (u >= 0) & (u < 1242) & (v >= 0) & (v < 375)
    # A 64-beam scanner sees about a sixth of its turn through this camera, in its lower part.
    assert 15_000 < inside.sum() < 25_000
    assert np.median(v[inside]) > 180
