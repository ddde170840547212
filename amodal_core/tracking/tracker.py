"""Identities by masks, motion, range, class and looks together."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from amodal_core.frame import Instances
from amodal_core.settings import settings_type
from amodal_core.tracking.association import Looks, affinity, assign
from amodal_core.tracking.book import Book, unit
from amodal_core.tracking.coasting import CoastingConfig, CoastingTracker, Matches, Share


@settings_type
class TrackerConfig(CoastingConfig):
    """Settings of `Tracker`, beside those of coasting.

    Attributes:
        high_score: detections from here on are matched first and may begin tracks.
        low_score: detections below this are ignored; those between only prolong tracks.
        min_affinity: pairs that fit worse are no match.
        min_hits: sights before a track is given out; in a stream's first frame one is enough.
    """

    high_score: Share = 0.4
    low_score: Share = 0.1
    min_affinity: Share = 0.25
    min_hits: Annotated[int, Field(ge=1, le=100)] = 3

    def __post_init__(self) -> None:
        if self.low_score > self.high_score:
            raise ValueError("low_score must not be above high_score")


class Tracker(CoastingTracker):
    """Optimal assignment of detections to tracks, first the sure ones, then the rest.

    Masks, motion, range, class and embeddings make one affinity a pair. Sure detections that are
    no track begin one, which is given out when it has been seen often enough.
    """

    config: TrackerConfig

    def __init__(self, config: TrackerConfig | None = None) -> None:
        super().__init__(config or TrackerConfig())

    def _worth(self, seen: Instances) -> np.ndarray:
        worth: np.ndarray = np.asarray(seen.scores) >= self.config.low_score
        return worth

    def _looks(self, seen: Instances) -> np.ndarray:
        return unit(seen, len(seen))

    def _mixed(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        known = np.any(old != 0, axis=1, keepdims=True)
        mixed = np.where(known, 0.7 * old + 0.3 * new, new)
        length = np.linalg.norm(mixed, axis=1, keepdims=True)
        return np.asarray(mixed / np.maximum(length, 1e-9))

    def _named(self, book: Book) -> np.ndarray:
        enough = 1 if self._frame == 1 else self.config.min_hits
        named: np.ndarray = book.hits >= enough
        return named

    def _match(self, book: Book, seen: Instances, measured: np.ndarray, dt: float) -> Matches:
        rows, columns = self._associate(book, seen, measured)
        return Matches(rows, columns, self._births(seen, columns))

    def _associate(
        self, book: Book, seen: Instances, measured: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if len(book) == 0 or len(seen) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        config = self.config
        tracks = Looks(
            book.amodal,
            book.visible,
            book.class_ids,
            book.embeddings,
        )
        looks = self._looks(seen)
        if not looks.shape[1] or looks.shape[1] != book.embeddings.shape[1]:
            tracks.embeddings = None
        detections = Looks(seen.amodal.rle(), seen.visible.rle(), np.asarray(seen.class_ids), looks)
        centres = (book.boxes[:, :2] + book.boxes[:, 2:]) / 2
        shifts = np.rint(book.motion.values[:, :2] - centres).astype(np.int64)
        fits = affinity(tracks, shifts, book.motion, detections, measured, config.max_range_error)
        sure = np.asarray(seen.scores) >= config.high_score
        rows, columns = assign(np.where(sure[None, :], fits, -np.inf), config.min_affinity)
        if not sure.all():
            fits[rows] = -np.inf
            fits[:, sure] = -np.inf
            fits[book.ids < 0] = -np.inf
            more_rows, more_columns = assign(fits, max(config.min_affinity, 0.4))
            rows, columns = np.append(rows, more_rows), np.append(columns, more_columns)
        order = np.argsort(rows, kind="stable")
        return rows[order], columns[order]

    def _births(self, seen: Instances, matched: np.ndarray) -> np.ndarray:
        """Indices of the detections that begin tracks: sure, unexplained, and no second copies."""
        free = np.asarray(seen.scores) >= self.config.high_score
        free[matched] = False
        born = np.flatnonzero(free)
        if len(born) == 0 or len(matched) == 0:
            return born
        amodal, depths = seen.amodal.rle(), np.asarray(seen.depths)
        overlap = amodal[born].iou(amodal[matched])
        apart = np.abs(depths[born][:, None] - depths[matched][None, :])
        copy = (overlap > 0.7) & (apart < 2.0)
        return born[~copy.any(axis=1)]
