"""Nodes read and make images through cv_bridge, and get what an offline replay gets."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts cv_bridge in place

import cv2
import numpy as np
import pytest

from amodal_core.bags import images
from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import header_message, image_message
from amodal_core.errors import InputError
from amodal_ros import conversions
from amodal_ros.conversions import BRIDGED, FACTORY

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
HEIGHT, WIDTH, PADDING = 6, 8, 4
# Bytes of a pixel, and rows of data a row of the image.
LAYOUTS = {
    **{name: (size * channels, 1.0) for name, (size, channels, _) in images._COLOURS.items()},
    **{name: (size, 1.0) for name, (size, _) in images._BAYER.items()},
    **{name: (1, 1.5) if name.startswith("nv") else (2, 1.0) for name in images._YUV},
    "nv24": (1, 3.0),
}


def message_of(encoding: str, rng: np.random.Generator, big: bool = False):
    """An image of random bytes, with padding after each row."""
    pixel, planes = LAYOUTS[encoding]
    step = WIDTH * pixel + PADDING
    data = rng.integers(0, 256, step * int(HEIGHT * planes), dtype=np.uint8)
    return FACTORY.create(
        IMAGE,
        header=header_message(FACTORY, 1, "camera"),
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=int(big),
        step=step,
        data=data,
    )


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", sorted(LAYOUTS))
def test_every_encoding_is_read_as_offline(
    encoding: str, big: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = message_of(encoding, rng, big)
    expected = images.read_image(message)
    if encoding in BRIDGED:
        monkeypatch.setattr(images, "read_image", lambda *_: pytest.fail("not through cv_bridge"))
    result = conversions.read_image(message)
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert (result.dtype, result.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("suffix", "depth"), [(".png", "u1"), (".png", "u2"), (".jpg", "u1")])
def test_compressed_images_are_read_as_offline(suffix: str, depth: str, rng) -> None:
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(depth)
    data = cv2.imencode(suffix, pixels)[1]
    message = FACTORY.create(COMPRESSED, format=suffix[1:], data=data.ravel())
    np.testing.assert_array_equal(conversions.read_image(message), images.read_image(message))


def test_wrong_sizes_are_refused_in_the_same_words_before_cv_bridge_sees_them(rng) -> None:
    for encoding in ("bgr8", "yuyv"):
        message = message_of(encoding, rng)
        message.height += 1
        words = []
        for read in (images.read_image, conversions.read_image):
            with pytest.raises(InputError) as caught:
                read(message, "/camera/image")
            words.append(str(caught.value))
        assert words[0] == words[1]


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3),
        np.arange(48, dtype=np.uint8).reshape(6, 8),
        np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000,
        np.linspace(0, 80, 48, dtype=np.float32).reshape(6, 8),
    ],
)
def test_images_are_made_as_offline(pixels: np.ndarray) -> None:
    live, offline = (image_message(f, pixels, 5, "camera") for f in (FACTORY, RosbagsFactory()))
    for name in ("height", "width", "encoding", "is_bigendian", "step"):
        assert getattr(live, name) == getattr(offline, name)
    assert bytes(live.data) == bytes(offline.data) == pixels.tobytes()
    assert (live.header.frame_id, live.header.stamp.nanosec) == ("camera", 5)
