"""Makes ROS 2 messages of either world: rosbags' dataclasses or the classes of rclpy."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from amodal_core.interfaces import message_definitions


class MessageFactory(Protocol):
    """Creates messages by full type name, such as sensor_msgs/msg/Image."""

    def create(self, type_name: str, /, **values: Any) -> Any:
        """A message with these fields; fields that are not named keep their default.

        Args:
            type_name: package/msg/Name.
            **values: numbers, strings, messages, lists of messages; number sequences of any length
                as NumPy arrays (or lists), `uint8[]` as a uint8 array.

        Raises:
            AttributeError: the type has no field of that name.
        """
        ...

    def image(self, pixels: np.ndarray, encoding: str, header: Any) -> Any:
        """A sensor_msgs/Image.

        Args:
            pixels: (H, W) or (H, W, C), contiguous, of the encoding's type.
            encoding: of sensor_msgs/image_encodings.hpp.
            header: std_msgs/Header.
        """
        ...


def image_of(factory: MessageFactory, pixels: np.ndarray, encoding: str, header: Any) -> Any:
    """See MessageFactory.image; made of the message's fields."""
    return factory.create(
        "sensor_msgs/msg/Image",
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(pixels.dtype.str[0] == ">"),
        step=pixels.strides[0],
        data=pixels.reshape(-1).view(np.uint8),
    )


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """ROS 2 Jazzy's types, amodal_msgs and the part of vision_msgs that the nodes publish."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, text in message_definitions().items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store


class RosbagsFactory:
    """Messages as the dataclasses of a rosbags typestore, ready for `store.serialize_cdr`."""

    def __init__(self, store: Typestore | None = None) -> None:
        self.store = store or typestore()
        # By type and field: a maker of its default, and the type of numbers where it is an array.
        self._defaults: dict[str, dict[str, tuple[Callable[[], Any], np.dtype[Any] | None]]] = {}

    def create(self, type_name: str, /, **values: Any) -> Any:
        """See MessageFactory."""
        cls: Any = self.store.types[type_name]
        defaults = self._defaults.get(type_name)
        if defaults is None:
            fields = self.store.fielddefs[type_name][1]
            defaults = {}
            for name, desc in fields:
                make = self._default(desc)
                made = make()
                dtype = made.dtype if isinstance(made, np.ndarray) else None
                defaults[name] = make, dtype
            self._defaults[type_name] = defaults
        if not values.keys() <= defaults.keys():
            unknown = ", ".join(sorted(values.keys() - defaults.keys()))
            raise AttributeError(f"{type_name} has no field {unknown}")
        for name, (make, dtype) in defaults.items():
            if name not in values:
                values[name] = make()
            elif dtype is not None:
                values[name] = np.ascontiguousarray(values[name], dtype=dtype).reshape(-1)
        return cls(**values)

    def image(self, pixels: np.ndarray, encoding: str, header: Any) -> Any:
        """See MessageFactory."""
        return image_of(self, pixels, encoding, header)

    def adopted(self, type_name: str, message: Any) -> Any:
        """A message of an earlier layout of its type as one of ours; what it lacks is default."""

        def adopt(desc: Any, value: Any) -> Any:
            kind, detail = desc
            if kind == Nodetype.NAME:
                return self.adopted(detail, value)
            if kind != Nodetype.BASE and detail[0][0] == Nodetype.NAME:
                return [self.adopted(detail[0][1], item) for item in value]
            return value

        fields = [f for f in self.store.fielddefs[type_name][1] if hasattr(message, f[0])]
        values = {name: adopt(desc, getattr(message, name)) for name, desc in fields}
        return self.create(type_name, **values)

    def _default(self, desc: Any) -> Callable[[], Any]:
        """A maker of the default value of a field, from rosbags' description of its type."""
        kind, detail = desc
        if kind == Nodetype.NAME:
            return lambda: self.create(detail)
        if kind == Nodetype.BASE:
            zero = {"string": "", "bool": False}.get(
                detail[0], 0.0 if detail[0].startswith("float") else 0
            )
            return lambda: zero
        (item_kind, item), length = detail
        count = length if kind == Nodetype.ARRAY else 0
        if item_kind == Nodetype.BASE and item[0] != "string":
            dtype = np.dtype({"byte": "uint8", "char": "uint8"}.get(item[0], item[0]))
            return lambda: np.zeros(count, dtype)
        make = self._default((item_kind, item))
        return lambda: [make() for _ in range(count)]


class ClassFactory:
    """Messages as the generated classes of rclpy, or of any client library with the same API.

    Args:
        resolve: gives the class for a full type name; it is asked once a type.
    """

    def __init__(self, resolve: Callable[[str], type]) -> None:
        self._resolve = lru_cache(maxsize=None)(resolve)

    def create(self, type_name: str, /, **values: Any) -> Any:
        """See MessageFactory."""
        message = self._resolve(type_name)()
        for name, value in values.items():
            default = getattr(message, name)
            if isinstance(default, array):
                # rclpy checks other sequences element by element; an array.array of the right
                # type code is taken as it is, in 0.2 ms for a scan instead of 3.
                numbers = array(default.typecode)
                flat = np.ascontiguousarray(value, dtype=default.typecode)
                numbers.frombytes(flat.reshape(-1).view(np.uint8).data)
                setattr(message, name, numbers)
            elif isinstance(default, np.ndarray):
                setattr(
                    message, name, np.asarray(value, dtype=default.dtype).reshape(default.shape)
                )
            elif isinstance(default, bool):
                setattr(message, name, bool(value))
            elif isinstance(default, int):
                setattr(message, name, int(value))
            elif isinstance(default, float):
                setattr(message, name, float(value))
            else:
                setattr(message, name, value)
        return message

    def image(self, pixels: np.ndarray, encoding: str, header: Any) -> Any:
        """See MessageFactory."""
        return image_of(self, pixels, encoding, header)
