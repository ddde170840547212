"""The transform tree of /tf_static and of the newest /tf, for nodes and bags alike."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from amodal_core.bags.sensors import read_transform
from amodal_core.errors import InputError


class TransformTree:
    """Frames and where each stands in its parent; thread-safe.

    A path that is not there raises; it is never taken as identity.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._static: dict[str, tuple[str, np.ndarray]] = {}
        self._parents: dict[str, tuple[str, np.ndarray]] = {}

    def add(self, message: Any, where: str = "tf", *, static: bool = False) -> None:
        """Take in a tf2_msgs/TFMessage; static ones survive a reset.

        Raises:
            InputError: a transform is malformed, or would make a frame its own ancestor.
        """
        with self._changed:
            for transform in message.transforms:
                parent, child, matrix = read_transform(transform, where)
                if child in self._ancestors(parent):
                    raise InputError(f"{parent} -> {child} closes a circle of frames", where)
                self._parents[child] = (parent, matrix)
                if static:
                    self._static[child] = (parent, matrix)
                self._changed.notify_all()

    def reset(self) -> None:
        """Time jumped back: forget what moves, keep what is static."""
        with self._changed:
            self._parents = dict(self._static)

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
