"""Argoverse 2's sensor data set: one ring camera with the two LiDARs, annotated at 10 Hz.

Images are undistorted as released, although the calibration lists the lens' k1 to k3. Sweeps of
both LiDARs are one cloud in the vehicle's frame, compensated for its motion to the time that names
the file; here it is moved to the upper LiDAR's place, without a turn, as scans are seen from there.

Wilson et al.: Argoverse 2: Next Generation Datasets for Self-Driving Perception and Forecasting,
NeurIPS Datasets and Benchmarks 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core import limits
from amodal_core.datasets.arrow_files import read_columns
from amodal_core.datasets.base import Place, Rig
from amodal_core.datasets.categories import ARGOVERSE, ARGOVERSE_IGNORED
from amodal_core.datasets.image_files import read_image
from amodal_core.datasets.recorded import CLASSES, Cuboid, Recorded, box_in, nearest, rigid
from amodal_core.errors import InputError, foreign
from amodal_core.files import inside
from amodal_core.geometry.camera import Camera, make_camera

SPLITS = ("train", "val", "test")
POSES = "city_SE3_egovehicle.feather"
LIDAR = "up_lidar"
_POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
_INTRINSICS = ("sensor_name", "fx_px", "fy_px", "cx_px", "cy_px", "height_px", "width_px")
_SIZES = ("length_m", "width_m", "height_m")


class _Log:
    """What a log says once for all its frames."""

    def __init__(self, path: Path, camera: str) -> None:
        self.path, self._camera = path, camera

    @cached_property
    def sensors(self) -> dict[str, np.ndarray]:
        """base_from_sensor (4, 4) by sensor."""
        path = self.path / "calibration" / "egovehicle_SE3_sensor.feather"
        columns = read_columns(path, ("sensor_name", *_POSE))
        rows = np.column_stack([columns[name] for name in _POSE])
        return {
            str(name): rigid(row[4:], row[:4], str(path))
            for name, row in zip(columns["sensor_name"], rows, strict=True)
        }

    def sensor(self, name: str) -> np.ndarray:
        """base_from_sensor (4, 4)."""
        if name not in self.sensors:
            where = str(self.path / "calibration")
            raise InputError(f"no sensor '{name}'", where, f"there are: {', '.join(self.sensors)}")
        return self.sensors[name]

    @cached_property
    def base_from_lidar(self) -> np.ndarray:
        """The upper LiDAR's place with the vehicle's axes."""
        moved = np.eye(4)
        moved[:3, 3] = self.sensor(LIDAR)[:3, 3]
        return moved

    @cached_property
    def camera(self) -> Camera:
        """The pinhole camera of the undistorted images."""
        path = self.path / "calibration" / "intrinsics.feather"
        columns = read_columns(path, _INTRINSICS)
        rows = np.flatnonzero(columns["sensor_name"] == self._camera)
        if len(rows) != 1:
            listed = ", ".join(map(str, columns["sensor_name"]))
            raise InputError(f"no camera '{self._camera}'", str(path), f"there are: {listed}")
        with foreign(path, "malformed intrinsics", "download the log again"):
            fx, fy, cx, cy, height, width = (float(columns[n][rows[0]]) for n in _INTRINSICS[1:])
            size = int(width), int(height)
        limits.check_image(*size, str(path))
        K = (fx, 0, cx, 0, fy, cy, 0, 0, 1)
        return make_camera(K, (), "", (), (), size, str(path))

    @cached_property
    def _poses(self) -> tuple[np.ndarray, np.ndarray]:
        path = self.path / POSES
        columns = read_columns(path, ("timestamp_ns", *_POSE))
        rows = np.column_stack([columns[name] for name in _POSE])
        order = np.argsort(columns["timestamp_ns"], kind="stable")
        return np.asarray(columns["timestamp_ns"], np.int64)[order], rows[order]

    def pose(self, stamp: int) -> np.ndarray:
        """world_from_base (4, 4); a log has the pose of every image and sweep."""
        stamps, rows = self._poses
        at = int(np.searchsorted(stamps, stamp))
        path = self.path / POSES
        if at == len(stamps) or stamps[at] != stamp:
            raise InputError(f"no pose at {stamp}", str(path), "download the log again")
        return rigid(rows[at, 4:], rows[at, :4], str(path))

    @cached_property
    def annotations(self) -> dict[str, np.ndarray] | None:
        """Columns of the annotations, sorted by stamp; None in the test split."""
        path = self.path / "annotations.feather"
        if not path.exists():
            return None
        names = ("timestamp_ns", "track_uuid", "category", *_SIZES, *_POSE)
        columns = read_columns(path, names)
        order = np.argsort(columns["timestamp_ns"], kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        columns["id"] = np.unique(columns["track_uuid"].astype(str), return_inverse=True)[1]
        return columns


class Argoverse2(Recorded):
    """Logs of Argoverse 2, one video each.

    Args:
        path: a log, a split's folder, or the folder that holds `train`, `val` and `test`.
        camera: such as "ring_front_center".
        log: the only one that is read; "" for all.
        sweeps: every image (20 Hz) with its nearest sweep, not the nearest image of each sweep
            alone; only the latter have truth.
        masks: "" for boxes, "derived" for masks that are made of them.

    Raises:
        InputError: no log, or no image of the camera in any; pyarrow is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        camera: str = "ring_front_center",
        log: str = "",
        sweeps: bool = False,
        masks: str = "",
    ) -> None:
        self.path = Path(path)
        super().__init__(f"av2 {self.path.name} {camera}", masks)
        self._camera = camera
        self._logs = [p for p in logs_in(self.path) if log in ("", p.name)]
        if not self._logs:
            what = f"no log '{log}'" if log else "no log"
            raise InputError(what, str(path), f"give a log's folder, which holds {POSES}")
        # Log, stamp of the image, and of its sweep, and whether it is the sweep's own.
        self._frames: list[tuple[int, int, int | None, bool]] = []
        self._places: list[Place] = []
        for number, folder in enumerate(self._logs):
            self._list(number, folder, sweeps)
        if not self._frames:
            where = str(self._logs[0] / "sensors" / "cameras")
            names = [p.name for p in sorted((self._logs[0] / "sensors" / "cameras").glob("*"))]
            raise InputError(f"no image of '{camera}'", where, f"there are: {', '.join(names)}")
        self._open: tuple[int, _Log] | None = None

    def _list(self, number: int, folder: Path, sweeps: bool) -> None:
        images = _stamps(folder / "sensors" / "cameras" / self._camera, ".jpg")
        scans = _stamps(folder / "sensors" / "lidar", ".feather")
        own = {k: scan for scan in scans if (k := nearest(images, scan)) is not None}
        turn = 0
        for k, image in enumerate(images):
            scan = own.get(k)
            if scan is None:
                at = nearest(scans, image)
                if not sweeps and scans:
                    continue
                scan = None if at is None else scans[at]
            self._frames.append((number, image, scan, k in own))
            self._places.append(Place(f"{folder.name}/{image}", folder.name, turn))
            turn += 1

    def _of(self, index: int) -> tuple[_Log, int, int | None, bool]:
        number, image, scan, own = self._frames[index]
        if self._open is None or self._open[0] != number:
            self._open = number, _Log(self._logs[number], self._camera)
        return self._open[1], image, scan, own

    def __len__(self) -> int:
        return len(self._frames)

    def place(self, index: int) -> Place:
        """Named by log and the image's stamp."""
        return self._places[index]

    def stamps(self, index: int) -> tuple[int, int | None]:
        """As the files are named."""
        return self._frames[index][1:3]

    def camera(self, index: int) -> Camera:
        """One for a log."""
        return self._of(index)[0].camera

    def raw_image(self, index: int) -> np.ndarray:
        """The JPEG."""
        log, stamp, _, _ = self._of(index)
        folder = log.path / "sensors" / "cameras"
        return read_image(inside(folder, f"{self._camera}/{stamp}.jpg"))

    def points(self, index: int) -> np.ndarray | None:
        """Seen from the upper LiDAR; intensity 0-255 becomes 0-1."""
        log, _, stamp, _ = self._of(index)
        if stamp is None:
            return None
        path = log.path / "sensors" / "lidar" / f"{stamp}.feather"
        columns = read_columns(path, ("x", "y", "z", "intensity"))
        limits.check_points(len(columns["x"]), str(path))
        with foreign(path, "malformed points", "download the log again"):
            points = np.column_stack([np.asarray(columns[n], np.float32) for n in "xyz"])
            intensity = np.asarray(columns["intensity"], np.float32) / 255
        points = np.column_stack([points, intensity])
        points = points[np.isfinite(points).all(axis=1)]
        points[:, :3] -= log.base_from_lidar[:3, 3].astype(np.float32)
        return points

    def rig(self, index: int) -> Rig:
        """With the log's poses at the stamps of image and sweep."""
        log, image, scan, _ = self._of(index)
        at_image = log.pose(image)
        at_scan = at_image if scan is None else log.pose(scan)
        return Rig(log.sensor(self._camera), log.base_from_lidar, at_image, at_scan)

    def cuboids(self, index: int) -> list[Cuboid] | None:
        """The boxes at the sweep's time."""
        log, _, scan, own = self._of(index)
        columns = log.annotations
        if columns is None or scan is None or not own:
            return None
        where = str(log.path / "annotations.feather")
        lidar_from_base = np.linalg.inv(log.base_from_lidar)
        first, end = np.searchsorted(columns["timestamp_ns"], [scan, scan + 1])
        cuboids = []
        for k in range(first, end):
            name = str(columns["category"][k])
            target = ARGOVERSE.get(name)
            if target is None:
                continue
            row: list[Any] = [columns[n][k] for n in _POSE]
            with foreign(where, "a malformed box", "download the log again"):
                size = [float(columns[n][k]) for n in _SIZES]
                if not (np.isfinite(size).all() and min(size) > 0):
                    raise ValueError("no size")
            box = box_in(lidar_from_base @ rigid(row[4:], row[:4], where), size)
            ignore = name in ARGOVERSE_IGNORED
            cuboids.append(Cuboid(target, box, int(columns["id"][k]), 0.0, ignore))
        return cuboids

    def has_class(self, class_id: int) -> bool:
        """Whether an object of the first log is of a class, or the others are too many to look."""
        if len(self._logs) > 1:
            return CLASSES[class_id] != "other"
        columns = self._of(0)[0].annotations
        if columns is None:
            return False
        return any(
            ARGOVERSE.get(n) == CLASSES[class_id] for n in set(map(str, columns["category"]))
        )


def _stamps(folder: Path, suffix: str) -> list[int]:
    """The stamps that name a folder's files, ascending."""
    names = (p.stem for p in folder.glob(f"*{suffix}"))
    return sorted(int(n) for n in names if n.isdecimal() and len(n) < 20)


def logs_in(path: Path) -> Iterator[Path]:
    """The logs that a path means."""
    if (path / POSES).is_file():
        yield path
        return
    for split in (path, *(path / s for s in SPLITS)):
        yield from sorted(p.parent for p in split.glob(f"*/{POSES}"))
