"""KITTI raw drives, object images and tracking sequences: one reader, three layouts of files.

KITTI annotates boxes, no masks: the truth has boxes in the image and in the LiDAR frame, `labels`
the rows as they are.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from amodal_core.datasets.base import (
    APART,
    BEGIN,
    PERIOD,
    Dataset,
    Finding,
    Place,
    link,
    new_folder,
)
from amodal_core.datasets.image_files import check_image, image_size, read_image
from amodal_core.datasets.kitti_files import numbered, read_scan, read_stamps
from amodal_core.datasets.kitti_labels import (
    DONT_CARE,
    TYPES,
    KittiLabel,
    read_object_labels,
    read_tracking_labels,
    truth_of,
)
from amodal_core.errors import InputError, foreign
from amodal_core.frame import Frame, Tracks
from amodal_core.geometry.calibration import KittiCalibration, read_kitti, read_kitti_raw

# KITTI records at 10 Hz: a scan further from the image than half a turn belongs to another image.
_HALF_PERIOD = PERIOD // 2
_DRIVE = re.compile(r"\d{4}_\d{2}_\d{2}_drive_\d{4}_(sync|extract)$")
SPLITS = ("training", "testing")
_ROOT_CURE = "give the folder that holds training/ and testing/"


class KittiFiles(NamedTuple):
    """Where a sample's parts lie.

    Attributes:
        place: the sample's place in its data set.
        image: its file.
        stamp: nanoseconds.
        scan: the scan of its moment, None where there is none.
        scan_stamp: nanoseconds, where it is known.
        missing_scan: the scan's file where the set has scans, but not this one.
    """

    place: Place
    image: Path
    stamp: int
    scan: Path | None = None
    scan_stamp: int | None = None
    missing_scan: Path | None = None


class Kitti(Dataset):
    """What the three layouts share: frames, sizes and checks of the files that they name.

    Args:
        path: what was opened.
        name: of the data set.
    """

    classes = tuple(t for t in TYPES if t != DONT_CARE)
    has_masks = False

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    @abstractmethod
    def files(self, index: int) -> KittiFiles:
        """The files of a sample."""

    @abstractmethod
    def calibration(self, index: int) -> KittiCalibration:
        """Camera and LiDAR of a sample."""

    def labels(self, index: int) -> Sequence[KittiLabel]:
        """The annotated boxes of a sample, with track ids where the set has them."""
        return ()

    def place(self, index: int) -> Place:
        """Named by drive or split and the image's number."""
        return self.files(index).place

    def frame(self, index: int) -> Frame:
        """Image, scan and calibration."""
        files = self.files(index)
        image = read_image(files.image)
        height, width = image.shape[:2]
        return Frame(
            files.stamp,
            image=image,
            points=None if files.scan is None else read_scan(files.scan),
            calibration=self.calibration(index).calibration(width, height),
            points_stamp=files.scan_stamp,
        )

    def labelled(self, index: int) -> bool:
        """Whether a sample is annotated, be it with nothing."""
        return False

    def truth(self, index: int) -> Tracks | None:
        """The boxes of the labelled objects; no masks, and no DontCare regions."""
        if not self.labelled(index):
            return None
        size, calibration = self.size(index), self.calibration(index)
        return truth_of(self._objects(index), calibration, size, self.classes)

    def hard(self, index: int) -> np.ndarray | None:
        """Objects that are in none of the benchmark's difficulties."""
        return np.array([x.difficulty < 0 for x in self._objects(index)], bool)

    def _objects(self, index: int) -> list[KittiLabel]:
        return [x for x in self.labels(index) if x.type != DONT_CARE]

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) from the image's header."""
        return image_size(self.files(index).image)

    def boxes(self, index: int) -> list[tuple[str, tuple[float, float, float, float]]]:
        """The labels' boxes in the image."""
        return [(x.type, x.box) for x in self._objects(index)]

    def check(self) -> Iterator[Finding | None]:
        """Images, scans and labels."""
        for index in range(len(self)):
            yield from self._check_sample(index)
            yield None

    def _check_sample(self, index: int) -> Iterator[Finding]:
        files = self.files(index)
        size = yield from check_image(files.image)
        if files.missing_scan is not None:
            what = f"{files.image.name} has no scan"
            yield Finding("missing-scan", str(files.missing_scan), "", what)
        elif files.scan is not None:
            try:
                if not len(read_scan(files.scan)):
                    yield Finding("broken-scan", str(files.scan), "", "no points")
            except InputError as error:
                yield Finding("broken-scan", str(files.scan), "", error.what)
        try:
            labels = self.labels(index)
        except InputError as error:
            yield Finding("malformed-label", error.where, "", error.what)
            return
        for row, label in enumerate(labels):
            x1, y1, x2, y2 = label.box
            where = str(files.image), str(row)
            if x2 <= x1 or y2 <= y1:
                yield Finding("box-mismatch", *where, f"box {label.box} is empty")
            elif size is not None and (x1 < -1 or y1 < -1 or x2 > size[1] + 1 or y2 > size[0] + 1):
                yield Finding("outside-image", *where, f"box {label.box}")


