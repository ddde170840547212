"""KITTI raw, object and tracking as data sets: without masks, so without truth, but checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from amodal_core.datasets.base import Dataset, Finding, Place, link, new_folder
from amodal_core.datasets.image_files import check_image, image_size
from amodal_core.datasets.kitti import KittiObject, KittiRaw, KittiTracking, read_scan
from amodal_core.datasets.kitti_labels import TYPES, KittiLabel
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Sample
from amodal_core.geometry.calibration import read_kitti

_DRIVE = re.compile(r"\d{4}_\d{2}_\d{2}_drive_\d{4}_(sync|extract)$")
SPLITS = ("training", "testing")


class _Kitti(Dataset):
    """Parts that all three share; a sample comes from one of `_parts`."""

    classes = tuple(t for t in TYPES if t != "DontCare")

    def __init__(self, path: Path, parts: Sequence[Sequence[Sample]]) -> None:
        self.path = path
        self._parts = [p for p in parts if len(p)]
        self._index = [(p, k) for p in range(len(self._parts)) for k in range(len(self._parts[p]))]

    def __len__(self) -> int:
        return len(self._index)

    def frame(self, index: int) -> Frame:
        """Image, scan and calibration."""
        part, turn = self._index[index]
        return self._parts[part][turn].frame

    def truth(self, index: int) -> None:
        """KITTI has boxes (`labels`), no masks."""
        return None

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) from the image's header."""
        return image_size(self.image_path(index))

    def image_path(self, index: int) -> Path:
        """The image of a sample."""
        raise NotImplementedError

    def scan_path(self, index: int) -> Path | None:
        """The scan of a sample, whether it is there or not; None where the set has none."""
        raise NotImplementedError

    def labels(self, index: int) -> list[KittiLabel]:
        """The annotated boxes of a sample."""
        return []

    def boxes(self, index: int) -> list[tuple[str, tuple[float, float, float, float]]]:
        """The labels' boxes in the image."""
        return [(x.type, x.box) for x in self.labels(index) if x.type != "DontCare"]

    def check(self) -> Iterator[Finding | None]:
        """Images, scans and labels."""
        for index in range(len(self)):
            yield from self._check_sample(index)
            yield None

    def _check_sample(self, index: int) -> Iterator[Finding]:
        image, scan = self.image_path(index), self.scan_path(index)
        size = yield from check_image(image)
        if scan is not None and not scan.exists():
            yield Finding("missing-scan", str(scan), "", f"{image.name} has no scan")
        elif scan is not None:
            try:
                if not len(read_scan(scan)):
                    yield Finding("broken-scan", str(scan), "", "no points")
            except InputError as error:
                yield Finding("broken-scan", str(scan), "", error.what)
        try:
            labels = self.labels(index)
        except InputError as error:
            yield Finding("malformed-label", error.where, "", error.what)
            return
        for row, label in enumerate(labels):
            x1, y1, x2, y2 = label.box
            wide, high = (x2 - x1, y2 - y1)
            if wide <= 0 or high <= 0:
                yield Finding("box-mismatch", str(image), str(row), f"box {label.box} is empty")
            elif size is not None and (x1 < -1 or y1 < -1 or x2 > size[1] + 1 or y2 > size[0] + 1):
                yield Finding("outside-image", str(image), str(row), f"box {label.box}")


class KittiRawSet(_Kitti):
    """A raw drive.

    Args:
        path: the drive's `*_sync` folder.
    """

    def __init__(self, path: str | Path) -> None:
        self._drive = KittiRaw(path)
        super().__init__(Path(path), [self._drive])
        self.name = f"kitti_raw {self._drive.drive.resolve().name}"
        self._numbers = sorted(self._drive.images)

    def place(self, index: int) -> Place:
        """The drive is one video."""
        name = self._drive.drive.resolve().name
        return Place(f"{name}/{self._numbers[index]:010d}", name, index)

    def image_path(self, index: int) -> Path:
        """The image of a sample."""
        return self._drive.images[self._numbers[index]]

    def scan_path(self, index: int) -> Path | None:
        """The scan of the image's moment."""
        if not self._drive.scans:
            return None
        number = self._numbers[index]
        scan = self._drive.scan_of(number)
        folder = self._drive.drive / "velodyne_points" / "data"
        return folder / f"{number:010d}.bin" if scan is None else self._drive.scans[scan]

    def check(self) -> Iterator[Finding | None]:
        """Also stamps that run backwards."""
        for kind, stamps in (
            ("image_02", self._drive.stamps),
            ("velodyne_points", self._drive.scan_stamps),
        ):
            last = None
            for number in sorted(stamps):
                if last is not None and stamps[number] <= stamps[last]:
                    where = str(self._drive.drive / kind / "timestamps.txt")
                    what = f"the stamp of {number} is not after that of {last}"
                    yield Finding("stamps-backwards", where, str(number), what)
                last = number
        yield from super().check()


