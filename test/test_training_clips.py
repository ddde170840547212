"""Clips: which frames are learnt from together, changed alike, and put in which order."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from training_scenes import (
    CLASSES,
    SIZE,
    Drives,
    Streets,
    Tiny,
    register_tiny,
    run_config,
    write_drives,
)

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.learned import Clip
from training import engine, state
from training.clips import clip_for
from training.config import Augment, ClipConfig
from training.data import Augmented
from training.sources import Samples
from training.train import train

EPOCHS = 60


def sources(*data):
    return [(d, range(len(d))) for d in data]


def clips_of(data, clip, options=None, seed=0, **inputs):
    samples = Samples(sources(*data) if isinstance(data, tuple) else sources(data), CLASSES, {})
    inputs = {"depth": False, "points": False} | inputs
    return Augmented(samples, options or Augment(flip=0), seed, clip=clip, **inputs)


def places(items):
    return [(item.video, item.index) for item in items]


def test_every_frame_is_a_key_frame_and_references_are_drawn_evenly_from_those_in_reach():
    read = clips_of(Drives((9,)), Clip(2, reach=3))
    references = []
    for epoch in range(EPOCHS):
        for k in range(9):
            key, reference = read[epoch, k]
            assert key.index == k
            if k == 4:
                references.append(reference.index)
    found, counts = np.unique(references, return_counts=True)
    assert found.tolist() == [1, 2, 3, 5, 6, 7]
    assert counts.min() > EPOCHS / 6 / 3
    assert places(read[0, 4]) == places(read[0, 4])


def test_pairs_do_not_leave_their_video_though_names_are_the_same_in_another_set():
    # Two data sets, each with the videos drive0 and drive1, of different streets.
    read = clips_of((Drives((2, 2)), Drives((2, 2), first=20)), Clip(2, reach=3))
    shown = {k: read[0, k][0].targets.boxes for k in range(8)}
    partner = {0: 1, 1: 0, 2: 3, 3: 2, 4: 5, 5: 4, 6: 7, 7: 6}
    for k in range(8):
        for epoch in range(4):
            assert torch.equal(read[epoch, k][1].targets.boxes, shown[partner[k]])


def test_pairs_that_share_nothing_are_drawn_again_and_the_next_key_frame_is_taken():
    data = Drives((5,))
    for k, sample in enumerate(data.samples):
        sample.truth.ids += 10 if k in (2, 3) else 0
    read = clips_of(data, Clip(2, reach=1))
    for epoch in range(10):
        pairs = [tuple(i.index for i in read[epoch, k]) for k in range(5)]
        # Frame 4 has only frame 3 in reach, with other objects: frame 0 stands in for it.
        assert pairs == [(0, 1), (1, 0), (2, 3), (3, 2), (0, 1)]


def test_ignored_objects_make_no_pair_and_frames_without_annotation_are_no_part_of_one():
    data = Drives((3,))
    data.samples[1].truth = None
    data.samples[2].truth.ignore = np.ones(len(data.samples[2].truth), bool)
    error = clips_of(data, Clip(2, reach=2))[0, 0]
    assert isinstance(error, InputError)
    assert "none that two frames of a clip share" in str(error)


def test_windows_are_consecutive_cover_their_frame_and_start_anywhere():
    read = clips_of(Drives((9, 3)), Clip(4))
    starts = set()
    for epoch in range(EPOCHS):
        for k in range(9):
            found = places(read[epoch, k])
            first = found[0][1]
            assert found == [("drive0", first + n) for n in range(4)]
            assert first <= k < first + 4
            starts.add(first)
    assert starts == set(range(6))


def test_the_last_frame_of_a_short_video_is_repeated():
    read = clips_of(Drives((5, 3)), Clip(4))
    for k in (5, 6, 7):
        assert places(read[0, k]) == [("drive1", n) for n in (0, 1, 2, 2)]


def test_windows_pass_over_frames_without_annotation():
    data = Drives((6,))
    data.samples[1].truth = None
    read = clips_of(data, Clip(3))
    found = {tuple(i.index for i in read[epoch, 1]) for epoch in range(EPOCHS)}
    assert found == {(0, 2, 3), (2, 3, 4)}


@pytest.mark.parametrize("clip", [Clip(2, reach=3), Clip(4)])
def test_all_frames_of_a_clip_are_changed_alike(clip):
    data = Drives((6,))
    options = Augment(
        flip=0.5, scale=(0.6, 1.4), crop=(60, 40), brightness=0.4, hue=0.3,
        depth_dropout=0.5, point_dropout=0.5,
    )  # fmt: skip
    # The same picture everywhere: what differs would have been changed otherwise. Scans differ in
    # length, so that draws for points may not reach into what comes after them.
    first = data.samples[0].frame
    for k, sample in enumerate(data.samples):
        sample.frame.image = first.image
        sample.frame.points = first.points[: len(first.points) - 7 * k]
    read = clips_of(data, clip, options, depth=True)
    blind, pictures = [], set()
    for epoch in range(12):
        items = read[epoch, 2]
        assert all(np.array_equal(i.frame.image, items[0].frame.image) for i in items)
        known = [bool(i.frame.depth.any()) for i in items]
        assert len(set(known)) == 1
        blind.append(not known[0])
        pictures.add(items[0].frame.image.tobytes())
    assert len(pictures) == 12
    assert 0 < sum(blind) < 12


def test_single_images_are_refused_where_clips_are_needed_and_else_videos_of_one():
    data = Streets(2)
    for sample in data.samples:
        sample.video = ""
    both = Samples(sources(data, Drives((2,))), CLASSES, {})
    assert both.videos(singles=True) == [[0], [1], [2, 3]]
    with pytest.raises(InputError, match="'street/0000' belongs to no video"):
        clips_of(data, Clip(2, reach=3))


class Pairing(Tiny):
    """Learns from pairs; keeps what it was given."""

    name = "pairing"
    clip = Clip(2, reach=3)
    given: list = []  # noqa: RUF012

    def losses(self, batch):
        self.given.append((batch.clip, list(zip(batch.videos, batch.indices, strict=True))))
        return super().losses(batch)


class Watching(Tiny):
    """Learns from windows."""

    name = "watching"
    clip = Clip(12)


@pytest.fixture(autouse=True)
def models(monkeypatch):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    register_tiny()
    registry._MODELS["pairing"] = ("test_training_clips:Pairing", "for tests")
    Pairing.given.clear()


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    return write_drives(tmp_path_factory.mktemp("drives") / "train", 4, 3)


def test_the_configuration_decides_within_what_the_model_can_learn_from():
    assert clip_for(Tiny, None) is None
    assert clip_for(Pairing, ClipConfig()) == Clip(2, 3)
    assert clip_for(Pairing, ClipConfig(reach=5)) == Clip(2, 5)
    assert clip_for(Watching, ClipConfig(frames=6)) == Clip(6)


@pytest.mark.parametrize(
    ("kind", "asked", "says"),
    [
        (Tiny, ClipConfig(), "'tiny' learns from single frames"),
        (Pairing, None, r"'pairing' learns from clips.*add `clip: \{frames: 2, reach: 3\}`"),
        (Watching, None, r"'watching' learns from clips.*add `clip: \{frames: 12\}`"),
        (Pairing, ClipConfig(frames=3), "from pairs, not from 3 frames"),
        (Watching, ClipConfig(reach=3), "learns from consecutive frames"),
    ],
)
def test_clips_that_do_not_fit_the_model_are_named(kind, asked, says):
    with pytest.raises(InputError, match=says):
        clip_for(kind, asked)


def test_a_step_takes_so_many_clips_their_frames_in_a_row(drives, tmp_path):
    train(run_config(tmp_path / "run", drives, model="pairing", clip={}, batch_size=3, steps=2))
    assert len(Pairing.given) == 2
    for clip, frames in Pairing.given:
        assert (clip, len(frames)) == (2, 6)
        for (video, k), (other, n) in zip(frames[::2], frames[1::2], strict=True):
            assert video == other
            assert 1 <= abs(k - n) <= 3


def test_a_stopped_run_of_clips_goes_on_to_the_very_same_weights(drives, tmp_path, monkeypatch):
    values = {
        "model": "pairing", "clip": {"reach": 2}, "steps": 4, "accumulate": 2, "workers": 2,
        "augment": {"flip": 0.5, "scale": [0.8, 1.2], "depth_dropout": 0.3},
    }  # fmt: skip
    train(run_config(tmp_path / "whole", drives, **(values | {"workers": 0})))
    taken = engine.Trainer.step

    def told(self, number, *rest):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "step", told)
        train(run_config(tmp_path / "parts", drives, **values))
    train(run_config(tmp_path / "parts", drives, **values))
    a, b = (
        torch.load(tmp_path / n / state.LAST, weights_only=True)["model"]
        for n in ("whole", "parts")
    )
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_model_of_single_frames_is_given_clips_of_one():
    batch = engine.batch_of(clips_of(Streets(1), None)[0, 0], 1, torch.device("cpu"))
    assert (batch.clip, len(batch), batch.sizes) == (1, 1, [SIZE])
