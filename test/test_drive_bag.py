"""A bag's camera and LiDAR as frames: topics, transforms, gaps, refusals, jumps of time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.messages import instances_message
from amodal_core.bags.sensors import (
    camera_info_message,
    header_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.kitti import KittiRaw
from amodal_core.datasets.registry import open_dataset
from amodal_core.drive import bag_drive
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError
from amodal_core.evaluation.truth import bag_images
from amodal_core.frame import TIME_JUMP, FrameWarning, Tracks
from amodal_core.models.registry import create
from amodal_core.pipeline import Pipeline
from amodal_core.replay import replay

F = RosbagsFactory()
K = np.array([[60.0, 0, 48], [0, 60, 24], [0, 0, 1]])
PLACE = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1.0]])
PIXELS = np.full((48, 96, 3), 128, np.uint8)
POINTS = np.array([[10, 0, 0, 0.5], [12, 1, 0, 0.5]], np.float32)
MS = 1_000_000
START = 1_000_000_000_000


class Bag:
    """Writes a small bag message by message."""

    def __init__(self, path):
        self.writer = BagWriter(path)
        self.types = {
            "/cam/image": "sensor_msgs/msg/Image",
            "/cam/camera_info": "sensor_msgs/msg/CameraInfo",
            "/points": "sensor_msgs/msg/PointCloud2",
            "/tf_static": "tf2_msgs/msg/TFMessage",
            "/ground_truth": "amodal_msgs/msg/AmodalInstanceArray",
            "/scan": "sensor_msgs/msg/LaserScan",
        }
        self.announced = set()
        self.log = START

    def put(self, topic, message, kind=""):
        if topic not in self.announced:
            self.writer.add_topic(topic, kind or self.types[topic])
            self.announced.add(topic)
        self.log += 1000
        self.writer.write(topic, message, self.log)

    def tf(self, parent="lidar", child="cam", matrix=None):
        matrix = np.linalg.inv(PLACE) if matrix is None else matrix
        message = transform_message(F, parent, child, matrix, START)
        self.put("/tf_static", F.create("tf2_msgs/msg/TFMessage", transforms=[message]))

    def image(self, ms, pixels=PIXELS, encoding=""):
        self.put("/cam/image", image_message(F, pixels, START + ms * MS, "cam", encoding))

    def info(self, ms=0, width=96):
        self.put("/cam/camera_info", camera_info_message(F, K, width, 48, START + ms * MS, "cam"))

    def points(self, ms, points=POINTS):
        self.put("/points", points_message(F, points, START + ms * MS, "lidar"))


@pytest.fixture
def bag(tmp_path):
    return Bag(tmp_path / "bag")


def _read(bag):
    bag.writer.close()
    with BagDrive(bag.writer.path) as drive:
        return list(drive), drive


def test_frames_hold_image_points_and_calibration(bag):
    bag.tf()
    for ms in (0, 100, 200):
        bag.image(ms)
        bag.info(ms)
        bag.points(ms + 3)
    frames, drive = _read(bag)
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
    frames, _ = _read(bag)
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


def test_late_transform_and_calibration_are_waited_for(bag):
    for ms in (0, 100):
        bag.image(ms)
        bag.points(ms)
    bag.tf()
    bag.info()
    frames, _ = _read(bag)
    assert len(frames) == 2


def test_static_transforms_are_read_first_wherever_they_stand(bag):
    """Of several publishers, under a namespace, with the slash of ROS 1, at the bag's end."""
    for ms in range(0, 8000, 100):  # more than wait for a transform
        bag.image(ms)
        bag.info(ms)
        bag.points(ms)
    for parent, child, matrix in (
        ("/base", "/lidar", _shift(1, 2, 3)),
        ("base", "cam", _shift(1, 2, 3) @ np.linalg.inv(PLACE)),
    ):
        bag.put("/robot/tf_static", _tf((parent, child, matrix)), "tf2_msgs/msg/TFMessage")
    frames, drive = _read(bag)
    assert (len(frames), drive.warnings) == (80, [])
    for made in (frames[0], frames[-1]):
        placed = made.frame.calibration.camera_from_lidar
        np.testing.assert_allclose(placed, PLACE, atol=1e-12)


def test_a_static_transform_that_is_written_anew_holds_from_then_on(bag):
    bag.info()
    for ms, x in ((0, 1.0), (10_000, 2.0), (20_000, 3.0)):
        bag.tf(matrix=np.linalg.inv(_shift(x, 0, 0)))
        bag.image(ms)
        bag.points(ms)
    frames, _ = _read(bag)
    assert [f.frame.calibration.camera_from_lidar[0, 3] for f in frames] == [1, 2, 3]


def test_image_and_scan_in_one_frame_are_an_error_and_no_identity(bag):
    bag.tf()
    bag.info()
    bag.put("/cam/image", image_message(F, PIXELS, START, "/lidar"))
    bag.points(0)
    bag.writer.close()
    same = pytest.raises(InputError, match=r"image and scan are in the same frame 'lidar'")
    with BagDrive(bag.writer.path) as drive, same:
        list(drive)
    extrinsics = (1.0, 0, 0, 0, 0, 0, 1)
    with BagDrive(bag.writer.path, settings=DriveSettings(extrinsics=extrinsics)) as drive:
        assert len(list(drive)) == 1


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
    frames, drive = _read(bag)
    assert drive.topics.image == "/cam/image/compressed"
    assert [int(f.frame.image[0, 0, 0]) for f in frames] == [128, 129]
    with BagDrive(bag.writer.path, image="/cam/image") as drive:
        assert drive.topics.image == "/cam/image/compressed"
    second.image(0)
    frames, drive = _read(second)
    assert (drive.topics.image, len(frames)) == ("/cam/image", 1)
    with BagDrive(second.writer.path, image="/cam/image/compressed") as drive:
        assert len(list(drive)) == 2


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


