"""The film of a replay: drawn in a thread of its own, bounded, in order, whole or not there."""

from __future__ import annotations

import errno
from threading import Event, Thread
from unittest.mock import MagicMock

import av
import cv2
import numpy as np
import pytest
from box_scenes import tracks_seen

from amodal_core.errors import InputError
from amodal_core.frame import Frame
from amodal_core.views import film
from amodal_core.views.video import VideoWriter

SIZE = (60, 400)
CLASSES = ("car",)
# Of each sixth of twelve frames, the one with more objects is shown.
COUNTS = (1, 3, 2, 1, 0, 4, 2, 2, 5, 1, 0, 1)
SHOWN = [1, 2, 5, 6, 8, 11]


def _drive() -> list[tuple[Frame, object]]:
    frames = []
    for k, count in enumerate(COUNTS):
        image = np.full((*SIZE, 3), 10 * k, np.uint8)
        boxes = [(10 + 50 * n, 5, 40 + 50 * n, 35) for n in range(count)]
        frames.append(
            (
                Frame(k * 10**8, image),
                tracks_seen((200, 400), boxes, [5.0 + n for n in range(count)]),
            )
        )
    return frames


def _film(path, drive) -> film.Film:
    return film.Film(path, [frame for frame, _ in drive[:2]], CLASSES, len(drive))


def _play(running: film.Film, drive) -> None:
    with running:
        for frame, tracks in drive:
            running.show(frame, tracks)


def test_key_frames_are_the_same_with_a_video_and_without_which_draws_only_them(tmp_path):
    drive = _drive()
    made = []
    for path in (tmp_path / "a.mp4", None):
        made.append(_film(path, drive))
        _play(made[-1], drive)
    with_video, without = made
    assert [k.frame for k in without.key_frames] == SHOWN
    assert without.key_frames == with_video.key_frames
    assert "0.8 s: 5 tracks" in without.key_frames[4].caption
    assert len(with_video.timings["overlay"]) == len(with_video.timings["panel"]) == len(drive)
    assert len(without.timings["overlay"]) == len(SHOWN)


def test_what_is_half_hidden_is_most_to_see_and_the_caption_counts():
    """Neither what shows wholly nor what is hidden wholly tells much."""
    red, near = np.full((*SIZE, 3), (200, 30, 30), np.uint8), (10, 5, 40, 35)
    frames = [Frame(7 * 10**9 + k * 10**8, red) for k in range(4)]
    frames[1].image = None  # counts, though nothing of it can be drawn
    running = film.Film(None, frames, CLASSES, 6 * len(frames))
    with running:
        for frame, other in zip(frames, (60, 60, 25, 10), strict=True):
            boxes = [near, (other, 5, other + 30, 35), (300, 5, 330, 35)]
            running.show(frame, tracks_seen((200, 400), boxes, [5, 9, 9], coasted=[0]))
    (key,) = running.key_frames
    assert key.caption == "frame 2, 0.2 s: 3 tracks, 1 partly hidden, 1 carried on unseen"
    blue, _, shown_red = cv2.imdecode(np.frombuffer(key.jpeg, np.uint8), cv2.IMREAD_COLOR)[-5, -5]
    assert abs(int(shown_red) - 200) < 20
    assert abs(int(blue) - 30) < 20


@pytest.mark.parametrize(
    ("period", "rate"), [(50_000_000, 20.0), (10**6, 60.0), (5 * 10**9, 1.0), (0, 10.0)]
)
def test_a_video_has_the_drives_rate_and_small_images_are_enlarged(monkeypatch, period, rate):
    monkeypatch.setattr(film, "VideoWriter", MagicMock())
    drive = [(Frame(k * period, frame.image), tracks) for k, (frame, tracks) in enumerate(_drive())]
    _play(_film("a.mp4", drive), drive[:2])
    _, made, (height, width) = film.VideoWriter.call_args.args
    assert (made, width) == (rate, 3 * SIZE[1])
    written = [call.args for call in film.VideoWriter.return_value.write.call_args_list]
    assert len(written) == 2
    for images in written:
        assert [image.shape[1] for image in images] == [width, width]
        assert sum(image.shape[0] for image in images) == height


def test_frames_that_wait_are_bounded_and_the_pipeline_waits(monkeypatch):
    drive, go = _drive() * 2, Event()
    draw = film.Film._draw
    monkeypatch.setattr(film.Film, "_draw", lambda self, *a: (go.wait(10), draw(self, *a)))
    taken: list[int] = []

    def feed(running: film.Film) -> None:
        for n, (frame, tracks) in enumerate(drive):
            running.show(frame, tracks)
            taken.append(n)

    with _film(None, drive) as running:
        feeder = Thread(target=feed, args=(running,))
        feeder.start()
        feeder.join(0.5)
        assert film._WAITING <= len(taken) <= film._WAITING + 1
        go.set()
        feeder.join(10)
        assert len(taken) == len(drive)


@pytest.mark.parametrize("at", [3, len(COUNTS) - 1])
def test_a_failure_of_drawing_ends_the_replay_and_leaves_no_video(tmp_path, monkeypatch, at):
    draw = film.draw_panel

    def fails(frame: Frame, *rest):
        if frame.stamp == at * 10**8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return draw(frame, *rest)

    monkeypatch.setattr(film, "draw_panel", fails)
    drive = _drive()
    running = _film(tmp_path / "a.mp4", drive)
    with pytest.raises(InputError, match="No space left"):
        _play(running, drive * 3)
    assert not list(tmp_path.iterdir())
    assert not running._thread.is_alive()


def test_a_failure_of_the_pipeline_ends_the_thread_and_leaves_no_video(tmp_path):
    drive = _drive()
    running = _film(tmp_path / "a.mp4", drive)
    with pytest.raises(AttributeError):
        _play(running, [*drive[:2], (None, None)])
    assert not list(tmp_path.iterdir())
    assert not running._thread.is_alive()


def test_a_video_shows_images_one_below_the_other_padded_to_even_sizes(tmp_path):
    smooth = cv2.resize(np.random.default_rng(2).integers(0, 256, (4, 5, 3), np.uint8), (63, 41))
    with VideoWriter(tmp_path / "v.mp4", 12.5, (41 + 10, 63)) as video:
        for _ in range(3):
            video.write(smooth, smooth[:10])
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].average_rate == 12.5
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert [f.shape for f in frames] == [(52, 64, 3)] * 3
    expected = np.vstack([smooth, smooth[:10]]).astype(int)
    assert np.abs(frames[1][:51, :63] - expected).mean() < 10
    assert frames[1][:, 63:].mean() < 60  # a black column, as far as colours of 2 x 2 pixels go
