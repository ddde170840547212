"""Tracks that survive being hidden, whatever says which detection is which track."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from amodal_core.frame import TIME_JUMP, Array, Frame, Instances, Report, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.settings import settings_type
from amodal_core.tracking.book import Book, widened
from amodal_core.tracking.evidence import Evidence, weigh
from amodal_core.tracking.motion import RANGE, measure
from amodal_core.tracking.output import seen_tracks, with_coasting

_SHORTEST_MEMORY = 3.0  # seconds; a gap in the stream that is not longer ends no track


Seconds = Annotated[float, Field(ge=0, le=60)]
Share = Annotated[float, Field(ge=0, le=1)]


@settings_type
class CoastingConfig:
    """Settings of every tracker. Times are in seconds, so that they hold at any frame rate.

    Attributes:
        coast_seconds: how long a hidden object is carried on.
        missed_seconds: how long one that nothing hides is carried on.
        max_range_error: share of the range by which a match may differ, beyond 2 m.
        absent_looks: looks in a row that must find free space before a track ends by it.
    """

    coast_seconds: Seconds = 3.0
    missed_seconds: Seconds = 0.5
    max_range_error: Share = 0.12
    absent_looks: Annotated[int, Field(ge=1, le=100)] = 2


@dataclass(eq=False)
class Matches:
    """What the D detections of a frame are; those named nowhere are nothing.

    Attributes:
        rows: (M,) int64, tracks that are seen, ascending.
        columns: (M,) int64, the detection that each of them is.
        born: (B,) int64, detections that begin something new.
    """

    rows: np.ndarray
    columns: np.ndarray
    born: np.ndarray


class CoastingTracker(ABC):
    """Gives detections identities, frame by frame; the result depends on the inputs alone.

    A constant-velocity Kalman filter in the image, in range and, where given, in 3D predicts each
    track. A track that no detection explains coasts: its amodal mask moves on with the prediction,
    as long as something nearer hides its place, or briefly without reason, and ends when returns
    from beyond show that the place is empty. A subclass says which detection is which track.

    Attributes:
        origins: (N,) int64, for each track of the last step which of the instances handed in it is,
            -1 where none is.

    Args:
        config: the settings.
    """

    config: CoastingConfig

    def __init__(self, config: CoastingConfig) -> None:
        self.config = config
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

    @abstractmethod
    def _worth(self, seen: Instances) -> np.ndarray:
        """(D,) bool, detections that are looked at; their boxes are finite already."""

    @abstractmethod
    def _match(self, book: Book, seen: Instances, measured: np.ndarray, dt: float) -> Matches:
        """Which detection is which of the predicted tracks, and which are new.

        Args:
            book: T tracks.
            seen: D detections on the host.
            measured: (D, 8) their quantities, as `motion.measure` gives them.
            dt: seconds since the frame before.
        """

    @abstractmethod
    def _named(self, book: Book) -> np.ndarray:
        """(T,) bool, tracks that are sure enough to get an id where they have none."""

    @abstractmethod
    def _looks(self, seen: Instances) -> np.ndarray:
        """(D, W) float32 embeddings to compare, W = 0 where there are none."""

    @abstractmethod
    def _mixed(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        """(M, W) embeddings of tracks after another sight."""

    def _remembered(self, book: Book, gone: np.ndarray) -> np.ndarray:
        """Those of the tracks `gone`, neither seen nor carried on, that may still come back."""
        return gone[:0]

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
                report.warn(TIME_JUMP, f"time jumped back by {back:.3f} s: all tracks end")
            self._forget()
        if self._size is not None and self._size != tuple(seen.size):
            if report is not None:
                report.warn(
                    "image size",
                    f"the image size changed from {self._size} to {seen.size}: all tracks end",
                )
            self._forget()
        dt = 0.0 if self._stamp is None else (stamp - self._stamp) * 1e-9
        self._stamp, self._size = stamp, seen.size
        self._frame += 1
        worth = np.isfinite(np.asarray(seen.amodal_boxes)).all(axis=1)
        worth &= self._worth(seen)
        places = np.flatnonzero(worth)
        if not worth.all():
            seen = seen[places]
        looks = self._looks(seen)
        book = self._book
        if book is None:
            book = Book.begun(seen[:0], looks[:0], stamp, 0)
        if dt > max(self.config.coast_seconds, _SHORTEST_MEMORY):
            book = book[:0]
        book.motion.predict(dt)

        measured = measure(
            np.asarray(seen.amodal_boxes), np.asarray(seen.depths), _array(seen.boxes3d)
        )
        found = self._match(book, seen, measured, dt)
        rows, columns = found.rows, found.columns
        mixed = looks[columns]
        if looks.shape[1]:
            old = book.looks(rows, looks.shape[1])
            mixed = self._mixed(old, widened(mixed, old.shape[1]))
        book.see(rows, seen[columns], mixed, measured[columns], stamp, self._frame, dt)

        unseen = np.delete(np.arange(len(book)), rows)
        carried = unseen[~book.lost[unseen]]
        masks, evidence = self._look(book, carried, seen, columns, frame)
        stay = self._stay(book, carried, masks, evidence, stamp, dt)
        coasting, masks = carried[stay], masks[np.flatnonzero(stay)]
        hidden = evidence.hidden[stay]
        lost = self._remembered(book, np.setdiff1d(unseen, coasting))
        book.lost[lost] = True

        unknown = np.full(len(coasting) + len(lost), -1, np.int64)
        origin = np.concatenate([columns, unknown, found.born])
        book = book[np.concatenate([rows, coasting, lost])]
        if len(found.born):
            begun = Book.begun(seen[found.born], looks[found.born], stamp, self._frame)
            book = book.joined(begun)
        fresh = np.flatnonzero((book.ids < 0) & self._named(book) & (origin >= 0))
        book.ids[fresh] = np.arange(self._next_id, self._next_id + len(fresh))
        self._next_id += len(fresh)
        self._book = book

        known = np.flatnonzero((origin >= 0) & (book.ids >= 0))
        tracks = seen_tracks(seen[origin[known]], book[known], self._frame)
        if len(coasting):
            away = book[np.arange(len(rows), len(rows) + len(coasting))]
            idle = (stamp - away.seen) * 1e-9 / max(self.config.coast_seconds, 1e-9)
            fade = 1.0 - 0.5 * np.clip(idle, 0.0, 1.0)
            tracks = with_coasting(tracks, away, masks, hidden, fade, self._frame)
        origins = np.full(len(tracks), -1, np.int64)
        origins[: len(known)] = places[origin[known]]
        order = np.argsort(tracks.ids, kind="stable")
        self.origins = origins[order]
        return tracks if (np.diff(order) > 0).all() else tracks[order]

    def _look(
        self,
        book: Book,
        unseen: np.ndarray,
        seen: Instances,
        matched: np.ndarray,
        frame: Frame | None,
    ) -> tuple[RleMasks, Evidence]:
        """Predicted amodal masks of the unseen tracks, and what the frame says of their places."""
        if not len(unseen):
            nothing = np.zeros(0, bool)
            return RleMasks.empty(seen.size), Evidence(nothing, nothing)
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


def _array(values: Array | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values)
