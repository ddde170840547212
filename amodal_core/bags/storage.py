"""Opens recordings that were cut off, lost their metadata, or are of ROS 1, as rosbags opens bags.

A recorder that is killed leaves an .mcap without its footer and a folder without metadata.yaml.
What it wrote until then is read in full: chunk by chunk (https://mcap.dev/spec), up to the last
whole record. Messages of ROS 1 become those of ROS 2 on the way.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from struct import unpack
from types import MappingProxyType
from typing import Any

from rosbags.convert.converter import migrate_bytes
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.metadata import ReaderMetadata
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from amodal_core import limits
from amodal_core.bags.bounds import bound_rosbags, most_of
from amodal_core.bags.factory import typestore

Raw = tuple[Connection, int, Any]

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _DATA_END, _CHUNK = 0x01, 0x0F, 0x06
_ZSTD = b"\x28\xb5\x2f\xfd"
_SPAN = ("start_time", "end_time", "message_count")
_ROS1_NAMES = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}

bound_rosbags()


class Mcap(McapReader):
    """An .mcap file; without footer, or with one that is damaged, up to its last whole record."""

    cut_off = False

    def _open(self) -> None:
        self._open_whole_or_cut_off()
        self._check_work(sum(c.uncompressed_size for c in self.chunks))
        if self._largest_at_once() > limits.UNPACKED:
            raise ValueError(f"chunks of the same time have over {limits.UNPACKED} bytes")

    def _check_work(self, unpacked: int) -> None:
        """Refuse a small file that takes hours: no chunk has more bytes than it states."""
        most = most_of(self.path.stat().st_size)
        if unpacked > most:
            raise ValueError(f"its chunks would unpack to more than {most} bytes")

    def meta_scan(self) -> None:
        """Find what a file without an index holds, in chunks that are unpacked one by one."""
        assert self.bio
        at, stated = self.data_start, 0
        while at < self.data_end:
            self.bio.seek(at)
            head = self.bio.read(33)
            if head[:1] == bytes([_CHUNK]) and len(head) == 33:
                stated += unpack("<Q", head[25:])[0]
            at += 9 + int.from_bytes(head[1:9], "little")
        self._check_work(stated)
        super().meta_scan()

    def _largest_at_once(self) -> int:
        """Bytes of the chunks that are unpacked at the same time: those whose times overlap."""
        steps = [(c.message_start_time, c.uncompressed_size) for c in self.chunks]
        steps += [(c.message_end_time + 1, -c.uncompressed_size) for c in self.chunks]
        return max(accumulate(size for _, size in sorted(steps)), default=0)

    def _open_whole_or_cut_off(self) -> None:
        assert self.bio
        try:
            super()._open()
        except Exception as error:
            for table in (self.schemas, self.channels, self.chunks, self.connections):
                table.clear()
            self.bio.seek(0)
            if self.bio.read(len(_MAGIC)) != _MAGIC:
                raise
            try:
                self._scan(self.path.stat().st_size)
            except Exception:
                raise error from None
            self.cut_off = True

    def _scan(self, size: int) -> None:
        """Find the records' end, the chunks and what they hold."""
        assert self.bio
        chunks = []
        while True:
            begin = self.bio.tell()
            head = self.bio.read(9)
            if len(head) < 9 or head[0] == _DATA_END:
                break
            length = unpack("<Q", head[1:])[0]
            if begin + 9 + length > size:
                break
            if head[0] == _HEADER:
                self.data_start = begin + 9 + length
            elif head[0] == _CHUNK:
                start, end, unpacked, _, name = unpack("<QQQII", self.bio.read(32))
                compression = self.bio.read(name).decode()
                packed = unpack("<Q", self.bio.read(8))[0]
                chunks.append(
                    ChunkInfo(
                        start, end, begin, 9 + length, {}, 0, compression, packed, unpacked, {}
                    )
                )
            self.bio.seek(begin + 9 + length)
        self.data_end = begin
        self.meta_scan()
        assert self.statistics
        counts = self.statistics.channel_message_counts
        self.connections = [c._replace(msgcount=counts.get(c.id, 0)) for c in self.connections]
        for chunk in chunks:
            chunk.channel_count.update(counts)  # which of them it has is not asked
        self.chunks = chunks
        begin, end, count = (getattr(self.statistics, n) for n in _SPAN)
        if not count:
            raise ValueError("it was cut off before its first message")
        self.metadata = self.metadata._replace(
            duration=end - begin + 1, start_time=begin, end_time=end + 1, message_count=count
        )

    def messages(
        self,
        connections: Collection[Connection],
        start: int | None = None,
        stop: int | None = None,
    ) -> Generator[Raw, None, None]:
        """By their stamps where there are chunks, else as they were written."""
        ordered = self.chunks or not self.cut_off
        read = super().messages if ordered else self.messages_scan
        yield from read(connections, start, stop)


