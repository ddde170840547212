"""A tree of frames whose transforms change over time, filled from /tf and /tf_static."""

from __future__ import annotations

import bisect
import threading
import time as steady
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.clock import Clock
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from embedded_ros.importer import Partial

_NS = 10**9
_DEFAULT_CACHE = Duration(seconds=10)


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


class _History:
    """(4, 4) parent_from_frame of one frame, sorted by time; or one that always holds."""

    def __init__(self, static: bool) -> None:
        self.static = static
        self.stamps: list[int] = []
        self._entries: list[tuple[str, np.ndarray]] = []

    def add(self, stamp: int, parent: str, transform: np.ndarray, cache: int) -> None:
        if self.static:
            self.stamps, self._entries = [0], [(parent, transform)]
            return
        if self.stamps and stamp < self.stamps[-1] - cache:
            return
        at = bisect.bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self.stamps[at] == stamp:
            self._entries[at] = (parent, transform)
        else:
            self.stamps.insert(at, stamp)
            self._entries.insert(at, (parent, transform))
        old = bisect.bisect_left(self.stamps, self.stamps[-1] - cache)
        del self.stamps[:old], self._entries[:old]

    def parent(self, stamp: int) -> str:
        """The parent at a time, or the one nearest in time; 0 asks for the newest."""
        at = bisect.bisect_left(self.stamps, stamp) if stamp and not self.static else -1
        return self._entries[min(at, len(self._entries) - 1)][0]

    def at(self, stamp: int, frame: str) -> np.ndarray:
        """parent_from_frame at a time, interpolated."""
        if self.static:
            return self._entries[0][1]
        stamps = self.stamps
        at = bisect.bisect_left(stamps, stamp)
        if at < len(stamps) and stamps[at] == stamp:
            return self._entries[at][1]
        if 0 < at < len(stamps):
            (before_parent, before), (parent, after) = self._entries[at - 1 : at + 1]
            ratio = (stamp - stamps[at - 1]) / (stamps[at] - stamps[at - 1])
            return before if before_parent != parent else _interpolated(before, after, ratio)
        past = at == 0
        raise ExtrapolationException(
            f"Lookup would require extrapolation into the {'past' if past else 'future'}.  "
            f"Requested time {stamp / _NS:.6f} but the {'earliest' if past else 'latest'} data is "
            f"at time {stamps[0 if past else -1] / _NS:.6f}, when looking up transform of frame "
            f"[{frame}]"
        )


def _interpolated(before: np.ndarray, after: np.ndarray, ratio: float) -> np.ndarray:
    made = (1 - ratio) * before + ratio * after
    ends = Rotation.from_matrix(np.stack([before[:3, :3], after[:3, :3]]))
    made[:3, :3] = Slerp([0.0, 1.0], ends)(ratio).as_matrix()
    return made


