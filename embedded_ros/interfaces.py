"""Message and service classes, their CDR codec and their type hashes, from .msg and .srv texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import yaml
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from embedded_ros import service_definitions
from embedded_ros.message import Message, make_class

# Names as published, for hashes and layouts; the codec has its own store (see `_codec`).
definitions: Typestore = get_typestore(Stores.ROS2_JAZZY)
_codec = Typestore()
# What an empty message looks like on the wire.
_EMPTY: Any = ([], [("structure_needs_at_least_one_member", (Nodetype.BASE, ("uint8", 0)))])
# Default values that the definitions give; everything else starts at zero or empty.
_defaults: dict[str, dict[str, Any]] = {
    "geometry_msgs/msg/Quaternion": {"w": 1.0},
    "sensor_msgs/msg/NavSatStatus": {"status": -2},
}
_DEFAULT = re.compile(r"^\s*([\w/<>=\[\]]+)\s+(\w+)\s+([^=#\s].*?)\s*(?:#.*)?$")


def add_messages(texts: Mapping[str, str]) -> None:
    """Add message definitions by full name, such as amodal_msgs/msg/Mask.

    Raises:
        ValueError: a text cannot be parsed, or its type is known with other fields.
    """
    for name, text in texts.items():
        parsed = get_types_from_msg(text, name)
        definitions.register({name: next(iter(parsed.values()))})
        values = {}
        for line in text.splitlines():
            if default := _DEFAULT.match(line):
                values[default[2]] = _literal(default[1], default[3])
        if values:
            _defaults[name] = values


def _literal(kind: str, text: str) -> Any:
    value = yaml.safe_load(text)
    if not kind.startswith("float"):
        return value
    return [float(v) for v in value] if isinstance(value, list) else float(value)


def kinds_in(package: str) -> tuple[str, ...]:
    """Which of "msg" and "srv" the package has."""
    kinds = {name.split("/")[1] for name in definitions.fielddefs if name.startswith(f"{package}/")}
    return tuple(sorted(kinds))


def names_in(package: str, kind: str) -> list[str]:
    """Short names of the package's messages or services."""
    prefix = f"{package}/{kind}/"
    names = [n[len(prefix) :] for n in definitions.fielddefs if n.startswith(prefix)]
    if kind == "srv":
        names += sorted({n.rsplit("_", 1)[0] for n in names})
    return names


@cache
def message(name: str) -> type[Message]:
    """The class of a message by full name, such as sensor_msgs/msg/Image."""
    constants, fields = definitions.fielddefs[name]
    if fields == _EMPTY[1]:
        fields = []
    nested = {sub: message(sub) for _, desc in fields for sub in _names(desc)}
    made = make_class(name, constants, fields, nested, _defaults.get(name, {}))
    # The codec reads and writes the wire form of each field under its own name, so that users see
    # what rclpy shows and rosbags sees NumPy arrays.
    wire = [(made.wire_names[field], desc) for field, desc in fields]
    _codec.fielddefs[name] = ([], wire or [("_wire_empty", (Nodetype.BASE, ("uint8", 0)))])
    _codec.types[name] = made.from_wire  # type: ignore[assignment]
    return made


@cache
def service(name: str) -> Any:
    """A service by full name: an object with Request, Response and the names of both."""
    package, _, short = name.split("/")
    return type(
        short,
        (SimpleNamespace,),
        {
            "Request": message(f"{name}_Request"),
            "Response": message(f"{name}_Response"),
            "ros_name": name,
            "__module__": f"{package}.srv",
        },
    )


def interface(name: str) -> Any:
    """A message class or a service by full name."""
    return message(name) if name in definitions.fielddefs else service(name)


def _names(desc: Any) -> list[str]:
    kind, detail = desc
    if kind == Nodetype.NAME:
        return [detail]
    return [] if kind == Nodetype.BASE else _names(detail[0])


def serialize(value: Message) -> memoryview:
    """CDR bytes of a message, its 4-byte header included."""
    return _codec.serialize_cdr(value, value.ros_name)


def deserialize(data: bytes | memoryview, kind: type[Message]) -> Any:
    """A message from CDR bytes; uint8 arrays in it are views on `data`."""
    return _codec.deserialize_cdr(data, kind.ros_name)


@cache
def type_hash(name: str) -> str:
    """RIHS01 hash of a message or of a service's half, as peers compute it."""
    return service_definitions.HASHES.get(name) or definitions.hash_rihs01(name)


def _load_services() -> None:
    for name, text in service_definitions.SERVICES.items():
        for half, fields in zip(("Request", "Response"), text.split("---"), strict=True):
            full = f"{name}_{half}"
            parsed = get_types_from_msg(fields, full) if fields.strip() else {}
            definitions.register({full: next(iter(parsed.values()), _EMPTY)})


_load_services()
