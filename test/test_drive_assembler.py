"""Messages to frames, live and offline: what is waited for, what is refused, what a jump clears."""

from __future__ import annotations

import gc
import sys
import threading
import time
from types import FunctionType, ModuleType
from typing import Any

import node_bench as drive
import numpy as np
import pytest
from node_bench import stamp
from scipy.spatial.transform import Rotation

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import transform_message
from amodal_core.drive.assembler import Assembler, Moment
from amodal_core.drive.calibrations import UncalibratedError
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import CAMERA_INFO, DEPTH, IMAGE, INSTANCES, POINTS, TF, TF_STATIC
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError
from amodal_core.settings import checked

PARTS = (IMAGE.name, POINTS.name)
SECOND = drive.SECOND
SHARED = (type, ModuleType, FunctionType)


def assembler(parts: tuple[str, ...] = PARTS, **settings: Any) -> Assembler:
    return Assembler(parts, DriveSettings(**settings))


def send(to: Assembler, index: int, topics: tuple[str, ...] = (IMAGE.name, POINTS.name)) -> Any:
    """Send messages of a frame; the moments, drops and resets that they bring about."""
    make = {IMAGE.name: drive.image, POINTS.name: drive.cloud, CAMERA_INFO.name: drive.info}
    results = [to.take(topic, make[topic](index)) for topic in topics]
    moments = [m for r in results for m in r.moments]
    return moments, [d for r in results for d in r.drops]


def moment_of(to: Assembler, index: int) -> Moment:
    (moment,), _ = send(to, index)
    return moment


def test_a_frame_has_what_its_messages_hold() -> None:
    made = assembler()
    made.take(TF_STATIC.name, drive.tf_static())
    send(made, 0, (CAMERA_INFO.name,))
    result = made.read(moment_of(made, 0))
    assert (result.frame.stamp, result.frame_id) == (stamp(0), drive.CAMERA)
    assert result.frame.points_stamp == stamp(0) + 3_000_000
    expected = drive.FRAME
    np.testing.assert_array_equal(result.frame.image, expected.image)
    np.testing.assert_array_equal(result.frame.points, expected.points)
    assert result.frame.calibration is not None
    assert expected.calibration is not None
    np.testing.assert_allclose(
        result.frame.calibration.camera_from_lidar, expected.calibration.camera_from_lidar
    )
    assert (result.truth, result.instances, result.reset) == (None, None, False)


def test_a_missing_transform_is_waited_for_once_and_not_for_every_frame() -> None:
    made = assembler(transform_timeout=0.3)
    send(made, 0, (CAMERA_INFO.name,))
    took = []
    for index in range(3):
        begin = time.monotonic()
        with pytest.raises(UncalibratedError, match="no transform from 'lidar' to 'camera'"):
            made.read(moment_of(made, index), wait=True)
        took.append(time.monotonic() - begin)
    assert took[0] >= 0.3
    assert max(took[1:]) < 0.25
    made.take(TF_STATIC.name, drive.tf_static())
    made.read(moment_of(made, 3), wait=True)


def test_calibration_on_its_way_is_waited_for() -> None:
    made = assembler(transform_timeout=30.0)
    moment = moment_of(made, 0)
    with pytest.raises(UncalibratedError, match="no camera_info has come"):
        made.read(moment)
    made = assembler(transform_timeout=30.0)
    moment = moment_of(made, 0)
    threading.Timer(0.05, send, [made, 0, (CAMERA_INFO.name,)]).start()
    threading.Timer(0.1, made.take, [TF_STATIC.name, drive.tf_static()]).start()
    assert made.read(moment, wait=True).frame.calibration is not None


def test_the_clock_of_before_a_jump_is_not_trusted() -> None:
    """A bag of four seconds loops: /clock may still show its end when its first image comes."""
    made = assembler(sync_timeout=0.5)
    for index in range(40):
        send(made, index)
    made.advance(stamp(40))
    moments, _ = send(made, 0)
    assert [m.reset for m in moments] == [True]
    send(made, 1, (IMAGE.name,))
    assert made.advance(stamp(41)).drops == []
    (moment,), drops = send(made, 1, (POINTS.name,))
    assert (moment.stamp, moment.reset, drops) == (stamp(1), False, [])
    # The new clock counts again: what waits too long is given up.
    send(made, 2, (IMAGE.name,))
    assert [d.reason for d in made.advance(stamp(8)).drops] == ["no points in time"]


