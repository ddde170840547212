"""Where samples come from: data sets opened, drives rendered, classes mapped by name."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from amodal_core.bags.reader import is_bag
from amodal_core.classes import ClassMap, Renames
from amodal_core.datasets.bag import BagSet
from amodal_core.datasets.base import Dataset, Place
from amodal_core.datasets.frames import Frames, is_frames, unpack
from amodal_core.datasets.registry import open_dataset
from amodal_core.errors import InputError
from amodal_core.frame import Sample, Tracks
from amodal_core.progress import StageProgress
from amodal_core.synthetic.generate import RunOptions, places, render, sequence_folder
from amodal_core.synthetic.lidar import LidarOptions
from amodal_core.synthetic.truth import CLASSES

from .config import Source, Synthetic

# Class of the data -> class of the model, None for what is ignored.


def open_sources(
    sources: Sequence[Source], cache: Path, progress: StageProgress
) -> list[tuple[Dataset, range]]:
    """The data sets of a configuration, each with the samples that are used of it.

    Rendered drives are known, but there to read only after `render_sources`.

    Raises:
        InputError: a path is missing or of no known format, or a range is empty.
    """
    opened: list[tuple[Dataset, range]] = []
    for source in sources:
        datasets: list[Dataset]
        if source.synthetic is not None:
            datasets = [*drives_of(source.synthetic, cache)]
        else:
            datasets = [_open(source, p, cache, progress) for p in _paths(source.path)]
        total = sum(map(len, datasets))
        chosen = range(total)[source.start : source.stop]
        if not len(chosen):
            raise InputError(
                f"no sample from {source.start} to {source.stop} of {total}",
                source.path or "synthetic drives",
                "give another start and stop",
            )
        before = 0
        for data in datasets:
            low, high = max(chosen.start, before), min(chosen.stop, before + len(data))
            if low < high:
                opened.append((data, range(low - before, high - before)))
            before += len(data)
    return opened


def render_sources(
    sources: Sequence[Source], cache: Path, workers: int, progress: StageProgress
) -> None:
    """Render what is missing of the drives of a configuration.

    Raises:
        InputError: impossible options, or nothing can be rendered on this machine.
    """
    for source in sources:
        if source.synthetic is not None:
            folder, options = _run_of(source.synthetic, cache)
            render(folder, options, workers, partial(progress, "rendering drives"))


def _paths(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.exists() or not glob.has_magic(pattern):
        return [path]
    matches = [Path(p) for p in sorted(glob.glob(str(path)))]
    if not matches:
        raise InputError("nothing fits this pattern", pattern, "check the path")
    return matches


def _open(source: Source, path: Path, cache: Path, progress: StageProgress) -> Dataset:
    if source.format in ("", "bag") and path.exists() and is_bag(path):
        return unpacked_bag(path, cache, progress)
    return open_dataset(path, source.format, source.images, **source.options)


def unpacked_bag(bag: Path, cache: Path, progress: StageProgress) -> Frames:
    """A bag's frames: a bag is read in order, training reads at random."""
    files = [bag] if bag.is_file() else sorted(p for p in bag.iterdir() if p.is_file())
    stamp = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    folder = cache / f"bag_{bag.stem}_{_digest(stamp)}"
    return Frames(folder) if is_frames(folder) else unpack(BagSet(bag), folder, progress)


class _Planned(Frames):
    """A drive that is rendered, or will be before its first sample is asked for."""

    def __init__(self, folder: Path, listed: list[Place], size: tuple[int, int]) -> None:
        self.path, self.name, self.classes = folder, f"synthetic {listed[0].video}", CLASSES
        self._places, self._sizes = listed, [size] * len(listed)


def drives_of(wanted: Synthetic, cache: Path) -> list[Frames]:
    """Rendered drives, one a sequence."""
    base, options = _run_of(wanted, cache)
    rig = options.rig()
    folders = [sequence_folder(base, k) for k in range(len(options.lengths()))]
    return [
        Frames(folder)
        if is_frames(folder)
        else _Planned(folder, places(options, k), (rig.height, rig.width))
        for k, folder in enumerate(folders)
    ]


def _run_of(wanted: Synthetic, cache: Path) -> tuple[Path, RunOptions]:
    """The folder of a run of the generator, named by its options, and the options."""
    values = asdict(wanted)
    folder = cache / f"drives_{_digest(values)}"
    lidar = LidarOptions(columns=values.pop("columns"))
    return folder, RunOptions(**values, lidar=lidar)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def class_table(data: Dataset, classes: Sequence[str], class_map: Renames) -> np.ndarray:
    """(N,) int64: for each class of the data the model's class id, -1 for what is ignored.

    Classes that no object has need no name among the model's: KINS lists more than it annotates.

    Raises:
        InputError: a class of the data has no name among the model's and no entry in the map.
    """
    matched = ClassMap.between(data.classes, classes, class_map)
    missing = [name for name in matched.missing if data.has_class(data.classes.index(name))]
    if missing:
        raise InputError(
            f"the model has no class for {', '.join(missing)}",
            str(data.path),
            f"class_map: {{{missing[0]}: {classes[0]}}}, or null to leave it out",
        )
    return matched.table


class Samples(TorchDataset[Sample]):
    """Samples of several data sets in a row, with the model's class ids.

    Args:
        sources: data sets and the samples used of each.
        classes: of the model.
        class_map: see `Config.class_map`.
        smallest: pixels of an amodal mask below which an object is ignored.
        least_visible: pixels of a visible mask below which it is ignored, too.

    Raises:
        InputError: classes that do not fit.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Dataset, range]],
        classes: Sequence[str],
        class_map: Renames,
        smallest: int = 0,
        least_visible: int = 0,
    ) -> None:
        self.sources, self._smallest = list(sources), smallest
        self.least_visible = least_visible
        self._tables = [class_table(data, classes, class_map) for data, _ in sources]
        self._ends = np.cumsum([len(r) for _, r in sources])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Sample:
        """A sample with an image; its truth in the model's classes, None where unannotated.

        Raises:
            InputError: a file is missing or broken, or sizes differ.
        """
        data, number, table = self._locate(index)
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
        data, number, table = self._locate(index)
        truth = data.truth(number)
        return None if truth is None else self._mapped(truth, table)

    def hard(self, index: int) -> np.ndarray | None:
        """(N,) bool, objects of a sample's truth that are too hard to be judged, where known."""
        data, number, _ = self._locate(index)
        return data.hard(number)

    def videos(self, singles: bool = False) -> list[list[int]]:
        """The samples of each video in the order of time.

        Videos of different sources are different, whatever their names.

        Args:
            singles: take samples that belong to no video as videos of one.

        Raises:
            InputError: samples that belong to no video, where they are not taken.
        """
        videos: dict[tuple[int, str, int], list[tuple[int, int]]] = {}
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
                videos.setdefault((which, place.video, alone), []).append((place.index, index))
                index += 1
        return [[i for _, i in sorted(turns)] for turns in videos.values()]

    def _locate(self, index: int) -> tuple[Dataset, int, np.ndarray]:
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
