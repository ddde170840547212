"""Scans to points of a frame's moment: read, moved by the vehicle's motion, or used once more."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np

from amodal_core.bags.clouds import Scan, read_scan
from amodal_core.bags.sensors import stamp_of
from amodal_core.drive.ego_motion import EgoMotion
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.shared import once
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError
from amodal_core.frame import Report

MOTION = "motion"  # kind of the warning that says what tells the vehicle's motion
_KEPT = 16  # newest scans that may stand in for an image's own
_LEAST_WAIT = 0.02  # seconds for motion that is always late


class Scans:
    """Reads a stream's scans; thread-safe.

    Args:
        settings: `minimum_range`, `sync_timeout`, `fixed_frame`.
        transforms: of the stream.
        where: the scans' topic, for errors and warnings.
        moving: move them to the moment of their frame, where the motion is known.
    """

    def __init__(
        self, settings: DriveSettings, transforms: TransformTree, where: str, *, moving: bool
    ) -> None:
        self._settings = settings
        self._where = where
        self._motion = EgoMotion(transforms, settings.fixed_frame) if moving else None
        self._came = threading.Condition()
        self._newest: deque[tuple[int, Any]] = deque(maxlen=_KEPT)
        self._read: deque[tuple[Any, Scan, Report]] = deque(maxlen=2)
        self._wait = settings.sync_timeout
        self._said = ""

    def motion_came(self, odometry: Any, topic: str) -> None:
        """Take in a nav_msgs/Odometry; None where transforms have come.

        Raises:
            InputError: it tells no motion.
        """
        if self._motion is None:
            return
        if odometry is not None:
            self._motion.add_odometry(odometry, topic)
        with self._came:
            self._came.notify_all()

    def take(self, stamp: int, cloud: Any) -> None:
        """Keep a scan that may stand in for later ones."""
        if self._motion is not None:
            self._newest.append((stamp, cloud))

    def reset(self, now: int) -> None:
        """Time jumped back to `now`: forget the motion ahead of it."""
        if self._motion is not None:
            self._motion.reset(now)

    def substitute(self, stamp: int, lag: int) -> Any:
        """The newest scan before a moment that has none; None where none can stand in.

        It is of late and in motion that may be known. Which one it is depends on the stamps alone:
        what could still come is later than the moment.

        Args:
            stamp: nanoseconds.
            lag: that the scans' stamps lag behind it, nanoseconds.
        """
        if self._motion is None:
            return None
        limit = round(self._settings.sync_timeout * 1e9)
        near = [scan for scan in self._newest if 0 <= stamp - scan[0] + lag <= limit]
        if not near:
            return None
        _, cloud = max(near, key=lambda scan: scan[0])
        return cloud if self._motion.source(frame_of(cloud)) else None

    def standing_in(
        self, cloud: Any, target: int, lag: int, report: Report, wait: bool, *, needed: bool
    ) -> Any:
        """The `substitute` of a moment, None where its motion turns out to be unknown.

        Args:
            cloud: the substitute.
            target: the moment, nanoseconds.
            lag: see `substitute`.
            report: takes warnings.
            wait: give the motion time to come.
            needed: the moment cannot do without a scan.

        Raises:
            InputError: the motion is unknown, and the scan is needed.
        """
        assert self._motion is not None
        self._await(cloud, target, lag, wait)
        lidar = frame_of(cloud)
        stamps = np.array([stamp_of(cloud.header) - lag, target], np.int64)
        if self._motion.world_from_lidar(lidar, stamps) is not None:
            return cloud
        source = self._motion.source(lidar)
        text = f"no scan near the image, and no pose of it and of the last scan by {source}"
        if needed:
            raise InputError(text, self._where, "publish it without gaps")
        report.warn("no motion", f"{self._where}: {text}")
        return None

    def points(
        self, cloud: Any, target: int, lag: int, report: Report, wait: bool, *, again: bool
    ) -> tuple[np.ndarray, int]:
        """A scan's points, (N, 4) float32, and the time that they are of, nanoseconds.

        That is the target's where they were moved, else the scan's own.

        Args:
            cloud: sensor_msgs/PointCloud2.
            target: the frame's moment, nanoseconds.
            lag: see `substitute`.
            report: takes warnings.
            wait: give the motion time to come.
            again: what was said when it was read is not said again.

        Raises:
            InputError: it cannot be read.
        """
        scan, told = self._scan(cloud)
        if not again:
            report.merge([told])
        stamp, points = stamp_of(cloud.header), None
        if self._motion is not None:
            self._await(cloud, target, lag, wait)
            lidar = frame_of(cloud)
            source = self._motion.source(lidar)
            if source:
                at = stamp - lag
                points = self._motion.moved(scan.points, scan.times, lidar, at, target)
                if points is None:
                    text = f"{self._where}: a scan is not moved to the image's time"
                    report.warn("no motion", f"{text}: no pose of both by {source}")
            if points is not None or not source:
                self._say(self._motion, source, lidar, scan.times is not None, report)
        return (scan.points, stamp) if points is None else (points, target)

    def pose(self, lidar: str, stamp: int) -> np.ndarray | None:
        """(4, 4) float64 of a LiDAR's frame in the fixed one, None where it is not known."""
        if self._motion is None:
            return None
        poses = self._motion.world_from_lidar(lidar, np.array([stamp], np.int64))
        return None if poses is None else poses[0]

    def motion_here(self, cloud: Any, target: int, lag: int) -> bool:
        """Whether a scan's motion to a moment has come, or is not to be expected.

        Raises:
            InputError: the scan cannot be read.
        """
        if self._motion is None or not self._motion.source(frame_of(cloud)):
            return True
        end, times = stamp_of(cloud.header) - lag, self._scan(cloud)[0].times
        if times is not None:
            end += round(float(times.max()) * 1e9)
        return self._motion.reaches(frame_of(cloud), max(end, target))

    def _await(self, cloud: Any, target: int, lag: int, wait: bool) -> None:
        """Give motion time to come; ever less where it never does in time."""
        if not wait or self.motion_here(cloud, target, lag):
            return
        with self._came:
            came = self._came.wait_for(lambda: self.motion_here(cloud, target, lag), self._wait)
        most = self._settings.sync_timeout
        self._wait = most if came else max(_LEAST_WAIT, self._wait / 2)

    def _say(self, motion: EgoMotion, source: str, lidar: str, timed: bool, report: Report) -> None:
        """What tells the motion, once, and when it changes."""
        text = motion.obstacle(lidar)
        if source:
            each = "each point from when it was measured, " if timed else ""
            text = f"scans are moved to the image's time, {each}by {source}"
        elif text:
            text = f"scans are not moved to the image's time: {text}"
        if text and text != self._said:
            self._said = text
            report.warn(MOTION, f"{self._where}: {text}")

    def _scan(self, cloud: Any) -> tuple[Scan, Report]:
        """A scan read, and what was said of it; one that stands in for others is read once."""
        for message, scan, told in tuple(self._read):
            if message is cloud:
                return scan, told
        least, timed = self._settings.minimum_range, self._motion is not None

        def read(message: Any) -> tuple[Scan, Report]:
            told, stamp = Report(), stamp_of(message.header) if timed else None
            where = self._where
            return read_scan(message, where, minimum_range=least, report=told, stamp=stamp), told

        scan, told = once(cloud, ("scan", least, timed), read)
        self._read.append((cloud, scan, told))
        return scan, told


def frame_of(message: Any) -> str:
    """The frame of a message, without the slash of old drivers."""
    return str(message.header.frame_id).lstrip("/")