class UnlistedFiles(DirectoryReader):
    """The files of a folder without metadata.yaml, in the order of their numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Connection] = []
        self.storages: list[Any] = []
        self.files = []
        self.stack: ExitStack | None = None
        self.metadata = ReaderMetadata(0, 0, 0, 0, None, None, None, None)
        self.cut_off = False

    def open(self) -> None:
        """Open all files; the last one may have been cut off."""
        self.stack = ExitStack()
        topics: dict[tuple[str, str], Connection] = {}
        with self.stack:
            for path in sorted(files_of(Path(str(self.path))), key=_number):
                storage: Any = Mcap(path) if path.suffix == ".mcap" else Sqlite3Reader(path)
                storage.open()
                self.cut_off |= getattr(storage, "cut_off", False)
                self.stack.callback(storage.close)
                self.storages.append(storage)
                for c in storage.connections:
                    before = topics.get((c.topic, c.msgtype), c._replace(msgcount=0))
                    count = before.msgcount + c.msgcount
                    topics[c.topic, c.msgtype] = before._replace(msgcount=count, owner=self)
            self.connections = list(topics.values())
            spans = [s.metadata for s in self.storages if s.metadata.message_count]
            if not spans:
                raise ValueError("no message was recorded")
            first, last = min(m.start_time for m in spans), max(m.end_time for m in spans)
            self.metadata = ReaderMetadata(
                last - first, first, last, sum(m.message_count for m in spans), *(None,) * 4
            )
            first_message = next(self.messages(self.connections))[2]
            if bytes(first_message[:4]) == _ZSTD:
                self.metadata = self.metadata._replace(
                    compression_format="zstd", compression_mode="message"
                )
            self.stack = self.stack.pop_all()


class Ros1Recording:
    """A .bag of ROS 1; topics of types that ROS 2 does not have are left out."""

    def __init__(self, path: Path) -> None:
        self._reader = Ros1Reader(path)
        self._reader.open()
        self._source, self._target = get_typestore(Stores.EMPTY), typestore()
        types: dict[str, Any] = {}
        for c in self._reader.connections:
            types |= get_types_from_msg(c.msgdef.data, c.msgtype)
        self._source.register(types)
        self._cache: dict[str, object] = {}
        self._originals = {}
        nothing = MessageDefinition(MessageDefinitionFormat.NONE, "")
        for c in self._reader.connections:
            name = _ROS1_NAMES.get(c.msgtype, c.msgtype)
            if name in self._target.fielddefs:
                self._originals[c.id] = c, c._replace(msgtype=name, msgdef=nothing)
        left_out = [c for c in self._reader.connections if c.id not in self._originals]
        topics = sorted({f"{c.topic} ({c.msgtype.replace('/msg/', '/')})" for c in left_out})
        self.lacks = f"left out, of no type of ROS 2: {', '.join(topics)}" if topics else ""

    @property
    def connections(self) -> list[Connection]:
        """Of ROS 2's types."""
        return [made for _, made in self._originals.values()]

    @property
    def duration(self) -> int:
        """Nanoseconds."""
        return self._reader.duration

    @property
    def is_open(self) -> bool:
        """Whether it is."""
        return bool(self._reader.bio)

    def messages(self, connections: Collection[Connection]) -> Iterator[Raw]:
        """As CDR, in the order of their recording."""
        wanted = [self._originals[c.id][0] for c in connections]
        for c, stamp, data in self._reader.messages(wanted):
            made = self._originals[c.id][1]
            types = self._source, self._target, c.msgtype, made.msgtype
            yield made, stamp, migrate_bytes(*types, self._cache, data, src_is2=False, dst_is2=True)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _folder(path: Path) -> Any:
    return (DirectoryReader if (path / "metadata.yaml").exists() else UnlistedFiles)(path)


def files_of(folder: Path) -> list[Path]:
    """The storage files in a bag's folder."""
    return [p for p in folder.iterdir() if p.suffix in (".mcap", ".db3")]


def open_recording(path: Path) -> tuple[Any, str]:
    """An open recording (rosbags' `Reader` or alike), and what it lacks, or "".

    Raises:
        Exception: of any kind, where nothing can be read.
    """
    if path.suffix == ".bag":
        recording = Ros1Recording(path)
        return recording, recording.lacks
    reader = _Recording(path)
    reader.open()
    lacks = ["no metadata.yaml"] if isinstance(reader.storage, UnlistedFiles) else []
    if getattr(reader.storage, "cut_off", False):
        lacks.append("it was cut off, and is read up to its last whole record")
    return reader, "; ".join(lacks)


class _Recording(Reader):
    STORAGE_PLUGINS: Mapping[str, Any] = MappingProxyType(
        {"dir": _folder, ".mcap": Mcap, ".db3": Sqlite3Reader}
    )


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"_(\d+)$", path.stem)
    return (int(digits[0]) if digits else -1), path.name