class KittiObjectSet(_Kitti):
    """Both splits of the object benchmark, or one.

    Args:
        path: the folder that holds `training` and `testing`, or one of them.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        root, splits = (path.parent, (path.name,)) if path.name in SPLITS else (path, SPLITS)
        chosen = [s for s in splits if (root / s / "image_2").is_dir()]
        self._sets = [KittiObject(root, split) for split in chosen]
        if not self._sets:
            raise InputError("no training/image_2 or testing/image_2", str(path))
        super().__init__(path, self._sets)
        self.name = f"kitti_object {path.name}"

    def place(self, index: int) -> Place:
        """Single images."""
        part, turn = self._index[index]
        data = self._sets[part]
        return Place(f"{data.root.name}/image_2/{data.images[turn].stem}", "", index)

    def image_path(self, index: int) -> Path:
        """The image of a sample."""
        part, turn = self._index[index]
        return self._sets[part].images[turn]

    def _beside(self, index: int, folder: str, suffix: str) -> Path:
        image = self.image_path(index)
        return image.parent.parent / folder / f"{image.stem}{suffix}"

    def scan_path(self, index: int) -> Path | None:
        """The scan of the same stem, where scans were downloaded."""
        path = self._beside(index, "velodyne", ".bin")
        return path if path.parent.is_dir() else None

    def labels(self, index: int) -> list[KittiLabel]:
        """The annotated boxes of a sample."""
        part, turn = self._index[index]
        return self._sets[part].labels(turn)

    def _check_sample(self, index: int) -> Iterator[Finding]:
        yield from super()._check_sample(index)
        calib = self._beside(index, "calib", ".txt")
        try:
            read_kitti(calib)
        except InputError as error:
            rule = "broken-calibration" if calib.exists() else "missing-calibration"
            yield Finding(rule, str(calib), "", error.what)

    def fix(self, out: Path) -> Iterator[None]:
        """Links to the files of the images about which there is no finding."""
        new_folder(out)
        parts = (
            ("image_2", ""),
            ("velodyne", ".bin"),
            ("calib", ".txt"),
            ("label_2", ".txt"),
        )
        for index in range(len(self)):
            if not any(self._check_sample(index)):
                image = self.image_path(index)
                for folder, suffix in parts:
                    source = self._beside(index, folder, suffix or image.suffix)
                    if source.exists():
                        link(source, out / image.parent.parent.name / folder / source.name)
            yield None


class KittiTrackingSet(_Kitti):
    """Every sequence of the tracking benchmark's splits.

    Args:
        path: the folder that holds `training` and `testing`, or one of them.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        root, splits = (path.parent, (path.name,)) if path.name in SPLITS else (path, SPLITS)
        self._sets: list[KittiTracking] = []
        self._broken: list[InputError] = []
        for split in splits:
            for folder in sorted((root / split / "image_02").glob("*")):
                if folder.is_dir() and folder.name.isdigit():
                    self._open(root, int(folder.name), split)
        if not self._sets:
            raise InputError("no training/image_02/<sequence>", str(path))
        super().__init__(path, self._sets)
        self.name = f"kitti_tracking {path.name}"

    def _open(self, root: Path, sequence: int, split: str) -> None:
        try:
            self._sets.append(KittiTracking(root, sequence, split))
        except InputError as error:
            self._broken.append(error)

    def place(self, index: int) -> Place:
        """Videos are named "<split>/<sequence>"."""
        part, turn = self._index[index]
        data = self._sets[part]
        video = f"{data.root.name}/{data.sequence}"
        return Place(f"{video}/{self.image_path(index).stem}", video, turn)

    def image_path(self, index: int) -> Path:
        """The image of a sample."""
        part, turn = self._index[index]
        images = self._sets[part].images
        return images[sorted(images)[turn]]

    def scan_path(self, index: int) -> Path | None:
        """The scan of the same number, where scans were downloaded."""
        data = self._sets[self._index[index][0]]
        folder = data.root / "velodyne" / data.sequence
        path = folder / f"{self.image_path(index).stem}.bin"
        return path if folder.is_dir() else None

    def labels(self, index: int) -> list[KittiLabel]:
        """The annotated boxes of a sample, with track ids."""
        part, turn = self._index[index]
        return self._sets[part].labels(turn)

    def check(self) -> Iterator[Finding | None]:
        """Also sequences that cannot be opened, and track ids that occur twice in a frame."""
        for error in self._broken:
            yield Finding("broken-sequence", error.where, "", error.what)
        for index in range(len(self)):
            with suppress(InputError):
                tracks = [x.track_id for x in self.labels(index) if x.track_id >= 0]
                for track in sorted({t for t in tracks if tracks.count(t) > 1}):
                    what = f"track id {track} occurs twice in the frame"
                    yield Finding("duplicate-id", str(self.image_path(index)), str(track), what)
        yield from super().check()


def is_drive(path: Path) -> bool:
    """Whether a folder is a raw drive."""
    return (path / "image_02" / "timestamps.txt").exists() or (
        bool(_DRIVE.match(path.name)) and (path / "image_02").is_dir()
    )
