"""Masks as runs of set pixels: what a set of masks does without knowing their images' widths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from amodal_core.masks import rle


class Runs:
    """N masks over images of any sizes. Immutable: every operation gives a new set.

    Args:
        runs: (M, 2) int64, see `amodal_core.masks.rle`.
        first: (N + 1,) int64.
        heights: (N,) int64 of each mask's image in pixels, or one for all.
    """

    def __init__(self, runs: np.ndarray, first: np.ndarray, heights: np.ndarray | int) -> None:
        self.runs, self.first = runs, first
        if isinstance(heights, int):
            heights = np.full(len(first) - 1, heights, np.int64)
        self.heights = np.ascontiguousarray(heights)

    @classmethod
    def parse(
        cls, counts: Sequence[bytes], heights: np.ndarray | int, widths: np.ndarray | int
    ) -> Runs:
        """Parse COCO compressed RLE.

        Args:
            counts: N masks.
            heights: (N,) int64 of each mask's image in pixels, or one for all.
            widths: (N,) int64, or one for all.

        Raises:
            RleError: a mask is no RLE of an image of its size.
        """
        return cls(*rle.parse(counts, heights * widths), heights)

    @classmethod
    def concatenated(cls, sets: Sequence[Runs]) -> Runs:
        """The masks of one or more sets, one after the other."""
        shifts = np.cumsum([0] + [len(s.runs) for s in sets])
        first = [s.first[1:] + shift for s, shift in zip(sets, shifts, strict=False)]
        out = cls(
            np.concatenate([s.runs for s in sets]),
            np.concatenate([np.zeros(1, np.int64), *first]),
            np.concatenate([s.heights for s in sets]),
        )
        if all("_bounds" in s.__dict__ for s in sets):
            boxes, areas = zip(*(s._bounds for s in sets), strict=True)
            out.__dict__["_bounds"] = np.concatenate(boxes), np.concatenate(areas)
        return out

    def __len__(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, chosen: Any) -> Runs:
        """The masks at these positions (K,) int64; -1 gives an empty mask."""
        chosen = np.asarray(chosen, np.int64)
        if len(chosen) and chosen.min() < 0:
            nothing = Runs(np.zeros((0, 2), np.int64), np.zeros(2, np.int64), 1)
            return self.picked(np.where(chosen < 0, len(self), chosen), nothing)
        return self.picked(chosen)

    def picked(self, chosen: np.ndarray, others: Runs | None = None) -> Runs:
        """The masks at these places (K,) int64 from 0 on; those of other masks from N on."""
        more = self if others is None else others
        runs, first = rle.gather(self.runs, self.first, more.runs, more.first, chosen)

        def column(own: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return (own if others is None else np.concatenate([own, theirs])).take(chosen, 0)

        out = Runs(runs, first, column(self.heights, more.heights))
        if "_bounds" in self.__dict__:
            boxes, areas = self._bounds
            out.__dict__["_bounds"] = column(boxes, more.boxes), column(areas, more.areas)
        return out

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64 xyxy, exclusive maximum, zeros where empty."""
        return self._bounds[0]

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64 pixels."""
        return self._bounds[1]

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return rle.bounds(self.runs, self.first, self.heights)

    def __and__(self, other: Runs) -> Runs:
        """Mask by mask, what both cover."""
        return self._combined(other, rle.AND)

    def __or__(self, other: Runs) -> Runs:
        """Mask by mask, what either covers."""
        return self._combined(other, rle.OR)

    def __sub__(self, other: Runs) -> Runs:
        """Mask by mask, what this covers and the other does not."""
        return self._combined(other, rle.SUBTRACT)

    def _combined(self, other: Runs, how: int) -> Runs:
        if len(self) != len(other):
            raise ValueError(f"{len(self)} masks and {len(other)} cannot be combined one by one")
        runs, first = rle.combine(self.runs, self.first, other.runs, other.first, how)
        return Runs(runs, first, self.heights)

    def shared(self, other: Runs) -> np.ndarray:
        """(N,) int64 pixels that both cover, mask by mask."""
        return rle.shared_each(self.runs, self.first, other.runs, other.first)