def test_a_missing_transform_is_an_error_and_never_identity(bag):
    bag.tf("base", "cam")
    bag.info()
    bag.image(0)
    bag.points(0)
    with pytest.raises(InputError, match=r"no transform from 'lidar' to 'cam'; known .* base, cam"):
        _read(bag)


def test_a_bag_without_camera_info_messages_is_refused(bag):
    bag.tf()
    bag.image(0)
    bag.points(0)
    with pytest.raises(InputError, match="no sensor_msgs/msg/CameraInfo for /cam/image"):
        _read(bag)


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
    frames, _ = _read(bag)
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
    frames, _ = _read(bag)
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
    frames, drive = _read(bag)
    assert drive.topics.ground_truth == "/ground_truth"
    assert [f.truth is not None for f in frames] == [True, False, True]


def test_several_cameras_need_a_choice(bag, tmp_path):
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
    frames, drive = _read(bag)
    assert (len(frames), drive.topics.camera_info) == (1, "/calibration/info")


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


def _tf(*links):
    transforms = [transform_message(F, p, c, m, 0) for p, c, m in links]
    return F.create("tf2_msgs/msg/TFMessage", transforms=transforms)


def _shift(x, y, z):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def test_transforms_chain_up_and_down_the_tree():
    tree = TransformTree()
    tree.add(_tf(("base", "imu", _shift(1, 0, 0)), ("imu", "lidar", _shift(0, 1, 0))))
    tree.add(_tf(("imu", "mount", _shift(0, 0, 1)), ("mount", "cam", np.linalg.inv(PLACE))))
    expected = PLACE @ np.linalg.inv(_shift(0, 0, 1)) @ _shift(0, 1, 0)
    np.testing.assert_allclose(tree.lookup("cam", "lidar"), expected, atol=1e-12)
    np.testing.assert_allclose(tree.lookup("lidar", "cam"), np.linalg.inv(expected), atol=1e-12)
    np.testing.assert_array_equal(tree.lookup("cam", "/cam"), np.eye(4))
    np.testing.assert_allclose(tree.lookup("base", "lidar"), _shift(1, 1, 0), atol=1e-12)


def test_the_newest_transform_holds_and_circles_are_refused():
    tree = TransformTree()
    tree.add(_tf(("a", "b", _shift(1, 0, 0))))
    tree.add(_tf(("a", "b", _shift(5, 0, 0)), ("b", "c", np.eye(4))))
    assert tree.lookup("a", "b")[0, 3] == 5
    with pytest.raises(InputError, match="closes a circle"):
        tree.add(_tf(("c", "a", np.eye(4))))


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


def test_a_refused_transform_is_told_where_it_is_missing(bag):
    nowhere = np.linalg.inv(PLACE)
    nowhere[0, 3] = np.nan
    bag.tf(matrix=nowhere)
    bag.image(0)
    bag.info()
    bag.points(0)
    with pytest.raises(InputError, match=r"no transform from 'lidar' to 'cam'.* not a rigid"):
        _read(bag)


def test_camera_infos_without_a_size_are_of_the_images(bag):
    bag.tf()
    bag.image(0)
    info = camera_info_message(F, K, 96, 48, START, "cam")
    info.width = info.height = 0
    bag.put("/cam/camera_info", info)
    bag.points(0)
    (made,), _ = _read(bag)
    assert (made.frame.calibration.width, made.frame.calibration.height) == (96, 48)


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


def test_kitti2bags_images_are_rectified_whatever_their_camera_info_says(bag):
    topic = "/kitti/camera_color_left/image_raw"
    bag.tf()
    bag.put(topic, image_message(F, PIXELS, START, "cam"), "sensor_msgs/msg/Image")
    info = camera_info_message(F, K, 96, 48, START, "cam")
    info.d = np.array([-0.36, 0.2, 0.001, -0.0002, -0.07])
    bag.put("/kitti/camera_color_left/camera_info", info, "sensor_msgs/msg/CameraInfo")
    bag.points(0)
    (made,), _ = _read(bag)
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
    (made,), _ = _read(bag)
    pictures = bag_images(bag.writer.path, {START: 7})
    np.testing.assert_array_equal(pictures[7], made.frame.image)
    assert not np.array_equal(pictures[7], noise)
    (raw,) = bag_images(
        bag.writer.path, {START: 7}, settings=DriveSettings(rectify="never")
    ).values()
    np.testing.assert_array_equal(raw, noise)


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
    frames, drive = _read(bag)
    assert [f.truth is not None for f in frames] == [True, False]
    text = "/ground_truth: truth of 48x24 pixels, an image of 96x48"
    assert [w.text for f in frames for w in f.warnings] == [
        f"{text} (record the truth of this camera)"
    ]
    assert drive.warnings == []


def test_a_camera_info_without_a_stamp_holds(bag):
    bag.tf()
    info = camera_info_message(F, K, 96, 48, 0, "cam")
    bag.put("/cam/camera_info", info)
    bag.image(0)
    bag.points(0)
    (made,), _ = _read(bag)
    assert made.frame.calibration is not None
    assert made.warnings == []


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
