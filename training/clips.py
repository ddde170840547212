"""Which frames are learnt from together: one, a key frame and its reference, or a window."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from amodal_core.errors import InputError
from amodal_core.frame import Sample, Tracks
from amodal_core.models.learned import Clip, LearnedModel

from .config import ClipConfig


def clip_for(kind: type[LearnedModel], asked: ClipConfig | None) -> Clip | None:
    """The clip that a model is trained with, None for single frames.

    Args:
        kind: the model's class; what the configuration leaves open is its own choice.
        asked: of the configuration.

    Raises:
        InputError: a clip for a model of single frames, none for a model of videos, or one of the
            other kind.
    """
    own = kind.clip
    if own is None:
        if asked is not None:
            raise InputError(f"'{kind.name}' learns from single frames", "clip", "leave it out")
        return None
    cure = f"clip: {{frames: {own.frames}" + (f", reach: {own.reach}}}" if own.reach else "}")
    if asked is None:
        raise InputError(f"'{kind.name}' learns from clips of videos", "clip", f"add `{cure}`")
    clip = Clip(asked.frames or own.frames, asked.reach or own.reach)
    if own.reach and clip.frames != 2:
        raise InputError(
            f"'{kind.name}' learns from pairs, not from {clip.frames} frames", "clip", cure
        )
    if clip.reach and not own.reach:
        raise InputError(f"'{kind.name}' learns from consecutive frames", "clip.reach", cure)
    return clip


class Annotated(Protocol):
    """What clips are chosen from: `training.sources.Samples`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def truth(self, index: int) -> Tracks | None:
        """The truth of a sample alone."""

    def videos(self) -> list[list[int]]:
        """The samples of each video in the order of time."""


class Singles:
    """Every sample by itself.

    Args:
        samples: where they come from.
    """

    def __init__(self, samples: Annotated) -> None:
        self._samples = samples

    def at(self, index: int, draw: np.random.Generator) -> list[Sample]:
        """The samples that stand for an index, none where there is nothing to learn.

        Args:
            index: of a sample.
            draw: decides where there is a choice.
        """
        sample = self._samples[index]
        return [sample] if sample.truth is not None else []


class _OfVideos:
    """Samples by their places in videos."""

    def __init__(self, samples: Annotated) -> None:
        self._samples = samples
        self._videos = samples.videos()
        self._places = {
            sample: (number, place)
            for number, video in enumerate(self._videos)
            for place, sample in enumerate(video)
        }

    def _video(self, index: int) -> tuple[list[int], int]:
        """The video of a sample, and the sample's place in it."""
        number, place = self._places[index]
        return self._videos[number], place


class Pairs(_OfVideos):
    """Every sample as the key frame, with a reference frame that shares an object with it.

    The reference is drawn evenly from the frames near the key frame, without those that are not
    annotated or share nothing; where none is left there is nothing to learn (QDTrack, Pang et al.,
    CVPR 2021).

    Args:
        samples: where they come from.
        reach: most frames between the two.

    Raises:
        InputError: samples that belong to no video.
    """

    def __init__(self, samples: Annotated, reach: int) -> None:
        super().__init__(samples)
        self._reach = reach

    def at(self, index: int, draw: np.random.Generator) -> list[Sample]:
        """The key frame and its reference; see `Singles.at`."""
        video, place = self._video(index)
        near = video[max(0, place - self._reach) : place] + video[place + 1 :][: self._reach]
        key = _learnt_ids(self._samples.truth(index))
        if not key:
            return []
        for other in draw.permutation(near).tolist():
            if key & _learnt_ids(self._samples.truth(other)):
                return [self._samples[index], self._samples[other]]
        return []


class Windows(_OfVideos):
    """Consecutive frames of a video, from a random start such that the sample is among them.

    Frames without annotation are passed over; where a video ends too early its last frame is
    repeated.

    Args:
        samples: where they come from.
        frames: of a window.

    Raises:
        InputError: samples that belong to no video.
    """

    def __init__(self, samples: Annotated, frames: int) -> None:
        super().__init__(samples)
        self._frames = frames

    def at(self, index: int, draw: np.random.Generator) -> list[Sample]:
        """The frames in the order of time; see `Singles.at`."""
        video, place = self._video(index)
        latest = max(0, min(place, len(video) - self._frames))
        start = int(draw.integers(max(0, place - self._frames + 1), latest + 1)) if latest else 0
        samples: list[Sample] = []
        for k in video[start:]:
            sample = self._samples[k]
            if sample.truth is not None:
                samples.append(sample)
            if len(samples) == self._frames:
                break
        return samples + samples[-1:] * (self._frames - len(samples))


def _learnt_ids(truth: Tracks | None) -> set[int]:
    """Identities of what is learnt in a frame."""
    if truth is None:
        return set()
    ids = np.asarray(truth.ids)
    return set(ids.tolist() if truth.ignore is None else ids[~np.asarray(truth.ignore)].tolist())


def chooser(samples: Annotated, clip: Clip | None) -> Singles | Pairs | Windows:
    """What chooses the frames of each clip.

    Raises:
        InputError: clips are asked of samples that belong to no video.
    """
    if clip is None:
        return Singles(samples)
    return Pairs(samples, clip.reach) if clip.reach else Windows(samples, clip.frames)
