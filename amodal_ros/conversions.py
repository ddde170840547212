"""The ROS side of `amodal_core.bags`: messages of the generated classes, images by cv_bridge."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from cv_bridge import CvBridge

from amodal_core.bags import images
from amodal_core.bags.factory import ClassFactory

# What cv_bridge converts to RGB exactly as `amodal_core.bags.images`, in every version. It does not
# read NV12; 8UC3 it takes for whatever is asked for, and from compressed images of 16 bits Humble's
# drops the lower byte and turns JPEGs as their EXIF says.
BRIDGED = frozenset(("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16"))
_BRIDGE = CvBridge()


def message_class(full_name: str) -> type:
    """The class of a full type name, such as sensor_msgs/msg/Image.

    Raises:
        ImportError: the package that defines it is not installed.
    """
    package, _, name = full_name.replace("/msg/", "/").partition("/")
    cls: type = getattr(import_module(f"{package}.msg"), name)
    return cls


class _RosFactory(ClassFactory):
    """Makes messages of the generated classes."""

    def image(self, pixels: np.ndarray, encoding: str, header: Any) -> Any:
        """See MessageFactory."""
        return _BRIDGE.cv2_to_imgmsg(pixels, encoding, header)


FACTORY = _RosFactory(message_class)


def read_image(message: Any, where: str = "image") -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image or CompressedImage.

    By cv_bridge where that gives what an offline replay reads, and else by what that reads with.

    Raises:
        InputError: an encoding or a compression that is not read, or wrong sizes.
    """
    if getattr(message, "encoding", "") in BRIDGED:
        images.check_layout(message, where)
        return np.asarray(_BRIDGE.imgmsg_to_cv2(message, "rgb8"))
    return images.read_image(message, where)
