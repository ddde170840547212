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
from amodal_core.models.learned import Clip
from training.augment import augmented
from training.clips import chooser
from training.config import Augment, Source
from training.frames import Frames, Progress, is_unpacked, of_bag, of_drives

_MOST_BLANKS = 100  # samples without anything to learn in a row that are passed over


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
        data, number, table = self._found(index)
        sample = data[number]
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
        return replace(sample, truth=self._mapped(truth, table))

    def truth(self, index: int) -> Tracks | None:
        """The truth of a sample in the model's classes, read without its image.

        Raises:
            InputError: an annotation cannot be read.
        """
        data, number, table = self._found(index)
        truth = data.truth(number)
        return None if truth is None else self._mapped(truth, table)

    def videos(self, singles: bool = False) -> list[list[int]]:
        """The samples of each video in the order of time.

        Videos of different sources are different, whatever their names.

        Args:
            singles: take samples that belong to no video as videos of one.

        Raises:
            InputError: samples that belong to no video, where they are not taken.
        """
        found: dict[tuple[int, str, int], list[tuple[int, int]]] = {}
        index = 0
        for which, (data, chosen) in enumerate(self.sources):
            for number in chosen:
                place = data.place(number)
                if not place.video and not singles:
                    raise InputError(
                        f"'{place.name}' belongs to no video",
                        f"{data.name} ({data.path})",
                        "this model learns from clips: give data in sequences",
                    )
                alone = -1 if place.video else index
                found.setdefault((which, place.video, alone), []).append((place.index, index))
                index += 1
        return [[i for _, i in sorted(turns)] for turns in found.values()]

    def _found(self, index: int) -> tuple[Dataset, int, np.ndarray]:
        """A sample's data set, its index there, and the table of that set's classes."""
        which = int(np.searchsorted(self._ends, index, side="right"))
        data, chosen = self.sources[which]
        number = chosen[index - int(self._ends[which]) + len(chosen)]
        return data, number, self._tables[which]

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
        points: whether it takes points; they are then cut to what the camera sees, as objects
            beyond it have no truth.
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
    ) -> None:
        self._samples, self._options, self._seed = samples, options, seed
        self._depth, self._points = depth, points
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
        frame, targets = augmented(sample.frame, targets_of(sample.truth), self._options, draw)
        if least := self._samples.least_visible:
            # Where nothing is seen of an object, what is seen there is background.
            targets = targets.select(targets.visible.flatten(1).sum(1) >= least)
        if self._depth:
            frame = with_depth(frame)
            if blind:
                depth = np.zeros(frame.size, np.float32)
                points = None if frame.points is None else frame.points[:0]
                frame = replace(frame, depth=depth, points=points)
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
) -> Iterator[list[list[Item] | InputError]]:
    """The clips of each part of each step, read ahead by worker processes."""
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


def _as_they_are(clips: list[list[Item] | InputError]) -> list[list[Item] | InputError]:
    return clips


def _prepare_worker(_: int) -> None:
    """Threads of OpenCV and torch in each worker would only wait; signals are the run's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
