"""Image messages to NumPy arrays and back."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from embedded_ros.importer import absent_attribute

__getattr__ = absent_attribute(__name__)

_DEPTHS = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}
# Named encodings: dtype, channels, colour space.
_NAMED: dict[str, tuple[str, int, str]] = {
    f"{space}{bits}": (f"uint{bits}", channels, space)
    for space, channels in (("mono", 1), ("rgb", 3), ("bgr", 3), ("rgba", 4), ("bgra", 4))
    for bits in (8, 16)
}
_NAMED.update(
    {
        f"bayer_{order}{bits}": (f"uint{bits}", 1, f"bayer_{order}")
        for order in ("rggb", "bggr", "gbrg", "grbg")
        for bits in (8, 16)
    }
)
_NAMED.update(
    {
        name: ("uint8", 2, space)
        for name, space in (
            ("yuv422", "uyvy"),
            ("uyvy", "uyvy"),
            ("yuv422_yuy2", "yuyv"),
            ("yuyv", "yuyv"),
        )
    }
)
# OpenCV names a Bayer pattern by its second row's second and third pixel.
_RAW = {
    "bayer_rggb": "BayerBG",
    "bayer_bggr": "BayerRG",
    "bayer_gbrg": "BayerGR",
    "bayer_grbg": "BayerGB",
    "uyvy": "YUV",
    "yuyv": "YUV",
}
_SPACES = {"mono": "GRAY", "rgb": "RGB", "bgr": "BGR", "rgba": "RGBA", "bgra": "BGRA"}


class CvBridgeError(TypeError):
    """An image cannot be converted."""


def _describe(encoding: str) -> tuple[str, int, str | None]:
    """dtype, channels and colour space of an encoding; the space of 32FC1 and the like is None."""
    if encoding.lower() in _NAMED:
        return _NAMED[encoding.lower()]
    found = re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?", encoding)
    if not found:
        raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")
    return _DEPTHS[found[1]], int(found[2] or 1), None


def _convert(image: np.ndarray, encoding: str, desired: str) -> np.ndarray:
    dtype, channels, space = _describe(encoding)
    wanted_dtype, wanted_channels, wanted_space = _describe(desired)
    if space is None or wanted_space is None:
        if channels != wanted_channels:
            raise CvBridgeError(f"cannot convert [{encoding}] to [{desired}]")
        return image.astype(wanted_dtype)
    if space != wanted_space:
        target = _SPACES.get(wanted_space)
        if target is None:
            raise CvBridgeError(f"cannot convert [{encoding}] to [{desired}]")
        source = _RAW.get(space) or _SPACES[space]
        suffix = {"uyvy": "_UYVY", "yuyv": "_YUYV"}.get(space, "")
        code = getattr(cv2, f"COLOR_{source}2{target}{suffix}", None)
        if code is None:
            raise CvBridgeError(f"cannot convert [{encoding}] to [{desired}]")
        image = cv2.cvtColor(image, code)
    if dtype == wanted_dtype:
        return image
    # Between 8 and 16 bits the full range is kept.
    scale = 255 / 65535 if wanted_dtype == "uint8" else 65535 / 255
    return np.rint(image * scale).astype(wanted_dtype)


class CvBridge:
    """Converts sensor_msgs/Image and CompressedImage."""

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """NumPy dtype name and channels of an encoding."""
        return _describe(encoding)[:2]

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
        if not isinstance(cvim, np.ndarray) or cvim.ndim not in (2, 3):
            raise TypeError("Your input type is not a numpy array of 2 or 3 dimensions")
        channels = 1 if cvim.ndim == 2 else cvim.shape[2]
        depths = {name: depth for depth, name in _DEPTHS.items()}
        if cvim.dtype.name not in depths:
            raise CvBridgeError(f"no encoding holds {cvim.dtype}")
        if encoding == "passthrough":
            encoding = f"{depths[cvim.dtype.name]}C{channels}"
        elif _describe(encoding)[:2] != (cvim.dtype.name, channels):
            raise CvBridgeError(
                f"encoding specified as {encoding}, but image has incompatible type "
                f"{depths[cvim.dtype.name]}C{channels}"
            )
        image = np.ascontiguousarray(cvim.astype(cvim.dtype.newbyteorder("<"), copy=False))
        message = Image(
            height=cvim.shape[0],
            width=cvim.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=cvim.shape[1] * channels * cvim.dtype.itemsize,
            # Copied: the caller may draw on while the message waits.
            data=image.tobytes(),
        )
        if header is not None:
            message.header = header
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: Any, desired_encoding: str = "passthrough"
    ) -> np.ndarray:
        """The decoded image, bgr8 or mono8 where nothing else is desired."""
        packed = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
        if image is None:
            raise CvBridgeError(f"cannot decode a [{cmprs_img_msg.format}] image")
        if desired_encoding == "passthrough":
            return image
        bits = image.dtype.itemsize * 8
        space = {2: "mono", 3: "bgr"}.get(image.ndim, "bgr")
        if image.ndim == 3 and image.shape[2] == 4:
            space = "bgra"
        return _convert(image, f"{space}{bits}", desired_encoding)

    def cv2_to_compressed_imgmsg(self, cvim: np.ndarray, dst_format: str = "jpg") -> Any:
        """A sensor_msgs/CompressedImage of an array."""
        done, packed = cv2.imencode(f".{dst_format}", cvim)
        if not done:
            raise CvBridgeError(f"cannot encode {cvim.dtype} {cvim.shape} as {dst_format}")
        return CompressedImage(format=dst_format, data=packed.tobytes())
