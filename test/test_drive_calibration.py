"""Calibration of a bag's images: from where it comes, and what is rectified by it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from bag_scenes import MS, PIXELS, PLACE, START, F, K, bag, read

from amodal_core.bags.sensors import camera_info_message, image_message
from amodal_core.datasets.registry import open_dataset
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.errors import InputError
from amodal_core.evaluation.truth import bag_images

__all__ = ["bag"]

# A lens that moves the corners of a 96 x 48 image by some pixels.
_BARREL = [-0.3, 0.05, 0.0, 0.0, 0.0]


def _distorting(ms, stripes):
    info = camera_info_message(F, K, 96, 48, START + ms * MS, "cam")
    info.d = np.array(_BARREL)
    flat = cv2.remap(
        stripes,
        *cv2.initUndistortRectifyMap(K, np.array(_BARREL), None, K, (96, 48), cv2.CV_16SC2),
        cv2.INTER_LINEAR,
    )
    return info, flat


@pytest.mark.parametrize(
    ("topic", "rectify", "is_raw"),
    [
        ("image_raw", "auto", True),
        ("image", "auto", True),
        ("image_rect", "auto", False),
        ("image_rect_color", "auto", False),
        ("rect/image", "auto", False),
        ("image_rect", "always", True),
        ("image_raw", "never", False),
        ("corrected_image", "auto", True),
    ],
)
def test_images_are_rectified_here_unless_their_topic_says_that_they_are(
    bag, topic, rectify, is_raw
):
    stripes = np.repeat((np.arange(96, dtype=np.uint8) * 2)[None, :, None], 48, axis=0)
    stripes = np.ascontiguousarray(np.repeat(stripes, 3, axis=2))
    bag.tf()
    for ms in (0, 100):
        info, flat = _distorting(ms, stripes)
        bag.put("/cam/camera_info", info)
        image = image_message(F, stripes, START + ms * MS, "cam")
        bag.put(f"/cam/{topic}", image, "sensor_msgs/msg/Image")
        bag.points(ms)
    bag.writer.close()
    with BagDrive(bag.writer.path, settings=DriveSettings(rectify=rectify)) as drive:
        frames = list(drive)
    for made in frames:
        np.testing.assert_array_equal(made.frame.image, flat if is_raw else stripes)
        np.testing.assert_array_equal(made.frame.calibration.K, K)
    assert np.abs(flat.astype(int) - stripes).max() > 5
    # One line, with the first frame, says which.
    (warning,) = frames[0].warnings
    assert (warning.kind, frames[1].warnings) == ("rectification", [])
    assert ("rectified here" in warning.text) == is_raw
    assert warning.text.startswith(f"/cam/{topic}: ")


def test_images_without_a_distortion_are_never_touched(bag):
    bag.tf()
    bag.info()
    bag.image(0)
    bag.points(0)
    bag.writer.close()
    with BagDrive(bag.writer.path, settings=DriveSettings(rectify="always")) as drive:
        (made,) = drive
    np.testing.assert_array_equal(made.frame.image, PIXELS)
    assert made.warnings == []


@pytest.mark.parametrize("rectify", ["auto", "always"])
def test_an_image_whose_k_is_not_p_is_rectified_where_that_is_asked_for(bag, rectify):
    """D of zero says that it is rectified, as ROS takes it; K that it is not. One line tells it."""
    info = camera_info_message(F, K, 96, 48, START, "cam")
    info.k = np.array([30.0, 0, 48, 0, 30, 24, 0, 0, 1])
    pixels = np.random.default_rng(0).integers(0, 256, PIXELS.shape, np.uint8)
    bag.tf()
    bag.put("/cam/camera_info", info)
    for ms in (0, 100):
        bag.image(ms, pixels)
        bag.points(ms)
    bag.writer.close()
    with BagDrive(bag.writer.path, settings=DriveSettings(rectify=rectify)) as drive:
        frames = list(drive)
    untouched = np.array_equal(frames[0].frame.image, pixels)
    (warning,) = frames[0].warnings
    assert (warning.kind, frames[1].warnings) == ("rectification", [])
    assert ("its D is zero" in warning.text) == untouched == (rectify == "auto")


def test_an_image_of_twelve_bits_in_the_lower_ones_of_sixteen_is_told(bag):
    bag.tf()
    bag.info()
    for ms, brightest in ((0, 4095), (100, 65535)):
        pixels = np.zeros((48, 96), np.uint16)
        pixels[7, 5] = brightest
        bag.image(ms, pixels)
        bag.points(ms)
    frames, _ = read(bag)
    assert [[w.kind for w in f.warnings] for f in frames] == [["dark image"], []]


def test_a_calibration_file_stands_in_for_camera_info_and_transforms(bag, tmp_path):
    """A bag of image and scan alone: camera from a file, LiDAR from it or from the extrinsics."""
    bag.image(0)
    bag.points(0)
    bag.writer.close()
    path = bag.writer.path
    kitti = tmp_path / "calib.txt"
    numbers = " ".join(str(v) for v in PLACE[:3].ravel())
    rows = " ".join(str(v) for v in np.hstack([K, np.zeros((3, 1))]).ravel())
    kitti.write_text(f"P2: {rows}\nR0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: {numbers}\n")
    with BagDrive(path, settings=DriveSettings(calibration=str(kitti))) as drive:
        (made,) = drive
    np.testing.assert_allclose(made.frame.calibration.camera_from_lidar, PLACE, atol=1e-12)
    assert (made.frame.calibration.width, made.frame.calibration.height) == (96, 48)
    chain = tmp_path / "camchain.yaml"
    chain.write_text(
        "cam0: {camera_model: pinhole, intrinsics: [60, 60, 48, 24], resolution: [96, 48],\n"
        f"  distortion_model: radtan, distortion_coeffs: {_BARREL[:4]}}}\n"
    )
    unplaced = pytest.raises(InputError, match="no transform from 'lidar' to 'cam'")
    with BagDrive(path, settings=DriveSettings(calibration=str(chain))) as drive, unplaced:
        list(drive)
    settings = DriveSettings(calibration=str(chain), extrinsics=(0, 0, 1, 0, 0, 0, 1))
    with BagDrive(path, settings=settings) as drive:
        (made,) = drive
    assert made.frame.calibration.camera_from_lidar[2, 3] == 1
    assert [w.kind for w in made.warnings] == ["rectification"]
    data = open_dataset(path, "bag", drive=settings)
    np.testing.assert_array_equal(data.frame(0).image, made.frame.image)
    absent = pytest.raises(InputError, match="cannot read the calibration")
    with BagDrive(path, settings=DriveSettings(calibration=str(tmp_path / "no"))) as drive, absent:
        list(drive)


def test_a_bag_without_camera_info_messages_is_refused(bag):
    bag.tf()
    bag.image(0)
    bag.points(0)
    with pytest.raises(InputError, match="no sensor_msgs/msg/CameraInfo for /cam/image"):
        read(bag)


def test_camera_infos_without_a_size_are_of_the_images(bag):
    bag.tf()
    bag.image(0)
    info = camera_info_message(F, K, 96, 48, START, "cam")
    info.width = info.height = 0
    bag.put("/cam/camera_info", info)
    bag.points(0)
    (made,), _ = read(bag)
    assert (made.frame.calibration.width, made.frame.calibration.height) == (96, 48)


def test_kitti2bags_images_are_rectified_whatever_their_camera_info_says(bag):
    topic = "/kitti/camera_color_left/image_raw"
    bag.tf()
    bag.put(topic, image_message(F, PIXELS, START, "cam"), "sensor_msgs/msg/Image")
    info = camera_info_message(F, K, 96, 48, START, "cam")
    info.d = np.array([-0.36, 0.2, 0.001, -0.0002, -0.07])
    bag.put("/kitti/camera_color_left/camera_info", info, "sensor_msgs/msg/CameraInfo")
    bag.points(0)
    (made,), _ = read(bag)
    np.testing.assert_array_equal(made.frame.image, PIXELS)
    assert [w.text for w in made.warnings] == [
        f"{topic}: taken as rectified (kitti2bag's are; if it is raw, rectify: always)"
    ]


def test_pictures_of_an_evaluation_are_rectified_as_in_the_replay(bag):
    bag.tf()
    noise = np.random.default_rng(1).integers(0, 255, PIXELS.shape, np.uint8)
    bag.image(0, noise)
    info = camera_info_message(F, K, 96, 48, START, "cam")
    info.d = np.array([-0.3, 0.1, 0, 0, 0])
    bag.put("/cam/camera_info", info)
    bag.points(0)
    (made,), _ = read(bag)
    pictures = bag_images(bag.writer.path, {START: 7})
    np.testing.assert_array_equal(pictures[7], made.frame.image)
    assert not np.array_equal(pictures[7], noise)
    (raw,) = bag_images(
        bag.writer.path, {START: 7}, settings=DriveSettings(rectify="never")
    ).values()
    np.testing.assert_array_equal(raw, noise)


def test_a_camera_info_without_a_stamp_holds(bag):
    bag.tf()
    info = camera_info_message(F, K, 96, 48, 0, "cam")
    bag.put("/cam/camera_info", info)
    bag.image(0)
    bag.points(0)
    (made,), _ = read(bag)
    assert made.frame.calibration is not None
    assert made.warnings == []
