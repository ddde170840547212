"""PointCloud2 messages of any LiDAR driver to points: layouts, intensities, times, no returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from amodal_core import limits
from amodal_core.bags.images import bytes_of
from amodal_core.errors import InputError
from amodal_core.frame import Report
from amodal_core.limits import check_points

# sensor_msgs/PointField's datatype numbers.
POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
# Names that drivers give to the strength of a return. A reflectivity is calibrated: where a driver
# sends it beside an intensity, that is a raw count of photons (Ouster).
_INTENSITIES = ("reflectivity", "intensity", "i", "reflectance", "remission")
# And to when it returned: Ouster's t, Velodyne's time, Hesai's and Livox' timestamp.
_MICROSECONDS = "time_us"
_TIMES = ("t", "time", "timestamp", "time_stamp", "offset_time", "time_offset", _MICROSECONDS)
_LONGEST_SCAN = 1e9  # nanoseconds; times farther apart, or from the stamp, are no scan's
# Full scales of an intensity, and the share of a scan's values that may lie beyond its own.
_SCALES, _OUTLIERS = (1, 255, 65535), 0.01


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan with when each point was measured.

    Attributes:
        points: (N, 4) float32 x, y, z in metres and intensity 0-1.
        times: (N,) float32 seconds after the message's stamp (before it: negative), or None where
            the cloud does not tell them.
    """

    points: np.ndarray
    times: np.ndarray | None = None


def read_points(
    message: Any, where: str = "points", *, minimum_range: float = 0.0, report: Report | None = None
) -> np.ndarray:
    """The points of `read_scan`."""
    return read_scan(message, where, minimum_range=minimum_range, report=report).points


def _row_step(message: Any, fields: Mapping[str, Any], size: int, where: str) -> int:
    """Bytes from row to row of a cloud whose fields and sizes make sense.

    Raises:
        InputError: they do not.
    """
    height, width = int(message.height), int(message.width)
    point_step, row_step = int(message.point_step), int(message.row_step)
    missing = [n for n in "xyz" if n not in fields]
    if missing:
        raise InputError(
            f"no field {', '.join(missing)} among '{', '.join(fields)}'",
            where,
            "publish x, y, z as float32",
        )
    for name in "xyz":
        if fields[name].datatype not in (7, 8) or fields[name].count not in (0, 1):
            raise InputError(
                f"field {name} is {fields[name].count} x "
                f"{POINT_TYPES.get(fields[name].datatype, '?')}, not one float",
                where,
                "publish x, y, z as float32",
            )
    if row_step < width * point_step or size != row_step * height:
        # Drivers that exchange width and height leave row_step as it was.
        if size != height * width * point_step:
            raise InputError(
                f"{size} bytes of data in {height} rows of {row_step} do not hold "
                f"{height} x {width} points of {point_step} bytes",
                where,
                "the message was cut off or filled wrongly; check the LiDAR driver",
            )
        return width * point_step
    return row_step


