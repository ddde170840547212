"""A tree of frames whose transforms change over time."""

from __future__ import annotations

import bisect
import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.clock import Clock, ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.time import Time
from std_msgs.msg import Header

_NS = 10**9
_DEFAULT_CACHE = Duration(seconds=10)
# A transform: translation (3,) and quaternion x, y, z, w (4,); parent_from_child.
_Transform = tuple[np.ndarray, np.ndarray]
_IDENTITY: _Transform = (np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))


class TransformException(Exception):
    """Base of what lookups raise."""


class LookupException(TransformException):
    """A frame is unknown."""


class ConnectivityException(TransformException):
    """Two frames are in different trees."""


class ExtrapolationException(TransformException):
    """There is no data for the time asked for."""


class InvalidArgumentException(TransformException):
    """A frame name or a transform is malformed."""


class TimeoutException(TransformException):
    """A wait took too long."""


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return np.array(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]
    )


def _rotate(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    cross = 2.0 * np.cross(q[:3], v)
    return v + q[3] * cross + np.cross(q[:3], cross)


def _compose(a: _Transform, b: _Transform) -> _Transform:
    return a[0] + _rotate(a[1], b[0]), _multiply(a[1], b[1])


def _invert(a: _Transform) -> _Transform:
    q = a[1] * np.array([-1.0, -1.0, -1.0, 1.0])
    return -_rotate(q, a[0]), q


def _slerp(a: np.ndarray, b: np.ndarray, ratio: float) -> np.ndarray:
    """Shoemake's spherical interpolation (SIGGRAPH 1985), along the shorter arc."""
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        mixed = (1 - ratio) * a + ratio * b
    else:
        mixed = (np.sin((1 - ratio) * angle) * a + np.sin(ratio * angle) * b) / np.sin(angle)
    return mixed / np.linalg.norm(mixed)


class _History:
    """Transforms of one frame to its parents, sorted by time; or one that always holds."""

    def __init__(self, static: bool) -> None:
        self.static = static
        self._stamps: list[int] = []
        self._entries: list[tuple[str, _Transform]] = []

    def add(self, stamp: int, parent: str, transform: _Transform, cache: int) -> None:
        if self.static:
            self._stamps, self._entries = [0], [(parent, transform)]
            return
        if self._stamps and stamp < self._stamps[-1] - cache:
            return
        at = bisect.bisect_left(self._stamps, stamp)
        if at < len(self._stamps) and self._stamps[at] == stamp:
            self._entries[at] = (parent, transform)
        else:
            self._stamps.insert(at, stamp)
            self._entries.insert(at, (parent, transform))
        old = bisect.bisect_left(self._stamps, self._stamps[-1] - cache)
        del self._stamps[:old], self._entries[:old]

    @property
    def latest(self) -> int | None:
        """Stamp of the newest entry; None where it holds at all times."""
        return None if self.static else self._stamps[-1]

    def parent(self, stamp: int) -> str:
        """The parent at a time, or the one nearest in time; 0 asks for the newest."""
        at = bisect.bisect_left(self._stamps, stamp) if stamp and not self.static else -1
        return self._entries[min(at, len(self._entries) - 1)][0]

    def at(self, stamp: int, frame: str) -> _Transform:
        """parent_from_frame at a time, interpolated."""
        if self.static:
            return self._entries[0][1]
        stamps = self._stamps
        at = bisect.bisect_left(stamps, stamp)
        if at < len(stamps) and stamps[at] == stamp:
            return self._entries[at][1]
        if 0 < at < len(stamps):
            (before_parent, before), (parent, after) = self._entries[at - 1 : at + 1]
            if before_parent != parent:
                return before
            ratio = (stamp - stamps[at - 1]) / (stamps[at] - stamps[at - 1])
            moved = (1 - ratio) * before[0] + ratio * after[0]
            return moved, _slerp(before[1], after[1], ratio)
        past = at == 0
        edge = stamps[0] if past else stamps[-1]
        if len(stamps) == 1:
            raise ExtrapolationException(
                f"Lookup would require extrapolation at time {stamp / _NS:.6f}, but only time "
                f"{edge / _NS:.6f} is in the buffer, when looking up transform of frame [{frame}]"
            )
        raise ExtrapolationException(
            f"Lookup would require extrapolation into the {'past' if past else 'future'}.  "
            f"Requested time {stamp / _NS:.6f} but the {'earliest' if past else 'latest'} data is "
            f"at time {edge / _NS:.6f}, when looking up transform of frame [{frame}]"
        )


class Buffer:
    """Keeps transforms and answers for them; thread-safe.

    A clock that goes back, or is exchanged, clears it, but for static transforms.
    """

    def __init__(self, cache_time: Duration | None = None, node: Any = None) -> None:
        self._cache = (cache_time or _DEFAULT_CACHE).nanoseconds
        self._changed = threading.Condition()
        self._frames: dict[str, _History] = {}
        self._parents: set[str] = set()
        self._jump_handle: Any = None
        if node is not None:
            self.follow(node.get_clock())

    def follow(self, clock: Clock) -> None:
        """Clear when this clock goes back; TransformListener calls it with its node's."""
        if self._jump_handle is None:
            threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1))
            self._jump_handle = clock.create_jump_callback(threshold, post_callback=self._jumped)

    def _jumped(self, jump: TimeJump) -> None:
        if jump.clock_change is ClockChange.ROS_TIME_NO_CHANGE:
            get_logger("tf2_buffer").warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()

    def clear(self) -> None:
        """Forget everything but static transforms."""
        with self._changed:
            self._frames = {name: h for name, h in self._frames.items() if h.static}

    def set_transform(self, transform: Any, authority: str) -> None:
        """Add a geometry_msgs/TransformStamped.

        Raises:
            InvalidArgumentException: its names or numbers are malformed.
        """
        self._add(transform, static=False)

    def set_transform_static(self, transform: Any, authority: str) -> None:
        """Add a geometry_msgs/TransformStamped that always holds."""
        self._add(transform, static=True)

    def _add(self, message: Any, static: bool) -> None:
        parent = message.header.frame_id.lstrip("/")
        child = message.child_frame_id.lstrip("/")
        if not parent or not child or parent == child:
            raise InvalidArgumentException(
                f"transform from '{parent}' to '{child}': frames must be named and differ"
            )
        move, turn = message.transform.translation, message.transform.rotation
        translation = np.array([move.x, move.y, move.z])
        rotation = np.array([turn.x, turn.y, turn.z, turn.w])
        length = np.linalg.norm(rotation)
        if not np.isfinite(translation).all() or not abs(length - 1) < 1e-3:
            raise InvalidArgumentException(
                f"transform from '{parent}' to '{child}' has a NaN or a quaternion that is not "
                "normalized"
            )
        stamp = message.header.stamp.sec * _NS + message.header.stamp.nanosec
        with self._changed:
            history = self._frames.get(child)
            if history is None or history.static != static:
                history = self._frames[child] = _History(static)
            history.add(stamp, parent, (translation, rotation / length), self._cache)
            self._parents.add(parent)
            self._changed.notify_all()

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration | None = None,
    ) -> Any:
        """target_from_source as a geometry_msgs/TransformStamped.

        Args:
            target_frame: frame to transform into.
            source_frame: frame of the data.
            time: when; Time() asks for the latest common time.
            timeout: how long to wait for data that another thread receives.

        Raises:
            LookupException: a frame is unknown.
            ConnectivityException: the frames are not connected.
            ExtrapolationException: there is no data for this time.
        """
        return self._waiting(timeout, lambda: self._lookup(target_frame, source_frame, time))

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration | None = None,
    ) -> Any:
        """Transform at one time from source at another, through a frame that does not move."""

        def find() -> Any:
            first = self._lookup(fixed_frame, source_frame, source_time)
            second = self._lookup(target_frame, fixed_frame, target_time)
            both = _compose(_numbers(second), _numbers(first))
            stamp = target_time.nanoseconds
            return _message(target_frame, source_frame, stamp, both)

        return self._waiting(timeout, find)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration | None = None,
        return_debug_tuple: bool = False,
    ) -> Any:
        """Whether lookup_transform would answer; with the reason if `return_debug_tuple`."""
        try:
            self.lookup_transform(target_frame, source_frame, time, timeout)
        except TransformException as error:
            return (False, str(error)) if return_debug_tuple else False
        return (True, "") if return_debug_tuple else True

    def get_latest_common_time(self, target_frame: str, source_frame: str) -> Time:
        """The newest time that a lookup can answer for; zero where only static ones are used."""
        with self._changed:
            up, down = self._path(target_frame, source_frame, 0)
            return Time(nanoseconds=self._common(up + down))

    def all_frames_as_string(self) -> str:
        """One line for each frame."""
        with self._changed:
            return "\n".join(
                f"Frame {name} exists with parent {h.parent(0)}."
                for name, h in self._frames.items()
            )

    def _waiting(self, timeout: Duration | None, find: Any) -> Any:
        import time as clock

        end = clock.monotonic() + (timeout.nanoseconds / _NS if timeout else 0.0)
        with self._changed:
            while True:
                try:
                    return find()
                except TransformException:  # noqa: PERF203
                    left = end - clock.monotonic()
                    if left <= 0:
                        raise
                    # In naps, so that a signal can interrupt.
                    self._changed.wait(min(left, 0.1))

    def _lookup(self, target: str, source: str, time: Time) -> Any:
        with self._changed:
            stamp = time.nanoseconds
            up, down = self._path(target.lstrip("/"), source.lstrip("/"), stamp)
            if stamp == 0:
                stamp = self._common(up + down)
            ancestor_from_source = self._chain(down, stamp)
            ancestor_from_target = self._chain(up, stamp)
        both = _compose(_invert(ancestor_from_target), ancestor_from_source)
        return _message(target, source, stamp, both)

    def _path(self, target: str, source: str, stamp: int) -> tuple[list[str], list[str]]:
        """Frames below the nearest common ancestor, on the target's and the source's side."""
        for role, frame in (("target_frame", target), ("source_frame", source)):
            if not frame:
                raise InvalidArgumentException(f"{role} is empty")
            if frame not in self._frames and frame not in self._parents:
                raise LookupException(
                    f'"{frame}" passed to lookupTransform argument {role} does not exist.'
                )
        above_target, above_source = self._ancestry(target, stamp), self._ancestry(source, stamp)
        known = set(above_source)
        for index, frame in enumerate(above_target):
            if frame in known:
                return above_target[:index], above_source[: above_source.index(frame)]
        raise ConnectivityException(
            f"Could not find a connection between '{target}' and '{source}' because they are not "
            "part of the same tree. Tf has two or more unconnected trees."
        )

    def _ancestry(self, frame: str, stamp: int) -> list[str]:
        chain = [frame]
        while chain[-1] in self._frames:
            parent = self._frames[chain[-1]].parent(stamp)
            if parent in chain:
                raise LookupException(f"The tf tree is invalid: it has a loop through '{parent}'")
            chain.append(parent)
        return chain

    def _common(self, frames: list[str]) -> int:
        stamps = [s for f in frames if (s := self._frames[f].latest) is not None]
        return min(stamps, default=0)

    def _chain(self, frames: list[str], stamp: int) -> _Transform:
        total = _IDENTITY
        for frame in frames:
            total = _compose(self._frames[frame].at(stamp, frame), total)
        return total


def _numbers(message: Any) -> _Transform:
    move, turn = message.transform.translation, message.transform.rotation
    return np.array([move.x, move.y, move.z]), np.array([turn.x, turn.y, turn.z, turn.w])


def _message(target: str, source: str, stamp: int, transform: _Transform) -> Any:
    message = TransformStamped(
        header=Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=target),
        child_frame_id=source,
    )
    message.transform.translation = Vector3(
        **dict(zip("xyz", map(float, transform[0]), strict=True))
    )
    rotation = dict(zip("xyzw", map(float, transform[1]), strict=True))
    message.transform.rotation = Quaternion(**rotation)
    return message
