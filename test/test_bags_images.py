"""Images as cameras send them, to RGB and depth; built byte by byte."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from amodal_core.bags.images import read_depth, read_image
from amodal_core.errors import InputError


def _image(encoding: str, rows: np.ndarray, pad: int = 0, big: bool = False) -> SimpleNamespace:
    """An Image message from (H, bytes of a row) uint8, with bytes of padding after each row."""
    height, row = rows.shape
    padded = np.full((height, row + pad), 99, np.uint8)
    padded[:, :row] = rows
    channels = {"mono8": 1, "rgba8": 4, "bgra8": 4, "16UC1": 2, "32FC1": 4}.get(encoding, 3)
    return SimpleNamespace(
        height=height,
        width=row // channels,
        encoding=encoding,
        is_bigendian=int(big),
        step=row + pad,
        data=padded.ravel(),
    )


RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize("holder", [np.asarray, lambda d: array("B", d.tobytes()), bytes, list])
def test_every_colour_encoding_gives_the_same_rgb(pad, holder):
    alpha = np.full((2, 3, 1), 7, np.uint8)
    layouts = {
        "rgb8": RGB,
        "bgr8": RGB[..., ::-1],
        "rgba8": np.concatenate([RGB, alpha], axis=2),
        "bgra8": np.concatenate([RGB[..., ::-1], alpha], axis=2),
    }
    for encoding, pixels in layouts.items():
        message = _image(encoding, pixels.reshape(2, -1), pad)
        message.data = holder(message.data)
        np.testing.assert_array_equal(read_image(message), RGB, err_msg=encoding)
    grey = read_image(_image("mono8", RGB[..., 0], pad))
    np.testing.assert_array_equal(grey, np.repeat(RGB[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "jpeg"}, "encoding 'jpeg' where one of rgb8, bgr8.*rosbags and OpenCV"),
        ({"encoding": "16UC1"}, "encoding '16UC1'"),
        ({"encoding": "mono16", "width": 5}, "step 9 is shorter than 10 bytes"),
        ({"encoding": "yuv422", "width": 3}, "an image of 3x2 yuv422 pixels"),
        ({"encoding": "nv12", "width": 2}, "18 bytes of data where height x step needs 27"),
        ({"step": 8}, "step 8 is shorter than 9 bytes"),
        ({"height": 3}, "18 bytes of data where height x step needs 27"),
        ({"height": 0}, "an image of 3x0 pixels"),
    ],
)
def test_images_that_cannot_be_read_are_refused_with_the_topic(change, words):
    message = _image("rgb8", RGB.reshape(2, -1))
    vars(message).update(change)
    with pytest.raises(InputError, match=words) as caught:
        read_image(message, "/camera/image")
    assert caught.value.where == "/camera/image"
    assert caught.value.cure


@pytest.mark.parametrize("order", ["<", ">"])
def test_depth_is_metres_with_zero_for_no_return(order):
    metres = np.array([[1.5, np.nan, np.inf], [-1.0, 0.0, 80.25]], f"{order}f4")
    rows = metres.view(np.uint8).reshape(2, -1)
    result = read_depth(_image("32FC1", rows, 4, order == ">"))
    np.testing.assert_array_equal(result, np.array([[1.5, 0, 0], [0, 0, 80.25]], np.float32))
    millimetres = np.array([[1500, 0, 65535]], f"{order}u2")
    rows = millimetres.view(np.uint8).reshape(1, -1)
    result = read_depth(_image("16UC1", rows, 0, order == ">"))
    np.testing.assert_allclose(result, [[1.5, 0, 65.535]], rtol=1e-6)
    with pytest.raises(InputError, match="encoding 'rgb8' where one of 32FC1, 16UC1"):
        read_depth(_image("rgb8", RGB.reshape(2, -1)))


def _message(encoding: str, rows: np.ndarray, width: int, height: int = 0, pad: int = 6):
    """A message of any encoding from its rows of bytes, with padding after each."""
    rows = rows.view(np.uint8).reshape(len(rows), -1)
    made = _image(encoding, rows, pad)
    made.width, made.height = width, height or len(rows)
    return made


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_become_eight(order):
    samples = np.array([0, 128, 129, 257, 32768, 65535, 65535 - 128, 255], np.uint16)
    # As cv_bridge: times 255 / 65535 and rounded.
    eight = np.array([0, 0, 1, 1, 128, 255, 255, 1], np.uint8)
    pixels = np.resize(samples, (4, 6, 3))
    expected = np.resize(eight, (4, 6, 3))
    alpha = np.full((4, 6, 1), 9, np.uint16)
    layouts = {
        "rgb16": pixels,
        "bgr16": pixels[..., ::-1],
        "16UC3": pixels[..., ::-1],
        "rgba16": np.concatenate([pixels, alpha], axis=2),
        "bgra16": np.concatenate([pixels[..., ::-1], alpha], axis=2),
    }
    for encoding, values in layouts.items():
        message = _message(encoding, np.ascontiguousarray(values, f"{order}u2"), 6)
        message.is_bigendian = int(order == ">")
        np.testing.assert_array_equal(read_image(message), expected, err_msg=encoding)
    message = _message("mono16", np.ascontiguousarray(pixels[..., 0], f"{order}u2"), 6)
    message.is_bigendian = int(order == ">")
    grey = np.repeat(expected[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_image(message), grey)


def test_opencvs_own_types_are_blue_green_red():
    rows = np.ascontiguousarray(RGB[..., ::-1])
    np.testing.assert_array_equal(read_image(_message("8UC3", rows, 3)), RGB)
    alpha = np.concatenate([rows, rows[..., :1]], axis=2)
    np.testing.assert_array_equal(read_image(_message("8UC4", alpha, 3)), RGB)
    grey = np.repeat(RGB[..., :1], 3, axis=2)
    np.testing.assert_array_equal(
        read_image(_message("8UC1", np.ascontiguousarray(RGB[..., 0]), 3)), grey
    )


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_colour_filter_over_plain_colours_gives_these_colours(pattern, bits):
    """Left half one colour, right half another; away from the edges each pixel is exact."""
    picture = np.empty((8, 16, 3), np.uint8)
    picture[:, :8], picture[:, 8:] = (200, 90, 30), (10, 120, 250)
    rows, columns = np.mgrid[:8, :16]
    channel = np.array(["rgb".index(c) for c in pattern])[rows % 2 * 2 + columns % 2]
    samples = np.take_along_axis(picture, channel[..., None], axis=2)[..., 0]
    if bits == 16:
        samples = samples.astype("<u2") * 257
    result = read_image(_message(f"bayer_{pattern}{bits}", samples, 16))
    inside = np.r_[1:6, 10:15]
    np.testing.assert_array_equal(result[1:7][:, inside], picture[1:7][:, inside])


def _yuv(rgb: np.ndarray) -> np.ndarray:
    """Y, Cb, Cr of ITU-R BT.601, limited range, from its definition."""
    r, g, b = (rgb[..., k] / 255.0 for k in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb, cr = (b - y) / 1.772, (r - y) / 1.402
    return np.round(np.stack([16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr], -1)).astype(np.uint8)


@pytest.mark.parametrize(
    "encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"]
)
def test_chroma_of_every_order_gives_the_colours(encoding):
    colours = np.array(
        [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 255), (0, 0, 0), (180, 90, 40)]],
        np.uint8,
    )
    rgb = colours.repeat(4, axis=0).repeat(4, axis=1)
    y, u, v = np.moveaxis(_yuv(rgb), -1, 0)
    height, width = y.shape
    if encoding == "nv24":
        rows = np.concatenate([y, np.stack([u, v], -1).reshape(2 * height, width)])
    elif encoding.startswith("nv"):
        pair = (u, v) if encoding == "nv12" else (v, u)
        chroma = np.stack([c[::2, ::2] for c in pair], -1).reshape(height // 2, width)
        rows = np.concatenate([y, chroma])
    else:
        chroma = np.where(np.arange(width) % 2 == 0, u, v)
        first = encoding in ("yuv422", "uyvy")
        rows = np.stack([chroma, y] if first else [y, chroma], -1).reshape(height, -1)
    result = read_image(_message(encoding, rows, width, height))
    assert np.abs(result.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize(("encoding", "kind"), [("16UC1", "<u2"), ("32FC1", "<f4")])
def test_depth_where_an_image_is_expected_is_refused_as_depth(encoding, kind):
    message = _message(encoding, np.zeros((4, 6), kind).view(np.uint8), 6, 4)
    with pytest.raises(InputError, match=rf"'{encoding}': a depth image.*--image-topic"):
        read_image(message)


def _compressed(stated: str, pixels: np.ndarray, suffix: str) -> SimpleNamespace:
    return SimpleNamespace(format=stated, data=cv2.imencode(suffix, pixels)[1].ravel())


def test_compressed_images_are_the_pixels_that_were_compressed():
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 256, (4, 6, 3), np.uint8), (48, 32))
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    png = {"png": bgr, "bgr8; png compressed bgr8": bgr}
    png["rgba8; png compressed bgra8"] = np.dstack([bgr, bgr[..., :1]])
    for stated, pixels in png.items():
        np.testing.assert_array_equal(read_image(_compressed(stated, pixels, ".png")), rgb)
    wide = _compressed("bgr16; png compressed bgr16", bgr.astype(np.uint16) * 257, ".png")
    np.testing.assert_array_equal(read_image(wide), rgb)
    grey = read_image(_compressed("mono8; jpeg compressed ", rgb[..., 0], ".png"))
    np.testing.assert_array_equal(grey, np.repeat(rgb[..., :1], 3, axis=2))
    for stated in ("jpeg", "rgb8; jpeg compressed bgr8"):
        lossy = read_image(_compressed(stated, bgr, ".jpg")).astype(int)
        assert np.abs(lossy - rgb).mean() < 4


def test_a_compressed_colour_filter_is_demosaiced():
    samples = np.empty((8, 8), np.uint8)
    samples[::2, ::2], samples[1::2, 1::2] = 200, 30
    samples[::2, 1::2] = samples[1::2, ::2] = 90
    message = _compressed("bayer_rggb8; png compressed bayer_rggb8", samples, ".png")
    assert read_image(message)[2:6, 2:6].reshape(-1, 3).tolist() == [[200, 90, 30]] * 16


@pytest.mark.parametrize(
    ("stated", "data"),
    [
        ("jpeg", b""),
        ("jpeg", b"no image at all"),
        ("h264", bytes(100)),
        ("16UC1; compressedDepth png", cv2.imencode(".png", RGB)[1].tobytes()),
    ],
)
def test_what_is_no_compressed_image_is_refused_with_its_format(stated, data):
    message = SimpleNamespace(format=stated, data=array("B", data))
    with pytest.raises(InputError, match=f"of the format '{stated}' are no JPEG or PNG") as caught:
        read_image(message, "/camera/image/compressed")
    assert "without ROS" in caught.value.cure
