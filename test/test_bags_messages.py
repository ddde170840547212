"""Messages to core types and back, in both worlds, and what is refused."""

from __future__ import annotations

from array import array
from dataclasses import fields
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.interfaces import Nodetype
from scipy.spatial.transform import Rotation

from amodal_core.bags.clouds import read_points
from amodal_core.bags.factory import ClassFactory, RosbagsFactory, typestore
from amodal_core.bags.images import read_depth, read_image
from amodal_core.bags.messages import (
    class_names,
    detections3d_message,
    detections_message,
    instances_message,
    label_info_message,
    read_instances,
    read_tracks,
    visible_labels,
    visible_labels_message,
)
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    read_transform,
    stamp_of,
    transform_message,
)
from amodal_core.errors import InputError
from amodal_core.frame import Instances, Tracks
from amodal_core.geometry.camera import read_camera
from amodal_core.masks.mask_set import RleMasks

STAMP = 1_317_042_145_100_000_003
CLASSES = ("car", "truck", "pedestrian")
_CODES = {
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
    "byte": "B",
    "char": "B",
}


@cache
def _rclpy_like(name: str) -> type:
    """A class that behaves as rosidl's generated Python: typed defaults, array.array sequences."""
    _, fields = typestore().fielddefs[name]

    def default(desc):
        kind, detail = desc
        if kind == Nodetype.NAME:
            return _rclpy_like(detail)()
        if kind == Nodetype.BASE:
            return {"string": "", "bool": False}.get(
                detail[0], 0.0 if detail[0].startswith("float") else 0
            )
        (item_kind, item), count = detail
        if item_kind == Nodetype.BASE and item[0] in _CODES:
            if kind == Nodetype.ARRAY:
                return np.zeros(count, item[0])
            return array(_CODES[item[0]])
        return []

    class Message:
        __slots__ = tuple(n for n, _ in fields)
        type_name = name

        def __init__(self):
            for n, desc in fields:
                object.__setattr__(self, n, default(desc))

        def __setattr__(self, field, value):
            held = getattr(self, field)
            assert type(value) is type(held), f"{name}.{field}: {type(value)} for {type(held)}"
            if isinstance(held, array):
                assert value.typecode == held.typecode
            if isinstance(held, np.ndarray):
                assert value.dtype == held.dtype
                assert value.shape == held.shape
            object.__setattr__(self, field, value)

    return Message


@pytest.fixture(params=["rosbags", "rclpy"])
def factory(request):
    return RosbagsFactory() if request.param == "rosbags" else ClassFactory(_rclpy_like)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_survive_the_round_trip(factory, dtype):
    pixels = np.arange(12).reshape(3, 4).astype(dtype)
    message = image_message(factory, pixels, STAMP, "camera")
    assert stamp_of(message.header) == STAMP
    assert message.header.frame_id == "camera"
    if dtype == np.float32:
        np.testing.assert_array_equal(read_depth(message), pixels)
    else:
        raw = np.frombuffer(bytes(message.data), dtype).reshape(3, 4)
        np.testing.assert_array_equal(raw, pixels)
    rgb = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    colour = image_message(factory, rgb, STAMP, "camera")
    np.testing.assert_array_equal(read_image(colour), rgb)


POINTS = np.array([[1, 2, 3, 0.25], [4, 5, 6, 0.5], [7, 8, 9, 1.0]], np.float32)


def test_points_survive_the_round_trip(factory):
    message = points_message(factory, POINTS, STAMP, "velo_link")
    np.testing.assert_array_equal(read_points(message), POINTS)
    assert [f.name for f in message.fields] == ["x", "y", "z", "intensity"]
    assert (message.point_step, message.row_step, message.is_dense) == (16, 48, True)


def test_camera_info_is_that_of_a_rectified_camera(factory):
    K = np.array([[700.0, 0, 600], [0, 710, 170], [0, 0, 1]])
    message = camera_info_message(factory, K, 1242, 375, STAMP, "camera")
    assert np.array_equal(np.asarray(message.d), np.zeros(5))
    np.testing.assert_array_equal(np.asarray(message.r).reshape(3, 3), np.eye(3))
    np.testing.assert_array_equal(np.asarray(message.p).reshape(3, 4), np.c_[K, np.zeros(3)])
    calibration = read_camera(message).calibration(np.eye(4))
    np.testing.assert_array_equal(calibration.K, K)
    assert (calibration.width, calibration.height) == (1242, 375)
    message.binning_x = 2
    assert read_camera(message).K[0].tolist() == [350, 0, 300]


