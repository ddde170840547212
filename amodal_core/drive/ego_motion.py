"""How the vehicle moved: from the transform tree's way to a fixed frame, or from odometry.

A scan and the image that it is matched to are of two moments. Where the motion between them is
known, the scan is moved to the image's moment, and each of its points from the moment at which it
was measured. Poses are interpolated (places along a line, turns along the shortest arc), never
extrapolated: where none follows a moment, its motion is not known.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from amodal_core.bags.sensors import read_pose, stamp_of
from amodal_core.drive.poses import Poses
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError
from amodal_core.geometry.deskew import deskewed, moved

_KNOTS = 128  # poses along a scan; between them its points' are interpolated


class EgoMotion:
    """The LiDAR's motion through the fixed world; thread-safe.

    Args:
        transforms: of the stream; places the LiDAR in what moves.
        fixed_frame: to which the tree tells the motion; "" takes the nearest of those named odom,
            map, world or earth.
    """

    def __init__(self, transforms: TransformTree, fixed_frame: str = "") -> None:
        self._transforms = transforms
        self._fixed_frame = fixed_frame.lstrip("/")
        self._lock = threading.Lock()
        self._odometry = Poses()
        self._topic = self._base = ""

    def add_odometry(self, message: Any, topic: str) -> None:
        """Take in a nav_msgs/Odometry.

        Raises:
            InputError: it names no frame that moves, or its pose is none.
        """
        base = str(message.child_frame_id).lstrip("/")
        if not base:
            cure = "name the frame that moves, or set motion to off"
            raise InputError("the odometry's child_frame_id is empty", topic, cure)
        pose = read_pose(message.pose.pose, topic)
        with self._lock:
            self._topic, self._base = topic, base
            self._odometry.add(stamp_of(message.header), pose)

    def reset(self, now: int) -> None:
        """Time jumped back to `now`: forget what is ahead of it."""
        with self._lock:
            self._odometry.cut(now)

    def source(self, lidar: str) -> str:
        """What tells the motion of the LiDAR's frame, in words; "" where nothing does."""
        fixed = self._transforms.fixed_above(lidar, self._fixed_frame)
        if fixed:
            return f"the transforms from {fixed} to {lidar}"
        return f"{self._topic} (motion of {self._base})" if self._placed(lidar) else ""

    def obstacle(self, lidar: str) -> str:
        """Why odometry that comes does not tell the motion of the LiDAR's frame, or ""."""
        if not self._base or self._placed(lidar):
            return ""
        return f"{self._topic} moves {self._base}, which no transform connects with {lidar}"

    def _placed(self, lidar: str) -> bool:
        return bool(self._base) and self._transforms.connected(self._base, lidar)

    def reaches(self, lidar: str, stamp: int) -> bool:
        """Whether poses of this stamp or later have come, or none are to be expected."""
        fixed = self._transforms.fixed_above(lidar, self._fixed_frame)
        if fixed:
            return self._transforms.reaches(fixed, lidar, stamp)
        with self._lock:
            return not self._placed(lidar) or (self._odometry.newest or 0) >= stamp

    def world_from_lidar(self, lidar: str, stamps: np.ndarray) -> np.ndarray | None:
        """(n, 4, 4) float64 poses of the LiDAR's frame at (n,) int64 stamps, None where unknown."""
        fixed = self._transforms.fixed_above(lidar, self._fixed_frame)
        poses = self._transforms.lookup_at(fixed, lidar, stamps) if fixed else None
        if poses is not None or not self._placed(lidar):
            return poses
        with self._lock:
            poses = self._odometry.at(stamps)
        return None if poses is None else poses @ self._transforms.lookup(self._base, lidar)

    def moved(
        self, points: np.ndarray, times: np.ndarray | None, lidar: str, stamp: int, target: int
    ) -> np.ndarray | None:
        """A scan's points as the LiDAR would have measured them at another moment.

        Args:
            points: (N, 4) float32.
            times: (N,) float32 seconds after `stamp` of each, or None: all at `stamp`.
            lidar: their frame.
            stamp: of the scan on the clock of the poses, nanoseconds.
            target: nanoseconds.

        Returns:
            (N, 4) float32 in the LiDAR's frame at `target`; None where the motion is not known.
        """
        if stamp == target and times is None:
            return points
        begin = end = 0.0
        if times is not None and len(times):
            begin, end = float(times.min()), float(times.max())
        offsets = np.linspace(begin, end, _KNOTS if end > begin else 1)
        stamps = np.append(stamp + np.round(offsets * 1e9).astype(np.int64), target)
        poses = self.world_from_lidar(lidar, stamps)
        if poses is None:
            return None
        target_from_lidar = np.linalg.inv(poses[-1]) @ poses[:-1]
        if times is None or len(offsets) == 1:
            return moved(points, target_from_lidar[0])
        step = (end - begin) / (_KNOTS - 1)
        return deskewed(points, times, begin, step, target_from_lidar)
