"""Bounds for what rosbags reads and unpacks: records, chunks, messages and whole files.

Its own functions know no end, and a hundred kilobytes of zstd are gigabytes of zeros.
"""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any, BinaryIO

from rosbags.rosbag1 import reader as rosbag1_reader
from rosbags.rosbag2 import reader as rosbag2_reader
from rosbags.rosbag2 import storage_mcap

from amodal_core import limits
from amodal_core.unpacking import unpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LARGE = 2**20  # bytes of a record that are looked for before they are read
RATIO = 1000  # times its packed size that a whole file may have


def most_of(size: int) -> int:
    """Bytes that a file of a size may unpack to, all in all."""
    return max(limits.UNPACKED, RATIO * size)


class _BoundedFile:
    """A packed file to read from, up to a limit of what it may unpack to."""

    def __init__(self, packed: BinaryIO, _mode: str) -> None:
        size = packed.seek(0, 2)
        packed.seek(0)
        self._file = zstd.open(packed, "rb")
        self._most = self._room = most_of(size)

    def read(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            ValueError: the limit is passed.
        """
        data: bytes = self._file.read(count)
        self._room -= len(data)
        if self._room < 0:
            raise ValueError(f"it would unpack to more than {self._most} bytes")
        return data

    def __enter__(self) -> _BoundedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _read_exact(file: BinaryIO, size: int) -> bytes:
    """So many bytes, which are there before memory is given for them."""
    at = file.tell()
    if size > _LARGE:
        end = file.seek(0, 2)
        file.seek(at)
        if size > end - at:
            raise ValueError(f"a record of {size} bytes where {end - at} are left")
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"a record of {size} bytes where {len(data)} are left")
    return data


def bound_rosbags() -> None:
    """Let rosbags read and unpack with the limits of this module."""
    bounded: Any = SimpleNamespace(open=_BoundedFile, decompress=partial(unpack, kind="zstd"))
    setattr(rosbag2_reader, "zstd", bounded)  # noqa: B010 - the module's own name, to mypy unknown
    setattr(storage_mcap, "read_exact", _read_exact)  # noqa: B010
    for kind in ("zstd", "lz4"):
        storage_mcap.DECOMPRESSORS[kind] = partial(_chunk, kind)
    for kind in ("bz2", "lz4"):
        rosbag1_reader.decompressors[kind] = partial(unpack, kind=kind)


def _chunk(kind: str, data: bytes, size: int) -> bytes:
    """A chunk of an .mcap file, which states its size."""
    return unpack(data, kind, size)
