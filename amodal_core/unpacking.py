"""Decompression that gives no more memory than its limit, whatever a file unpacks to."""

from __future__ import annotations

import bz2
import sys
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import lz4.frame

from amodal_core import limits

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE = 2**22  # bytes unpacked at a time
_MAKERS: dict[str, Callable[[], Any]] = {
    "zstd": zstd.ZstdDecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "bz2": bz2.BZ2Decompressor,
    "gzip": partial(zlib.decompressobj, 16 + zlib.MAX_WBITS),
}


def unpack(data: bytes, kind: str, most: int | None = None) -> bytes:
    """All frames of packed bytes, one after the other.

    Args:
        data: whole frames.
        kind: zstd, lz4, bz2 or gzip.
        most: bytes that they may have; limits.UNPACKED by default, and never more.

    Raises:
        ValueError: they have more, or end within a frame.
        Exception: the library's own, where they are no frames.
    """
    most = limits.UNPACKED if most is None else min(most, limits.UNPACKED)
    pieces, room = [], most
    while data:
        machine = _MAKERS[kind]()
        while not machine.eof:
            piece = machine.decompress(data, min(room + 1, _PIECE))
            # What was not looked at yet: zlib gives it back, the others keep it.
            data = getattr(machine, "unconsumed_tail", b"")
            if not piece and not machine.eof and not data:
                raise ValueError(f"{kind} data that is cut off")
            room -= len(piece)
            if room < 0:
                raise ValueError(f"it would unpack to more than {most} bytes")
            pieces.append(piece)
        data = machine.unused_data
        if kind == "gzip":
            data = data.lstrip(b"\0")  # padding, as Python's own reader allows it
    return b"".join(pieces)
