"""How large what messages claim may be, before memory is given for it; generous for any sensor.

Whoever has a larger one sets these once, before the first message: `limits.PIXELS = 2**30`.
"""

from __future__ import annotations

from typing import Any

from amodal_core.errors import InputError

PIXELS = 2**27  # of an image or a mask, 134 million
POINTS = 2**25  # of a scan, 33 million
INSTANCES = 4096  # of an array
CLASSES = 4096  # class ids are below
EMBEDDING = 4096  # numbers of one
FRAMES = 4096  # of a transform tree
UNPACKED = 2**30  # bytes of what is packed: a chunk, a message, an array, a file of weights
RANGE = 1e-3  # metres; what is nearer to the LiDAR is no return: a direction needs a length

_CURE = "check who publishes it; a sensor that is so large: amodal_core.limits"


def check_image(width: int, height: int, where: str) -> None:
    """Refuse an image's or a camera's size that no memory should be given for.

    Raises:
        InputError: it has more than PIXELS pixels, or a negative side.
    """
    if width < 0 or height < 0 or width * height > PIXELS:
        raise InputError(f"{width}x{height} pixels, at most {PIXELS} are read", where, _CURE)


def check_png(data: bytes | memoryview, where: str) -> None:
    """Refuse a PNG with a chunk that claims to be larger than the whole file.

    OpenCV gives as much memory before it looks; files that are cut off are its own affair.

    Raises:
        InputError: it has such a chunk.
    """
    if bytes(data[:8]) != b"\x89PNG\r\n\x1a\n":
        return
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length > len(data):
            text = f"a part of {length} bytes in a PNG of {len(data)}"
            raise InputError(text, where, "download or record it again")
        at += 12 + length


def check_points(count: int, where: str) -> None:
    """Refuse a scan of more than POINTS points.

    Raises:
        InputError: it has more.
    """
    if count > POINTS:
        raise InputError(f"{count} points, at most {POINTS} are read", where, _CURE)


def check_instances(message: Any, where: str) -> None:
    """Refuse an AmodalInstanceArray whose numbers would cost memory or time for ever.

    Args:
        message: of rosbags or rclpy.
        where: its topic.

    Raises:
        InputError: its size, the number of its instances, a class id, the number of classes or
            the length of an embedding is beyond the limits.
    """
    items = message.instances
    check_image(int(message.width), int(message.height), where)
    if len(items) > INSTANCES:
        raise InputError(f"{len(items)} instances, at most {INSTANCES} are read", where, _CURE)
    listed = len(getattr(message, "classes", ()))
    for item in items:
        listed = max(listed, len(getattr(item, "class_probabilities", ())))
        if not 0 <= int(item.class_id) < CLASSES:
            text = f"class_id {item.class_id}, from 0 to {CLASSES - 1} are read"
            raise InputError(text, where, "number the classes from 0")
        if len(item.embedding) > EMBEDDING:
            text = f"an embedding of {len(item.embedding)} numbers, at most {EMBEDDING} are read"
            raise InputError(text, where, _CURE)
    if listed > CLASSES:
        raise InputError(f"{listed} classes, at most {CLASSES} are read", where, _CURE)
