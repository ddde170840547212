"""The film of a replay: drawn in a thread of its own, bounded, in order, whole or not there."""

from __future__ import annotations

import errno
from threading import Event, Thread

import av
import cv2
import numpy as np
import pytest
from test_overlay import _tracks

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
        frames.append((Frame(k * 10**8, image), _tracks(boxes, [5.0 + n for n in range(count)])))
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
    with VideoWriter(tmp_path / "v.mp4", 10, (41 + 10, 63)) as video:
        for _ in range(3):
            video.write(smooth, smooth[:10])
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert [f.shape for f in frames] == [(52, 64, 3)] * 3
    expected = np.vstack([smooth, smooth[:10]]).astype(int)
    assert np.abs(frames[1][:51, :63] - expected).mean() < 10
    assert frames[1][:, 63:].mean() < 60  # a black column, as far as colours of 2 x 2 pixels go
