"""Identities by masks, motion, range, class and embeddings together."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from amodal_core.frame import Instances
from amodal_core.settings import Share, settings_type
from amodal_core.tracking.association import Appearance, affinity, assign
from amodal_core.tracking.coasting import CoastingConfig, CoastingTracker, Matches
from amodal_core.tracking.motion import RANGE, Motion
from amodal_core.tracking.track_store import TrackStore, unit_embeddings

_GOOD = 0.5  # affinity from which on a pair is matched before all others
_SURE = 0.5  # score of what is given out at once in a stream's first frame
# Of where a hidden object may come back, beside its predicted place: across and down.
_RETURN, _RETURN_RATE = np.array([1.0, 0.6]), np.array([1.0, 0.5])  # sides; a second
_RETURN_PIXELS = 4.0
_RETURN_HEIGHT = 0.5  # log of the ratio of heights in the image
_RETURN_SPEED = 8.0  # metres a second that its range may differ by


@settings_type
class TrackerConfig(CoastingConfig):
    """Settings of `Tracker`, beside those of coasting.

    Attributes:
        high_score: detections from here on are matched first and may begin tracks.
        low_score: detections below this are ignored; those between only prolong tracks.
        min_affinity: pairs that fit worse are no match.
        min_hits: sights before a track is given out; in a stream's first frame one is enough of
            what scores well.
    """

    high_score: Share = 0.3
    low_score: Share = 0.1
    min_affinity: Share = 0.25
    min_hits: Annotated[int, Field(ge=1, le=100)] = 3

    def __post_init__(self) -> None:
        if self.low_score > self.high_score:
            raise ValueError("low_score must not be above high_score")


class Tracker(CoastingTracker):
    """Optimal assignment of detections to tracks, high scores first, then the rest.

    Masks, motion, range, class and embeddings make one affinity a pair. Unmatched detections of
    high score begin tracks, which are given out when they have been visible often enough.
    """

    config: TrackerConfig

    def __init__(self, config: TrackerConfig | None = None) -> None:
        super().__init__(config or TrackerConfig())

    def _usable(self, detections: Instances) -> np.ndarray:
        usable: np.ndarray = np.asarray(detections.scores) >= self.config.low_score
        return usable

    def _embeddings(self, detections: Instances) -> np.ndarray:
        return unit_embeddings(detections)

    def _mixed(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        available = np.any(old != 0, axis=1, keepdims=True)
        mixed = np.where(available, 0.7 * old + 0.3 * new, new)
        length = np.linalg.norm(mixed, axis=1, keepdims=True)
        return np.asarray(mixed / np.maximum(length, 1e-9))

    def _confirmed(self, tracks: TrackStore) -> np.ndarray:
        confirmed: np.ndarray = tracks.hits >= self.config.min_hits
        if self._frame == 1:
            confirmed = confirmed | (tracks.scores >= _SURE)
        return confirmed

    def _match(
        self,
        tracks: TrackStore,
        detections: Instances,
        embeddings: np.ndarray,
        measured: np.ndarray,
        dt: float,
    ) -> Matches:
        rows, columns = self._associate(tracks, detections, embeddings, measured)
        return Matches(rows, columns, self._new_tracks(detections, columns))

    def _associate(
        self,
        tracks: TrackStore,
        detections: Instances,
        embeddings: np.ndarray,
        measured: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row of the track and index of the detection of each match, rows ascending."""
        if len(tracks) == 0 or len(detections) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        config = self.config
        comparable = embeddings.shape[1] > 0 and embeddings.shape[1] == tracks.embeddings.shape[1]
        detected = Appearance(
            detections.amodal.rle(),
            detections.visible.rle(),
            np.asarray(detections.class_ids),
            embeddings,
        )

        def fits(chosen: TrackStore, motion: Motion) -> np.ndarray:
            own = Appearance(
                chosen.amodal,
                chosen.visible,
                chosen.class_ids,
                chosen.embeddings if comparable else None,
            )
            error = config.max_range_error
            return affinity(own, chosen.boxes, motion, detected, measured, error)

        affinities = fits(tracks, tracks.motion)
        if self._alongside is not None and len(self._alongside.values):
            young = np.flatnonzero(tracks.hits == 1)
            along = fits(tracks[young], self._alongside)
            affinities[young] = np.maximum(affinities[young], along)
        high = np.asarray(detections.scores) >= config.high_score
        first = np.where(high[None, :], affinities, -np.inf)
        # First association, detections of high score that fit well: two mediocre pairs may not
        # break up a good one, as they would for the largest total.
        good = max(config.min_affinity, _GOOD)
        rows, columns = assign(first, good)
        # Second association, detections of high score that are left.
        first[rows] = -np.inf
        first[:, columns] = -np.inf
        rows, columns = _joined((rows, columns), assign(first, config.min_affinity))
        # Third association, the others, with confirmed tracks that are left and fit well.
        if not high.all():
            affinities[rows] = -np.inf
            affinities[:, high] = -np.inf
            affinities[tracks.ids < 0] = -np.inf
            rows, columns = _joined(
                (rows, columns), assign(affinities, max(config.min_affinity, _GOOD))
            )
        order = np.argsort(rows, kind="stable")
        return rows[order], columns[order]

    def _returned(
        self, tracks: TrackStore, named: np.ndarray, coasting: np.ndarray, stamp: int
    ) -> tuple[np.ndarray, np.ndarray]:
        nobody = named[:0], coasting[:0]
        if not len(named) or not len(coasting):
            return nobody
        # The longer an object was away, the farther from its predicted place it may come back.
        old, new = tracks.motion.values[coasting], tracks.motion.values[named]
        away = (stamp - tracks.visible_stamp[coasting]) * 1e-9
        sides = np.exp(np.maximum(old[:, None, 2:4], new[None, :, 2:4]))
        reach = sides * (_RETURN + _RETURN_RATE * away[:, None])[:, None] + _RETURN_PIXELS
        offset = np.abs(old[:, None, :2] - new[None, :, :2]) / reach
        height = np.abs(old[:, None, 3] - new[None, :, 3]) / _RETURN_HEIGHT
        nearer = np.minimum(old[:, None, RANGE], new[None, :, RANGE])
        tolerance = 2.0 + self.config.max_range_error * nearer + _RETURN_SPEED * away[:, None]
        apart = np.abs(old[:, None, RANGE] - new[None, :, RANGE]) / tolerance
        apart = np.where(np.isfinite(apart), apart, 0.5)
        possible = (offset < 1).all(axis=2) & (height < 1) & (apart < 1)
        # One that was seen beside the other is another.
        possible &= tracks.last_frame[coasting][:, None] < tracks.first_frame[named][None]
        cost = (offset**2).sum(axis=2) + height**2 + apart**2
        cost += 0.5 * (tracks.class_ids[coasting][:, None] != tracks.class_ids[named][None])
        if tracks.embeddings.shape[1]:
            a, b = tracks.embeddings[coasting], tracks.embeddings[named]
            both = np.outer(np.any(a != 0, axis=1), np.any(b != 0, axis=1))
            cost += np.where(both, 1 - a @ b.T, 0.5)
        # The cost is 7 at most: 2 of the place, 1 of size and range, 0.5 of the class, 2 of looks.
        rows, columns = assign(np.where(possible, 1 - cost / 10, -np.inf), 0.0)
        return named[columns], coasting[rows]

    def _new_tracks(self, detections: Instances, matched: np.ndarray) -> np.ndarray:
        """Indices of unmatched detections that begin tracks: of high score, and no copies."""
        unmatched = np.asarray(detections.scores) >= self.config.high_score
        unmatched[matched] = False
        new = np.flatnonzero(unmatched)
        if len(new) == 0 or len(matched) == 0:
            return new
        amodal, depths = detections.amodal.rle(), np.asarray(detections.depths)
        overlap = amodal[new].iou(amodal[matched])
        apart = np.abs(depths[new][:, None] - depths[matched][None, :])
        copy = (overlap > 0.7) & (apart < 2.0)
        return new[~copy.any(axis=1)]


def _joined(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Two associations as one."""
    return np.append(a[0], b[0]), np.append(a[1], b[1])
