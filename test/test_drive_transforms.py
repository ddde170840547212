"""Where the LiDAR is: transforms of a bag, whenever they come; never an identity in their place."""

from __future__ import annotations

import numpy as np
import pytest
from bag_scenes import PIXELS, PLACE, START, F, bag, read

from amodal_core.bags.sensors import image_message, transform_message
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError

__all__ = ["bag"]


def test_late_transform_and_calibration_are_waited_for(bag):
    for ms in (0, 100):
        bag.image(ms)
        bag.points(ms)
    bag.tf()
    bag.info()
    frames, _ = read(bag)
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
    frames, drive = read(bag)
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
    frames, _ = read(bag)
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


def test_a_missing_transform_is_an_error_and_never_identity(bag):
    bag.tf("base", "cam")
    bag.info()
    bag.image(0)
    bag.points(0)
    with pytest.raises(InputError, match=r"no transform from 'lidar' to 'cam'; known .* base, cam"):
        read(bag)


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


def test_a_refused_transform_is_told_where_it_is_missing(bag):
    nowhere = np.linalg.inv(PLACE)
    nowhere[0, 3] = np.nan
    bag.tf(matrix=nowhere)
    bag.image(0)
    bag.info()
    bag.points(0)
    with pytest.raises(InputError, match=r"no transform from 'lidar' to 'cam'.* not a rigid"):
        read(bag)