@pytest.mark.parametrize(
    ("sent", "moments", "drops"),
    [
        # A drive begins anew: told with the second message, and the first is not lost.
        ([10, 11, 0, 1, 2], [(10, False), (11, False), (0, True), (1, False), (2, False)], []),
        # One is late by a second, one by less: neither is a jump.
        ([10, 11, 1, 12], [(10, False), (11, False), (12, False)], [(1, "stray stamp")]),
        ([10, 12, 11, 13], [(10, False), (12, False), (13, False)], [(11, "late")]),
        # A second without a message; the last one, which nothing follows.
        ([10, 11, 21, 22, 32], [(i, False) for i in (10, 11, 21, 22, 32)], []),
        # A camera of one image in ten seconds.
        ([100, 200, 300, 400], [(i, False) for i in (100, 200, 300, 400)], []),
        # A stamp of an hour ahead, and a pause of an hour.
        ([10, 36_010, 11], [(10, False), (11, False)], [(36_010, "stray stamp")]),
        ([10, 36_010, 36_011], [(10, False), (36_010, False), (36_011, False)], []),
    ],
)
def test_without_partners_every_message_is_a_moment_and_a_jump_is_told_by_two(
    sent: list[int], moments: list[tuple[int, bool]], drops: list[tuple[int, str]]
) -> None:
    made = Assembler((INSTANCES.name,), DriveSettings(), calibrated=False)
    results = []
    for index in sent:
        array = drive.FACTORY.create("amodal_msgs/msg/AmodalInstanceArray", height=10, width=20)
        array.header = drive.image(index).header
        results.append(made.take(INSTANCES.name, array))
    results.append(made.flush())
    assert [(m.stamp, m.reset) for r in results for m in r.moments] == [
        (stamp(index), reset) for index, reset in moments
    ]
    assert [(d.stamp, d.reason) for r in results for d in r.drops] == [
        (stamp(index), reason) for index, reason in drops
    ]


def test_a_frame_after_a_pause_is_answered_when_nothing_has_come_for_a_while() -> None:
    made = Assembler((INSTANCES.name,), DriveSettings(), calibrated=False)

    def take(index: int) -> list[int]:
        array = drive.FACTORY.create("amodal_msgs/msg/AmodalInstanceArray", height=10, width=20)
        array.header = drive.image(index).header
        return [m.stamp for m in made.take(INSTANCES.name, array).moments]

    assert [take(0), take(1), take(50)] == [[stamp(0)], [stamp(1)], []]
    assert [(m.stamp, m.reset) for m in made.advance(stamp(51)).moments] == [(stamp(50), False)]
    assert take(51) == [stamp(51)]


@pytest.mark.parametrize("role", [IMAGE.name, POINTS.name])
def test_one_stray_stamp_clears_neither_the_model_nor_the_transforms(role: str) -> None:
    made = assembler()
    made.take(TF_STATIC.name, drive.tf_static())
    send(made, 0, (CAMERA_INFO.name,))
    for index in range(20, 30):
        send(made, index)
    moments, drops = send(made, 0, (role,))
    assert (moments, drops) == ([], [])
    moments, drops = send(made, 30)
    assert [(m.stamp, m.reset) for m in moments] == [(stamp(30), False)]
    assert [(d.topic, d.reason) for d in drops] == [(role, "stray stamp")]
    assert made.newest >= stamp(30)


def test_one_stray_transform_does_not_forget_how_the_vehicle_moved() -> None:
    tree, seconds = TransformTree(), 1_000_000_000

    def send_at(second: float, x: float) -> None:
        matrix = np.eye(4)
        matrix[0, 3] = x
        placed = transform_message(drive.FACTORY, "odom", "base", matrix, round(second * seconds))
        tree.add(drive.FACTORY.create("tf2_msgs/msg/TFMessage", transforms=[placed]))

    def places(*at: float) -> list[float] | None:
        poses = tree.lookup_at("odom", "base", np.array([round(t * seconds) for t in at], np.int64))
        return None if poses is None else poses[:, 0, 3].tolist()

    for k in range(11):
        send_at(100 + k / 10, k)
    send_at(7, 777)  # 1970
    assert places(100.0, 100.5, 101.0) == [0, 5, 10]
    assert tree.lookup("odom", "base")[0, 3] == 10
    send_at(101.1, 11)
    assert places(100.0, 101.1) == [0, 11]
    # Two of the new time: what was before is forgotten, and both are there.
    send_at(50.0, 1)
    send_at(50.1, 2)
    assert places(50.0, 50.1) == [1, 2]
    assert places(100.0) is None


def bytes_held(by: object) -> int:
    """Bytes of an object and of all that it refers to, classes and what they are made of aside."""
    seen: dict[int, object] = {}
    new = [by]
    while new:
        held = {id(one): one for one in new if not isinstance(one, SHARED)}
        seen |= held
        new = [one for one in gc.get_referents(*held.values()) if id(one) not in seen]
    return sum(sys.getsizeof(one) for one in seen.values())


