"""Bags on disk: both storages, whole or not at all, and clear words about damaged ones."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.convert.converter import convert
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from amodal_core.bags.factory import RosbagsFactory, typestore
from amodal_core.bags.reader import BagReader, is_bag
from amodal_core.bags.sensors import image_message, stamp_of
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.errors import InputError

IMAGE = "sensor_msgs/msg/Image"
ARRAY = "amodal_msgs/msg/AmodalInstanceArray"
PIXELS = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
# Beyond MCAP's chunks of 1 MB, so that a damaged place leaves readable messages before it.
BIG = np.random.default_rng(0).integers(0, 4, (700, 1000, 3), np.uint8)


def _write(path: Path, storage: str = "mcap", count: int = 3, pixels=PIXELS, **options) -> Path:
    factory = RosbagsFactory()
    with BagWriter(path, storage, **options) as bag:
        bag.add_topic("/camera/image", IMAGE)
        bag.add_topic("/tracks", ARRAY)
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.write("/tf_static", factory.create("tf2_msgs/msg/TFMessage"), 1)
        for k in range(count):
            bag.write("/camera/image", image_message(factory, pixels, 10 + k, "camera"), 10 + k)
            bag.write("/tracks", factory.create(ARRAY, height=4, width=5), 10 + k)
    return path


def _fail(path: Path, **options) -> None:
    """Write a bag whose second message cannot be serialised."""
    with BagWriter(path, **options) as bag:
        bag.add_topic("/tracks", ARRAY)
        bag.write("/tracks", RosbagsFactory().create(ARRAY), 1)
        bag.write("/tracks", None, 2)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compress", [False, True])
def test_messages_come_back_in_order_from_both_storages(tmp_path, storage, compress):
    with BagReader(_write(tmp_path / "a", storage, compress=compress)) as bag:
        assert {t.name: (t.type, t.count) for t in bag.topics.values()} == {
            "/camera/image": (IMAGE, 3),
            "/tracks": (ARRAY, 3),
            "/tf_static": ("tf2_msgs/msg/TFMessage", 1),
        }
        messages = list(bag.messages())
        assert [m.stamp for m in messages] == [1, 10, 10, 11, 11, 12, 12]
        images = list(bag.messages(["/camera/image"]))
    assert [stamp_of(m.message.header) for m in images] == [10, 11, 12]
    np.testing.assert_array_equal(images[0].message.data, PIXELS.ravel())


def test_compression_makes_bags_smaller(tmp_path):
    pixels = np.zeros((400, 400, 3), np.uint8)

    def size(name: str, storage: str, compress: bool) -> int:
        bag = _write(tmp_path / name, storage, 3, pixels, compress=compress)
        return sum(f.stat().st_size for f in bag.iterdir())

    assert size("b", "mcap", True) < size("a", "mcap", False) / 10
    assert size("d", "sqlite3", True) < size("c", "sqlite3", False) / 10


def test_one_mcap_file_needs_no_folder(tmp_path):
    path = _write(tmp_path / "tracks.mcap")
    assert [f.name for f in tmp_path.iterdir()] == ["tracks.mcap"]
    with BagReader(path) as bag:
        assert bag.topics["/tracks"].count == 3


def test_static_transforms_are_latched_and_streams_are_not(tmp_path):
    with Reader(_write(tmp_path / "a")) as reader:
        qos = {c.topic: c.ext.offered_qos_profiles[0] for c in reader.connections}
    assert qos["/tf_static"].durability == QosDurability.TRANSIENT_LOCAL
    assert qos["/tf_static"].reliability == QosReliability.RELIABLE
    assert qos["/tf_static"].depth == 1
    assert qos["/camera/image"].durability == QosDurability.VOLATILE
    written = yaml.safe_load((tmp_path / "a" / "metadata.yaml").read_text())
    topics = written["rosbag2_bagfile_information"]["topics_with_message_count"]
    static = next(t for t in topics if t["topic_metadata"]["name"] == "/tf_static")
    assert static["topic_metadata"]["offered_qos_profiles"][0]["durability"] == "transient_local"


def test_bags_carry_the_definitions_of_our_own_messages(tmp_path):
    with Reader(_write(tmp_path / "a")) as reader:
        definition = next(c.msgdef.data for c in reader.connections if c.topic == "/tracks")
    assert "amodal_msgs/Mask" in definition
    assert "string counts" in definition


def test_nothing_is_left_of_a_bag_that_was_not_finished(tmp_path):
    with pytest.raises(AttributeError):
        _fail(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_leaves_the_old_bag(tmp_path):
    path = _write(tmp_path / "tracks.mcap")
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        _fail(path, overwrite=True)
    assert path.read_bytes() == before
    _write(path, count=1, overwrite=True)
    with BagReader(path) as bag:
        assert bag.topics["/tracks"].count == 1


def test_a_bag_is_never_written_over_something_else(tmp_path):
    _write(tmp_path / "a")
    with pytest.raises(InputError, match="exists already"):
        BagWriter(tmp_path / "a")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"")
    with pytest.raises(InputError, match="exists already"):
        BagWriter(tmp_path / "photos", overwrite=True)
    with pytest.raises(InputError, match="no storage 'zip'"):
        BagWriter(tmp_path / "b", "zip")


def test_the_same_messages_give_the_same_bytes(tmp_path):
    a, b = _write(tmp_path / "1" / "t.mcap"), _write(tmp_path / "2" / "t.mcap")
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("name", ["missing", "empty.mcap", "notes.txt", "folder"])
def test_what_is_no_bag_is_named_with_a_cure(tmp_path, name):
    (tmp_path / "empty.mcap").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        BagReader(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)
    assert caught.value.cure
    assert "\n" not in str(caught.value)


def _raw(path):
    with BagReader(path) as bag:
        return [(m.topic, m.stamp, bytes(m.data)) for m in bag.raw_messages()]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_folder_without_metadata_is_read_by_its_files(tmp_path, storage, compress):
    path = _write(tmp_path / "a", storage, compress=compress)
    whole = _raw(path)
    (path / "metadata.yaml").unlink()
    assert is_bag(path)
    assert _raw(path) == whole
    with BagReader(path) as bag:
        assert bag.lacks == "no metadata.yaml"
        assert {t.name: t.count for t in bag.topics.values()} == {
            name: sum(m[0] == name for m in whole) for name in {m[0] for m in whole}
        }


def test_split_files_without_metadata_are_read_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    for number in (0, 2, 10):
        part = _write(tmp_path / f"{number}.mcap", count=1 + number)
        part.rename(folder / f"split_{number}.mcap")
    stamps = [stamp for topic, stamp, _ in _raw(folder) if topic == "/tracks"]
    assert stamps == [10, *range(10, 13), *range(10, 21)]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_an_mcap_that_was_cut_off_is_read_up_to_its_last_whole_record(tmp_path, compress, share):
    path = _write(tmp_path / "t.mcap", count=4, pixels=BIG, compress=compress)
    whole, data = _raw(path), path.read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    rest = _raw(path)
    assert rest == whole[: len(rest)]
    assert len(whole) // 4 <= len(rest) <= len(whole)
    with BagReader(path) as bag:
        assert "cut off" in bag.lacks
        assert sum(t.count for t in bag.topics.values()) == len(rest)


def test_an_mcap_that_was_cut_off_before_its_first_message_is_refused(tmp_path):
    path = _write(tmp_path / "t.mcap")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot open the bag"):
        BagReader(path)


def test_messages_before_a_damaged_place_are_still_read(tmp_path):
    path = _write(tmp_path / "t.mcap", count=4, pixels=BIG, compress=True)
    data = bytearray(path.read_bytes())
    place = len(data) * 6 // 10
    data[place : place + 1000] = bytes(1000)
    path.write_bytes(data)
    with BagReader(path) as bag:
        messages = bag.messages()
        for _ in range(3):
            next(messages)
        with pytest.raises(InputError, match=r"damaged after [3-6] messages"):
            list(messages)


def test_a_database_that_lost_its_tail_says_where_it_ends(tmp_path):
    path = _write(tmp_path / "a", "sqlite3")
    database = sqlite3.connect(path / "a.db3")
    database.execute("DELETE FROM messages WHERE timestamp >= 12")
    database.commit()
    database.close()
    with BagReader(path) as bag, pytest.raises(InputError, match="ends after 5 of 7 messages"):
        list(bag.messages())


def test_a_message_that_is_cut_off_is_named_with_its_topic(tmp_path):
    path = _write(tmp_path / "a", "sqlite3")
    database = sqlite3.connect(path / "a.db3")
    database.execute("UPDATE messages SET data = substr(data, 1, 30) WHERE id = 2")
    database.commit()
    database.close()
    with BagReader(path) as bag, pytest.raises(InputError, match=r"/camera/image|/tracks"):
        list(bag.messages())


def test_a_type_without_definition_matters_only_when_it_is_read(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / "a", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/image", IMAGE, typestore=store)
        other = writer.add_connection(
            "/secret", "acme_msgs/msg/Secret", msgdef="uint8 code\n", rihs01="RIHS01_0"
        )
        message = image_message(RosbagsFactory(), PIXELS, 5, "camera")
        writer.write(connection, 5, typestore().serialize_cdr(message, IMAGE))
        writer.write(other, 6, b"\0\1\0\0\7")
    with BagReader(tmp_path / "a") as bag:
        # The bag carries the definition, so that even unknown types are read.
        assert [m.message.code for m in bag.messages(["/secret"])] == [7]
        assert len(list(bag.messages(["/image"]))) == 1


def test_messages_of_an_earlier_layout_become_ones_of_ours(project_root):
    """The sample drive's truth is older than the velocities and the name of the boxes' frame."""
    with BagReader(project_root / "data" / "sample_drive") as bag:
        (raw, *_), (old, *_) = (
            list(f(["/ground_truth"])) for f in (bag.raw_messages, bag.messages)
        )
        assert not hasattr(old.message, "box3d_frame_id")
        new = typestore().deserialize_cdr(bag.current(raw), raw.type)
        image = next(iter(bag.raw_messages(["/kitti/camera_color_left/image_raw"])))
        assert bag.current(image) == bytes(image.data)
        with pytest.raises(InputError, match=r"/ground_truth: a damaged message"):
            bag.current(raw._replace(data=raw.data[:100]))
    assert (new.box3d_frame_id, len(new.instances[0].velocity)) == ("", 0)
    for name in ("header", "height", "width"):
        assert str(getattr(new, name)) == str(getattr(old.message, name))
    assert len(new.instances) == len(old.message.instances) > 10
    for a, b in zip(new.instances, old.message.instances, strict=True):
        assert (a.track_id, a.class_name) == (b.track_id, b.class_name)
        assert a.amodal.counts == b.amodal.counts
        np.testing.assert_array_equal(a.box3d, b.box3d)
        np.testing.assert_array_equal(a.occluders, b.occluders)


def test_a_bag_of_ros_1_is_read_as_one_of_ros_2(mini_bag, tmp_path):
    convert(
        [mini_bag],
        tmp_path / "one.bag",
        "mcap",
        8,
        None,
        "",
        None,
        get_typestore(Stores.ROS1_NOETIC),
        [],
        [],
        [],
        [],
    )
    assert is_bag(tmp_path / "one.bag")
    with BagReader(tmp_path / "one.bag") as bag:
        assert bag.topics["/tf_static"].latched
    with BagDrive(mini_bag) as two, BagDrive(tmp_path / "one.bag") as one:
        for a, b in zip(one, two, strict=True):
            assert (a.frame.stamp, a.frame.points_stamp) == (b.frame.stamp, b.frame.points_stamp)
            np.testing.assert_array_equal(a.frame.image, b.frame.image)
            np.testing.assert_array_equal(a.frame.points, b.frame.points)
            np.testing.assert_array_equal(a.frame.calibration.K, b.frame.calibration.K)
            np.testing.assert_array_equal(
                a.frame.calibration.camera_from_lidar, b.frame.calibration.camera_from_lidar
            )


def test_topics_of_ros_1_that_ros_2_has_no_type_of_are_left_out_and_named(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg("float32 speed", "my_msgs/msg/Wheel"))
    with Ros1Writer(tmp_path / "one.bag") as writer:
        for topic, kind, values in (
            ("/wheel", "my_msgs/msg/Wheel", {"speed": 1.0}),
            ("/name", "std_msgs/msg/String", {"data": "car"}),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, 1, store.serialize_ros1(store.types[kind](**values), kind))
    with BagReader(tmp_path / "one.bag") as bag:
        assert list(bag.topics) == ["/name"]
        assert bag.lacks == "left out, of no type of ROS 2: /wheel (my_msgs/Wheel)"


def test_split_bags_are_read_as_one(tmp_path):
    first, second = _write(tmp_path / "a"), _write(tmp_path / "b")
    (second / "b.mcap").rename(first / "a_1.mcap")
    meta = yaml.safe_load((first / "metadata.yaml").read_text())
    info = meta["rosbag2_bagfile_information"]
    info["relative_file_paths"].append("a_1.mcap")
    for topic in info["topics_with_message_count"]:
        topic["message_count"] *= 2
    info["message_count"] *= 2
    (first / "metadata.yaml").write_text(yaml.safe_dump(meta))
    with BagReader(first) as bag:
        assert len(list(bag.messages(["/tracks"]))) == 6
