"""Bags whose chunks, messages or files are packed in every way that recorders know."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import lz4.frame
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import zstd

PACK = {"": bytes, "lz4": lz4.frame.compress, "zstd": zstd.compress}
_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 1, 2, 3, 4, 5, 6, 15


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 9 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at + 1)
        yield data[at], data[at + 9 : at + 9 + length]
        at += 9 + length


def _record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


def chunk(records: bytes, kind: str, stated: int | None = None) -> bytes:
    """A chunk record (https://mcap.dev/spec), packed; `stated` in place of its true size."""
    size = len(records) if stated is None else stated
    name, packed = kind.encode(), PACK[kind](records)
    body = struct.pack("<QQQII", 0, 2**62, size, 0, len(name)) + name
    return _record(_CHUNK, body + struct.pack("<Q", len(packed)) + packed)


def repacked(mcap: bytes, kind: str) -> bytes:
    """The messages of an .mcap file in one chunk of another packing, without a summary."""
    header, inner = b"", b""
    for code, body in _records(mcap[len(_MAGIC) :]):
        if code == _HEADER:
            header = _record(code, body)
        elif code in (_SCHEMA, _CHANNEL, _MESSAGE):
            inner += _record(code, body)
        elif code == _CHUNK:  # of a writer that was told not to pack
            assert body[28:32] == bytes(4)
            inner += body[40:]
        elif code == _DATA_END:
            break
    return file_of(header, chunk(inner, kind))


def file_of(header: bytes, *records: bytes) -> bytes:
    """An .mcap file of a header and these records, without a summary."""
    end = _record(_DATA_END, bytes(4)) + _record(_FOOTER, bytes(20))
    return _MAGIC + header + b"".join(records) + end + _MAGIC


def packed_bag(path: Path, mode: str, size: int) -> Path:
    """A bag of one message of so many zeros, packed by "file", "message", "zstd" or "lz4"."""
    plugin = StoragePlugin.SQLITE3 if mode in ("file", "message") else StoragePlugin.MCAP
    bag = Writer(path, version=9, storage_plugin=plugin)
    if mode == "file":
        bag.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    elif mode == "message":
        bag.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with bag:
        topic = bag.add_connection(
            "/a", "made_msgs/msg/Made", msgdef="uint8[] a", rihs01="RIHS01_0"
        )
        bag.write(topic, 1, struct.pack("<4sI", b"\0\1\0\0", size) + bytes(size))
    if plugin == StoragePlugin.SQLITE3:
        return path
    file = path / f"{path.name}.mcap"
    file.write_bytes(repacked(file.read_bytes(), mode))
    return file
