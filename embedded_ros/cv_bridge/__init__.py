"""Image messages to NumPy arrays and back."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import Image

from embedded_ros.importer import Partial, refuse

_DEPTHS = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}
# Named encodings: dtype, channels, colour space in OpenCV's words.
_NAMED = {
    "mono8": ("uint8", 1, "GRAY"),
    "mono16": ("uint16", 1, "GRAY"),
    "rgb8": ("uint8", 3, "RGB"),
    "bgr8": ("uint8", 3, "BGR"),
    "rgba8": ("uint8", 4, "RGBA"),
    "bgra8": ("uint8", 4, "BGRA"),
}


class CvBridgeError(TypeError):
    """An image cannot be converted."""


def _describe(encoding: str) -> tuple[str, int, str | None]:
    """dtype, channels and colour space of an encoding; the space of 32FC1 and the like is None."""
    if encoding in _NAMED:
        return _NAMED[encoding]
    if encoding.startswith(("bayer_", "yuv", "uyvy", "yuyv", "nv", "rgb16", "bgr16", "bgra16")):
        refuse(f"cv_bridge.CvBridge with encoding [{encoding}]")
    match = re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?", encoding)
    if not match:
        raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")
    return _DEPTHS[match[1]], int(match[2] or 1), None


def _convert(image: np.ndarray, encoding: str, desired: str) -> np.ndarray:
    dtype, channels, space = _describe(encoding)
    wanted_dtype, wanted_channels, wanted_space = _describe(desired)
    if space is None or wanted_space is None:
        if channels != wanted_channels:
            raise CvBridgeError(f"cannot convert [{encoding}] to [{desired}]")
        return image.astype(wanted_dtype)
    if space != wanted_space:
        image = cv2.cvtColor(image, getattr(cv2, f"COLOR_{space}2{wanted_space}"))
    if dtype == wanted_dtype:
        return image
    # Between 8 and 16 bits the full range is kept.
    scale = 255 / 65535 if wanted_dtype == "uint8" else 65535 / 255
    return np.rint(image * scale).astype(wanted_dtype)


class CvBridge(Partial):
    """Converts sensor_msgs/Image."""

    _absent = (
        "compressed_imgmsg_to_cv2 cv2_to_compressed_imgmsg cvtype2_to_dtype_with_channels "
        "dtype_with_channels_to_cvtype2 encoding_to_cvtype2 encoding_to_dtype_with_channels"
    )

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> np.ndarray:
        """The image as a writable array of its own, (H, W) or (H, W, C), in native byte order.

        Args:
            img_msg: sensor_msgs/Image.
            desired_encoding: what to convert to; "passthrough" keeps the message's.

        Raises:
            CvBridgeError: encoding, size and data contradict each other, or it cannot be converted.
        """
        name, channels, _ = _describe(img_msg.encoding)
        dtype = np.dtype(name).newbyteorder(">" if img_msg.is_bigendian else "<")
        height, width, step = img_msg.height, img_msg.width, img_msg.step
        if step < width * channels * dtype.itemsize or len(img_msg.data) < step * height:
            raise CvBridgeError(
                f"Image is wrongly formed: {width}x{height} [{img_msg.encoding}] with step {step} "
                f"does not fit {len(img_msg.data)} bytes"
            )
        strides = (step, channels * dtype.itemsize, dtype.itemsize)
        view = np.ndarray((height, width, channels), dtype, img_msg.data, 0, strides)
        image = np.array(view, dtype=name, order="C")
        if channels == 1:
            image = image[:, :, 0]
        if desired_encoding in ("passthrough", img_msg.encoding):
            return image
        return _convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: np.ndarray, encoding: str = "passthrough", header: Any = None
    ) -> Any:
        """A sensor_msgs/Image of an array (H, W) or (H, W, C).

        Raises:
            CvBridgeError: the array is not of this encoding.
        """
        channels = 1 if cvim.ndim == 2 else cvim.shape[2]
        depth = next((d for d, name in _DEPTHS.items() if name == cvim.dtype.name), None)
        if depth is None:
            raise CvBridgeError(f"no encoding holds {cvim.dtype}")
        if encoding == "passthrough":
            encoding = f"{depth}C{channels}"
        elif _describe(encoding)[:2] != (cvim.dtype.name, channels):
            raise CvBridgeError(
                f"encoding specified as {encoding}, but image has incompatible type "
                f"{depth}C{channels}"
            )
        # Copied: the caller may draw on while the message waits.
        pixels = cvim.astype(cvim.dtype.newbyteorder("<"), copy=False).tobytes()
        message = Image(
            height=cvim.shape[0],
            width=cvim.shape[1],
            encoding=encoding,
            step=cvim.shape[1] * channels * cvim.dtype.itemsize,
            data=pixels,
        )
        if header is not None:
            message.header = header
        return message
