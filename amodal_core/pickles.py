"""Read the pickles, .npy and .npz files that others ship, trusting nothing in them.

A pickle is a program for a small machine. This one is Python's own (`pickle._Unpickler`, which
takes no more memory than the file has bytes) with the instructions that make plain values, and
nothing else: what it may call is written here, takes what lies in the file, never a size to
allocate, and arrays are made from shape, type and bytes (or listed objects) that must fit each
other. So neither code of the file's choosing runs nor does NumPy restore a state that it describes.
"""

from __future__ import annotations

import ast
import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from amodal_core import limits
from amodal_core.errors import foreign

_CURE = "download it again; pickles that name other code are refused"
# Kinds of numbers and texts; no objects, no records.
_PARTS = 1000  # of a key that is a tuple
_CROWD = 512  # keys that may share a hash
_REPEATED = 16  # values that a byte of a file may stand for, through those that are named again
_DTYPE = re.compile(r"[<>=|]?[?biufcSU]\d{0,9}")


class RefusedError(ValueError):
    """What such a file must not hold."""


class _Type:
    """A dtype on its way: the text that names it, and the byte order that follows."""

    def __init__(self, text: Any, *_: Any) -> None:
        self.text = text

    def build(self, state: Any) -> None:
        """The state of numpy.dtype: version, byte order, then what only records have."""
        order = state[1]
        if order in ("<", ">") and isinstance(self.text, str):
            self.text = order + self.text.lstrip("<>=|")

    def dtype(self) -> np.dtype:
        if not isinstance(self.text, str) or not _DTYPE.fullmatch(self.text):
            raise RefusedError(f"arrays of type {str(self.text)[:20]}")
        return np.dtype(self.text)


class _Array:
    """An array on its way; `value` once its state has come."""

    value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """The state of numpy.ndarray: version, shape, dtype, Fortran order, bytes."""
        _, shape, kind, fortran, data = state
        self.value = _array(shape, kind, data, "F" if fortran else "C")


def _array(shape: Any, kind: Any, data: Any, order: str = "C") -> np.ndarray:
    """An array of the shape and type whose bytes these are, or whose objects, listed."""
    if not isinstance(kind, _Type) or not isinstance(shape, tuple) or len(shape) > 32:
        raise RefusedError("an array without shape or type")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError(f"an array of shape {shape}")
    if isinstance(data, list) and kind.text in ("O", "O8", "O4"):
        if math.prod(shape) != len(data):
            raise RefusedError(f"{len(data)} objects for an array of {shape}")
        objects = np.empty(len(data), object)
        for k, value in enumerate(data):
            objects[k] = value
        return objects.reshape(shape, order="F" if order == "F" else "C")
    if isinstance(data, str):
        data = data.encode("latin-1")  # Python 2 wrote bytes as text
    dtype = kind.dtype()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise RefusedError("an array without bytes")
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(data):
        raise RefusedError(f"{len(data)} bytes for an array of {shape} {dtype}")
    made = np.ndarray(shape, dtype, data, order="F" if order == "F" else "C").copy("K")
    if dtype.kind == "U" and made.size:
        letters = made.reshape(-1).view(dtype.str[0] + "u4")
        if letters.max() > 0x10FFFF:
            raise RefusedError("letters that are none")
    return made


def _scalar(kind: Any, data: Any) -> Any:
    return _array((), kind, data)[()]


def _check_keys(keys: Sequence[Any]) -> None:
    """Refuse keys that take for ever to hash, or that mostly share a hash.

    A tuple that holds another twice, which holds another twice, is hashed along every path; and
    to put n keys of one hash into a dictionary takes n * n comparisons.
    """
    for key in keys:
        pending, parts = [key], 0
        while pending:
            value = pending.pop()
            if type(value) is tuple or type(value) is frozenset:
                parts += len(value)
                if parts > _PARTS:
                    raise RefusedError(f"a key of more than {_PARTS} parts")
                pending += value
    if len(keys) > _CROWD and len({hash(key) for key in keys}) * 8 < len(keys):
        raise RefusedError("keys that are told apart by nothing but comparison")


def _put(into: dict[Any, Any], keys: Sequence[Any], values: Sequence[Any]) -> None:
    """Put items into a dictionary; what it then holds is looked at each time it has doubled."""
    _check_keys(keys)
    before = len(into)
    into.update(zip(keys, values, strict=True))
    if len(into) > _CROWD and len(into).bit_length() > before.bit_length():
        _check_keys(list(into))


def _ordered(items: list[Any]) -> OrderedDict[Any, Any]:
    made: OrderedDict[Any, Any] = OrderedDict()
    _put(made, [key for key, _ in items], [value for _, value in items])
    return made


def _set(items: list[Any]) -> set[Any]:
    _check_keys(items)
    return set(items)


def _frozenset(items: list[Any]) -> frozenset[Any]:
    _check_keys(items)
    return frozenset(items)


