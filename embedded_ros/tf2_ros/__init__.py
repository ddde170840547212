"""Transforms over time, from /tf and /tf_static."""

from embedded_ros.importer import absent_attribute

from .broadcasters import StaticTransformBroadcaster, TransformBroadcaster
from .buffer import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)
from .transform_listener import TransformListener

__getattr__ = absent_attribute(__name__)
__all__ = [
    "Buffer",
    "ConnectivityException",
    "ExtrapolationException",
    "InvalidArgumentException",
    "LookupException",
    "StaticTransformBroadcaster",
    "TimeoutException",
    "TransformBroadcaster",
    "TransformException",
    "TransformListener",
]
