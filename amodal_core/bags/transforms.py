"""The transform tree of a bag: /tf_static, and the newest of /tf where a path leads through it."""

from __future__ import annotations

from typing import Any

import numpy as np

from amodal_core.bags.sensors import read_transform
from amodal_core.errors import InputError


class TransformTree:
    """Frames and where each stands in its parent."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, np.ndarray]] = {}

    def add(self, message: Any, where: str = "tf") -> None:
        """Take in a tf2_msgs/TFMessage.

        Raises:
            InputError: a transform is malformed, or would make a frame its own ancestor.
        """
        for transform in message.transforms:
            parent, child, matrix = read_transform(transform, where)
            if child in self._ancestors(parent):
                raise InputError(f"{parent} -> {child} closes a circle of frames", where)
            self._parents[child] = (parent, matrix)

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

    def lookup(self, target: str, source: str, where: str = "tf") -> np.ndarray:
        """(4, 4) float64 target_from_source; never an identity for a path that is not there.

        Raises:
            InputError: a frame is unknown, or nothing connects the two.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        if target == source:
            return np.eye(4)
        above = self._ancestors(source)
        common = next((f for f in self._ancestors(target) if f in above), None)
        if common is None:
            known = sorted({*self._parents, *(p for p, _ in self._parents.values())})
            raise InputError(
                f"no transform from '{source}' to '{target}'; known frames: "
                f"{', '.join(known) or 'none'}",
                where,
                "publish the LiDAR's place on /tf_static, or give it as the extrinsics",
            )
        return np.linalg.inv(self._to(common, target)) @ self._to(common, source)
