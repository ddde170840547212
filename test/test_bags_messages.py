"""Messages to core types and back, in both worlds, and what is refused."""

from __future__ import annotations

from array import array
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.interfaces import Nodetype

from amodal_core.bags.factory import ClassFactory, RosbagsFactory, typestore
from amodal_core.bags.messages import (
    class_names,
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
    read_camera_info,
    read_depth,
    read_image,
    read_points,
    read_transform,
    stamp_of,
    transform_message,
)
from amodal_core.errors import InputError
from amodal_core.frame import Instances, Tracks
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


def _image(encoding: str, rows: np.ndarray, pad: int = 0, big: bool = False) -> SimpleNamespace:
    """An Image message from (H, bytes of a row) uint8, with bytes of padding after each row."""
    height, row = rows.shape
    padded = np.full((height, row + pad), 99, np.uint8)
    padded[:, :row] = rows
    channels = {"mono8": 1, "rgba8": 4, "bgra8": 4, "16UC1": 2, "32FC1": 4}.get(encoding, 3)
    return SimpleNamespace(
        height=height,
        width=row // channels,
        encoding=encoding,
        is_bigendian=int(big),
        step=row + pad,
        data=padded.ravel(),
    )


RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize("holder", [np.asarray, lambda d: array("B", d.tobytes()), bytes, list])
def test_every_colour_encoding_gives_the_same_rgb(pad, holder):
    alpha = np.full((2, 3, 1), 7, np.uint8)
    layouts = {
        "rgb8": RGB,
        "bgr8": RGB[..., ::-1],
        "rgba8": np.concatenate([RGB, alpha], axis=2),
        "bgra8": np.concatenate([RGB[..., ::-1], alpha], axis=2),
    }
    for encoding, pixels in layouts.items():
        message = _image(encoding, pixels.reshape(2, -1), pad)
        message.data = holder(message.data)
        np.testing.assert_array_equal(read_image(message), RGB, err_msg=encoding)
    grey = read_image(_image("mono8", RGB[..., 0], pad))
    np.testing.assert_array_equal(grey, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "bayer_rggb8"}, "encoding 'bayer_rggb8' where one of rgb8, bgr8"),
        ({"encoding": "mono16"}, "encoding 'mono16'"),
        ({"step": 8}, "step 8 is shorter than 9 bytes"),
        ({"height": 3}, "18 bytes of data where height x step needs 27"),
        ({"height": 0}, "an image of 3x0 pixels"),
    ],
)
def test_images_that_cannot_be_read_are_refused_with_the_topic(change, words):
    message = _image("rgb8", RGB.reshape(2, -1))
    vars(message).update(change)
    with pytest.raises(InputError, match=words) as caught:
        read_image(message, "/camera/image")
    assert caught.value.where == "/camera/image"
    assert caught.value.cure


@pytest.mark.parametrize("order", ["<", ">"])
def test_depth_is_metres_with_zero_for_no_return(order):
    metres = np.array([[1.5, np.nan, np.inf], [-1.0, 0.0, 80.25]], f"{order}f4")
    rows = metres.view(np.uint8).reshape(2, -1)
    result = read_depth(_image("32FC1", rows, 4, order == ">"))
    np.testing.assert_array_equal(result, np.array([[1.5, 0, 0], [0, 0, 80.25]], np.float32))
    millimetres = np.array([[1500, 0, 65535]], f"{order}u2")
    rows = millimetres.view(np.uint8).reshape(1, -1)
    result = read_depth(_image("16UC1", rows, 0, order == ">"))
    np.testing.assert_allclose(result, [[1.5, 0, 65.535]], rtol=1e-6)
    with pytest.raises(InputError, match="encoding 'rgb8' where one of 32FC1, 16UC1"):
        read_depth(_image("rgb8", RGB.reshape(2, -1)))


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
    colour = image_message(factory, RGB, STAMP, "camera")
    np.testing.assert_array_equal(read_image(colour), RGB)


POINTS = np.array([[1, 2, 3, 0.25], [4, 5, 6, 0.5], [7, 8, 9, 1.0]], np.float32)
_F = {"f4": 7, "f8": 8, "u1": 2, "u2": 4}


