"""Message classes that behave like the ones rosidl generates for Python."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from rosbags.interfaces import Nodetype

# Type codes of array.array.
_TYPECODES = {"char": "B", "float32": "f", "float64": "d"}
_TYPECODES.update(zip(("int8", "int16", "int32", "int64"), "bhiq", strict=True))
_TYPECODES.update(zip(("uint8", "uint16", "uint32", "uint64"), "BHIQ", strict=True))
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class _Field(NamedTuple):
    """How one field is checked and stored, and how it crosses the wire."""

    store: Callable[[Any], Any]
    default: Callable[[], Any]
    type_name: str
    to_wire: Callable[[Any], Any] | None = None
    from_wire: Callable[[Any], Any] | None = None


class Message:
    """Base of all messages: keyword constructor, checked attributes, comparison, copying."""

    __slots__ = ()
    ros_name: ClassVar[str]
    wire_names: ClassVar[dict[str, str]]
    _fields: ClassVar[dict[str, _Field]]
    _setters: ClassVar[list[tuple[Callable[[Any, Any], None], Callable[[Any], Any] | None]]]
    _wire_empty = 0

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - self._fields.keys()
        if unknown:
            raise AssertionError(f"Invalid arguments passed to constructor: {sorted(unknown)}")
        for name, field in self._fields.items():
            if name in values:
                setattr(self, name, values[name])
            else:
                object.__setattr__(self, name, field.default())

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._fields.get(name)
        if field is None:
            raise AttributeError(f"{self.ros_name} has no field {name!r}")
        try:
            object.__setattr__(self, name, field.store(value))
        except (TypeError, ValueError, OverflowError, BufferError) as error:
            raise AssertionError(
                f"The {name!r} field of {self.ros_name} must be {field.type_name}: {error}"
            ) from error

    @classmethod
    def from_wire(cls, *values: Any) -> Message:
        """A message of what the CDR codec read, without checks."""
        made = cls.__new__(cls)
        for (put, convert), value in zip(cls._setters, values, strict=False):
            put(made, convert(value) if convert else value)
        return made

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Field names and their types as rosidl writes them."""
        return {name: field.type_name for name, field in cls._fields.items()}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return False
        for name in self._fields:
            mine, its = getattr(self, name), getattr(other, name)
            same = np.array_equal(mine, its) if isinstance(mine, np.ndarray) else mine == its
            if not same:
                return False
        return True

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        package, kind, name = self.ros_name.split("/")
        shown = ", ".join(f"{field}={_shown(getattr(self, field))}" for field in self._fields)
        return f"{package}.{kind}.{name}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        state = [_portable(getattr(self, name)) for name in self._fields]
        return _rebuild, (type(self), state)


def _rebuild(kind: type[Message], state: Sequence[Any]) -> Message:
    made = kind()
    for field, value in zip(made._fields, state, strict=True):
        object.__setattr__(made, field, value)
    return made


def _portable(value: Any) -> Any:
    return array.array("B", value) if isinstance(value, memoryview) else value


def _shown(value: Any) -> str:
    if isinstance(value, memoryview):
        value = array.array("B", value[:65])
    if isinstance(value, array.array) and len(value) > 64:
        return f"array('{value.typecode}', [{', '.join(map(str, value[:8]))}, ...])"
    return repr(value)


def make_class(
    ros_name: str,
    constants: Sequence[tuple[str, str, Any]],
    fields: Sequence[tuple[str, Any]],
    nested: Mapping[str, type[Message]],
    defaults: Mapping[str, Any],
) -> type[Message]:
    """A message class of a parsed definition.

    Args:
        ros_name: such as sensor_msgs/msg/Image.
        constants: (name, type, value).
        fields: (name, rosbags field description).
        nested: classes of the fields that are messages.
        defaults: default values other than zero and empty.
    """
    package, kind, short = ros_name.split("/")
    table: dict[str, _Field] = {}
    names: dict[str, str] = {}
    body: dict[str, Any] = {
        "__slots__": tuple(name for name, _ in fields),
        "__module__": f"{package}.{kind}",
        "ros_name": ros_name,
        "_fields": table,
        "wire_names": names,
    }
    for name, type_name, value in constants:
        body[name] = bytes([value]) if type_name in ("byte", "octet") else value
    for name, desc in fields:
        field = _field(desc, nested)
        if name in defaults:
            stored, value = field.store, defaults[name]
            field = field._replace(default=partial(stored, value))
        table[name] = field
        names[name] = name
        if field.to_wire:
            names[name] = f"_wire_{name}"
            body[names[name]] = property(_wire_getter(name, field.to_wire))
    made: type[Message] = type(short, (Message,), body)
    made._setters = [(getattr(made, n).__set__, f.from_wire) for n, f in table.items()]
    return made


