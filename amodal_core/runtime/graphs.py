"""Exported graphs, kept in the user's cache folder by what they were made of."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from amodal_core.errors import InputError
from amodal_core.files import atomic

if TYPE_CHECKING:
    from torch import nn

DIGITS = 12  # that tell a graph beside its checkpoint from another
_PROPERTY = 14  # the field of a property in ONNX's ModelProto
_KEPT = 24  # graphs; the oldest go
_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """`amodal_ros/graphs` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "amodal_ros" / "graphs"


def key_of(checkpoint: str | Path, network: nn.Module, *more: str) -> str:
    """A name for the graph of a network with a checkpoint's weights.

    It changes with the weights, with the code of every layer and of what lies beside it in this
    package (functions that layers call), and with what else is named.

    Args:
        checkpoint: a file.
        network: made with it.
        *more: such as settings.
    """
    digest = hashlib.sha256(Path(checkpoint).read_bytes())
    files = {inspect.getsourcefile(type(module)) for module in network.modules()}
    own = {Path(f) for f in files if f and f"{os.sep}torch" not in f}
    beside = {f.parent for f in own if f.is_relative_to(_PACKAGE)}
    own |= {f for folder in beside for f in folder.glob("*.py")}
    code = [f.read_text(encoding="utf-8") for f in sorted(own)]
    for text in (*code, metadata.version("torch"), *more):
        digest.update(text.encode())
    return digest.hexdigest()[:24]


def graph(key: str, write: Callable[[Path], object]) -> Path:
    """The file of a graph; written where it is not there.

    Args:
        key: see `key_of`.
        write: writes an ONNX file to a path.

    Raises:
        InputError: the disk is full or cannot be written; what `write` raises.
    """
    path = path_of(key)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            write(part)
        _forget(p for p in path.parent.glob("*.onnx") if p != path)
    return path


def path_of(key: str) -> Path:
    """Where the graph of a key lies, once it is written."""
    return folder() / f"{key}.onnx"


def beside(checkpoint: str | Path, settings: str, *kinds: str) -> Path:
    """Where the graph lies that reads its weights from a checkpoint in the same folder.

    `models.onnx_export.export_beside` writes it. Its name changes with the weights and with the
    settings, so that no other's is taken for it.

    Args:
        checkpoint: a file.
        settings: that the graph was made with.
        *kinds: of the graph, such as "int8".
    """
    path = Path(checkpoint)
    digest = hashlib.sha256(path.read_bytes() + settings.encode()).hexdigest()[:DIGITS]
    return path.with_name(".".join([path.stem, digest, *kinds, "onnx"]))


def int8_beside(checkpoint: str | Path, settings: str) -> Path:
    """The graph in int8 that lies beside a checkpoint, see `models.int8_export`.

    Raises:
        InputError: there is none.
    """
    path = beside(checkpoint, settings, "int8")
    if not path.is_file():
        raise InputError(
            "there is no int8 graph of these weights and settings",
            str(checkpoint),
            f"amodal export {checkpoint} --int8 --calibration DRIVE",
        )
    return path


def properties(path: Path) -> dict[str, str]:
    """The properties in the metadata of an ONNX file, read without a package for it."""
    data, at = path.read_bytes(), 0
    result = {}
    while at < len(data):
        field, value, at = _field(data, at)
        if field == _PROPERTY and isinstance(value, bytes):
            (_, key, middle), end = _field(value, 0), len(value)
            text = _field(value, middle)[1] if middle < end else b""
            assert isinstance(key, bytes)
            assert isinstance(text, bytes)
            result[key.decode()] = text.decode()
    return result


def _field(data: bytes, at: int) -> tuple[int, bytes | int, int]:
    """Number, value and end of a field of a protocol buffer: one of bytes, or a whole number."""
    tag, at = _number(data, at)
    value, at = _number(data, at)
    if tag & 7 == 0:
        return tag >> 3, value, at
    return tag >> 3, data[at : at + value], at + value


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and its end."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _forget(others: Iterable[Path]) -> None:
    """Remove the oldest files beyond those that are kept beside a new one."""
    aged = sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)
    for path in aged[_KEPT - 1 :]:
        path.unlink(missing_ok=True)
