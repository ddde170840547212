"""The transform tree of /tf_static and /tf, for nodes and bags alike."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np

from amodal_core import limits
from amodal_core.bags.sensors import read_transform, stamp_of
from amodal_core.drive.poses import Poses
from amodal_core.errors import InputError

# Frames that stand still while the vehicle moves (REP 105), of a vehicle among several, too.
_FIXED = re.compile(r"(?:^|/)(?:odom|map|world|earth)(?:$|_)")


class TransformTree:
    """Frames and where each stands in its parent; thread-safe.

    A path that is not there raises; it is never taken as identity. `lookup` takes the newest of
    each link; `lookup_at` interpolates those that move.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._static: dict[str, tuple[str, np.ndarray]] = {}
        self._parents: dict[str, tuple[str, np.ndarray]] = {}
        self._poses: dict[str, Poses] = {}  # of what may move, in its parent

    def add(self, message: Any, where: str = "tf", *, static: bool = False) -> None:
        """Take in a tf2_msgs/TFMessage; static ones survive a reset.

        Raises:
            InputError: a transform is malformed, would make a frame its own ancestor, or is that of
            a frame beyond `limits.FRAMES`.
        """
        with self._changed:
            for transform in message.transforms:
                parent, child, matrix = read_transform(transform, where)
                if child not in self._parents and len(self._parents) >= limits.FRAMES:
                    text = f"'{child}' is one frame more than {limits.FRAMES}"
                    raise InputError(text, where, "check who publishes ever new names")
                if child in self._ancestors(parent):
                    raise InputError(f"{parent} -> {child} closes a circle of frames", where)
                if static or self._parents.get(child, (parent,))[0] != parent:
                    self._poses.pop(child, None)
                if static:
                    self._static[child] = (parent, matrix)
                elif not self._poses.setdefault(child, Poses()).add(
                    stamp_of(transform.header), matrix
                ):
                    continue  # of another time, until a second one is
                self._parents[child] = (parent, matrix)
                self._changed.notify_all()

    def reset(self, now: int) -> None:
        """Time jumped back to `now`: forget what moves and is ahead of it, keep what is static."""
        with self._changed:
            for child, poses in list(self._poses.items()):
                poses.cut(now)
                if poses.newest is None:
                    del self._poses[child], self._parents[child]
            self._parents = self._static | self._parents

    def lookup(
        self, target: str, source: str, where: str = "tf", *, timeout: float = 0.0
    ) -> np.ndarray:
        """(4, 4) float64 target_from_source, waiting up to `timeout` seconds for it to appear.

        Raises:
            InputError: a frame is unknown, or nothing connects the two.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        with self._changed:
            if timeout > 0:
                self._changed.wait_for(lambda: self._common(target, source) is not None, timeout)
            common = self._common(target, source)
            if common is None:
                frames = sorted({*self._parents, *(p for p, _ in self._parents.values())})
                raise InputError(
                    f"no transform from '{source}' to '{target}'; known frames: "
                    f"{', '.join(frames) or 'none'}",
                    where,
                    "publish the LiDAR's place on /tf_static, or give it as the extrinsics",
                )
            if target == source:
                return np.eye(4)
            return np.linalg.inv(self._to(common, target)) @ self._to(common, source)

    def connected(self, target: str, source: str) -> bool:
        """Whether a path leads from one frame to the other."""
        with self._changed:
            return self._common(target, source) is not None

    def fixed_above(self, frame: str, given: str = "") -> str:
        """The fixed frame in which a frame moves, "" where there is none.

        Args:
            frame: such as the LiDAR's.
            given: the fixed frame; "" takes the nearest ancestor named odom, map, world or earth.
        """
        with self._changed:
            moves = False
            for child in self._ancestors(frame):
                if child not in self._parents:
                    break
                parent = self._parents[child][0]
                moves |= child in self._poses
                if moves and not given and _FIXED.search(parent):
                    return parent
            return given if moves and given and self.connected(given, frame) else ""

    def reaches(self, fixed: str, frame: str, stamp: int) -> bool:
        """Whether what moves between two connected frames is known up to a stamp."""
        with self._changed:
            common = self._common(fixed, frame)
            children = [*self._links(common, fixed), *self._links(common, frame)]
            moving = [self._poses[c] for c in children if self._moves(c, fixed)]
            return all((p.newest or 0) >= stamp for p in moving)

    def lookup_at(self, fixed: str, frame: str, stamps: np.ndarray) -> np.ndarray | None:
        """(n, 4, 4) float64 fixed_from_frame at (n,) int64 stamps of two connected frames.

        Returns:
            None where a link that moves is not known at one of the stamps.
        """
        with self._changed:
            common = self._common(fixed, frame)
            below, above = (
                self._to_at(common, frame, fixed, stamps),
                self._to_at(common, fixed, fixed, stamps),
            )
            return None if below is None or above is None else np.linalg.inv(above) @ below

    def _moves(self, child: str, fixed: str) -> bool:
        """Whether a link moves; static ones that are published on /tf do not."""
        if child not in self._poses:
            return False
        parent = self._parents[child][0]
        return parent == fixed or bool(_FIXED.search(parent)) or not self._poses[child].still

    def _links(self, ancestor: str | None, frame: str) -> list[str]:
        """The children of the links from a frame up to an ancestor."""
        chain = self._ancestors(frame)
        return chain[: chain.index(ancestor)] if ancestor in chain else chain

    def _to_at(
        self, ancestor: str | None, frame: str, fixed: str, stamps: np.ndarray
    ) -> np.ndarray | None:
        matrices = np.broadcast_to(np.eye(4), (len(stamps), 4, 4))
        for child in self._links(ancestor, frame):
            if self._moves(child, fixed):
                step = self._poses[child].at(stamps)
                if step is None:
                    return None
                matrices = step @ matrices
            else:
                matrices = self._parents[child][1] @ matrices
        return matrices

    def _common(self, target: str, source: str) -> str | None:
        """The nearest frame that both hang from."""
        above = self._ancestors(source)
        return next((f for f in self._ancestors(target) if f in above), None)

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent, and so on to the root."""
        chain = [frame]
        while chain[-1] in self._parents:
            chain.append(self._parents[chain[-1]][0])
        return chain

    def _to(self, ancestor: str, frame: str) -> np.ndarray:
        matrix = np.eye(4)
        while frame != ancestor:
            frame, step = self._parents[frame]
            matrix = step @ matrix
        return matrix