def _listed(make: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    """A container of a list that lies in the file."""

    def made(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise RefusedError("a container of something else than a list")
        return make(list(items))

    return made


def _bytes(text: Any, encoding: Any = "latin1") -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError("bytes that are not spelt out")
    return text.encode("latin-1")


def _complex(real: float, imaginary: float) -> complex:
    return complex(float(real), float(imaginary))


# What may be called, under old and new module names.
_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _listed(_ordered)
}
_CALLS["_codecs", "encode"] = _bytes
_CALLS["numpy", "dtype"] = _Type
for _module in ("builtins", "__builtin__"):
    _CALLS[_module, "set"], _CALLS[_module, "frozenset"] = _listed(_set), _listed(_frozenset)
    _CALLS[_module, "complex"] = _complex
    _CALLS[_module, "bytearray"] = lambda *given: bytearray(_bytes(*given) if given else b"")
for _module in ("numpy.core", "numpy._core"):
    _CALLS[f"{_module}.multiarray", "_reconstruct"] = lambda *_: _Array()
    _CALLS[f"{_module}.multiarray", "scalar"] = _scalar
    _CALLS[f"{_module}.numeric", "_frombuffer"] = lambda data, kind, shape, order: _array(
        shape, kind, data, order
    )
_Machine: Any = pickle._Unpickler
_ARRAY_KIND = object()  # numpy.ndarray, which only `_reconstruct` is given


class Reader(_Machine):
    """Plain values alone: no instances, no extensions, calls and states of what is above."""

    dispatch: ClassVar = {
        code: step
        for code, step in _Machine.dispatch.items()
        if bytes([code])
        not in (
            pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID,
            pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER,
            pickle.READONLY_BUFFER,
        )
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name that the file gives, where it is one of `_CALLS`."""
        if (module, name) == ("numpy", "ndarray"):
            return _ARRAY_KIND
        if (module, name) not in _CALLS:
            raise RefusedError(f"it asks for {module}.{name}")
        return _CALLS[module, name]

    def _reduce(self) -> None:
        arguments, call = self.stack.pop(), self.stack[-1]
        if not any(call is known for known in _CALLS.values()) or type(arguments) is not tuple:
            raise RefusedError("a call of something else")
        self.stack[-1] = call(*arguments)

    def _bytearray(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        if count > self.size:  # the original makes room for as many first
            raise RefusedError(f"{count} bytes in a file of {self.size}")
        self.append(bytearray(self.read(count)))

    def _build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if not isinstance(value, _Type | _Array) or not isinstance(state, tuple):
            raise RefusedError("a state of something else")
        value.build(state)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._items([key], [value])

    def _setitems(self) -> None:
        items = self.pop_mark()
        self._items(items[::2], items[1::2])

    def _items(self, keys: list[Any], values: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise RefusedError("items of something else than a dictionary")
        _put(self.stack[-1], keys, values)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._items(items[::2], items[1::2])

    def _additems(self) -> None:
        items = self.pop_mark()
        into = self.stack[-1]
        if not isinstance(into, set):
            raise RefusedError("items of something else than a set")
        before = len(into)
        into |= _set(items)
        if len(into) > _CROWD and len(into).bit_length() > before.bit_length():
            _check_keys(list(into))

    def _frozen(self) -> None:
        items = self.pop_mark()  # which puts another `append` in place
        self.append(_frozenset(items))

    dispatch[pickle.REDUCE[0]], dispatch[pickle.BUILD[0]] = _reduce, _build
    dispatch[pickle.SETITEM[0]], dispatch[pickle.SETITEMS[0]] = _setitem, _setitems
    dispatch[pickle.DICT[0]], dispatch[pickle.ADDITEMS[0]] = _dict, _additems
    dispatch[pickle.FROZENSET[0]] = _frozen
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)
        super().__init__(self.file, encoding="latin1")
        self.size = len(data)

    def rest(self) -> bytes:
        """What follows the pickles that were loaded."""
        return self.file.read()


class _Finisher:
    """Puts arrays in the places of those on their way; containers stay the same ones.

    It counts what a value holds along every path: a list of twice a list of twice a list is a few
    bytes of a file, and more numbers than there is memory once an array is made of it.

    Args:
        most: values that may be held.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[int] = set()
        self._done: dict[int, tuple[Any, int]] = {}

    def finish(self, value: Any) -> tuple[Any, int]:
        """A value, and how many it holds, itself among them."""
        if isinstance(value, _Array):
            value = value.value
            if value is None:
                raise RefusedError("an array without a state")
        if isinstance(value, _Type):
            return value.dtype(), 1
        objects = isinstance(value, np.ndarray) and value.dtype == object
        if not objects and not isinstance(value, dict | list | tuple):
            return value, 1
        if id(value) in self._done:
            return self._done[id(value)]
        if id(value) in self._open:
            raise RefusedError("a value that holds itself")
        self._open.add(id(value))
        made, count = self._filled(value)
        if count > self._most:
            raise RefusedError(f"a value that repeats its parts more than {self._most} times")
        self._done[id(value)] = made, count
        return made, count

    def _filled(self, value: Any) -> tuple[Any, int]:
        """A container that has been filled with what is finished."""
        if isinstance(value, dict):
            inner = {key: self.finish(item) for key, item in value.items()}
            value.update({key: item for key, (item, _) in inner.items()})
            return value, 1 + sum(count for _, count in inner.values())
        listed = [self.finish(v) for v in (value.flat if isinstance(value, np.ndarray) else value)]
        items = [item for item, _ in listed]
        if isinstance(value, np.ndarray):
            for k, item in enumerate(items):
                value.flat[k] = item
        elif isinstance(value, list):
            value[:] = items
        else:
            value = tuple(items)
        return value, 1 + sum(count for _, count in listed)


# Tensors that were pickled one by one: a file of `torch.save` in its old form for each.
_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2"}
_MAGIC = 0x1950A86A20F9469CFC6C


class _StorageReader(Reader):
    """The parts of such a file, one after the other; what lies elsewhere stays a description."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _Type(_STORAGES[name])
        raise RefusedError(f"it asks for {module}.{name}")

    def _persistent(self) -> None:
        """The description of what lies elsewhere is already on the stack."""

    dispatch: ClassVar = Reader.dispatch | {pickle.BINPERSID[0]: _persistent}


def _storage(data: Any) -> np.ndarray:
    """The numbers of a storage: a few small pickles, their count, then the bytes."""
    if not isinstance(data, bytes):
        raise RefusedError("numbers without bytes")
    reader = _StorageReader(data)
    magic, _, _, description, keys = (reader.load() for _ in range(5))
    if magic != _MAGIC or len(keys) != 1 or description[0] != "storage":
        raise RefusedError("a tensor in another form")
    rest = reader.rest()
    (count,) = struct.unpack("<q", rest[:8])
    return _array((count,), description[1], rest[8:])


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """An array of a storage's numbers."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, np.ndarray) or not all(type(n) is int and n >= 0 for n in numbers):
        raise RefusedError(f"a tensor of shape {shape}")
    if len(shape) != len(strides) or len(shape) > 32 or math.prod(shape) > len(storage):
        raise RefusedError(f"a tensor of shape {shape} of {len(storage)} numbers")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= len(storage):
        raise RefusedError(f"a tensor of shape {shape} of {len(storage)} numbers")
    places = np.full((), offset)
    for n, step in zip(shape, strides, strict=True):
        places = places[..., None] + np.arange(n) * step
    return np.asarray(storage[places])


_CALLS["torch.storage", "_load_from_bytes"] = _storage
_CALLS["torch._utils", "_rebuild_tensor_v2"] = _tensor


def _loads(data: bytes) -> Any:
    value = Reader(data).load()
    return _Finisher(_REPEATED * len(data) + 10**5).finish(value)[0]


def load(path: str | Path) -> Any:
    """What a pickle of NumPy arrays and builtin types holds.

    Raises:
        InputError: the file is missing or broken, or holds anything else.
    """
    with foreign(path, "no pickle of arrays and plain values", _CURE):
        return _loads(Path(path).read_bytes())


def load_npy(path: str | Path) -> np.ndarray:
    """An array of a .npy file, arrays of objects through the same reader.

    Raises:
        InputError: the file is missing or broken, or holds anything but arrays and builtin types.
    """
    with foreign(path, "no array", "download it again"):
        return _npy(Path(path).read_bytes())


def _npy(data: bytes) -> np.ndarray:
    """The array of an .npy file's bytes."""
    if data[:6] != b"\x93NUMPY":
        raise RefusedError("not NumPy's format")
    form = "<H" if data[6] == 1 else "<I"
    (length,) = struct.unpack_from(form, data, 8)
    begin = 8 + struct.calcsize(form)
    end = begin + min(length, 10_000)
    shape, kind, order = _npy_header(data[begin:end])
    if kind.text in ("|O", "O"):
        return np.asarray(_loads(data[end:]), object).reshape(shape)
    return _array(shape, kind, memoryview(data)[end:], order)


@lru_cache(maxsize=256)
def _npy_header(data: bytes) -> tuple[Any, _Type, str]:
    """Shape, type and order; a data set's files have the same few, of which each is parsed once."""
    # Python 2 wrote long integers as 10L.
    header = ast.literal_eval(re.sub(r"(\d)L", r"\1", data.decode("latin-1")).strip())
    return header["shape"], _Type(header["descr"]), "F" if header["fortran_order"] else "C"


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file by their names, each read when it is asked for.

    Inside a `foreign` block, which turns what a broken file raises into an InputError.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self._zip = ZipFile(path)

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._zip.getinfo(f"{name}.npy")
        if member.compress_type != ZIP_STORED and member.file_size > limits.UNPACKED:
            raise RefusedError(f"{name} would unpack to {member.file_size} bytes")
        return _npy(self._zip.read(member))

    def __iter__(self) -> Iterator[str]:
        return (n.removesuffix(".npy") for n in self._zip.namelist())

    def __len__(self) -> int:
        return len(self._zip.namelist())

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
