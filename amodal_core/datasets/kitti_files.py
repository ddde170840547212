"""Single files of KITTI's layouts: scans, stamps, and what is numbered."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from amodal_core.errors import InputError


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
    seconds_text, _, fraction = text.strip().partition(".")
    seconds = datetime.strptime(seconds_text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
    if fraction and not fraction.isdecimal():
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
        lines = path.read_text("utf-8", "replace").splitlines()
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


def numbered(folder: Path, *suffixes: str) -> dict[int, Path]:
    """Files such as 0000000012.png by their number, in its order."""
    files = (p for p in folder.glob("*") if p.suffix in suffixes and p.stem.isdecimal())
    return dict(sorted((int(p.stem), p) for p in files))
