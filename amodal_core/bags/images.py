"""Image and CompressedImage messages of any camera driver to RGB, and depth images to metres."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image

from amodal_core import limits
from amodal_core.errors import InputError

# Encodings of sensor_msgs/image_encodings.hpp: bytes of a sample, samples of a pixel, and which of
# them are red, green and blue. 8UCn are OpenCV's, and so is their order.
_COLOURS: dict[str, tuple[int, int, tuple[int, int, int]]] = {
    "rgb8": (1, 3, (0, 1, 2)),
    "bgr8": (1, 3, (2, 1, 0)),
    "rgba8": (1, 4, (0, 1, 2)),
    "bgra8": (1, 4, (2, 1, 0)),
    "mono8": (1, 1, (0, 0, 0)),
    "8UC1": (1, 1, (0, 0, 0)),
    "8UC3": (1, 3, (2, 1, 0)),
    "8UC4": (1, 4, (2, 1, 0)),
    "rgb16": (2, 3, (0, 1, 2)),
    "bgr16": (2, 3, (2, 1, 0)),
    "rgba16": (2, 4, (0, 1, 2)),
    "bgra16": (2, 4, (2, 1, 0)),
    "mono16": (2, 1, (0, 0, 0)),
    "16UC3": (2, 3, (2, 1, 0)),
}
# Colour filters, named by the first two rows' first two samples, and 4:2:2 and 4:2:0 chroma.
_BAYER = {
    f"bayer_{pattern}{8 * size}": (size, getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB"))
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for size in (1, 2)
}
_YUV = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
}
_DEPTHS: dict[str, np.dtype] = {"32FC1": np.dtype("f4"), "16UC1": np.dtype("u2")}


def bytes_of(data: Any) -> np.ndarray:
    """A read-only or writable uint8 view of a `uint8[]` field of either world."""
    if isinstance(data, np.ndarray):
        return data.view(np.uint8).reshape(-1)
    if isinstance(data, (list, tuple)):
        return np.asarray(data, np.uint8)
    return np.frombuffer(data, np.uint8)


def _rows(
    message: Any, pixel: np.dtype, channels: int, where: str, planes: float = 1
) -> np.ndarray:
    """(H * planes, W, channels) view of an image's pixels, row padding skipped."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = bytes_of(message.data)
    limits.check_image(width, height, where)
    need = width * channels * pixel.itemsize
    if height <= 0 or width <= 0:
        raise InputError(f"an image of {width}x{height} pixels", where, "check the camera driver")
    if step < need:
        raise InputError(
            f"step {step} is shorter than {need} bytes, a row of {width} {message.encoding} pixels",
            where,
            "check the camera driver",
        )
    rows = round(height * planes)
    if data.size != step * rows:
        raise InputError(
            f"{data.size} bytes of data where height x step needs {step * rows}",
            where,
            "the message was cut off or filled wrongly; check the camera driver",
        )
    return np.ndarray(
        (rows, width, channels),
        pixel.newbyteorder(">" if message.is_bigendian else "<"),
        data,
        strides=(step, channels * pixel.itemsize, pixel.itemsize),
    )


def check_layout(message: Any, where: str = "image") -> None:
    """Whether the sizes of an image of colours or grey fit each other.

    Raises:
        InputError: they do not.
    """
    size, channels, _ = _COLOURS[message.encoding]
    _rows(message, np.dtype(f"u{size}"), channels, where)


