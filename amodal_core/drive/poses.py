"""The poses of one frame over time, interpolated."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from amodal_core.drive.witness import JUMP_NS, Witnesses

_KEPT_NS = 10_000_000_000
_MOST = 4096
_LONGEST_GAP_NS = 500_000_000  # between poses that are farther apart nothing is known


class Poses:
    """Poses by their stamps, the last ten seconds of them."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._matrices: list[np.ndarray] = []
        self._witnesses: Witnesses[np.ndarray] = Witnesses(JUMP_NS, ahead=False)
        self.still = True  # all that came were equal

    @property
    def newest(self) -> int | None:
        """The newest stamp, None where there is no pose."""
        return self._stamps[-1] if self._stamps else None

    @property
    def last(self) -> np.ndarray:
        """(4, 4) the newest pose."""
        return self._matrices[-1]

    def add(self, stamp: int, matrix: np.ndarray) -> bool:
        """Take a (4, 4) pose in; late ones take their place.

        Returns:
            Whether its time is the stream's. One that is far off waits for a second of its time,
            see `drive/witness.py`.
        """
        passed = self._witnesses.judge("", stamp, matrix, self.newest).passed
        for each in passed:
            if self._stamps and each.stamp < self._stamps[-1] - JUMP_NS:
                self.cut(each.stamp)
            self._insert(each.stamp, each.message)
        return bool(passed)

    def _insert(self, stamp: int, matrix: np.ndarray) -> None:
        self.still = not self._stamps or (self.still and np.array_equal(matrix, self.last))
        place = bisect_left(self._stamps, stamp)
        if place < len(self._stamps) and self._stamps[place] == stamp:
            self._matrices[place] = matrix
            return
        self._stamps.insert(place, stamp)
        self._matrices.insert(place, matrix)
        old = bisect_left(self._stamps, self._stamps[-1] - _KEPT_NS)
        old = max(old, len(self._stamps) - _MOST)
        del self._stamps[:old], self._matrices[:old]

    def cut(self, stamp: int) -> None:
        """Forget what is later than a stamp."""
        place = bisect_left(self._stamps, stamp + 1)
        del self._stamps[place:], self._matrices[place:]

    def at(self, stamps: np.ndarray) -> np.ndarray | None:
        """(n, 4, 4) poses at (n,) int64 stamps.

        Returns:
            None where a stamp lies before the first pose, after the last, or in a gap of more than
            half a second.
        """
        if not self._stamps:
            return None
        own, low, high = self._stamps, int(stamps.min()), int(stamps.max())
        if low < own[0] or high > own[-1]:
            return None
        first = max(0, bisect_left(own, low + 1) - 1)
        end = bisect_left(own, high) + 1
        near = np.array(own[first:end], np.int64)
        if len(near) == 1:
            return np.broadcast_to(self._matrices[first], (len(stamps), 4, 4))
        if np.diff(near).max() > _LONGEST_GAP_NS:
            return None
        known = np.stack(self._matrices[first:end])
        # Relative: nanoseconds since 1970 do not fit into a float64.
        times, wanted = (near - near[0]).astype(np.float64), (stamps - near[0]).astype(np.float64)
        poses = np.tile(np.eye(4), (len(stamps), 1, 1))
        turns = Slerp(times, Rotation.from_matrix(known[:, :3, :3]))
        poses[:, :3, :3] = turns(wanted).as_matrix()
        for k in range(3):
            poses[:, k, 3] = np.interp(wanted, times, known[:, k, 3])
        return poses
