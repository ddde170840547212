"""Samples made ready for a model, and every step's samples determined."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Sample
from amodal_core.geometry.projection import depth_image, in_view
from amodal_core.models.layers.batch import Targets
from amodal_core.models.learned import Clip
from amodal_core.parallel import cores

from .augment import augmented
from .clips import chooser
from .config import Augment
from .mask_crops import CroppedTargets
from .object_bank import ObjectBank
from .scan_augment import augmented_scan
from .sources import Samples

_MOST_BLANKS = 100  # samples without anything to learn in a row that are passed over


@dataclass
class Item:
    """A sample ready for a batch.

    Attributes:
        frame: with depth where the model takes it.
        targets: of the same size.
        name: for messages.
        video: of the sample, "" for single images.
        index: place in the video.
    """

    frame: Frame
    targets: Targets
    name: str
    video: str
    index: int


class Augmented(TorchDataset["list[Item] | InputError"]):
    """Clips changed at random; which way follows from the seed, the epoch and the sample alone.

    A clip is one sample where the model learns from single frames. All samples of a clip are
    changed in the same way. Errors are returned, not raised: a worker would bury them in its
    traceback.

    Args:
        samples: where they come from.
        options: the changes.
        seed: of the run.
        depth: whether the model takes a depth image.
        points: whether it takes points.
        bank: objects that scans are filled up with.
        camera_view: cut them to what the camera sees: objects beyond it may have no truth.
        clip: what a clip is, None for single frames.

    Raises:
        InputError: clips are asked of samples that belong to no video.
    """

    def __init__(
        self,
        samples: Samples,
        options: Augment,
        seed: int,
        depth: bool,
        points: bool,
        clip: Clip | None = None,
        camera_view: bool = True,
        bank: ObjectBank | None = None,
    ) -> None:
        self._samples, self._options, self._seed = samples, options, seed
        self._depth, self._points, self._camera_view = depth, points, camera_view
        self._bank = bank
        self._chooser = chooser(samples, clip)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: tuple[int, int]) -> list[Item] | InputError:
        epoch, index = key
        try:
            # Every sample of a clip gets the same draws.
            return [
                self._item(sample, np.random.default_rng([self._seed, epoch, index]))
                for sample in self._chosen(epoch, index)
            ]
        except InputError as error:
            return error

    def _chosen(self, epoch: int, index: int) -> list[Sample]:
        """The samples at an index, or at the next one where there is something to learn."""
        draw = np.random.default_rng([self._seed, epoch, index, 1])
        for step in range(min(_MOST_BLANKS, len(self))):
            samples = self._chooser.at((index + step) % len(self), draw)
            if samples:
                return samples
        raise InputError(
            "many frames in a row have no annotation, or none that two frames of a clip share",
            f"from sample {index}",
            "give annotated data, and sequences to models that learn from clips",
        )

    def _item(self, sample: Sample, draw: np.random.Generator) -> Item:
        assert sample.truth is not None
        blind = draw.random() < self._options.depth_dropout
        scan = self._options.scan
        options = self._options if scan is None else replace(self._options, flip=0.0)
        whole = CroppedTargets.of(sample.truth)
        frame, targets = augmented(sample.frame, whole, options, draw)
        if least := self._samples.least_visible:
            # Where nothing is seen of an object, what is seen there is background.
            targets = targets.select(targets.visible.areas() >= least)
        if self._depth:
            frame = with_depth(frame)
            if blind:
                depth = np.zeros(frame.size, np.float32)
                points = None if frame.points is None else frame.points[:0]
                frame = replace(frame, depth=depth, points=points)
        if not self._points:
            frame = replace(frame, points=None)
        elif self._camera_view and frame.points is not None and frame.calibration is not None:
            frame = replace(frame, points=frame.points[in_view(frame.points, frame.calibration)])
        if scan is not None and frame.points is not None:
            flip = self._options.flip
            frame, targets = augmented_scan(frame, targets, scan, flip, self._bank, draw)
        return Item(frame, targets.targets(), sample.name, sample.video, sample.index)


def with_depth(frame: Frame) -> Frame:
    """The frame with the depth image of its points; zeros where it has neither."""
    if frame.points is not None and frame.calibration is not None:
        return replace(frame, depth=depth_image(frame.points, frame.calibration))
    if frame.depth is None:
        return replace(frame, depth=np.zeros(frame.size, np.float32))
    return frame


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The samples of each part of each step, from any step on; the same whatever was before.

    The samples of all epochs stand in one endless row, each epoch in an order of its own. A step
    takes the next `batch` of them; process r of w takes every w-th from the r-th on, so that any
    number of processes sees the same samples a step.

    Args:
        length: samples of an epoch.
        batch: samples a step, of all processes and parts together.
        accumulate: parts of a step.
        rank: of this process.
        world: processes.
        seed: of the orders.
        start: first step.
        steps: step after the last one.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        *,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        start: int = 0,
        steps: int,
    ) -> None:
        if batch % (world * accumulate):
            raise InputError(
                f"a batch of {batch} for {world} processes in {accumulate} parts",
                "batch_size",
                f"give a multiple of {world * accumulate}",
            )
        self._length, self._batch, self._accumulate = length, batch, accumulate
        self._rank, self._world, self._seed = rank, world, seed
        self._start, self._steps = start, steps
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return max(0, self._steps - self._start) * self._accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self._start, self._steps):
            mine = [
                self._at(step * self._batch + k)
                for k in range(self._rank, self._batch, self._world)
            ]
            size = len(mine) // self._accumulate
            for turn in range(self._accumulate):
                yield mine[turn * size : (turn + 1) * size]

    def _at(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self._length)
        if self._order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._length)
            self._order = epoch, order
        return epoch, int(self._order[1][place])


def loader(
    data: Augmented, keys: Iterable[list[tuple[int, int]]], workers: int
) -> Iterator[list[list[Item] | InputError]]:
    """The clips of each list of keys (epoch, index), read ahead by at most a process a core."""
    workers = min(workers, cores())
    return iter(
        DataLoader(
            data,
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=_as_they_are,
            worker_init_fn=_prepare_worker,
            prefetch_factor=4 if workers else None,
        )
    )


def usable(clips: list[list[Item] | InputError]) -> list[list[Item]]:
    """The clips.

    Raises:
        InputError: one of them is an error.
    """
    for clip in clips:
        if isinstance(clip, InputError):
            raise clip
    return [clip for clip in clips if isinstance(clip, list)]


def _as_they_are(clips: list[list[Item] | InputError]) -> list[list[Item] | InputError]:
    return clips


def _prepare_worker(_: int) -> None:
    """Threads of OpenCV and torch in each worker would only wait; signals are the run's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
