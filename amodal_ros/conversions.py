"""The rclpy side of `amodal_core.bags`: a factory that makes messages of the generated classes."""

from __future__ import annotations

from importlib import import_module

from amodal_core.bags.factory import ClassFactory


def message_class(full_name: str) -> type:
    """The class of a full type name, such as sensor_msgs/msg/Image.

    Raises:
        ImportError: the package that defines it is not installed.
    """
    package, _, name = full_name.replace("/msg/", "/").partition("/")
    cls: type = getattr(import_module(f"{package}.msg"), name)
    return cls


FACTORY = ClassFactory(message_class)