class KittiRaw(Kitti):
    """A synchronised raw drive: the images of one camera, each with the scan of its moment.

    A scan is the one of the image's number where that is at most 50 ms away, else the nearest
    within 50 ms, else missing (`points` is None).

    Args:
        path: such as `2011_09_26/2011_09_26_drive_0009_sync`; the calibration lies above it.
        camera: 2 is the left colour camera.

    Raises:
        InputError: images, stamps or calibration are missing or malformed.
    """

    def __init__(self, path: str | Path, camera: int = 2) -> None:
        self.drive = Path(path)
        drive = self.drive.resolve().name
        super().__init__(self.drive, f"kitti_raw {drive}")
        self._calibration = read_kitti_raw(self.drive, camera)
        folder, lidar = self.drive / f"image_{camera:02d}", self.drive / "velodyne_points"
        self.images = numbered(folder / "data", ".png", ".jpg")
        if not self.images:
            cure = "give a folder such as 2011_09_26/2011_09_26_drive_0009_sync"
            raise InputError("no images", str(folder / "data"), cure)
        self._numbers = list(self.images)
        self._places = [Place(f"{drive}/{n:010d}", drive, k) for k, n in enumerate(self._numbers)]
        self.stamps = read_stamps(folder, self.images)
        self.scans = numbered(lidar / "data", ".bin")
        self.scan_stamps = read_stamps(lidar, self.scans) if self.scans else {}

    def __len__(self) -> int:
        return len(self._numbers)

    def scan_of(self, number: int) -> int | None:
        """The number of the scan that belongs to an image's number, None where it was dropped."""

        def apart(scan: int) -> int:
            return abs(self.scan_stamps[scan] - self.stamps[number])

        if number in self.scan_stamps and apart(number) <= _HALF_PERIOD:
            return number
        nearest = min(self.scan_stamps, key=apart, default=None)
        return nearest if nearest is not None and apart(nearest) <= _HALF_PERIOD else None

    def files(self, index: int) -> KittiFiles:
        """The image of the drive's n-th moment and its scan."""
        number, place = self._numbers[index], self._places[index]
        files = KittiFiles(place, self.images[number], self.stamps[number])
        scan = self.scan_of(number)
        if scan is not None:
            return files._replace(scan=self.scans[scan], scan_stamp=self.scan_stamps[scan])
        missing = self.drive / "velodyne_points" / "data" / f"{number:010d}.bin"
        return files._replace(missing_scan=missing if self.scans else None)

    def calibration(self, index: int) -> KittiCalibration:
        """One for the whole drive."""
        return self._calibration

    def check(self) -> Iterator[Finding | None]:
        """Also stamps that run backwards."""
        for sensor, stamps in (("image_02", self.stamps), ("velodyne_points", self.scan_stamps)):
            last = None
            for number in sorted(stamps):
                if last is not None and stamps[number] <= stamps[last]:
                    where = str(self.drive / sensor / "timestamps.txt")
                    what = f"the stamp of {number} is not after that of {last}"
                    yield Finding("stamps-backwards", where, str(number), what)
                last = number
        yield from super().check()


