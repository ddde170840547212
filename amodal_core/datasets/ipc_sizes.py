"""How large the buffers of an Arrow IPC stream say that they are, before anybody unpacks them.

A packed buffer begins with its unpacked length, for which pyarrow gives memory without a look at
what the file can hold. The messages' headers are flatbuffers, of which few fields are read here.

Arrow Columnar Format, "Serialization and Interprocess Communication (IPC)"; Message.fbs.
"""

from __future__ import annotations

import struct

_GO_ON = 0xFFFFFFFF
_DICTIONARY, _BATCH = 2, 3  # kinds of messages
_MOST_MESSAGES = 1 << 16


def unpacked_size(data: memoryview) -> int:
    """Bytes that all packed buffers of a stream's messages are to have.

    Args:
        data: the stream: an IPC file without its first eight bytes.

    Raises:
        ValueError: a message leads out of the data.
        struct.error: the same.
    """
    at, total = 0, 0
    for _ in range(_MOST_MESSAGES):
        if at + 8 > len(data):
            return total
        mark, length = struct.unpack_from("<Ii", data, at)
        if mark != _GO_ON or length <= 0:
            return total
        header = data[at + 8 : at + 8 + length]
        body = at + 8 + length
        message = _Table(header, _offset(header, 0))
        kind, size = message.number(1, "<B"), message.number(3, "<q")
        if size < 0 or body + size > len(data):
            raise ValueError("a message that leads out of the file")
        if kind in (_DICTIONARY, _BATCH):
            batch = message.table(2)
            batch = batch.table(1) if kind == _DICTIONARY else batch
            if batch.has(3):
                total += _packed(batch, data[body : body + size])
        at = body + size
    raise ValueError(f"over {_MOST_MESSAGES} messages")


def _packed(batch: _Table, body: memoryview) -> int:
    total = 0
    for offset, length in batch.pairs(2):
        if length >= 8:
            if offset < 0 or offset + length > len(body):
                raise ValueError("a buffer that leads out of its message")
            total += max(0, struct.unpack_from("<q", body, offset)[0])  # -1: it is not packed
    return total


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        if at < 0 or self._fields < 0:
            raise ValueError("a header that leads out of its message")
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def _place(self, field: int) -> int:
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return 0
        return int(struct.unpack_from("<H", self._data, self._fields + entry)[0])

    def has(self, field: int) -> bool:
        return self._place(field) > 0

    def number(self, field: int, kind: str) -> int:
        place = self._place(field)
        return int(struct.unpack_from(kind, self._data, self._at + place)[0]) if place else 0

    def table(self, field: int) -> _Table:
        at = self._at + self._place(field)
        return _Table(self._data, _offset(self._data, at))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """A vector of structs of two int64."""
        if not self.has(field):
            return []
        at = _offset(self._data, self._at + self._place(field))
        count = struct.unpack_from("<I", self._data, at)[0]
        if at < 0 or at + 4 + 16 * count > len(self._data):
            raise ValueError("a header that leads out of its message")
        return list(struct.iter_unpack("<qq", self._data[at + 4 : at + 4 + 16 * count]))


def _offset(data: memoryview, at: int) -> int:
    return at + int(struct.unpack_from("<I", data, at)[0])