def test_transforms_survive_the_round_trip(factory):
    matrix = np.array([[0, -1, 0, 1], [0, 0, -1, 2], [1, 0, 0, 3], [0, 0, 0, 1.0]])
    message = transform_message(factory, "base", "camera", matrix, STAMP)
    parent, child, result = read_transform(message)
    assert (parent, child) == ("base", "camera")
    np.testing.assert_allclose(result, matrix, atol=1e-12)
    message.transform.rotation.w = float("nan")
    with pytest.raises(InputError, match="not a rigid transform"):
        read_transform(message)


def _dense(*boxes):
    masks = np.zeros((len(boxes), 20, 30), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


@pytest.fixture
def tracks():
    amodal = _dense((2, 2, 12, 12), (6, 6, 22, 16), (20, 4, 28, 9))
    visible = amodal.copy()
    visible[1] &= ~amodal[0]
    visible[2] = False
    amodal_runs, visible_runs = RleMasks.from_dense(amodal), RleMasks.from_dense(visible)
    occluders = np.zeros((3, 3), bool)
    occluders[1, 0] = occluders[2, 0] = occluders[2, 1] = True
    return Tracks(
        size=(20, 30),
        amodal_boxes=amodal_runs.boxes(),
        visible_boxes=visible_runs.boxes(),
        scores=np.array([0.9, 0.8, 0.3], np.float32),
        class_ids=np.array([0, 1, 2]),
        amodal=amodal_runs,
        visible=visible_runs,
        occlusion_rates=np.array([0, 0.225, 1], np.float32),
        depths=np.array([9.0, 5.0, 20.0], np.float32),
        occluders=occluders,
        embeddings=np.eye(3, 4, dtype=np.float32),
        boxes3d=np.array([np.arange(7), np.full(7, np.nan), np.arange(7) + 1], np.float32),
        ids=np.array([4, 11, 7]),
        ages=np.array([3, 1, 12]),
        coasted=np.array([False, False, True]),
        velocities=np.array([[1, -2, 0.5], [np.nan] * 3, [0, 0, 0]], np.float32),
        image_velocities=np.array([[np.nan] * 2, [30, -4], [0, 0]], np.float32),
    )


def _same(a: Tracks, b: Tracks) -> None:
    for name in vars(a).keys() - {"size", "amodal", "visible", "ignore"}:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.size == b.size
    assert a.amodal.rle().counts == b.amodal.rle().counts
    assert a.visible.rle().counts == b.visible.rle().counts


def test_tracks_survive_the_round_trip(factory, tracks):
    frames = {"frame_id": "camera", "lidar_frame": "lidar"}
    message = instances_message(factory, tracks, stamp=STAMP, classes=CLASSES, **frames)
    assert stamp_of(message.header) == STAMP
    assert (message.header.frame_id, message.box3d_frame_id) == ("camera", "lidar")
    # What is unknown is no number, and standing still is one.
    assert [len(i.box3d) for i in message.instances] == [7, 0, 7]
    assert [list(i.velocity) for i in message.instances] == [[1, -2, 0.5], [], [0, 0, 0]]
    assert [list(i.image_velocity) for i in message.instances] == [[], [30, -4], [0, 0]]
    assert [i.class_name for i in message.instances] == ["car", "truck", "pedestrian"]
    assert class_names(message) == dict(enumerate(CLASSES))
    # Nearest occluder first, by id.
    assert list(message.instances[2].occluders) == [11, 4]
    result = read_tracks(message)
    _same(result, tracks)
    assert result.ignore is None


def test_tracks_survive_the_wire(tracks):
    message = instances_message(
        RosbagsFactory(), tracks, stamp=STAMP, frame_id="camera", classes=CLASSES
    )
    store, name = typestore(), "amodal_msgs/msg/AmodalInstanceArray"
    _same(read_tracks(store.deserialize_cdr(store.serialize_cdr(message, name), name)), tracks)


def test_untracked_instances_name_occluders_by_their_place(factory, tracks):
    names = [f.name for f in fields(Instances)]
    plain = Instances(**{name: getattr(tracks, name) for name in names})
    message = instances_message(factory, plain, stamp=STAMP, frame_id="camera", classes=CLASSES)
    assert {i.track_id for i in message.instances} == {-1}
    assert list(message.instances[2].occluders) == [1, 0]
    result = read_instances(message)
    np.testing.assert_array_equal(result.occluders, tracks.occluders)
    with pytest.raises(InputError, match="without a track id"):
        read_tracks(message)


def test_annotations_to_ignore_are_marked_by_score_zero(factory, tracks):
    tracks.ignore = np.array([False, True, False])
    message = instances_message(factory, tracks, stamp=STAMP, frame_id="camera", classes=CLASSES)
    np.testing.assert_array_equal(read_tracks(message).ignore, tracks.ignore)


def test_empty_arrays_keep_the_size(factory):
    empty = Tracks.empty((20, 30))
    message = instances_message(factory, empty, stamp=STAMP, frame_id="camera", classes=CLASSES)
    result = read_tracks(message)
    assert (len(result), result.size, result.occluders.shape) == (0, (20, 30), (0, 0))


def test_an_empty_counts_text_is_an_empty_mask(factory, tracks):
    message = instances_message(factory, tracks, stamp=STAMP, frame_id="camera", classes=CLASSES)
    message.instances[2].visible.counts = ""
    assert read_tracks(message).visible.rle().areas().tolist() == [100, 124, 0]


@pytest.mark.parametrize("counts", ["1", "garbage", "\x80", "PPPPPPPPPPPPPPPPPPPPPPPPPPPP", "Sb0"])
def test_masks_that_are_no_rle_are_refused(tracks, counts):
    message = instances_message(
        RosbagsFactory(), tracks, stamp=STAMP, frame_id="camera", classes=CLASSES
    )
    message.instances[1].amodal.counts = counts
    with pytest.raises(InputError, match="not COCO RLE"):
        read_tracks(message, "/tracks")


def test_arrays_that_contradict_themselves_are_refused(tracks):
    def array_message(index, **change):
        made = instances_message(
            RosbagsFactory(), tracks, stamp=STAMP, frame_id="camera", classes=CLASSES
        )
        for name, value in change.items():
            setattr(made.instances[index], name, value)
        return made

    with pytest.raises(InputError, match="a track id occurs twice"):
        read_tracks(array_message(1, track_id=4))
    with pytest.raises(InputError, match="a depth that is not finite"):
        read_tracks(array_message(1, depth=float("nan")))
    other = array_message(1)
    other.instances[0].amodal.width = 31
    with pytest.raises(InputError, match="a mask of 31x20 in an array of 30x20"):
        read_tracks(other)


def test_detections_are_the_seen_tracks_with_their_ids(factory, tracks):
    message = detections_message(factory, tracks, stamp=STAMP, frame_id="camera", classes=CLASSES)
    assert [d.id for d in message.detections] == ["4", "11"]
    truck = message.detections[1]
    assert truck.results[0].hypothesis.class_id == "truck"
    assert truck.results[0].hypothesis.score == pytest.approx(0.8)
    centre = truck.bbox.center.position
    assert (centre.x, centre.y, truck.bbox.size_x, truck.bbox.size_y) == (14, 11, 16, 10)


def test_detections_name_every_probable_class_likeliest_first(factory, tracks):
    tracks.class_probabilities = np.array([[0.6, 0.3, 0.1], [0.36, 0.6, 0.04], [0, 0, 1]], "f4")
    tracks.boxes3d[:2] = (12, -3, -0.5, 4.2, 1.8, 1.5, 0)
    frame = {"stamp": STAMP, "classes": CLASSES}
    flat = detections_message(factory, tracks, frame_id="camera", **frame)
    solid = detections3d_message(factory, tracks, lidar_frame="lidar", **frame)
    for message in (flat, solid):
        said = [
            [(r.hypothesis.class_id, round(r.hypothesis.score, 4)) for r in d.results]
            for d in message.detections
        ]
        assert said == [
            [("car", 0.9), ("truck", 0.45), ("pedestrian", 0.15)],
            [("truck", 0.8), ("car", 0.48)],
        ]
    places = [r.pose.pose.position for r in solid.detections[0].results]
    assert [(p.x, p.y, p.z) for p in places] == [(12, -3, -0.5)] * 3


def test_class_probabilities_survive_the_round_trip(factory, tracks):
    tracks.class_probabilities = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0, 0, 1]], "f4")
    message = instances_message(factory, tracks, stamp=STAMP, frame_id="camera", classes=CLASSES)
    assert class_names(message) == dict(enumerate(CLASSES))
    np.testing.assert_array_equal(
        read_tracks(message).class_probabilities, tracks.class_probabilities
    )
    first, second = (i.class_probabilities for i in message.instances[:2])
    message.instances[0].class_probabilities = first[:0]
    assert read_tracks(message).class_probabilities is None  # what one lacks, all lack
    message.instances[0].class_probabilities = first
    second[1] = -0.6
    message.instances[1].class_probabilities = second
    with pytest.raises(InputError, match="a class probability that is negative or not finite"):
        read_tracks(message)