def test_transforms_take_no_memory_however_often_they_come_and_frames_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, repeated = assembler(), drive.tf_static()
    held = []
    for count in (10, 1_000):
        for _ in range(count):
            made.take(TF_STATIC.name, repeated)
        held.append(bytes_held(made))
    assert held[1] == held[0]
    monkeypatch.setattr("amodal_core.limits.FRAMES", 3)
    for child in ("a", "b"):
        repeated.transforms[0].child_frame_id = child
        made.take(TF_STATIC.name, repeated)
    repeated.transforms[0].child_frame_id = "c"
    with pytest.raises(InputError, match="'c' is one frame more than 3"):
        made.take(TF_STATIC.name, repeated)
    repeated.transforms[0].child_frame_id = "b"
    made.take(TF_STATIC.name, repeated)


def test_a_jump_forgets_what_moves_and_keeps_what_is_static() -> None:
    made = assembler()
    camera = drive.FRAME.calibration
    assert camera is not None
    factory = RosbagsFactory()

    def link(parent: str, child: str, matrix: np.ndarray) -> Any:
        placed = transform_message(factory, parent, child, matrix, stamp(5))
        return factory.create("tf2_msgs/msg/TFMessage", transforms=[placed])

    made.take(TF_STATIC.name, link("mount", "lidar", camera.camera_from_lidar))
    made.take(TF.name, link("camera", "mount", np.eye(4)))
    send(made, 0, (CAMERA_INFO.name,))
    for index in range(10):
        moments, _ = send(made, index)
    made.read(moments[0])
    moments, _ = send(made, 0)
    assert moments[0].reset
    with pytest.raises(UncalibratedError, match="no transform"):
        made.read(moments[0])
    made.take(TF.name, link("camera", "mount", np.eye(4)))
    made.read(moments[0])


def test_depth_and_instances_have_exactly_the_images_stamp() -> None:
    made = Assembler((IMAGE.name, DEPTH.name), DriveSettings(), calibrated=False)
    assert made.take(IMAGE.name, drive.image(0)).moments == []
    later = drive.depth(0)
    later.header.stamp.nanosec += 1
    assert made.take(DEPTH.name, later).moments == []
    (moment,) = made.take(DEPTH.name, drive.depth(0)).moments or [None]
    assert moment is None or made.read(moment).frame.depth is not None


def test_headers_must_be_filled_in() -> None:
    made = assembler()
    scan = drive.cloud(0)
    scan.header.stamp.sec = scan.header.stamp.nanosec = 0
    with pytest.raises(InputError, match="points: the stamp is zero"):
        made.take(POINTS.name, scan)
    scan = drive.cloud(0)
    scan.header.frame_id = b"\xff\xfe".decode("utf-8", "replace") + "lidar"
    with pytest.raises(InputError, match=r"points: header.frame_id is no UTF-8"):
        made.take(POINTS.name, scan)
    send(made, 0, (CAMERA_INFO.name, IMAGE.name))
    scan = drive.cloud(0)
    scan.header.frame_id = "/"
    (moment,) = made.take(POINTS.name, scan).moments
    with pytest.raises(InputError, match=r"points: header.frame_id is empty"):
        made.read(moment)


def test_a_lookup_waits_for_what_is_on_its_way() -> None:
    tree = TransformTree()
    with pytest.raises(InputError, match="no transform"):
        tree.lookup(drive.CAMERA, drive.LIDAR)
    threading.Timer(0.05, tree.add, [drive.tf_static()]).start()
    assert tree.lookup(drive.CAMERA, drive.LIDAR, timeout=30.0).shape == (4, 4)


def test_extrinsics_are_a_place_and_a_turn_in_place_of_the_tree() -> None:
    turn = Rotation.from_euler("zyx", (0.1, -0.2, 0.3))
    values = (1.0, 2.0, 3.0, *turn.as_quat().tolist())
    made = assembler(extrinsics=values)
    send(made, 0, (CAMERA_INFO.name,))
    calibration = made.read(moment_of(made, 0)).frame.calibration
    assert calibration is not None
    matrix = calibration.camera_from_lidar
    np.testing.assert_allclose(matrix[:3, :3], turn.as_matrix(), atol=1e-12)
    assert matrix[:3, 3].tolist() == [1.0, 2.0, 3.0]
    assert DriveSettings().camera_from_lidar is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("extrinsics", [1, 0, 0, 0, 0, 0, 2], "extrinsics: .*quaternion of length 1"),
        ("extrinsics", [float("nan"), 0, 0, 0, 0, 0, 1], "extrinsics.*finite"),
        ("extrinsics", [0, 0, 0], "extrinsics: .*at least 7 items"),
        ("sync_slop", 2.0, "sync_slop: .*less than or equal to 1"),
        ("sync_slope", 0.1, "no setting 'sync_slope' .*did you mean sync_slop"),
    ],
)
def test_settings_that_cannot_be_are_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(DriveSettings, {name: value}, "here")
