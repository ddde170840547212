"""The film of a replay: its video and the key frames of its report, drawn beside the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType

import cv2
import numpy as np

from amodal_core.frame import Frame, Report, Tracks
from amodal_core.views.overlay import draw_overlay, enlarge
from amodal_core.views.panel import draw_panel, panel_height
from amodal_core.views.report.record import PARTLY_HIDDEN, KeyFrame
from amodal_core.views.video import VideoWriter

_KEY_FRAMES = 6
# Frames that wait for their drawing; with more the pipeline waits, so that memory is bounded.
_WAITING = 8


class Film:
    """Draws and encodes in a thread of its own, frame after frame, while the next are computed.

    Args:
        path: of the video, None for key frames alone.
        ahead: the drive's first frames, whose size and rate are the video's.
        classes: class names.
        expected: frames of the drive; a key frame is chosen from each sixth of them.

    Attributes:
        key_frames: of each sixth the frame with most to see, when the film has ended.
        timings: milliseconds of each frame drawn, by stage: "overlay", "panel".

    Raises:
        InputError: the video cannot be written.
    """

    def __init__(
        self, path: Path | None, ahead: Sequence[Frame], classes: Sequence[str], expected: int
    ) -> None:
        self.key_frames: list[KeyFrame] = []
        self.timings: dict[str, list[float]] = {}
        self._classes, self._expected = classes, expected
        self._start = ahead[0].stamp
        self._frames = 0
        self._segment, self._best = -1, -1.0
        self._chosen: tuple[int, Frame, Tracks, np.ndarray | None] | None = None
        self._video = None if path is None else _writer(path, ahead)
        self._queue: Queue[tuple[int, Frame, Tracks] | None] = Queue(_WAITING)
        self._error: BaseException | None = None
        self._given_up = False
        self._thread = Thread(target=self._run, name="film", daemon=True)

    def show(self, frame: Frame, tracks: Tracks) -> None:
        """Take the drive's next frame; waits while many wait.

        Raises:
            InputError: a frame before it could not be written.
        """
        number = self._frames
        self._frames += 1
        if frame.image is not None:
            self._queue.put((number, frame, tracks))
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Film:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Wait until all is drawn and the video is whole, or leave none where something failed."""
        self._given_up = kind is not None
        self._queue.put(None)
        self._thread.join()
        failed = error if error is not None else self._error
        if self._video is not None:
            self._video.__exit__(type(failed) if failed is not None else None, failed, at)
        if error is None and failed is not None:
            raise failed

    def _run(self) -> None:
        """The thread: what comes after a failure is taken and left, so that nobody waits for it."""
        while (item := self._queue.get()) is not None:
            if self._given_up or self._error is not None:
                continue
            try:
                self._draw(*item)
            except BaseException as error:
                self._error = error
        if not self._given_up and self._error is None:
            self._keep()

    def _draw(self, number: int, frame: Frame, tracks: Tracks) -> None:
        segment = number * _KEY_FRAMES // self._expected
        interest = float(np.minimum(tracks.occlusion_rates, 1.0 - tracks.occlusion_rates).sum())
        interest += 0.01 * len(tracks)
        picture = None
        if self._video is not None:
            picture = self._overlay(frame, tracks)
            report = Report()
            with report.time("panel"):
                panel = draw_panel(frame, tracks, picture.shape[1], self._classes)
            self._note(report)
            self._video.write(picture, panel)
        if segment != self._segment:
            self._keep()
        elif interest <= self._best:
            return
        self._segment, self._best = segment, interest
        self._chosen = number, frame, tracks, picture

    def _keep(self) -> None:
        """Make the frame chosen of a segment a key frame; without a video only these are drawn."""
        if self._chosen is None:
            return
        number, frame, tracks, picture = self._chosen
        if picture is None:
            picture = self._overlay(frame, tracks)
        self._chosen = None
        coded = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 88))[1]
        hidden = int((tracks.occlusion_rates >= PARTLY_HIDDEN).sum())
        since = (frame.stamp - self._start) * 1e-9
        caption = (
            f"frame {number}, {since:.1f} s: {len(tracks)} tracks, "
            f"{hidden} partly hidden, {int(tracks.coasted.sum())} carried on unseen"
        )
        self.key_frames.append(KeyFrame(number, coded.tobytes(), caption))

    def _overlay(self, frame: Frame, tracks: Tracks) -> np.ndarray:
        assert frame.image is not None
        report = Report()
        large, factor = frame.image, _enlargement(frame.image.shape[1])
        if factor > 1:
            large, tracks = enlarge(frame.image, tracks, factor)
        with report.time("overlay"):
            picture = draw_overlay(large, tracks, self._classes)
        self._note(report)
        return picture

    def _note(self, report: Report) -> None:
        for stage, ms in report.timings.items():
            self.timings.setdefault(stage, []).append(ms)


def _writer(path: Path, ahead: Sequence[Frame]) -> VideoWriter:
    """The video's writer, at the rate of the drive's first two frames."""
    period = (ahead[-1].stamp - ahead[0].stamp) * 1e-9
    rate = min(max(1 / period, 1.0), 60.0) if period > 0 else 10.0
    factor = _enlargement(ahead[0].size[1])
    height, width = (n * factor for n in ahead[0].size)
    return VideoWriter(path, round(rate, 1), (height + panel_height(width), width))


def _enlargement(width: int) -> int:
    """How many times larger images of this width are drawn: about as wide as KITTI's."""
    return max(1, min(4, round(1100 / width)))