def test_3d_detections_are_those_with_a_box_in_the_lidar_s_frame(factory, tracks):
    tracks.boxes3d[0] = (12, -3, -0.5, 4.2, 1.8, 1.5, np.pi / 2)
    tracks.boxes3d[1] = np.nan
    message = detections3d_message(
        factory, tracks, stamp=STAMP, lidar_frame="lidar", classes=CLASSES
    )
    assert (message.header.frame_id, stamp_of(message.header)) == ("lidar", STAMP)
    (car,) = message.detections  # the truck has no box, the pedestrian coasts
    assert (car.id, car.header.frame_id) == ("4", "lidar")
    assert car.results[0].hypothesis.class_id == "car"
    assert car.results[0].hypothesis.score == pytest.approx(0.9)
    for pose in (car.bbox.center, car.results[0].pose.pose):
        p, q = pose.position, pose.orientation
        assert (p.x, p.y, p.z) == (12, -3, -0.5)
        assert Rotation.from_quat([q.x, q.y, q.z, q.w]).as_rotvec() == pytest.approx(
            [0, 0, np.pi / 2]
        )
    size = car.bbox.size
    assert (size.x, size.y, size.z) == pytest.approx((4.2, 1.8, 1.5))
    tracks.boxes3d = None
    empty = detections3d_message(factory, tracks, stamp=STAMP, lidar_frame="lidar", classes=CLASSES)
    assert len(empty.detections) == 0