def _cloud(names, kinds, offsets, step, values, order="<", height=1, row_pad=0):
    """A PointCloud2 with fields wherever they are wanted."""
    n = len(values)
    width = n // height
    dtype = np.dtype(
        {
            "names": names,
            "formats": [order + k for k in kinds],
            "offsets": offsets,
            "itemsize": step,
        }
    )
    points = np.zeros(n, dtype)
    for name, column in zip(names, np.asarray(values).T, strict=True):
        points[name] = column
    rows = points.view(np.uint8).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, row_pad)), constant_values=99).ravel()
    fields = [
        SimpleNamespace(name=n, offset=o, datatype=_F[k], count=1)
        for n, o, k in zip(names, offsets, kinds, strict=True)
    ]
    return SimpleNamespace(
        height=height,
        width=width,
        fields=fields,
        is_bigendian=order == ">",
        point_step=step,
        row_step=width * step + row_pad,
        data=data,
        is_dense=True,
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize(("height", "row_pad"), [(1, 0), (3, 0), (3, 16)])
def test_any_point_layout_gives_the_same_points(order, kind, height, row_pad):
    names = ["intensity", "z", "x", "y"]
    cloud = _cloud(
        names, ["f4", kind, kind, kind], [2, 8, 24, 16], 40, POINTS[:, [3, 2, 0, 1]], order, height,
        row_pad,
    )  # fmt: skip
    np.testing.assert_array_equal(read_points(cloud), POINTS)


@pytest.mark.parametrize("name", ["i", "reflectivity", "intensity"])
def test_intensity_is_found_under_the_names_that_drivers_use(name):
    cloud = _cloud(["x", "y", "z", name], ["f4"] * 4, [0, 4, 8, 12], 16, POINTS)
    np.testing.assert_array_equal(read_points(cloud), POINTS)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("u1", [0, 51, 255], [0, 0.2, 1]),
        ("u2", [0, 51, 255], [0, 0.2, 1]),
        ("u2", [0, 13107, 65535], [0, 0.2, 1]),
        ("f4", [0, 51, 255], [0, 0.2, 1]),
        ("f4", [0, 0.2, 1], [0, 0.2, 1]),
        ("f4", [np.nan, 0.2, 1], [0, 0.2, 1]),
    ],
)
def test_intensity_is_scaled_to_one(kind, values, expected):
    rows = np.column_stack([POINTS[:, :3], values])
    cloud = _cloud(["x", "y", "z", "intensity"], ["f4", "f4", "f4", kind], [0, 4, 8, 12], 16, rows)
    np.testing.assert_allclose(read_points(cloud)[:, 3], expected, atol=1e-6)


def test_a_cloud_without_intensity_has_zeros():
    cloud = _cloud(["x", "y", "z"], ["f4"] * 3, [0, 4, 8], 12, POINTS[:, :3])
    np.testing.assert_array_equal(read_points(cloud), POINTS * (1, 1, 1, 0))


def test_points_that_are_not_finite_are_dropped_whole():
    rows = POINTS.copy()
    rows[1, 1] = np.nan
    cloud = _cloud(["x", "y", "z", "intensity"], ["f4"] * 4, [0, 4, 8, 12], 16, rows)
    np.testing.assert_array_equal(read_points(cloud), POINTS[[0, 2]])
    rows[:, 0] = np.inf
    cloud = _cloud(["x", "y", "z", "intensity"], ["f4"] * 4, [0, 4, 8, 12], 16, rows)
    with pytest.raises(InputError, match="none of the 3 points is finite"):
        read_points(cloud)


def test_an_empty_cloud_is_no_error():
    cloud = _cloud(["x", "y", "z"], ["f4"] * 3, [0, 4, 8], 12, np.zeros((0, 3)))
    assert read_points(cloud).shape == (0, 4)


def test_clouds_that_cannot_be_read_are_refused():
    def cloud(**change):
        made = _cloud(["x", "y", "z", "intensity"], ["f4"] * 4, [0, 4, 8, 12], 16, POINTS)
        vars(made).update(change)
        return made

    with pytest.raises(InputError, match="no field z among 'x, y'"):
        read_points(cloud(fields=cloud().fields[:2]))
    with pytest.raises(InputError, match="do not hold 1 x 3 points of 16 bytes"):
        read_points(cloud(data=np.zeros(47, np.uint8)))
    with pytest.raises(InputError, match="do not hold"):
        read_points(cloud(row_step=40))
    broken = cloud()
    broken.fields[2].offset = 14
    with pytest.raises(InputError, match="field z at offset 14 leaves the point of 16 bytes"):
        read_points(broken)
    integers = cloud()
    integers.fields[0].datatype = 5
    with pytest.raises(InputError, match="field x is 1 x i4, not one float"):
        read_points(integers)


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
    calibration = read_camera_info(message, np.eye(4))
    np.testing.assert_array_equal(calibration.K, K)
    assert (calibration.width, calibration.height) == (1242, 375)
    message.binning_x = 2
    with pytest.raises(InputError, match="binning"):
        read_camera_info(message, np.eye(4))


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
    )


def _same(a: Tracks, b: Tracks) -> None:
    for name in vars(a).keys() - {"size", "amodal", "visible", "ignore"}:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.size == b.size
    assert a.amodal.rle().counts == b.amodal.rle().counts
    assert a.visible.rle().counts == b.visible.rle().counts


def test_tracks_survive_the_round_trip(factory, tracks):
    message = instances_message(factory, tracks, stamp=STAMP, frame_id="camera", classes=CLASSES)
    assert stamp_of(message.header) == STAMP
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
    plain = Instances(
        **{k: v for k, v in vars(tracks).items() if k not in ("ids", "ages", "coasted")}
    )
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