class KittiObject(Kitti):
    """The images of the object benchmark with scan, calibration and labels of the same stem.

    Args:
        path: the folder that holds `training` and `testing`, or one of them.
        frames: a list of the names of those that are read, such as ImageSets/train.txt; "" for all.

    Raises:
        InputError: there are no images, or one that is listed is missing.
    """

    def __init__(self, path: str | Path, frames: str | Path = "") -> None:
        path = Path(path)
        super().__init__(path, f"kitti_object {path.name}")
        root, splits = _splits(path)
        # Images with their number in the split: its own clock.
        self._images = [
            (image, number)
            for split in splits
            for number, image in enumerate(
                numbered(root / split / "image_2", ".png", ".jpg").values()
            )
        ]
        if not self._images:
            where = " or ".join(f"{split}/image_2" for split in splits)
            raise InputError(f"no images in {where}", str(root), _ROOT_CURE)
        if frames:
            self._images = self._listed(frames)

    def _listed(self, frames: str | Path) -> list[tuple[Path, int]]:
        with foreign(frames, "cannot read the names of frames"):
            names = Path(frames).read_text().split()
        by_name = {image.stem: (image, number) for image, number in reversed(self._images)}
        missing = [name for name in names if name not in by_name]
        if missing or not names:
            what = f"no image {missing[0]}" if missing else f"no name in {Path(frames).name}"
            raise InputError(what, str(self.path), "give a list such as ImageSets/train.txt")
        return [by_name[name] for name in names]

    def __len__(self) -> int:
        return len(self._images)

    def _beside(self, index: int, folder: str, suffix: str) -> Path:
        image = self._images[index][0]
        return image.parent.parent / folder / f"{image.stem}{suffix}"

    def files(self, index: int) -> KittiFiles:
        """The image and the scan of the same stem."""
        image, turn = self._images[index]
        place = Place(f"{image.parent.parent.name}/image_2/{image.stem}", "", index)
        scan = self._beside(index, "velodyne", ".bin")
        files = KittiFiles(place, image, BEGIN + turn * APART)
        if scan.exists():
            return files._replace(scan=scan)
        return files._replace(missing_scan=scan if scan.parent.is_dir() else None)

    def calibration(self, index: int) -> KittiCalibration:
        """The calibration of an image; it differs between days of recording."""
        return read_kitti(self._beside(index, "calib", ".txt"))

    def labelled(self, index: int) -> bool:
        """Where there is a file of labels; not in `testing`."""
        return self._beside(index, "label_2", ".txt").exists()

    def labels(self, index: int) -> Sequence[KittiLabel]:
        """The annotated boxes of an image; none in `testing`."""
        path = self._beside(index, "label_2", ".txt")
        return read_object_labels(path) if path.exists() else ()

    def _check_sample(self, index: int) -> Iterator[Finding]:
        yield from super()._check_sample(index)
        path = self._beside(index, "calib", ".txt")
        try:
            read_kitti(path)
        except InputError as error:
            rule = "broken-calibration" if path.exists() else "missing-calibration"
            yield Finding(rule, str(path), "", error.what)

    def fix(self, out: Path) -> Iterator[None]:
        """Links to the files of the images about which there is no finding."""
        new_folder(out)
        for index in range(len(self)):
            if not any(self._check_sample(index)):
                image = self._images[index][0]
                sources = [image, self._beside(index, "velodyne", ".bin")]
                sources += [self._beside(index, name, ".txt") for name in ("calib", "label_2")]
                for source in filter(Path.exists, sources):
                    link(source, out / source.relative_to(image.parents[2]))
            yield None