def read_image(message: Any, where: str = "image") -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs/Image or CompressedImage.

    A view of an rgb8 message's bytes where it can be. 16-bit samples become 8-bit ones as in
    cv_bridge (times 255 / 65535, rounded); YUV is ITU-R BT.601 of limited range, as in OpenCV.

    Raises:
        InputError: an encoding or a compression that is not read, or wrong sizes.
    """
    encoding = getattr(message, "encoding", None)
    if encoding is None:
        return _decompressed(message, where)
    if encoding in _COLOURS:
        size, channels, order = _COLOURS[encoding]
        pixels = _rows(message, np.dtype(f"u{size}"), channels, where)
        if encoding != "rgb8":
            pixels = _eight_bit(pixels)[..., list(order)]
        return np.ascontiguousarray(pixels)
    if encoding in _BAYER:
        size, code = _BAYER[encoding]
        return _demosaiced(_rows(message, np.dtype(f"u{size}"), 1, where)[..., 0], code, where)
    if encoding in _YUV:
        planar = encoding.startswith("nv")
        if message.width % 2 or (planar and message.height % 2):
            text = f"an image of {message.width}x{message.height} {encoding} pixels"
            raise InputError(text, where, "such images have even sizes; check the camera driver")
        channels, planes = (1, 1.5) if planar else (2, 1)
        pixels = _rows(message, np.dtype(np.uint8), channels, where, planes)
        return cv2.cvtColor(np.ascontiguousarray(pixels), _YUV[encoding])
    if encoding == "nv24":
        samples = _rows(message, np.dtype(np.uint8), 1, where, 3)[..., 0]
        return _nv24(samples, int(message.height))
    if encoding in _DEPTHS:
        cure = "name the colour image: --image-topic of `amodal replay`, image:= of a launch"
        raise InputError(f"encoding '{encoding}': a depth image, not a camera's", where, cure)
    known = ", ".join((*_COLOURS, *_BAYER, *_YUV, "nv24"))
    raise InputError(
        f"encoding '{encoding}' where one of {known} is expected",
        where,
        "set one of them in the camera driver, record the driver's .../compressed topic, or "
        "convert the images: image_proc does with ROS, rosbags and OpenCV do without",
    )


def _nv24(planes: np.ndarray, height: int) -> np.ndarray:
    """RGB of (3 H, W) bytes: luma, then a pair of chroma for each pixel."""
    width = planes.shape[1]
    luma = np.maximum(planes[:height].astype(np.float32) - 16, 0) * 1.164
    chroma = planes[height:].reshape(height, width, 2).astype(np.float32) - 128
    blue, red = chroma[..., 0], chroma[..., 1]
    rgb = luma + 1.596 * red, luma - 0.813 * red - 0.391 * blue, luma + 2.018 * blue
    return np.clip(np.rint(np.stack(rgb, axis=-1)), 0, 255).astype(np.uint8)


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.itemsize == 1:
        return pixels
    native = np.ascontiguousarray(pixels.astype(np.uint16, copy=False))
    return cv2.convertScaleAbs(native, alpha=255 / 65535).reshape(pixels.shape)


def _demosaiced(samples: np.ndarray, code: int, where: str) -> np.ndarray:
    """RGB of a colour filter's (H, W) samples."""
    if min(samples.shape) < 2:
        text = f"{samples.shape[1]}x{samples.shape[0]} samples of a colour filter"
        raise InputError(text, where, "check the camera driver")
    return cv2.cvtColor(np.ascontiguousarray(_eight_bit(samples)), code)


def _check_header(data: np.ndarray, where: str) -> None:
    """Refuse a compressed image that would unpack to more than fits, before it does."""
    try:
        with Image.open(BytesIO(data.tobytes())) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        width = height = limits.PIXELS
    except (OSError, ValueError, SyntaxError):
        return  # OpenCV knows more formats, and says what it cannot read
    limits.check_image(width, height, where)


def _decompressed(message: Any, where: str) -> np.ndarray:
    """RGB of a sensor_msgs/CompressedImage."""
    stated, data = str(message.format), bytes_of(message.data)
    pixels = None
    # compressedDepth has a header of its own before the PNG.
    if data.size and "compressedDepth" not in stated:
        # A camera's pixels, whatever way up a viewer would show them; its bit depth and channels.
        flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        _check_header(data, where)
        limits.check_png(np.ascontiguousarray(data).data, where)
        try:
            pixels = cv2.imdecode(np.ascontiguousarray(data), flags)
        except cv2.error:
            pixels = None
    if pixels is None or pixels.dtype.kind != "u":
        raise InputError(
            f"{data.size} bytes of the format '{stated}' are no JPEG or PNG image",
            where,
            "publish it with the image transport `compressed`; without ROS, write each image with "
            "cv2.imencode('.jpg', image)",
        )
    pixels = _eight_bit(pixels)
    if pixels.ndim == 3:
        code = cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(pixels, code)
    # One channel of a colour filter is its samples: had it been demosaiced, there would be three.
    source = stated.partition(";")[0].strip()
    if source in _BAYER:
        return _demosaiced(pixels, _BAYER[source][1], where)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def read_depth(message: Any, where: str = "depth") -> np.ndarray:
    """(H, W) float32 metres of a depth image (REP 118); 0 where there is no valid return.

    Raises:
        InputError: an encoding other than 32FC1 (metres) and 16UC1 (millimetres), or wrong sizes.
    """
    if message.encoding not in _DEPTHS:
        raise InputError(
            f"encoding '{message.encoding}' where one of {', '.join(_DEPTHS)} is expected",
            where,
            "publish depth in metres as 32FC1 or in millimetres as 16UC1",
        )
    pixels = _rows(message, _DEPTHS[message.encoding], 1, where)[..., 0]
    if message.encoding == "16UC1":
        return pixels.astype(np.float32) * np.float32(1e-3)
    depth = pixels.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    return depth