def test_visible_labels_are_class_ids_plus_one_and_the_nearest_wins(factory, tracks):
    tracks.visible = tracks.amodal
    labels = visible_labels(tracks)
    expected = np.zeros((20, 30), np.uint16)
    for i in (2, 0, 1):  # far to near
        expected[tracks.amodal.dense()[i]] = i + 1
    np.testing.assert_array_equal(labels, expected)
    message = visible_labels_message(factory, tracks, stamp=STAMP, frame_id="camera")
    assert message.encoding == "mono16"
    info = label_info_message(factory, CLASSES, stamp=STAMP, frame_id="camera")
    names = {c.class_id: c.class_name for c in info.class_map}
    assert names == {0: "background", 1: "car", 2: "truck", 3: "pedestrian"}


def test_a_field_that_a_type_does_not_have_is_an_error():
    for made in (RosbagsFactory(), ClassFactory(_rclpy_like)):
        with pytest.raises(AttributeError):
            made.create("std_msgs/msg/Header", frame="camera")


def test_every_type_can_be_made_with_its_defaults_and_serialised():
    store, factory = typestore(), RosbagsFactory()
    for name in ("amodal_msgs", "vision_msgs", "sensor_msgs", "tf2_msgs", "visualization_msgs"):
        types = [t for t in store.fielddefs if t.startswith(f"{name}/msg/")]
        assert types
        for each in types:
            store.serialize_cdr(factory.create(each), each)


@given(st.integers(0, 2**62))
def test_stamps_survive_to_the_nanosecond(stamp):
    factory = RosbagsFactory()
    message = image_message(factory, np.zeros((1, 1), np.uint8), stamp % 2**60, "camera")
    assert stamp_of(message.header) == stamp % 2**60
