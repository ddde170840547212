"""Messages that claim sizes and ids no memory should be given for: refused in a line, at once."""

from __future__ import annotations

import resource
import sqlite3
from contextlib import closing, contextmanager
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from packed_bags import chunk, file_of, packed_bag
from rosbags.rosbag2 import StoragePlugin, Writer

from amodal_core import limits
from amodal_core.bags.clouds import read_points
from amodal_core.bags.factory import RosbagsFactory, typestore
from amodal_core.bags.images import read_image
from amodal_core.bags.messages import instances_message, read_instances, read_tracks
from amodal_core.bags.reader import BagReader
from amodal_core.datasets.image_files import read_image as read_file_image
from amodal_core.errors import InputError
from amodal_core.frame import Tracks
from amodal_core.geometry.camera import read_camera
from amodal_core.masks.mask_set import RleMasks

FACTORY = RosbagsFactory()


@contextmanager
def little_memory():
    """At most 300 MB more than now may be asked for within the block."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 300 * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def array_message(**changes):
    """An AmodalInstanceArray of one track in an image of 8x4; `changes` are of its instance."""
    masks = RleMasks.from_dense(np.ones((1, 4, 8), np.uint8))
    box = np.array([[0, 0, 8, 4]], np.float32)
    tracks = Tracks(
        size=(4, 8),
        amodal_boxes=box,
        visible_boxes=box,
        scores=np.ones(1, np.float32),
        class_ids=np.zeros(1, np.int64),
        amodal=masks,
        visible=masks,
        occlusion_rates=np.zeros(1, np.float32),
        depths=np.ones(1, np.float32),
        occluders=np.zeros((1, 1), bool),
        ids=np.array([5]),
        ages=np.ones(1, np.int64),
        coasted=np.zeros(1, bool),
    )
    message = instances_message(FACTORY, tracks, stamp=1, frame_id="camera", classes=["car"])
    for name, value in changes.items():
        setattr(message.instances[0], name, value)
    return message


@pytest.mark.parametrize("read", [read_instances, read_tracks])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_id": 20_000_000}, "class_id 20000000, from 0 to 4095"),
        ({"class_id": 65_535}, "class_id 65535"),
        ({"embedding": np.zeros(10_000_000, np.float32)}, "an embedding of 10000000 numbers"),
        ({"class_probabilities": np.zeros(9_999, np.float32)}, "9999 classes, at most 4096"),
    ],
)
def test_ids_and_vectors_that_would_cost_every_later_frame_are_refused(read, changes, words):
    with pytest.raises(InputError, match=rf"tracks: {words}"):
        read(array_message(**changes), "tracks")


def test_an_array_of_an_impossible_image_or_of_too_many_is_refused():
    message = array_message()
    message.height = message.width = 30_000
    with little_memory(), pytest.raises(InputError, match="30000x30000 pixels"):
        read_tracks(message)
    message = array_message()
    message.classes = ["car"] * 5000
    with pytest.raises(InputError, match="5000 classes, at most 4096"):
        read_tracks(message)
    message = array_message()
    message.instances = message.instances * 5000
    with pytest.raises(InputError, match="5000 instances, at most 4096"):
        read_tracks(message)


@pytest.mark.parametrize("size", [(65_535, 65_535), (2**32 - 1, 1), (2**32 - 1, 2**32 - 1)])
def test_a_camera_of_an_impossible_size_is_refused(size):
    info = SimpleNamespace(width=size[0], height=size[1], k=[5.0, 0, 3, 0, 5, 2, 0, 0, 1])
    with little_memory(), pytest.raises(InputError, match="pixels, at most"):
        read_camera(info, "camera_info")
    small = {"x_offset": 0, "y_offset": 0, "width": size[0], "height": size[1]}
    info = SimpleNamespace(width=8, height=4, k=info.k, roi=SimpleNamespace(**small))
    with little_memory(), pytest.raises(InputError, match="pixels, at most"):
        read_camera(info, "camera_info")


@pytest.mark.parametrize(("width", "step"), [(2**32 - 1, 0), (2**32 - 1, 16), (2**26, 0)])
def test_a_scan_of_impossible_width_is_refused(width, step):
    fields = [SimpleNamespace(name=n, offset=0, datatype=7, count=1) for n in "xyz"]
    message = SimpleNamespace(
        height=1, width=width, point_step=step, row_step=0, fields=fields, data=b"",
        is_bigendian=False,
    )  # fmt: skip
    with little_memory(), pytest.raises(InputError, match="points, at most"):
        read_points(message, "points")


def test_a_raw_image_of_impossible_size_is_refused():
    message = SimpleNamespace(
        height=2**31, width=2**31, step=0, encoding="rgb8", data=b"", is_bigendian=False
    )
    with little_memory(), pytest.raises(InputError, match="pixels, at most"):
        read_image(message, "image")


def test_a_small_file_that_unpacks_to_gigabytes_is_refused():
    """An image of zeros is a thousandth of its pixels as a PNG."""
    coded = cv2.imencode(".png", np.zeros((12_000, 12_000), np.uint8))[1].ravel()
    assert len(coded) < 200_000
    message = SimpleNamespace(format="png", data=coded)
    with little_memory(), pytest.raises(InputError, match="pixels, at most"):
        read_image(message, "image/compressed")


def test_the_limits_can_be_set(monkeypatch):
    monkeypatch.setattr(limits, "CLASSES", 70_000)
    assert read_tracks(array_message(class_id=65_535)).class_ids.tolist() == [65_535]
    monkeypatch.setattr(limits, "PIXELS", 31)
    with pytest.raises(InputError, match="8x4 pixels, at most 31"):
        read_tracks(array_message())


PART = f"{'=' * 80}\nMSG: made_msgs/Part\nstring text\n"


@pytest.mark.parametrize(
    "definition",
    [
        "string[100000000] names\n",
        f"Part[3000000] parts\n{PART}",
        f"Part[2000] a\nPart[2000] b\nPart[2000000] c\n{PART}",
        "".join(f"float64 f{k}\n" for k in range(1001)),
        "".join(f"float64 f{k}\n" for k in range(100_000)),
        "float64 a\nfloat64 a\nMade again\n",
    ],
)
def test_a_definition_that_asks_for_gigabytes_or_minutes_is_refused(tmp_path, definition):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        kind = "made_msgs/msg/Made"
        topic = bag.add_connection("/made", kind, msgdef=definition, rihs01="RIHS01_0")
        bag.write(topic, 1, bytes(12))
    with little_memory(), pytest.raises(InputError, match="definition of made_msgs/msg/Made is"):
        BagReader(tmp_path / "bag")


def test_a_definition_with_a_large_matrix_is_read(tmp_path):
    definition = f"float64[90000] numbers\nPart[3] parts\n{PART}"
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topic = bag.add_connection(
            "/made", "made_msgs/msg/Made", msgdef=definition, rihs01="RIHS01_0"
        )
        text = (1).to_bytes(4, "little") + bytes(4)
        bag.write(topic, 1, bytes([0, 1, 0, 0]) + bytes(720_000) + (3 * text)[:-3])
    with BagReader(tmp_path / "bag") as reader:
        (message,) = reader.messages()
    assert len(message.message.numbers) == 90_000


def test_a_png_whose_part_claims_more_than_the_file_has_is_refused(tmp_path):
    coded = bytearray(cv2.imencode(".png", np.full((20, 30, 3), 7, np.uint8))[1].tobytes())
    whole = SimpleNamespace(format="png", data=np.frombuffer(bytes(coded), np.uint8))
    assert read_image(whole).shape == (20, 30, 3)
    coded[33] = 0x20  # the length of what follows the header: 512 MB
    with little_memory(), pytest.raises(InputError, match=r"a part of 5368\d+ bytes in a PNG"):
        read_image(SimpleNamespace(format="png", data=np.frombuffer(bytes(coded), np.uint8)))
    (tmp_path / "a.png").write_bytes(coded)
    with little_memory(), pytest.raises(InputError, match=r"a\.png: a part of 5368"):
        read_file_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("uint32 step\n", ""), "no field step of sensor_msgs/msg/Image"),
        (("uint8[] data", "string data"), "field data of sensor_msgs/msg/Image is of another type"),
        (("string frame_id", "int32 frame_id"), "field frame_id of std_msgs/msg/Header is of"),
        (("string frame_id", "string<=9 frame_id"), ""),
        (("uint32 step\n", "uint32 step\nfloat64 exposure\n"), ""),
    ],
)
def test_an_image_without_step_or_with_other_fields_is_one_error(tmp_path, change, says):
    text, _ = typestore().generate_msgdef("sensor_msgs/msg/Image")
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        topic = bag.add_connection(
            "/image", "sensor_msgs/msg/Image", msgdef=text.replace(*change), rihs01="RIHS01_0"
        )
        bag.write(topic, 1, bytes(4))
    with BagReader(tmp_path / "bag") as reader:
        if says:
            with pytest.raises(InputError, match=f"/image: its sensor_msgs/msg/Image .*{says}"):
                next(reader.messages())
        else:
            assert reader._misfit("sensor_msgs/msg/Image") == ""


@pytest.mark.parametrize("mode", ["file", "message", "zstd", "lz4", ""])
def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch, mode):
    """A packed bag is read up to the limit; one beyond takes neither memory nor disk."""
    monkeypatch.setattr(limits, "UNPACKED", 2**23)
    with BagReader(packed_bag(tmp_path / "small", mode, 2**22)) as bag:
        assert [len(m.message.a) for m in bag.messages()] == [2**22]
    if mode == "":  # is not packed: its size is that of the file
        return
    monkeypatch.setattr("amodal_core.bags.bounds.RATIO", 1)
    large = packed_bag(tmp_path / "large", mode, 2**28)
    refused = pytest.raises(InputError, match="unpack to more than")
    with little_memory(), refused, BagReader(large) as bag:
        list(bag.messages())


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_chunk_is_unpacked_to_what_it_states_at_most(tmp_path, kind):
    """A header that states nothing beside a chunk of a gigabyte's tenth."""
    header = b"\x01" + (4 + 4 + 4).to_bytes(8, "little") + b"\x04\0\0\0ros2" + bytes(4)
    path = tmp_path / "a.mcap"
    path.write_bytes(file_of(header, chunk(bytes(2**27), kind, stated=100)))
    with little_memory(), pytest.raises(InputError, match="unpack to more than 100 bytes"):
        BagReader(path)


