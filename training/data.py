"""Samples for training: sources opened, classes mapped by name, every step's samples determined."""

from __future__ import annotations

import glob
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from amodal_core.bags.reader import is_bag
from amodal_core.datasets.base import Dataset
from amodal_core.datasets.categories import translate
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Sample, Tracks
from amodal_core.geometry.projection import depth_image
from amodal_core.models.batch import Targets, targets_of
from training.augment import augmented
from training.config import Augment, Source
from training.frames import Frames, Progress, is_unpacked, of_bag, of_drives

_MOST_BLANKS = 100  # frames without annotation in a row that are passed over


def open_sources(
    sources: Sequence[Source], cache: Path, workers: int, progress: Progress
) -> list[tuple[Dataset, range]]:
    """The data sets of a configuration, each with the samples that are used of it.

    Raises:
        InputError: a path is missing or of no known format, or a range is empty.
    """
    found: list[tuple[Dataset, range]] = []
    for source in sources:
        if source.synthetic is not None:
            parts: list[Dataset] = [*of_drives(source.synthetic, cache, workers, progress)]
        else:
            parts = [_open(source, p, cache, progress) for p in _paths(source.path)]
        total = sum(len(p) for p in parts)
        chosen = range(total)[source.start : source.stop]
        if not len(chosen):
            raise InputError(
                f"no sample from {source.start} to {source.stop} of {total}",
                source.path or "synthetic drives",
                "give another start and stop",
            )
        before = 0
        for part in parts:
            low, high = max(chosen.start, before), min(chosen.stop, before + len(part))
            if low < high:
                found.append((part, range(low - before, high - before)))
            before += len(part)
    return found


