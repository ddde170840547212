"""What every data set offers, whatever its format: samples, their truth alone, and its findings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Sample, Tracks

BEGIN = 1_316_995_200_000_000_000  # 2011-09-26 00:00 UTC; 0 would mean "no stamp" to ROS
PERIOD = 100_000_000  # sequences without stamps are played at 10 Hz
APART = 10_000_000_000  # single images have no order in time; nothing joins frames so far apart


@dataclass(frozen=True)
class Finding:
    """Something in a data set that breaks a rule.

    Attributes:
        rule: the rule's name, such as "visible-outside-amodal"; docs/datasets.md lists them.
        where: the file, and the image inside it where the file holds many.
        id: the annotation's id, "" where the finding concerns a whole file or image.
        what: what is wrong, one line.
    """

    rule: str
    where: str
    id: str
    what: str


@dataclass(frozen=True)
class Place:
    """Where a sample stands in its data set; the fields mean what they mean in Sample."""

    name: str
    video: str = ""
    index: int = 0


@dataclass(frozen=True, eq=False)
class Rig:
    """Where camera and LiDAR stood when each of them measured its part of a sample.

    Attributes:
        base_from_camera: (4, 4) float64, the camera's optical frame in the vehicle's.
        base_from_lidar: (4, 4) float64, the LiDAR's frame in the vehicle's.
        world_from_base: (4, 4) float64, the vehicle at the image's stamp.
        world_from_base_at_scan: (4, 4) float64, the vehicle at the scan's stamp.
    """

    base_from_camera: np.ndarray
    base_from_lidar: np.ndarray
    world_from_base: np.ndarray
    world_from_base_at_scan: np.ndarray

    @property
    def camera_from_lidar(self) -> np.ndarray:
        """(4, 4) from the LiDAR at the scan's time to the camera at the image's time."""
        camera_from_world = np.linalg.inv(self.world_from_base @ self.base_from_camera)
        return camera_from_world @ self.world_from_base_at_scan @ self.base_from_lidar


# What is written beside masks that nobody drew.
DERIVED_NOTE = "DERIVED.txt"  # the file's name
DERIVED = "masks derived from annotated 3D boxes and scans by amodal_ros; nobody drew them"


class Dataset(ABC, Sequence[Sample]):
    """Frames with their truth, read when they are asked for; nothing of a frame is kept.

    Attributes:
        name: the format's name and the part that was opened, such as "kins update_train_2020".
        path: what was opened.
        classes: names that the truth's class ids index into.
        has_masks: whether the truth has masks; without, it has boxes in the image and in 3D, and
            its masks are empty.
        derived: the masks were made here from 3D boxes and scans, nobody drew them.
    """

    name: str
    path: Path
    classes: tuple[str, ...]
    has_masks: bool = True
    derived: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def place(self, index: int) -> Place:
        """Where a sample stands, without reading it."""

    @abstractmethod
    def frame(self, index: int) -> Frame:
        """The sensors' part of a sample.

        Raises:
            InputError: a file is missing or broken.
        """

    @abstractmethod
    def truth(self, index: int) -> Tracks | None:
        """The annotated part of a sample, read without its image; None where it is not annotated.

        Raises:
            InputError: an annotation cannot be read.
        """

    def has_class(self, class_id: int) -> bool:
        """Whether an object may be of a class; formats that list more than occurs look."""
        return True

    def boxes(self, index: int) -> list[tuple[str, tuple[float, float, float, float]]]:
        """Class and xyxy box of each object, of sets that annotate boxes and no masks.

        Raises:
            InputError: an annotation cannot be read.
        """
        return []

    def rig(self, index: int) -> Rig | None:
        """How the vehicle stood at a sample's image and scan, of sets that know its motion.

        Raises:
            InputError: it cannot be read.
        """
        return None

    def verified(self, index: int) -> tuple[frozenset[int], frozenset[int]] | None:
        """Which classes a sample is annotated with, of sets where that differs; None: with all.

        Returns:
            Class ids of objects or said to be absent, and those of which not every object is there.

        Raises:
            InputError: an annotation cannot be read.
        """
        return None

    def hard(self, index: int) -> np.ndarray | None:
        """(N,) bool, objects of the truth that are too hard to be judged; None where none is known.

        KITTI's rules of size, occlusion and truncation leave them out of every difficulty.
        """
        return None

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of a sample's image in pixels."""

    @abstractmethod
    def check(self) -> Iterator[Finding | None]:
        """Every finding of the whole data set; a None after each sample, for progress bars."""

    def fix(self, out: Path) -> Iterator[None]:
        """Write a cleaned copy to `out`, a folder that is made; yields after each sample.

        Annotations that break a rule are mended where the rule says how, else left out; samples
        whose files are missing or broken are left out. Untouched files are linked, not copied.

        Raises:
            InputError: `out` is there already, or this format is only read.
        """
        raise InputError(f"no cleaned copies of {self.name}", str(out), "convert it instead")

    @property
    def sequential(self) -> bool:
        """Whether the samples belong to videos."""
        return len(self) > 0 and self.place(0).video != ""

    @cached_property
    def _videos(self) -> dict[str, list[int]]:
        """The samples of each video in the order of time; one pass over all places."""
        turns_of: dict[str, list[tuple[int, int]]] = {}
        for i in range(len(self)):
            place = self.place(i)
            if place.video:
                turns_of.setdefault(place.video, []).append((place.index, i))
        return {video: [i for _, i in sorted(turns)] for video, turns in turns_of.items()}

    @property
    def videos(self) -> tuple[str, ...]:
        """Names of the videos in order; empty for single images."""
        return tuple(self._videos)

    def in_video(self, video: str) -> list[int]:
        """Indices of a video's samples in the order of time; empty for an unknown video."""
        return list(self._videos.get(video, ()))

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        place = self.place(index)
        return Sample(self.frame(index), self.truth(index), place.name, place.video, place.index)


def new_folder(out: Path) -> Path:
    """Make a folder for something written.

    Raises:
        InputError: something lies there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("exists already", str(out), "name another place or remove it first")
    out.mkdir(parents=True, exist_ok=True)
    return out


def link(source: Path, target: Path) -> None:
    """Make `target` stand for `source` without a copy of its bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