def read_scan(
    message: Any,
    where: str = "points",
    *,
    minimum_range: float = 0.0,
    report: Report | None = None,
    stamp: int | None = None,
) -> Scan:
    """The points, (N, 4) float32 x, y, z and intensity 0-1, of a sensor_msgs/PointCloud2.

    Any order, offset and padding of the fields is read, organised or not, of either endianness.
    Points with a coordinate that is not finite are dropped whole. Intensity is 0 where the cloud
    has none. Its full scale is 255 for 8-bit fields; for others it is the smallest of 1 (floats
    only), 255 and 65535 that at most 1 % of the scan's positive values exceed, so that a few bright
    returns do not decide; what exceeds it is 1.

    Args:
        message: of rosbags or rclpy.
        where: the topic, for errors and warnings.
        minimum_range: metres; nearer returns, drivers' (0, 0, 0) for no return among them, are
            dropped; `limits.RANGE` at least.
        report: is told, once a scan, of what was dropped and of a scan without a usable return.
        stamp: the message's, nanoseconds; with it, when each point was measured is read, too.

    Raises:
        InputError: no scalar float x, y, z fields, fields that leave the point, or wrong sizes.
    """
    report = report if report is not None else Report()
    fields = {f.name: f for f in message.fields}
    height, width, point_step = int(message.height), int(message.width), int(message.point_step)
    data = bytes_of(message.data)
    if height * width == 0:
        report.warn("empty scan", f"{where}: a scan without points")
        return Scan(np.zeros((0, 4), np.float32))
    check_points(height * width, where)
    row_step = _row_step(message, fields, data.size, where)
    order = ">" if message.is_bigendian else "<"

    def column(name: str) -> np.ndarray:
        f = fields[name]
        dtype = np.dtype(order + POINT_TYPES[f.datatype])
        if f.offset + dtype.itemsize > point_step:
            raise InputError(
                f"field {name} at offset {f.offset} leaves the point of {point_step} bytes",
                where,
                "check the LiDAR driver",
            )
        return np.ndarray(
            (height, width), dtype, data, offset=f.offset, strides=(row_step, point_step)
        ).reshape(-1)

    strength = next((n for n in _INTENSITIES if n in fields), None)
    if strength and fields[strength].datatype not in POINT_TYPES:
        raise InputError(
            f"field {strength} has the unknown datatype {fields[strength].datatype}", where
        )
    points = np.empty((height * width, 4), np.float32)
    # Numbers that no float32 holds are as far as infinity.
    squares = np.zeros(len(points), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for k, name in enumerate("xyz"):
            values = column(name)
            points[:, k] = values
            squares += np.square(values, dtype=np.float32, casting="same_kind")
        points[:, 3] = _unit_intensity(column(strength)) if strength else 0
    # False for NaN. Most scans need no more than this.
    minimum_range = max(minimum_range, limits.RANGE)
    nearest, usable = minimum_range * minimum_range, None
    if not (squares.min() >= nearest and squares.max() < np.inf):
        usable = (squares >= nearest) & (squares < np.inf)
        count = int(np.count_nonzero(usable))
        if not count:
            text = "a scan of which no return is finite and at least"
            report.warn("empty scan", f"{where}: {text} {minimum_range:g} m away")
        else:
            share = max(1, round(100 * (1 - count / len(points))))
            text = f"{where}: {share} % of the returns dropped, not finite or nearer than"
            report.warn("no return", f"{text} {minimum_range:g} m")
        points = points[usable]
    times = None
    field = next((n for n in _TIMES if n in fields and fields[n].datatype in POINT_TYPES), "")
    if stamp is not None and field and len(points):
        values = column(field)
        values = values if usable is None else values[usable]
        if field == _MICROSECONDS and values.dtype.kind in "iu":
            values = values.astype(np.int64) * 1000
        times = point_times(values, stamp)
        if times is None:
            text = f"{where}: the points' '{field}' is of another clock than the scan's stamp"
            report.warn("point times", f"{text}: it is not de-skewed")
    return Scan(points, times)


def point_times(values: np.ndarray, stamp: int) -> np.ndarray | None:
    """(N,) float32 seconds after a scan's stamp, from a cloud's field of times.

    Integers are nanoseconds (Ouster, Livox), floats seconds (Velodyne) unless they then span more
    than a scan: milliseconds, micro- and nanoseconds are tried in turn. Absolute ones (Hesai's
    seconds, Livox' nanoseconds since the epoch) are made relative to the stamp.

    Args:
        values: (N,) of any number type, one at least.
        stamp: of the scan, nanoseconds.

    Returns:
        None where no unit makes them times of a scan with this stamp.
    """
    low, high = values.min().item(), values.max().item()
    whole = values.dtype.kind in "iu"
    units = (1,) if whole else (1_000_000_000, 1_000_000, 1_000, 1)
    unit = next((u for u in units if (high - low) * u <= _LONGEST_SCAN), None)  # False for NaN
    if unit is None:
        return None
    if max(abs(low), abs(high)) * unit <= _LONGEST_SCAN:
        return np.multiply(values, unit * 1e-9, dtype=np.float32, casting="same_kind")
    # In the field's own numbers: float64 holds seconds since the epoch to 0.2 microseconds.
    origin = stamp if whole else stamp / unit
    if max(abs(low - origin), abs(high - origin)) * unit > _LONGEST_SCAN:
        return None
    relative = values.astype(np.int64 if whole else np.float64) - origin
    return (relative * (unit * 1e-9)).astype(np.float32)


def _unit_intensity(raw: np.ndarray) -> np.ndarray:
    """Intensities scaled to 0-1 by the rule of `read_points`; not finite ones become 0."""
    values = raw.astype(np.float32)
    low, top = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(top)):
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, top = values.min(), values.max()
    if raw.dtype.itemsize == 1:
        scale = 255
    elif raw.dtype.kind == "f" and top <= 1:
        scale = 1
    else:
        allowed = _OUTLIERS * np.count_nonzero(values > 0)
        scales = _SCALES if raw.dtype.kind == "f" else _SCALES[1:]
        fitting = (s for s in scales if np.count_nonzero(values > s) <= allowed)
        scale = next(fitting, _SCALES[-1])
    if scale > 1:
        values /= scale
    return np.clip(values, 0, 1) if low < 0 or top > scale else values
