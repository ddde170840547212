"""Bags: their storage, their metadata, the definitions in them."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets_scenes import CLASSES, SIZE
from packed_bags import PACK, repacked
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from amodal_core.bags.messages import instances_message
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.base import BEGIN, PERIOD
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.evaluation.truth import read_truth
from amodal_core.unpacking import unpack
from fuzzing import mutations as spoil

from .base import add, file_of, made
from .messages import CALIBRATION, FACTORY, POINTS, tracks


def _bag(root: Path, storage: str = "mcap", compress: bool = False) -> None:
    """A bag of two frames with truth."""
    with BagWriter(root / "bag", storage, compress=compress) as bag:
        bag.add_topic("/camera/camera_info", "sensor_msgs/msg/CameraInfo")
        bag.add_topic("/camera/image_rect", "sensor_msgs/msg/Image")
        bag.add_topic("/points", "sensor_msgs/msg/PointCloud2")
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.add_topic("/ground_truth", "amodal_msgs/msg/AmodalInstanceArray")
        place = transform_message(FACTORY, "camera", "lidar", CALIBRATION.camera_from_lidar, BEGIN)
        tf = FACTORY.create("tf2_msgs/msg/TFMessage", transforms=[place])
        bag.write("/tf_static", tf, BEGIN)
        for k in range(2):
            stamp = BEGIN + k * PERIOD
            info = camera_info_message(FACTORY, CALIBRATION.K, 100, 60, stamp, "camera")
            picture = image_message(FACTORY, np.zeros((*SIZE, 3), np.uint8), stamp, "camera")
            bag.write("/camera/camera_info", info, stamp)
            bag.write("/camera/image_rect", picture, stamp)
            bag.write("/points", points_message(FACTORY, POINTS, stamp, "lidar"), stamp)
            truth = instances_message(
                FACTORY, tracks(), stamp=stamp, frame_id="camera", classes=CLASSES
            )
            bag.write("/ground_truth", truth, stamp)


def read_bag(path: Path) -> None:
    """All that is done with a bag."""
    with BagDrive(path) as frames:
        assert frames.bag.duration >= 0
        for raw in frames.bag.raw_messages():
            frames.bag.current(raw)
        for _ in frames:
            pass
    read_truth(path)


def _in_folder(name: str, make: Callable[[Path], Any]) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        if not (folder / "bag").exists():
            make(folder)
        (folder / "bag" / name).write_bytes(data)
        read_bag(folder / "bag")

    return read


def _of_database(rng: Any, data: bytes) -> bytes:
    """A value somewhere in the tables, or the bytes."""
    if rng.random() < 0.5:
        return spoil.of_bytes(rng, data)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.db3"
        path.write_bytes(data)
        with sqlite3.connect(path) as base:
            names = base.execute("select name from sqlite_master where type='table'")
            tables = [r[0] for r in names]
            table = rng.choice(tables)
            columns = [r[1] for r in base.execute(f"pragma table_info({table})")]
            value = rng.choice((None, 0, -1, 2**62, "x", b"x", "../a", 1e300, ""))
            where = f"where rowid in (select rowid from {table} order by random() limit 1)"
            with suppress(sqlite3.Error):
                if rng.random() < 0.1:
                    base.execute(f"delete from {table} {where}")
                else:
                    base.execute(f"update {table} set {rng.choice(columns)} = ? {where}", [value])
        base.close()
        return path.read_bytes()


_MCAP, _YAML = made(_bag, "bag/bag.mcap", "bag/metadata.yaml")
_DB3, _YAML3 = made(lambda r: _bag(r, "sqlite3"), "bag/bag.db3", "bag/metadata.yaml")
add("mcap", [_MCAP], spoil.of_bytes, file_of("a.mcap", read_bag))
_sqlite = partial(_bag, storage="sqlite3")
add("db3", [_DB3], _of_database, _in_folder("bag.db3", _sqlite))
add("metadata", [_YAML], spoil.of_yaml, _in_folder("metadata.yaml", _bag))
add(
    "metadata_db3",
    [_YAML3],
    spoil.of_yaml,
    _in_folder("metadata.yaml", partial(_bag, storage="sqlite3")),
)


def _of_packed(rng: Any, data: bytes) -> bytes:
    """What is packed, or the bytes that it is packed in."""
    if rng.random() < 0.5:
        return spoil.of_bytes(rng, data)
    return repacked(spoil.of_bytes(rng, _MCAP), rng.choice(("zstd", "lz4")))


def _packed_file(root: Path) -> None:
    """The bag of `_bag` in SQLite, its file packed."""
    _bag(root, "sqlite3")
    (file,) = (root / "bag").glob("*.db3")
    file.with_suffix(".db3.zstd").write_bytes(PACK["zstd"](file.read_bytes()))
    file.unlink()
    meta = root / "bag" / "metadata.yaml"
    text = meta.read_text().replace(file.name, f"{file.name}.zstd")
    text = re.sub(r"compression_format: *'?'?", "compression_format: zstd", text)
    meta.write_text(re.sub(r"compression_mode: *'?'?", "compression_mode: FILE", text))


def _of_zstd(inner: Any) -> Any:
    """Of a packed file: what is in it, or its own bytes."""

    def mutate(rng: Any, data: bytes) -> bytes:
        if rng.random() < 0.5:
            return spoil.of_bytes(rng, data)
        return PACK["zstd"](inner(rng, unpack(data, "zstd")))

    return mutate


_CHUNKS = [repacked(_MCAP, kind) for kind in ("zstd", "lz4", "")]
add("packed_mcap", _CHUNKS, _of_packed, file_of("a.mcap", read_bag))
_ZSTD, _ = made(_packed_file, "bag/bag.db3.zstd", "bag/metadata.yaml")
add("packed_file", [_ZSTD], _of_zstd(_of_database), _in_folder("bag.db3.zstd", _packed_file))
_messages = partial(_bag, storage="sqlite3", compress=True)
_PACKED, _ = made(_messages, "bag/bag.db3", "bag/metadata.yaml")
add("packed_messages", [_PACKED], _of_database, _in_folder("bag.db3", _messages))

_DEFINITION = (
    b"builtin_interfaces/Time stamp\nfloat64[9] k\nint32[3] name\nint32 ONE=1\n"
    b"char[] data\nPart[] parts\n"
    + b"=" * 80
    + b"\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
    + b"=" * 80
    + b"\nMSG: made_msgs/Part\nstring<=10 text\nuint8[<=3] few\nbool[1000] flags\n"
)


def _of_definition(rng: Any, data: bytes) -> bytes:
    if rng.random() < 0.4:
        numbers = ("100000000", "3000000", "0", "-1", "<=99999999999", "")
        text = data.decode("latin-1")
        sizes = [k for k, c in enumerate(text) if c == "["]
        at = rng.choice(sizes) if sizes else 0
        end = text.find("]", at)
        kinds = ("string", "std_msgs/Header", "Part", "made_msgs/Made", "float64", "wstring")
        new = f"{rng.choice(kinds)}[{rng.choice(numbers)}] f{rng.randrange(99)}\n"
        if rng.random() < 0.5:
            text = text[: at + 1] + rng.choice(numbers) + text[end:]
        else:
            text = new * rng.choice((1, 1, 1, 20_000)) + text
        return text.encode("latin-1", "replace")
    return spoil.of_text(rng, data)


def _definition(data: bytes, folder: Path) -> None:
    """A bag with a message of zeros of that type."""
    shutil.rmtree(folder / "d", ignore_errors=True)
    text = data.decode("utf-8", "replace")
    with Writer(folder / "d", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connection = bag.add_connection("/a", "made_msgs/msg/Made", msgdef=text, rihs01="RIHS01_0")
        bag.write(connection, BEGIN, b"\0\1\0\0" + bytes(100))
    with BagReader(folder / "d") as reader:
        for _ in reader.messages():
            pass


get_typestore(Stores.EMPTY).register(get_types_from_msg(_DEFINITION.decode(), "made_msgs/msg/Made"))
add("definition", [_DEFINITION], _of_definition, _definition)