class KittiTracking(Kitti):
    """Sequences of the tracking benchmark at their nominal 10 Hz, named "<split>/<sequence>".

    Args:
        path: the folder that holds `training` and `testing`, or one of them.
        sequence: the only one that is read; all when None.

    Raises:
        InputError: no sequence, or none whose calibration and labels can be read.
    """

    def __init__(self, path: str | Path, sequence: int | None = None) -> None:
        path = Path(path)
        super().__init__(path, f"kitti_tracking {path.name}")
        root, splits = _splits(path)
        self._broken: list[InputError] = []
        # Of each sequence its folder, calibration, labels and scans by number.
        self._sequences: list[
            tuple[Path, KittiCalibration, dict[int, list[KittiLabel]], dict[int, Path]]
        ] = []
        self._images: list[tuple[int, int, int, Path]] = []  # sequence, turn, number, file
        for split in splits:
            pattern = "*" if sequence is None else f"{sequence:04d}"
            for folder in sorted((root / split / "image_02").glob(pattern)):
                if folder.is_dir() and folder.name.isdecimal():
                    self._open(root / split, folder)
        if not self._images:
            if self._broken:
                raise self._broken[0]
            asked = "<sequence>" if sequence is None else f"{sequence:04d}"
            raise InputError(f"no images in {splits[0]}/image_02/{asked}", str(root), _ROOT_CURE)

    def _open(self, root: Path, folder: Path) -> None:
        path = root / "label_02" / f"{folder.name}.txt"
        images = numbered(folder, ".png", ".jpg")
        try:
            if not images:
                raise InputError("no images", str(folder))
            calibration = read_kitti(root / "calib" / f"{folder.name}.txt")
            labels = read_tracking_labels(path) if path.exists() else {}
        except InputError as error:
            self._broken.append(error)
            return
        which = len(self._sequences)
        scans = numbered(root / "velodyne" / folder.name, ".bin")
        self._sequences.append((folder, calibration, labels, scans))
        self._images += [(which, turn, *item) for turn, item in enumerate(images.items())]

    def __len__(self) -> int:
        return len(self._images)

    def files(self, index: int) -> KittiFiles:
        """The image of a turn and the scan of its number."""
        which, turn, number, image = self._images[index]
        folder, _, _, scans = self._sequences[which]
        root = folder.parents[1]
        video = f"{root.name}/{folder.name}"
        files = KittiFiles(
            Place(f"{video}/{image.stem}", video, turn), image, BEGIN + number * PERIOD
        )
        if number in scans:
            return files._replace(scan=scans[number])
        missing = root / "velodyne" / folder.name / f"{image.stem}.bin"
        return files._replace(missing_scan=missing if missing.parent.is_dir() else None)

    def calibration(self, index: int) -> KittiCalibration:
        """One for each sequence."""
        return self._sequences[self._images[index][0]][1]

    def labelled(self, index: int) -> bool:
        """Where the sequence has a file of labels; not in `testing`."""
        return bool(self._sequences[self._images[index][0]][2])

    def labels(self, index: int) -> Sequence[KittiLabel]:
        """The annotated boxes of a frame, with track ids; none in `testing`."""
        which, _, number, _ = self._images[index]
        return self._sequences[which][2].get(number, [])

    def check(self) -> Iterator[Finding | None]:
        """Also sequences that cannot be opened, and track ids that occur twice in a frame."""
        for error in self._broken:
            yield Finding("broken-sequence", error.where, "", error.what)
        for index in range(len(self)):
            with suppress(InputError):
                tracks = [x.track_id for x in self.labels(index) if x.track_id >= 0]
                for track in sorted({t for t in tracks if tracks.count(t) > 1}):
                    what = f"track id {track} occurs twice in the frame"
                    yield Finding("duplicate-id", str(self.files(index).image), str(track), what)
        yield from super().check()


def _splits(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The benchmark's folder and the splits that a path means."""
    return (path.parent, (path.name,)) if path.name in SPLITS else (path, SPLITS)


def is_drive(path: Path) -> bool:
    """Whether a folder is a raw drive."""
    return (path / "image_02" / "timestamps.txt").exists() or (
        bool(_DRIVE.match(path.name)) and (path / "image_02").is_dir()
    )
