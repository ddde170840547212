"""H.264 videos that browsers play, whole or not there."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from amodal_core.errors import InputError
from amodal_core.files import atomic


class VideoWriter:
    """Writes RGB frames as H.264, yuv420p, with the index at the front.

    Args:
        path: the .mp4 file; it is replaced when the video is whole.
        rate: frames a second.
        size: (height, width) of the frames in pixels; odd ones gain a black row or column, because
            yuv420p halves both.
        quality: x264's constant rate factor: 18 is visually lossless, 28 small.

    Raises:
        InputError: the file cannot be written, or this FFmpeg has no H.264 encoder.
    """

    def __init__(
        self, path: str | Path, rate: float, size: tuple[int, int], quality: int = 20
    ) -> None:
        self.path = Path(path)
        self._ending = ExitStack()
        part = self._ending.enter_context(atomic(path))
        self._height, self._width = (n + n % 2 for n in size)
        try:
            self._container = av.open(
                str(part), "w", format="mp4", options={"movflags": "+faststart"}
            )
            self._stream = self._container.add_stream(
                "libx264",
                rate=Fraction(rate).limit_denominator(1000),
                options={"crf": str(quality), "preset": "superfast"},
            )
        except (OSError, ValueError, av.FFmpegError) as error:
            self._ending.__exit__(type(error), error, None)
            raise InputError(
                f"cannot write a video: {error}", str(path), "replay with --no-video"
            ) from error
        self._ending.callback(self._container.close)
        self._ending.push(self._finish)
        self._stream.width, self._stream.height = self._width, self._height
        self._stream.pix_fmt = "yuv420p"

    def write(self, *images: np.ndarray) -> None:
        """Append a frame: one or more (H, W, 3) uint8 RGB, one below the other."""
        frame = av.VideoFrame(self._width, self._height, "rgb24")
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(self._height, plane.line_size)
        pixels = rows[:, : 3 * self._width].reshape(self._height, self._width, 3)
        top = 0
        for image in images:
            height = min(image.shape[0], self._height - top)
            width = min(image.shape[1], self._width)
            pixels[top : top + height, :width] = image[:height, :width]
            pixels[top : top + height, width:] = 0
            top += height
        pixels[top:] = 0
        # Colours of 2 x 2 pixels are their mean.
        halved = frame.reformat(format="yuv420p", interpolation="AREA")
        for packet in self._stream.encode(halved):
            self._container.mux(packet)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._ending.__exit__(*raised)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for packet in self._stream.encode():
                self._container.mux(packet)
