"""The transform tree as the nodes see it: /tf_static and /tf into amodal_core's TransformTree."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from amodal_core.bags.transforms import TransformTree
from amodal_core.errors import InputError


class TransformListener:
    """Keeps the tree of /tf_static and /tf; thread-safe.

    It is the tree that an offline replay uses, so that both find the same transforms. A path that
    is not there raises; it is never taken as identity.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._static: list[Any] = []
        self._tree = TransformTree()

    def add_static(self, message: Any) -> None:
        """Take in a message of /tf_static; InputError where it is malformed."""
        with self._changed:
            self._tree.add(message, "/tf_static")
            self._static.append(message)
            self._changed.notify_all()

    def add(self, message: Any) -> None:
        """Take in a message of /tf; InputError where it is malformed."""
        with self._changed:
            self._tree.add(message, "/tf")
            self._changed.notify_all()

    def reset(self) -> None:
        """Time jumped back: forget what moves, keep what is static."""
        with self._changed:
            self._tree = TransformTree()
            for message in self._static:
                self._tree.add(message, "/tf_static")

    def lookup(self, target: str, source: str, timeout: float) -> np.ndarray:
        """(4, 4) float64 target_from_source, waiting up to `timeout` seconds for it to appear.

        Raises:
            InputError: nothing connects the two frames.
        """
        failure: list[InputError] = []

        def found() -> np.ndarray | None:
            try:
                return self._tree.lookup(target, source, "/tf")
            except InputError as error:
                failure[:] = [error]
                return None

        with self._changed:
            matrix = found()
            if matrix is None and timeout > 0:
                self._changed.wait_for(lambda: found() is not None, timeout)
                matrix = found()
        if matrix is None:
            raise failure[0]
        return matrix
