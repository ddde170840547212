"""Tracks that survive being hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amodal_core.frame import Array, Frame, Instances, Report, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.association import Looks, affinity, assign
from amodal_core.tracking.book import Book, unit
from amodal_core.tracking.evidence import Evidence, weigh
from amodal_core.tracking.motion import RANGE, measure
from amodal_core.tracking.output import seen_tracks, with_coasting


@dataclass(frozen=True)
class TrackerConfig:
    """Times in seconds, so that they hold at any frame rate.

    Attributes:
        high_score: detections from here on are matched first and may begin tracks.
        low_score: detections below this are ignored; those between only prolong tracks.
        min_affinity: pairs that fit worse are no match.
        min_hits: sights before a track is given out; in a stream's first frame one is enough.
        coast_seconds: how long a hidden object is carried on.
        missed_seconds: how long one that nothing hides is carried on.
        max_range_error: share of the range by which a match may differ, beyond 2 m.
        absent_looks: looks in a row that must find free space before a track ends by it.
    """

    high_score: float = 0.4
    low_score: float = 0.1
    min_affinity: float = 0.25
    min_hits: int = 3
    coast_seconds: float = 3.0
    missed_seconds: float = 0.5
    max_range_error: float = 0.12
    absent_looks: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.low_score <= self.high_score <= 1:
            raise ValueError(f"scores must be 0 <= {self.low_score} <= {self.high_score} <= 1")
        if self.min_hits < 1 or self.absent_looks < 1:
            raise ValueError("min_hits and absent_looks must be 1 or more")
        if min(self.coast_seconds, self.missed_seconds, self.max_range_error) < 0:
            raise ValueError("times and range errors cannot be negative")


class Tracker:
    """Gives detections identities, frame by frame; the result depends on the inputs alone.

    A constant-velocity Kalman filter in the image, in range and, where given, in 3D predicts each
    track; masks, motion, range, class and embeddings decide together which detection it is, first
    among sure detections, then among the rest. A track that no detection explains coasts: its
    amodal mask moves on with the prediction, as long as something nearer hides its place, or
    briefly without reason, and ends when returns from beyond show that the place is empty.

    Attributes:
        origins: (N,) int64, for each track of the last step which of the instances handed in it is,
            -1 where it coasts.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self.reset()

    def reset(self) -> None:
        """Forget all; the next stream's ids begin at 0."""
        self._next_id = 0
        self._forget()

    def _forget(self) -> None:
        self._book: Book | None = None
        self._size: tuple[int, int] | None = None
        self._stamp: int | None = None
        self._frame = 0
        self.origins = np.zeros(0, np.int64)

    def step(
        self,
        instances: Instances,
        stamp: int,
        frame: Frame | None = None,
        report: Report | None = None,
    ) -> Tracks:
        """The tracks of the next frame; call it for empty frames, too.

        Args:
            instances: detections, on any device; those with boxes that are not finite are ignored.
            stamp: nanoseconds. Earlier than the last one: time jumped back, all tracks end; ids
                go on, so that none is used twice.
            frame: what the sensors saw; its depth tells free space from a hidden object.
            report: takes the warnings.
        """
        seen = instances.numpy()
        if self._stamp is not None and stamp < self._stamp:
            if report is not None:
                back = (self._stamp - stamp) * 1e-9
                report.warnings.append(f"time jumped back by {back:.3f} s: all tracks end")
            self._forget()
        if self._size is not None and self._size != tuple(seen.size):
            if report is not None:
                report.warnings.append(
                    f"the image size changed from {self._size} to {seen.size}: all tracks end"
                )
            self._forget()
        dt = 0.0 if self._stamp is None else (stamp - self._stamp) * 1e-9
        self._stamp, self._size = stamp, seen.size
        self._frame += 1
        worth = np.asarray(seen.scores) >= self.config.low_score
        worth &= np.isfinite(np.asarray(seen.amodal_boxes)).all(axis=1)
        places = np.flatnonzero(worth)
        if not worth.all():
            seen = seen[places]
        book = self._book if self._book is not None else Book.begun(seen[:0], stamp, 0)
        if dt > self.config.coast_seconds:
            book = book[:0]
        book.motion.predict(dt)

        measured = measure(
            np.asarray(seen.amodal_boxes), np.asarray(seen.depths), _array(seen.boxes3d)
        )
        rows, columns = self._associate(book, seen, measured)
        book.see(rows, seen[columns], measured[columns], stamp, dt)

        unseen = np.delete(np.arange(len(book)), rows)
        masks, evidence = self._look(book, unseen, seen, columns, frame)
        stay = self._stay(book, unseen, masks, evidence, stamp, dt)
        coasting, masks = unseen[stay], masks[np.flatnonzero(stay)]
        hidden = evidence.hidden[stay]

        born = self._births(seen, columns)
        origin = np.concatenate([columns, np.full(len(coasting), -1, np.int64), born])
        kept = np.concatenate([rows, coasting])
        book = book[kept].joined(Book.begun(seen[born], stamp, self._frame))
        enough = 1 if self._frame == 1 else self.config.min_hits
        fresh = np.flatnonzero((book.ids < 0) & (book.hits >= enough) & (origin >= 0))
        book.ids[fresh] = np.arange(self._next_id, self._next_id + len(fresh))
        self._next_id += len(fresh)
        self._book = book

        known = np.flatnonzero((origin >= 0) & (book.ids >= 0))
        tracks = seen_tracks(seen[origin[known]], book[known], self._frame)
        if len(coasting):
            carried = book[np.arange(len(rows), len(kept))]
            idle = (stamp - carried.seen) * 1e-9 / max(self.config.coast_seconds, 1e-9)
            fade = 1.0 - 0.5 * np.clip(idle, 0.0, 1.0)
            tracks = with_coasting(tracks, carried, masks, hidden, fade, self._frame)
        origins = np.full(len(tracks), -1, np.int64)
        origins[: len(known)] = places[origin[known]]
        order = np.argsort(tracks.ids, kind="stable")
        self.origins = origins[order]
        return tracks if (np.diff(order) > 0).all() else tracks[order]

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
        looks = unit(seen, len(seen))
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

    def _look(
        self,
        book: Book,
        unseen: np.ndarray,
        seen: Instances,
        matched: np.ndarray,
        frame: Frame | None,
    ) -> tuple[RleMasks, Evidence]:
        """Predicted amodal masks of the unseen tracks, and what the frame says of their places."""
        masks = book.amodal[unseen].moved(book.boxes[unseen], book.motion[unseen].boxes())
        depth = None if frame is None else frame.depth
        if depth is not None and depth.shape != tuple(seen.size):
            depth = None
        evidence = weigh(
            masks,
            book.motion.ranges()[unseen],
            np.sqrt(book.motion.covariances[unseen, RANGE, 0]),
            seen.visible.rle()[matched],
            np.asarray(seen.depths)[matched],
            depth,
        )
        return masks, evidence

    def _stay(
        self,
        book: Book,
        unseen: np.ndarray,
        masks: RleMasks,
        evidence: Evidence,
        stamp: int,
        dt: float,
    ) -> np.ndarray:
        """(U,) bool, which of the unseen tracks go on; notes what was found about them."""
        config = self.config
        book.explained[unseen[evidence.hidden]] = stamp
        book.absent[unseen] = np.where(evidence.absent, book.absent[unseen] + 1, 0)
        # A track is trusted no longer than it has proven itself, and hidden not much longer.
        proven = book.watched[unseen] + dt
        patience = np.minimum(config.missed_seconds, proven) + 1e-6
        coast = np.minimum(config.coast_seconds, 3.0 * proven) + 1e-6
        boxes = book.motion[unseen].boxes()
        whole = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0), axis=1)
        inside = np.clip(boxes, 0, [masks.size[1], masks.size[0]] * 2)
        share = np.prod(inside[:, 2:] - inside[:, :2], axis=1) / whole
        return (
            (book.ids[unseen] >= 0)
            & ((stamp - book.explained[unseen]) * 1e-9 <= patience)
            & ((stamp - book.seen[unseen]) * 1e-9 <= coast)
            & (book.absent[unseen] < config.absent_looks)
            & (share >= 0.3)
            & (masks.areas() > 0)
        )

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


def _array(values: Array | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values)
