"""KITTI raw drives, object images and tracking sequences as Samples.

All three give `__len__` and `__getitem__(index) -> Sample`. KITTI annotates boxes, no masks, so
that `Sample.truth` stays None; `labels(index)` has the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import overload

import cv2
import numpy as np

from amodal_core.datasets.kitti_labels import KittiLabel, read_object_labels, read_tracking_labels
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Sample
from amodal_core.geometry.calibration import KittiCalibration, read_kitti, read_kitti_raw

# KITTI records at 10 Hz: a scan further from the image than half a turn belongs to another image.
_HALF_PERIOD = 50_000_000
_PERIOD = 100_000_000
# Object images have no stamps and no order in time; these are so far apart that nothing joins them.
_APART = 10_000_000_000
_BEGIN = 1_316_995_200_000_000_000  # 2011-09-26 00:00 UTC; 0 would mean "no stamp" to ROS


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing or no image.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError("cannot read the image", str(path), "download the file again")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_scan(path: str | Path) -> np.ndarray:
    """(N, 4) float32 x, y, z in metres and reflectance 0-1, LiDAR frame.

    Raises:
        InputError: the file is missing, or is not whole points of four floats.
    """
    try:
        size = Path(path).stat().st_size
        numbers = np.fromfile(path, "<f4")
    except OSError as error:
        raise InputError(f"cannot read the scan: {error.strerror}", str(path)) from None
    if size % 16:
        raise InputError(
            f"{size} bytes are not whole points of 16 bytes", str(path), "download the file again"
        )
    points = numbers.reshape(-1, 4)
    finite = np.isfinite(points).all(axis=1)
    return points if finite.all() else points[finite]


def parse_stamp(text: str) -> int:
    """Nanoseconds since the epoch of "2011-09-26 13:02:25.964389445", read as UTC.

    Raises:
        ValueError: it is no such stamp.
    """
    whole, _, fraction = text.strip().partition(".")
    seconds = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
    if fraction and not fraction.isdigit():
        raise ValueError(f"'{fraction}' is no fraction of a second")
    return int(seconds.timestamp()) * 1_000_000_000 + int(f"{fraction:0<9}"[:9])


def read_stamps(folder: Path, files: dict[int, Path]) -> dict[int, int]:
    """The stamp of each file of a sensor by its number.

    Line n of timestamps.txt belongs to file n and is blank where that file was dropped; some copies
    leave the blank lines out, and then the lines follow the files' order.

    Args:
        folder: such as `<drive>/velodyne_points`.
        files: the sensor's files by number.

    Raises:
        InputError: no timestamps.txt, a malformed line, or lines that fit no file.
    """
    path = folder / "timestamps.txt"
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"cannot read the stamps: {error.strerror}", str(path)) from None
    stamps: dict[int, int] = {}
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            stamps[number] = parse_stamp(line)
        except ValueError:
            raise InputError(
                f"malformed stamp '{line.strip()[:40]}'",
                f"{path}:{number + 1}",
                "lines look like 2011-09-26 13:02:25.964389445",
            ) from None
    if files.keys() <= stamps.keys():
        return {number: stamps[number] for number in files}
    if len(stamps) == len(files):
        return dict(zip(sorted(files), stamps.values(), strict=True))
    raise InputError(
        f"{len(stamps)} stamps for {len(files)} files", str(path), "download the drive again"
    )


def _numbered(folder: Path, *suffixes: str) -> dict[int, Path]:
    """Files such as 0000000012.png by their number."""
    found = (p for p in sorted(folder.glob("*")) if p.suffix in suffixes and p.stem.isdigit())
    return {int(p.stem): p for p in found}


class _Samples(Sequence[Sample]):
    """What the three kinds share: indexing, and a Sample from an image and a scan."""

    def _sample(self, index: int) -> Sample:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._sample(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._sample(index % len(self))

    @staticmethod
    def _frame(
        stamp: int,
        image: Path,
        scan: Path | None,
        calibration: KittiCalibration,
        scan_stamp: int | None = None,
    ) -> Frame:
        pixels = read_image(image)
        height, width = pixels.shape[:2]
        points = None if scan is None else read_scan(scan)
        return Frame(
            stamp,
            image=pixels,
            points=points,
            calibration=calibration.calibration(width, height),
            points_stamp=scan_stamp,
        )


class KittiRaw(_Samples):
    """A synchronised raw drive: the images of one camera, each with the scan of its moment.

    A scan is the one of the image's number where that is at most 50 ms away, else the nearest
    within 50 ms, else missing (`points` is None).

    Args:
        drive: such as `2011_09_26/2011_09_26_drive_0009_sync`; the calibration lies above it.
        camera: 2 is the left colour camera.

    Raises:
        InputError: images, stamps or calibration are missing or malformed.
    """

    def __init__(self, drive: str | Path, camera: int = 2) -> None:
        self.drive = Path(drive)
        self.calibration = read_kitti_raw(self.drive, camera)
        folder = self.drive / f"image_{camera:02d}"
        self.images = _numbered(folder / "data", ".png", ".jpg")
        if not self.images:
            raise InputError(
                "no images",
                str(folder / "data"),
                "give a folder such as 2011_09_26/2011_09_26_drive_0009_sync",
            )
        self._camera = camera
        self._numbers = sorted(self.images)
        self.stamps = read_stamps(folder, self.images)
        lidar = self.drive / "velodyne_points"
        self.scans = _numbered(lidar / "data", ".bin")
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

    def _sample(self, index: int) -> Sample:
        number = self._numbers[index]
        scan = self.scan_of(number)
        frame = self._frame(
            self.stamps[number],
            self.images[number],
            None if scan is None else self.scans[scan],
            self.calibration,
            None if scan is None else self.scan_stamps[scan],
        )
        name = self.drive.resolve().name
        stem = f"{name}/image_{self._camera:02d}/data/{self.images[number].stem}"
        return Sample(frame, name=stem, video=name, index=index)


class KittiObject(_Samples):
    """The images of the object benchmark with scan, calibration and labels of the same stem.

    Args:
        root: the folder that holds `training` and `testing`.
        split: "training" or "testing".

    Raises:
        InputError: there are no images.
    """

    def __init__(self, root: str | Path, split: str = "training") -> None:
        self.root = Path(root) / split
        self.images = list(_numbered(self.root / "image_2", ".png", ".jpg").values())
        if not self.images:
            raise InputError(
                "no images",
                str(self.root / "image_2"),
                "give the folder that holds training/ and testing/",
            )

    def __len__(self) -> int:
        return len(self.images)

    def calibration(self, index: int) -> KittiCalibration:
        """The calibration of an image; it differs between days of recording."""
        return read_kitti(self.root / "calib" / f"{self.images[index].stem}.txt")

    def labels(self, index: int) -> list[KittiLabel]:
        """The annotated boxes of an image; none in `testing`."""
        path = self.root / "label_2" / f"{self.images[index].stem}.txt"
        return read_object_labels(path) if path.exists() else []

    def _sample(self, index: int) -> Sample:
        image = self.images[index]
        scan = self.root / "velodyne" / f"{image.stem}.bin"
        frame = self._frame(
            _BEGIN + index * _APART,
            image,
            scan if scan.exists() else None,
            self.calibration(index),
        )
        return Sample(frame, name=f"{self.root.name}/image_2/{image.stem}", index=index)


class KittiTracking(_Samples):
    """A sequence of the tracking benchmark at its nominal 10 Hz.

    Args:
        root: the folder that holds `training` and `testing`.
        sequence: its number, from 0.
        split: "training" or "testing".

    Raises:
        InputError: there are no images, or the calibration or labels are malformed.
    """

    def __init__(self, root: str | Path, sequence: int, split: str = "training") -> None:
        self.root = Path(root) / split
        self.sequence = f"{sequence:04d}"
        folder = self.root / "image_02" / self.sequence
        self.images = _numbered(folder, ".png", ".jpg")
        if not self.images:
            raise InputError(
                "no images", str(folder), "give the folder that holds training/ and a --sequence"
            )
        self._numbers = sorted(self.images)
        self._scans = _numbered(self.root / "velodyne" / self.sequence, ".bin")
        self.calibration = read_kitti(self.root / "calib" / f"{self.sequence}.txt")
        path = self.root / "label_02" / f"{self.sequence}.txt"
        self._labels = read_tracking_labels(path) if path.exists() else {}

    def __len__(self) -> int:
        return len(self._numbers)

    def labels(self, index: int) -> list[KittiLabel]:
        """The annotated boxes of a frame, with track ids; none in `testing`."""
        return self._labels.get(self._numbers[index], [])

    def _sample(self, index: int) -> Sample:
        number = self._numbers[index]
        frame = self._frame(
            _BEGIN + number * _PERIOD,
            self.images[number],
            self._scans.get(number),
            self.calibration,
        )
        stem = f"{self.root.name}/image_02/{self.sequence}/{self.images[number].stem}"
        return Sample(frame, name=stem, video=self.sequence, index=index)
