"""The GPS/IMU packets of KITTI raw drives: rates, accelerations, fixes and poses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core.errors import InputError, foreign

_EARTH_RADIUS = 6378137.0
_COLUMNS = 30


@dataclass(frozen=True)
class Oxts:
    """One packet, in the IMU's frame (x forward, y left, z up).

    Attributes:
        latitude: degrees.
        longitude: degrees.
        altitude: metres.
        roll: radians.
        pitch: radians.
        yaw: radians, 0 = east, counter-clockwise.
        velocity: (3,) forward, left, up in metres a second.
        acceleration: (3,) in metres a second squared.
        rates: (3,) about x, y, z in radians a second.
        position_deviation: metres.
    """

    latitude: float
    longitude: float
    altitude: float
    roll: float
    pitch: float
    yaw: float
    velocity: np.ndarray
    acceleration: np.ndarray
    rates: np.ndarray
    position_deviation: float


def read_oxts(path: str | Path) -> Oxts:
    """Read one file of `oxts/data`; its columns are listed in KITTI's dataformat.txt.

    Raises:
        InputError: it cannot be read or does not hold 30 finite numbers.
    """
    with foreign(path, "cannot read the packet"):
        v = np.array([float(word) for word in Path(path).read_text().split()])
    if v.size != _COLUMNS or not np.isfinite(v).all():
        raise InputError(f"{v.size} numbers instead of {_COLUMNS} finite ones", str(path))
    return Oxts(
        latitude=float(v[0]),
        longitude=float(v[1]),
        altitude=float(v[2]),
        roll=float(v[3]),
        pitch=float(v[4]),
        yaw=float(v[5]),
        velocity=v[8:11],
        acceleration=v[11:14],
        rates=v[17:20],
        position_deviation=float(v[23]),
    )


def pose(packet: Oxts, origin: Oxts) -> np.ndarray:
    """(4, 4) world_from_imu; the world is east, north, up about `origin`.

    The Mercator projection of KITTI's development kit, scaled at the origin's latitude.
    """
    scale = np.cos(np.radians(origin.latitude)) * _EARTH_RADIUS

    def place(p: Oxts) -> np.ndarray:
        north = np.log(np.tan(np.pi / 4 + np.radians(p.latitude) / 2))
        return np.array([scale * np.radians(p.longitude), scale * north, p.altitude])

    matrix = np.eye(4)
    turns = (packet.yaw, packet.pitch, packet.roll)
    matrix[:3, :3] = Rotation.from_euler("ZYX", turns).as_matrix()
    matrix[:3, 3] = place(packet) - place(origin)
    return matrix