def _paths(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.exists() or not glob.has_magic(pattern):
        return [path]
    found = [Path(p) for p in sorted(glob.glob(str(path)))]
    if not found:
        raise InputError("nothing fits this pattern", pattern, "check the path")
    return found


def _open(source: Source, path: Path, cache: Path, progress: Progress) -> Dataset:
    if not source.format and is_unpacked(path):
        return Frames(path)
    if source.format in ("", "bag") and path.exists() and is_bag(path):
        return of_bag(path, cache, progress)
    try:
        return open_dataset(path, source.format, **source.options)
    except TypeError as error:
        raise InputError(f"options of the reader: {error}", str(path), "check `options`") from None


def class_table(
    classes: Sequence[str],
    wanted: Sequence[str],
    chosen: dict[str, str | None],
    where: str,
) -> np.ndarray:
    """(N,) int64: for each class of the data the model's class id, -1 for what is ignored.

    Raises:
        InputError: a class of the data has no name among the model's and no entry in the map.
    """
    table, missing = [], []
    for name in classes:
        if name in chosen and chosen[name] is None:
            table.append(-1)
            continue
        try:
            table += translate([str(chosen.get(name, name))], wanted)
        except InputError:
            missing.append(name)
    if missing:
        raise InputError(
            f"the model has no class for {', '.join(missing)}",
            where,
            f"add `class_map: {{{missing[0]}: {wanted[0]}}}` (or null to ignore it); "
            f"the model's: {', '.join(wanted)}",
        )
    return np.array(table, np.int64)


class Samples(TorchDataset[Sample]):
    """Samples of several data sets in a row, with the model's class ids.

    Args:
        sources: data sets and the samples used of each.
        classes: of the model.
        class_map: see `Config.class_map`.
        smallest: pixels of an amodal mask below which an object is ignored.
        least_visible: pixels of a visible mask below which it is ignored, too.

    Raises:
        InputError: classes that do not fit, or an entry of the map that no data set has.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Dataset, range]],
        classes: Sequence[str],
        class_map: dict[str, str | None],
        smallest: int = 0,
        least_visible: int = 0,
    ) -> None:
        self.sources, self._smallest = list(sources), smallest
        self.least_visible = least_visible
        there = {name for data, _ in sources for name in data.classes}
        unknown = sorted(set(class_map) - there)
        if unknown:
            raise InputError(
                f"no data set has the class {', '.join(unknown)}",
                "class_map",
                f"there are: {', '.join(sorted(there))}",
            )
        self._tables = [
            class_table(d.classes, classes, class_map, f"{d.name} ({d.path})") for d, _ in sources
        ]
        self._ends = np.cumsum([len(r) for _, r in sources])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Sample:
        """A sample with an image; its truth in the model's classes, None where unannotated.

        Raises:
            InputError: a file is missing or broken, or sizes differ.
        """
        which = int(np.searchsorted(self._ends, index, side="right"))
        data, chosen = self.sources[which]
        sample = data[chosen[index - int(self._ends[which]) + len(chosen)]]
        frame, truth = sample.frame, sample.truth
        where = f"{data.name}: {sample.name}"
        if frame.image is None:
            raise InputError("a sample has no image", where, "training needs images")
        height, width = frame.image.shape[:2]
        if truth is not None and truth.size != (height, width):
            raise InputError(
                f"masks of {truth.size[1]}x{truth.size[0]}, image of {width}x{height}",
                where,
                "the annotations belong to other images",
            )
        calibration = frame.calibration
        if calibration is not None and (calibration.height, calibration.width) != (height, width):
            raise InputError(
                f"a calibration for {calibration.width}x{calibration.height}, "
                f"image of {width}x{height}",
                where,
                "the calibration belongs to other images",
            )
        if truth is None:
            return sample
        return replace(sample, truth=self._mapped(truth, self._tables[which]))

    def _mapped(self, truth: Tracks, table: np.ndarray) -> Tracks:
        n = len(truth)
        ids = table[np.asarray(truth.class_ids)] if n else np.zeros(0, np.int64)
        ignore = np.zeros(n, bool) if truth.ignore is None else np.asarray(truth.ignore, bool)
        ignore = ignore | (ids < 0) | (truth.amodal.rle().areas() < self._smallest)
        if self.least_visible:
            ignore |= truth.visible.rle().areas() < self.least_visible
        return replace(truth, class_ids=np.maximum(ids, 0), ignore=ignore)


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


class Augmented(TorchDataset["Item | InputError"]):
    """Samples changed at random; which way follows from the seed, the epoch and the sample alone.

    Errors are returned, not raised: a worker would bury them in its traceback.

    Args:
        samples: where they come from.
        options: the changes.
        seed: of the run.
        depth: whether the model takes a depth image.
        points: whether it takes points; they are then cut to what the camera sees, as objects
            beyond it have no truth.
    """

    def __init__(
        self, samples: Samples, options: Augment, seed: int, depth: bool, points: bool
    ) -> None:
        self._samples, self._options, self._seed = samples, options, seed
        self._depth, self._points = depth, points

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: tuple[int, int]) -> Item | InputError:
        epoch, index = key
        try:
            return self._item(epoch, index)
        except InputError as error:
            return error

    def _item(self, epoch: int, index: int) -> Item:
        for step in range(min(_MOST_BLANKS, len(self))):
            sample = self._samples[(index + step) % len(self)]
            if sample.truth is not None:
                break
        else:
            raise InputError(
                "no annotation in many frames in a row", sample.name, "give annotated data"
            )
        draw = np.random.default_rng([self._seed, epoch, index])
        frame, targets = augmented(sample.frame, targets_of(sample.truth), self._options, draw)
        if least := self._samples.least_visible:
            # Where nothing is seen of an object, what is seen there is background.
            targets = targets.select(targets.visible.flatten(1).sum(1) >= least)
        if self._depth:
            frame = with_depth(frame)
            if draw.random() < self._options.depth_dropout:
                frame = replace(frame, depth=np.zeros(frame.size, np.float32))
        if self._points and frame.points is not None and frame.calibration is not None:
            frame = replace(frame, points=frame.points[in_view(frame)])
        elif not self._points:
            frame = replace(frame, points=None)
        return Item(frame, targets, sample.name, sample.video, sample.index)


def with_depth(frame: Frame) -> Frame:
    """The frame with the depth image of its points; zeros where it has neither."""
    if frame.points is not None and frame.calibration is not None:
        return replace(frame, depth=depth_image(frame.points, frame.calibration))
    if frame.depth is None:
        return replace(frame, depth=np.zeros(frame.size, np.float32))
    return frame


def in_view(frame: Frame) -> np.ndarray:
    """(N,) bool: points that fall into the image."""
    calibration = frame.calibration
    assert calibration is not None
    assert frame.points is not None
    T = calibration.camera_from_lidar
    camera = frame.points[:, :3] @ T[:3, :3].T + T[:3, 3]
    pixels = camera @ calibration.K.T
    ahead = camera[:, 2] > 0.1
    place = pixels[:, :2] / np.where(ahead, pixels[:, 2], 1.0)[:, None]
    limit = np.array([calibration.width, calibration.height]) - 0.5
    return np.asarray(ahead & ((place >= -0.5) & (place < limit)).all(1))


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
            for part in range(self._accumulate):
                yield mine[part * size : (part + 1) * size]

    def _at(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self._length)
        if self._order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._length)
            self._order = epoch, order
        return epoch, int(self._order[1][place])


def loader(
    data: Augmented, sampler: StepSampler, workers: int
) -> Iterator[list[Item | InputError]]:
    """The items of each part of each step, read ahead by worker processes."""
    return iter(
        DataLoader(
            data,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_as_they_are,
            worker_init_fn=_prepare_worker,
            prefetch_factor=4 if workers else None,
        )
    )


def _as_they_are(items: list[Item | InputError]) -> list[Item | InputError]:
    return items


def _prepare_worker(_: int) -> None:
    """Threads of OpenCV and torch in each worker would only wait; signals are the run's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