def test_chunks_of_the_same_time_are_bounded_together(tmp_path, monkeypatch):
    """A file that was cut off, whose chunks all claim to span the whole drive."""
    whole = packed_bag(tmp_path / "small", "zstd", 2**22).read_bytes()
    at = whole.index(b"\x06", 8 + 9 + 8)
    header, record = (
        whole[8:at],
        whole[at : at + 9 + int.from_bytes(whole[at + 1 : at + 9], "little")],
    )
    path = tmp_path / "a.mcap"
    path.write_bytes(file_of(header, record, record, record)[:-8])
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 3
    monkeypatch.setattr(limits, "UNPACKED", 2**23)
    monkeypatch.setattr("amodal_core.bags.bounds.RATIO", 10**6)
    with pytest.raises(InputError, match="chunks of the same time"):
        BagReader(path)


def test_a_small_file_of_many_chunks_does_not_take_hours(tmp_path, monkeypatch):
    """Each chunk is within its limit, and so are those of the same time."""
    whole = packed_bag(tmp_path / "small", "zstd", 2**20).read_bytes()
    at = whole.index(b"\x06", 8 + 9 + 8)
    length = int.from_bytes(whole[at + 1 : at + 9], "little")
    header, record = whole[8:at], whole[at : at + 9 + length]
    path = tmp_path / "a.mcap"
    path.write_bytes(file_of(header, *[record] * 6))
    with BagReader(path) as bag:
        assert len(list(bag.messages())) == 6
    monkeypatch.setattr(limits, "UNPACKED", 2**22)
    monkeypatch.setattr("amodal_core.bags.bounds.RATIO", 1)
    with pytest.raises(InputError, match="its chunks would unpack to more than 4194304 bytes"):
        BagReader(path)


def test_a_record_that_claims_more_than_the_file_has_is_refused(tmp_path):
    data = bytearray(packed_bag(tmp_path / "small", "zstd", 100).read_bytes())
    data[9:17] = (2**40).to_bytes(8, "little")
    path = tmp_path / "a.mcap"
    path.write_bytes(data)
    with little_memory(), pytest.raises(InputError, match=f"a record of {2**40} bytes where"):
        BagReader(path)


@pytest.mark.parametrize("value", [2**40, "text", 0.5])
def test_a_message_of_sqlite_that_has_no_bytes_is_refused(tmp_path, value):
    """A number in the place of bytes is not taken for how many there are."""
    plain = tmp_path / "plain"
    with Writer(plain, version=9, storage_plugin=StoragePlugin.SQLITE3) as bag:
        topic = bag.add_connection("/a", "made_msgs/msg/Made", msgdef="uint8 a", rihs01="RIHS01_0")
        bag.write(topic, 1, b"\0\1\0\0\1")
    with closing(sqlite3.connect(plain / "plain.db3")) as base, base:
        base.execute("update messages set data = ?", [value])
    with little_memory(), pytest.raises(InputError, match="plain /a"), BagReader(plain) as bag:
        list(map(bag.current, bag.raw_messages()))