class Buffer(Partial):
    """Keeps transforms and answers for them; thread-safe.

    A clock that goes back, or is exchanged, clears it, but for static transforms.
    """

    _absent = (
        "all_frames_as_string all_frames_as_yaml can_transform_core can_transform_full "
        "get_latest_common_time lookup_transform_async lookup_transform_core "
        "lookup_transform_full lookup_transform_full_async registration transform transform_full "
        "wait_for_transform_async"
    )

    def __init__(self, cache_time: Duration | None = None, node: Any = None) -> None:
        self._cache = (cache_time or _DEFAULT_CACHE).nanoseconds
        self._changed = threading.Condition()
        self._frames: dict[str, _History] = {}
        self._parents: set[str] = set()
        self._clock: Clock | None = None
        if node is not None:
            self._follow(node.get_clock())

    def _follow(self, clock: Clock) -> None:
        """Clear when this clock goes back."""
        if self._clock is None:
            self._clock = clock
            clock._watch(self._clock_moved)

    def _clock_moved(self, jumped: bool) -> None:
        if jumped:
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
        transform, quaternion = np.eye(4), np.array([turn.x, turn.y, turn.z, turn.w])
        transform[:3, 3] = move.x, move.y, move.z
        if not np.isfinite(transform).all() or not abs(np.linalg.norm(quaternion) - 1) < 1e-3:
            raise InvalidArgumentException(
                f"transform from '{parent}' to '{child}' has a NaN or a quaternion that is not "
                "normalized"
            )
        transform[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
        with self._changed:
            history = self._frames.get(child)
            if history is None or history.static != static:
                history = self._frames[child] = _History(static)
            stamp = Time.from_msg(message.header.stamp).nanoseconds
            history.add(stamp, parent, transform, self._cache)
            self._parents.add(parent)
            self._changed.notify_all()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration | None = None
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
        end = steady.monotonic() + (timeout.nanoseconds / _NS if timeout else 0.0)
        with self._changed:
            while True:
                try:
                    return self._lookup(target_frame, source_frame, time.nanoseconds)
                except TransformException:  # noqa: PERF203
                    left = end - steady.monotonic()
                    if left <= 0:
                        raise
                    # In naps, so that a signal can interrupt.
                    self._changed.wait(min(left, 0.1))

    def can_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration | None = None
    ) -> bool:
        """Whether lookup_transform would answer."""
        try:
            self.lookup_transform(target_frame, source_frame, time, timeout)
        except TransformException:
            return False
        return True

    def _lookup(self, target: str, source: str, stamp: int) -> Any:
        up, down = self._path(target.lstrip("/"), source.lstrip("/"), stamp)
        if stamp == 0:
            moving = [h for f in up + down if not (h := self._frames[f]).static]
            stamp = min((h.stamps[-1] for h in moving), default=0)
        found = np.linalg.inv(self._chain(up, stamp)) @ self._chain(down, stamp)
        header = Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=target)
        message = TransformStamped(header=header, child_frame_id=source)
        turn = Rotation.from_matrix(found[:3, :3]).as_quat().tolist()
        message.transform.translation = Vector3(
            **dict(zip("xyz", found[:3, 3].tolist(), strict=True))
        )
        message.transform.rotation = Quaternion(**dict(zip("xyzw", turn, strict=True)))
        return message

    def _path(self, target: str, source: str, stamp: int) -> tuple[list[str], list[str]]:
        """Frames below the nearest common ancestor, on the target's and the source's side."""
        for role, frame in (("target_frame", target), ("source_frame", source)):
            if frame not in self._frames and frame not in self._parents:
                raise LookupException(
                    f'"{frame}" passed to lookupTransform argument {role} does not exist.'
                )
        up, down = self._ancestry(target, stamp), self._ancestry(source, stamp)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            raise ConnectivityException(
                f"Could not find a connection between '{target}' and '{source}' because they are "
                "not part of the same tree. Tf has two or more unconnected trees."
            )
        return up[: up.index(common)], down[: down.index(common)]

    def _ancestry(self, frame: str, stamp: int) -> list[str]:
        chain = [frame]
        while chain[-1] in self._frames:
            parent = self._frames[chain[-1]].parent(stamp)
            if parent in chain:
                raise LookupException(f"The tf tree is invalid: it has a loop through '{parent}'")
            chain.append(parent)
        return chain

    def _chain(self, frames: list[str], stamp: int) -> np.ndarray:
        """(4, 4) of the last frame's parent from the first frame."""
        total = np.eye(4)
        for frame in frames:
            total = self._frames[frame].at(stamp, frame) @ total
        return total


class TransformListener(Partial):
    """Subscribes to transforms; the node's executor has to spin."""

    _absent = "dedicated_listener_thread executor group"

    def __init__(self, buffer: Buffer, node: Any) -> None:
        self.buffer, self.node = buffer, node
        buffer._follow(node.get_clock())
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.tf_sub = node.create_subscription(
            TFMessage, "/tf", lambda message: self._store(message, buffer.set_transform), 100
        )
        self.tf_static_sub = node.create_subscription(
            TFMessage,
            "/tf_static",
            lambda message: self._store(message, buffer.set_transform_static),
            latched,
        )

    def unregister(self) -> None:
        """Listen no more."""
        self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)

    def _store(self, message: Any, put: Callable[[Any, str], None]) -> None:
        for transform in message.transforms:
            try:
                put(transform, "default_authority")
            except InvalidArgumentException as error:  # noqa: PERF203
                self.node.get_logger().error(f"ignored a {error}", throttle_duration_sec=5.0)