def _wire_getter(name: str, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda message: convert(getattr(message, name))


def _field(desc: Any, nested: Mapping[str, type[Message]]) -> _Field:
    kind, detail = desc
    if kind == Nodetype.BASE:
        return _scalar(*detail)
    if kind == Nodetype.NAME:
        cls = nested[detail]
        return _Field(_checker(cls), cls, detail.replace("/msg/", "/"))
    item_desc, length = detail
    item = _field(item_desc, nested)
    fixed = kind == Nodetype.ARRAY
    if fixed:
        type_name = f"{item.type_name}[{length}]"
    else:
        type_name = f"sequence<{item.type_name}{f', {length}' if length else ''}>"
    base = item_desc[1][0] if item_desc[0] == Nodetype.BASE else ""
    if base in _TYPECODES:
        made = _numeric_array(base, length) if fixed else _numeric_sequence(base, item, length)
        return made._replace(type_name=type_name)
    return _list(base, item, length, fixed)._replace(type_name=type_name)


def _checker(cls: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, cls):
            raise TypeError(f"not {value!r:.80}")
        return value

    return check


_KINDS: dict[str, tuple[type, str]] = {
    "string": (str, "string"),
    "wstring": (str, "string"),
    "bool": (bool, "boolean"),
    "float32": (float, "float"),
    "float64": (float, "double"),
    "char": (int, "uint8"),
}


def _scalar(base: str, limit: int) -> _Field:
    if base in ("byte", "octet"):
        return _octet()
    kind, type_name = _KINDS.get(base, (int, base))
    low, high = (np.iinfo(type_name).min, np.iinfo(type_name).max) if kind is int else (0, 0)

    def fits(value: Any) -> bool:
        if kind is str:
            return not limit or len(value) <= limit
        if base == "float32":
            # Infinity and NaN have a place in 32 bits, too.
            return not _FLOAT32_MAX < abs(value) < float("inf")
        return kind is not int or low <= value <= high

    def store(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"not {value!r:.80}")
        if not fits(value):
            raise ValueError(f"{value!r:.80} does not fit")
        return value

    return _Field(store, kind, f"{type_name}<{limit}>" if kind is str and limit else type_name)


def _octet() -> _Field:
    def store(value: Any) -> bytes:
        if not isinstance(value, bytes | memoryview) or len(value) != 1:
            raise TypeError(f"not {value!r:.80}")
        return bytes(value)

    def signed(value: bytes) -> int:
        return int.from_bytes(value, "little", signed=True)

    return _Field(store, lambda: b"\0", "octet", signed, lambda v: bytes([v & 255]))


def _numeric_array(base: str, length: int) -> _Field:
    dtype = np.dtype("uint8" if base == "char" else base)

    def store(value: Any) -> np.ndarray:
        made = np.ascontiguousarray(value, dtype)
        if made.shape != (length,):
            raise ValueError(f"the shape is {made.shape}")
        return made

    return _Field(store, lambda: np.zeros(length, dtype), "", None, lambda v: v.copy())


def _numeric_sequence(base: str, item: _Field, limit: int) -> _Field:
    code = _TYPECODES[base]
    dtype = np.dtype("uint8" if base == "char" else base)

    def store(value: Any) -> Any:
        if limit and len(value) > limit:
            raise ValueError(f"{len(value)} values")
        if isinstance(value, array.array):
            if value.typecode != code:
                raise TypeError(f"an array of {value.typecode!r}")
            return value
        if isinstance(value, np.ndarray):
            if value.dtype != dtype or value.ndim != 1:
                raise TypeError(f"an array of {value.dtype} with {value.ndim} dimensions")
            return np.ascontiguousarray(value).data if code == "B" else _copied(value)
        if isinstance(value, bytes | bytearray | memoryview) and code in "Bb":
            # Kept, not copied: images and clouds pass through here.
            return memoryview(value).cast("B").cast("b" if code == "b" else "B")
        if isinstance(value, str):
            raise TypeError("a string")
        return array.array(code, [item.store(v) for v in value])

    def _copied(value: np.ndarray) -> array.array:
        made = array.array(code)
        made.frombytes(np.ascontiguousarray(value).data.cast("B"))
        return made

    def to_wire(value: Any) -> np.ndarray:
        return np.frombuffer(value, dtype) if len(value) else np.empty(0, dtype)

    from_wire = memoryview if code == "B" else _copied
    return _Field(store, lambda: array.array(code), "", to_wire, from_wire)


def _list(base: str, item: _Field, length: int, fixed: bool) -> _Field:
    def store(value: Any) -> list[Any]:
        if isinstance(value, str | bytes) and base != "":
            raise TypeError(f"not {value!r:.80}")
        made = [item.store(v) for v in value]
        if (fixed and len(made) != length) or (length and len(made) > length):
            raise ValueError(f"{len(made)} values")
        return made if not isinstance(value, list) else value

    to_wire: Callable[[Any], Any] | None = None
    from_wire: Callable[[Any], Any] | None = None
    if base == "bool":
        to_wire, from_wire = (lambda v: np.array(v, np.bool_)), (lambda v: v.tolist())
    elif base in ("byte", "octet"):
        to_wire = lambda v: np.frombuffer(b"".join(v), np.uint8)  # noqa: E731
        from_wire = lambda v: [bytes([b]) for b in v.view(np.uint8).tolist()]  # noqa: E731
    count = length if fixed else 0
    return _Field(store, lambda: [item.default() for _ in range(count)], "", to_wire, from_wire)


assert sys.byteorder == "little", "the Cyclone DDS wheel exists for little-endian machines only"
