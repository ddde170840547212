"""A bag as a data set: its frames in order, with the ground truth recorded beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from amodal_core.bags.reader import BagReader, is_bag
from amodal_core.datasets.base import Dataset, Finding, Place
from amodal_core.drive.assembler import DriveFrame
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import COPIED_IMAGE, COPIED_POINTS, NO_LIDAR, TRACKS
from amodal_core.errors import InputError
from amodal_core.frame import Frame, FrameWarning, Tracks


class BagSet(Dataset):
    """One bag, one video. Frames are read one after the other; going back begins anew.

    Args:
        path: the bag.
        drive: what belongs together, and which calibration.

    Raises:
        InputError: no bag, or no camera and LiDAR in it.
    """

    def __init__(self, path: str | Path, drive: DriveSettings | None = None) -> None:
        self.path = Path(path)
        self._settings = drive
        self.name = f"bag {self.path.name}"
        names: dict[int, str] = {}
        self._warnings: list[FrameWarning] = []
        self._stamps: list[int] = []
        with self._open() as opened:
            for made in opened:
                names |= made.truth_classes
                self._warnings += made.warnings
                self._stamps.append(made.frame.stamp)
            self._warnings += opened.warnings
        # A bag names the classes that occur in it, no others: theirs are numbered anew.
        self.classes = tuple(dict.fromkeys(names[k] for k in sorted(names)))
        self._class_ids = {k: self.classes.index(name) for k, name in names.items()}
        self._turn = -1
        self._frames: Iterator[DriveFrame] = iter(())
        self._last: DriveFrame | None = None

    def _open(self) -> BagDrive:
        return BagDrive(self.path, settings=self._settings)

    def __len__(self) -> int:
        return len(self._stamps)

    def _at(self, index: int) -> DriveFrame:
        if index < self._turn or self._last is None:
            self._frames, self._turn = iter(self._open()), -1
        while self._turn < index:
            self._last = next(self._frames)
            self._turn += 1
        assert self._last is not None
        return self._last

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_frames": iter(()), "_last": None, "_turn": -1}

    def place(self, index: int) -> Place:
        """Named by the stamp in nanoseconds."""
        return Place(f"{self.path.stem}/{self._stamps[index]}", self.path.stem, index)

    def frame(self, index: int) -> Frame:
        """Image, points and calibration."""
        return self._at(index).frame

    def truth(self, index: int) -> Tracks | None:
        """The ground truth of the image's stamp."""
        truth = self._at(index).truth
        if truth is None:
            return None
        ids = [self._class_ids[k] for k in np.asarray(truth.class_ids).tolist()]
        return replace(truth, class_ids=np.array(ids, np.int64))

    def size(self, index: int) -> tuple[int, int]:
        """(height, width)."""
        return self._at(index).frame.size

    def check(self) -> Iterator[Finding | None]:
        """What was refused or dropped, stamps, and masks."""
        for warning in self._warnings:
            yield Finding("dropped-message", str(self.path), "", str(warning))
        for index in range(len(self)):
            if index and self._stamps[index] <= self._stamps[index - 1]:
                what = "the stamp is not after the one before"
                yield Finding("stamps-backwards", self.place(index).name, "", what)
            yield from self._check_truth(index)
            yield None

    def _check_truth(self, index: int) -> Iterator[Finding]:
        where = self.place(index).name
        try:
            truth = self.truth(index)
        except InputError as error:
            yield Finding("malformed-message", where, "", error.what)
            return
        if truth is None:
            return
        amodal, visible = truth.amodal.rle(), truth.visible.rle()
        outside = (visible - amodal).areas() if len(truth) else ()
        for k, pixels in enumerate(outside):
            if pixels:
                what = f"{pixels} visible pixels lie outside the amodal mask"
                yield Finding("visible-outside-amodal", where, str(truth.ids[k]), what)


class TrackedBag(BagSet):
    """The tracks.mcap of a replay of one camera with `--copy`; its tracks are the annotations.

    So that others' tools can show and correct what a model gave.

    Raises:
        InputError: no bag, or none of a replay with `--copy`.
    """

    def _open(self) -> BagDrive:
        with BagReader(self.path) as bag:
            held = {name for name, topic in bag.topics.items() if topic.count}
        for topic in (TRACKS, COPIED_IMAGE):
            if topic.bag_name not in held:
                cure = "replay one camera with --copy"
                raise InputError(f"no {topic.bag_name} in it", str(self.path), cure)
        points = COPIED_POINTS.bag_name if COPIED_POINTS.bag_name in held else NO_LIDAR
        drive = BagDrive(
            self.path, COPIED_IMAGE.bag_name, points, self._settings, lidar_optional=True
        )
        drive.topics = replace(drive.topics, ground_truth=TRACKS.bag_name)
        return drive


def bags_in(folder: Path) -> list[Path]:
    """The bags in a folder, by name."""
    return sorted(p for p in folder.iterdir() if is_bag(p)) if folder.is_dir() else []


class BagFolder(Dataset):
    """The bags of a folder, one video each, such as `amodal synth` writes.

    Args:
        path: the folder.
        drive: see `BagSet`.

    Raises:
        InputError: no bag lies in it, or one that cannot be read.
    """

    def __init__(self, path: str | Path, drive: DriveSettings | None = None) -> None:
        self.path = Path(path)
        self.name = f"bags {self.path.name}"
        self._bags = [BagSet(p, drive) for p in bags_in(self.path)]
        if not self._bags:
            raise InputError("no bag in this folder", str(path), "name a folder of bags")
        self.classes = tuple(dict.fromkeys(name for bag in self._bags for name in bag.classes))
        self._ends = np.cumsum([len(bag) for bag in self._bags])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _of(self, index: int) -> tuple[BagSet, int]:
        which = int(np.searchsorted(self._ends, index, side="right"))
        bag = self._bags[which]
        return bag, index - int(self._ends[which]) + len(bag)

    def place(self, index: int) -> Place:
        """As in its bag."""
        bag, inside = self._of(index)
        return bag.place(inside)

    def frame(self, index: int) -> Frame:
        """Image, points and calibration."""
        bag, inside = self._of(index)
        return bag.frame(inside)

    def truth(self, index: int) -> Tracks | None:
        """The ground truth, its classes numbered as all bags' together."""
        bag, inside = self._of(index)
        truth = bag.truth(inside)
        if truth is None:
            return None
        names = [bag.classes[k] for k in np.asarray(truth.class_ids).tolist()]
        return replace(truth, class_ids=np.array([*map(self.classes.index, names)], np.int64))

    def size(self, index: int) -> tuple[int, int]:
        """(height, width)."""
        bag, inside = self._of(index)
        return bag.size(inside)

    def check(self) -> Iterator[Finding | None]:
        """What each bag says."""
        for bag in self._bags:
            yield from bag.check()
