"""Which topics of a bag are its drive, by their types; what has to be chosen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from bag_scenes import MS, PIXELS, START, Bag, F, K, bag, read

from amodal_core.bags.sensors import camera_info_message, header_message, image_message
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.errors import InputError

__all__ = ["bag"]


def _compressed(ms):
    png = cv2.imencode(".png", PIXELS + np.uint8(ms // 100))[1].ravel()
    header = header_message(F, START + ms * MS, "cam")
    return F.create("sensor_msgs/msg/CompressedImage", header=header, format="png", data=png)


def test_compressed_images_are_found_and_read_where_there_are_no_others(bag, tmp_path):
    kind = "sensor_msgs/msg/CompressedImage"
    second = Bag(tmp_path / "both")
    for each in (bag, second):
        each.tf()
        each.info()
        for ms in (0, 100):
            each.put("/cam/image/compressed", _compressed(ms), kind)
            each.put("/cam/image/compressedDepth", _compressed(ms), kind)
            each.points(ms)
    frames, drive = read(bag)
    assert drive.topics.image == "/cam/image/compressed"
    assert [int(f.frame.image[0, 0, 0]) for f in frames] == [128, 129]
    with BagDrive(bag.writer.path, image="/cam/image") as drive:
        assert drive.topics.image == "/cam/image/compressed"
    second.image(0)
    frames, drive = read(second)
    assert (drive.topics.image, len(frames)) == ("/cam/image", 1)
    with BagDrive(second.writer.path, image="/cam/image/compressed") as drive:
        assert len(list(drive)) == 2


def test_a_topic_on_which_nothing_was_recorded_is_named(bag):
    bag.writer.add_topic("/points", "sensor_msgs/msg/PointCloud2")
    bag.info()
    bag.image(0)
    bag.writer.close()
    with pytest.raises(InputError, match=r"nothing was recorded on /points: record it again"):
        BagDrive(bag.writer.path)
    with pytest.raises(InputError, match=r"nothing was recorded on '/points' \(record it again"):
        BagDrive(bag.writer.path, points="/points")
    with BagDrive(bag.writer.path, lidar_optional=True) as drive:
        (made,) = drive
    (warning,) = made.warnings
    assert warning.text.startswith("the camera alone is used; nothing was recorded on /points")


def test_several_cameras_need_a_choice(bag):
    bag.tf()
    bag.info()
    bag.image(0)
    bag.points(0)
    bag.put("/rear/image", image_message(F, PIXELS, START, "rear"), "sensor_msgs/msg/Image")
    info = camera_info_message(F, K, 96, 48, START, "rear")
    bag.put("/rear/camera_info", info, "sensor_msgs/msg/CameraInfo")
    # An image without a camera_info of its own, such as a depth image, is no camera.
    bag.put("/depth/image", image_message(F, PIXELS, START, "cam"), "sensor_msgs/msg/Image")
    bag.writer.close()
    path = bag.writer.path
    with pytest.raises(InputError, match=r"2 topics .* /cam/image, /rear/image .*--image-topic"):
        BagDrive(path)
    with pytest.raises(InputError, match="no sensor_msgs/msg/Image on '/front/image'"):
        BagDrive(path, image="/front/image")
    with BagDrive(path, image="/cam/image") as drive:
        assert len(list(drive)) == 1


def test_a_camera_info_elsewhere_is_taken_where_there_is_only_one(bag):
    bag.tf()
    info = camera_info_message(F, K, 96, 48, START, "cam")
    bag.put("/calibration/info", info, "sensor_msgs/msg/CameraInfo")
    bag.image(0)
    bag.points(0)
    frames, drive = read(bag)
    assert (len(frames), drive.topics.camera_info) == (1, "/calibration/info")


INFO = "sensor_msgs/msg/CameraInfo"


def _two_cameras(bag, infos):
    """Images of the frames cam and rear, and camera_infos: frame by topic."""
    bag.tf()
    bag.tf("lidar", "rear")
    bag.image(0)
    bag.put("/rear/image", image_message(F, PIXELS, START, "rear"), "sensor_msgs/msg/Image")
    for topic, frame in infos.items():
        bag.put(topic, camera_info_message(F, K, 96, 48, START, frame), INFO)
    bag.points(0)
    bag.writer.close()
    return bag.writer.path


@pytest.mark.parametrize(
    "infos",
    [
        {"/cam/image/camera_info": "?", "/rear/image/camera_info": "?"},
        {"/info/a": "cam", "/info/b": "/rear"},
        {"/cam/camera_info": "cam", "/info/b": "rear"},
    ],
)
def test_the_camera_info_of_an_image_is_beside_it_or_below_it_or_of_its_frame(bag, infos):
    with BagDrive(_two_cameras(bag, infos), image="/rear/image") as drive:
        assert drive.topics.camera_info == list(infos)[1]


@pytest.mark.parametrize(
    "infos",
    [{"/cam/camera_info": "cam"}, {"/info/a": "", "/info/b": ""}],
    ids=["other", "nameless"],
)
def test_the_camera_info_of_another_camera_is_never_taken(bag, infos):
    path = _two_cameras(bag, infos)
    with pytest.raises(InputError, match=r"/rear/image or alone of its frame 'rear' \(give a cal"):
        BagDrive(path, image="/rear/image")
    with BagDrive(path, image="/rear/image", lidar_optional=True, points="none") as drive:
        assert drive.topics.camera_info == ""


def test_a_camera_info_of_another_frame_than_its_image_is_told_once(bag):
    bag.tf()
    bag.put("/cam/camera_info", camera_info_message(F, K, 96, 48, START, "left"))
    for ms in (0, 100):
        bag.image(ms)
        bag.points(ms)
    frames, _ = read(bag)
    told = [[w.text for w in f.warnings if w.kind == "camera_info"] for f in frames]
    assert told == [
        ["/cam/camera_info: of frame 'left', its image of 'cam'; is it this camera's?"],
        [],
    ]


def _camera_and(bag, *topics):
    """A bag with an image on each of these topics, and camera_info beside the first."""
    for topic in topics:
        bag.put(topic, image_message(F, PIXELS, START, "cam"), "sensor_msgs/msg/Image")
    info = camera_info_message(F, K, 96, 48, START, "cam")
    name = topics[0].rpartition("/")[0] + "/camera_info"
    bag.put(name, info, "sensor_msgs/msg/CameraInfo")
    bag.points(0)
    bag.writer.close()
    with BagDrive(bag.writer.path) as drive:
        return drive.topics.image


@pytest.mark.parametrize(
    ("topics", "chosen"),
    [
        (("/cam/image_raw", "/cam/depth"), "/cam/image_raw"),
        (("/cam/image_raw", "/cam/image_mono", "/cam/image_rect_color"), "/cam/image_rect_color"),
        (("/cam/image_rect", "/cam/image_raw"), "/cam/image_raw"),
        (("/cam/left", "/cam/disparity/image"), "/cam/left"),
    ],
)
def test_of_the_images_of_one_camera_the_best_in_colour_is_taken(bag, topics, chosen):
    assert _camera_and(bag, *topics) == chosen


def test_a_misspelt_topic_is_answered_with_the_nearest(bag):
    _camera_and(bag, "/cam/image_raw")
    with pytest.raises(InputError, match=r"on '/cam/image_rw' \(did you mean /cam/image_raw\?\)"):
        BagDrive(bag.writer.path, "/cam/image_rw")
    with pytest.raises(InputError, match=r"on '/point' \(did you mean /points\?\)"):
        BagDrive(bag.writer.path, points="/point")


def test_what_a_lidar_sends_that_is_not_read_is_named_with_a_cure(bag):
    bag.tf()
    bag.image(0)
    bag.info()
    bag.put("/scan", F.create("sensor_msgs/msg/LaserScan", ranges=np.ones(9)))
    bag.writer.close()
    what = r"/scan is sensor_msgs/msg/LaserScan: .* record a LiDAR's PointCloud2"
    with pytest.raises(InputError, match=what):
        BagDrive(bag.writer.path)
    with BagDrive(bag.writer.path, lidar_optional=True) as drive:
        (made,) = drive
    (warning,) = made.warnings
    assert warning.text.startswith("the camera alone is used; /scan is sensor_msgs/msg/LaserScan")
