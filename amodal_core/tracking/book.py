"""What the tracker remembers of its tracks, as a structure of arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from amodal_core.frame import Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.motion import Motion, measure


@dataclass(eq=False)
class Book:
    """T tracks, the unconfirmed ones included.

    Attributes:
        ids: (T,) int64, -1 while unconfirmed.
        born: (T,) int64, number of the frame in which the track began.
        hits: (T,) int64, frames in which it was seen.
        watched: (T,) float64, seconds over which it was seen.
        seen: (T,) int64 ns, stamp of its last sight.
        explained: (T,) int64 ns, when it was last seen or known to be hidden.
        last: (T,) int64, number of the frame in which it was last seen.
        absent: (T,) int64, looks in a row that found its place empty.
        lost: (T,) bool, neither seen nor carried on, only remembered.
        scores: (T,) float32, smoothed.
        votes: (T, C) float64, evidence for each class.
        motion: filters.
        boxes: (T, 4) float32, the amodal box at its last sight.
        amodal: T amodal masks at their last sight.
        visible: T visible masks, the same.
        boxes3d: (T, 7) float32, NaN where unknown.
        embeddings: (T, D) float32 as the tracker compares them, zeros where unknown.
    """

    ids: np.ndarray
    born: np.ndarray
    hits: np.ndarray
    watched: np.ndarray
    seen: np.ndarray
    explained: np.ndarray
    last: np.ndarray
    absent: np.ndarray
    lost: np.ndarray
    scores: np.ndarray
    votes: np.ndarray
    motion: Motion
    boxes: np.ndarray
    amodal: RleMasks
    visible: RleMasks
    boxes3d: np.ndarray
    embeddings: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: np.ndarray | slice) -> Book:
        parts: dict[str, Any] = {f.name: getattr(self, f.name)[index] for f in fields(self)}
        return Book(**parts)

    @property
    def class_ids(self) -> np.ndarray:
        """(T,) int64, the class with the most evidence."""
        return np.argmax(self.votes, axis=1)

    @classmethod
    def begun(cls, seen: Instances, looks: np.ndarray, stamp: int, frame: int) -> Book:
        """New tracks, one for each instance (on the host) and its embedding."""
        n = len(seen)
        depths = np.asarray(seen.depths)
        boxes3d = None if seen.boxes3d is None else np.asarray(seen.boxes3d)
        return cls(
            ids=np.full(n, -1, np.int64),
            born=np.full(n, frame, np.int64),
            hits=np.ones(n, np.int64),
            watched=np.zeros(n),
            seen=np.full(n, stamp, np.int64),
            explained=np.full(n, stamp, np.int64),
            last=np.full(n, frame, np.int64),
            absent=np.zeros(n, np.int64),
            lost=np.zeros(n, bool),
            scores=np.array(seen.scores, np.float32),
            votes=ballots(seen),
            motion=Motion.started(measure(np.asarray(seen.amodal_boxes), depths, boxes3d)),
            boxes=np.array(seen.amodal_boxes, np.float32),
            amodal=seen.amodal.rle(),
            visible=seen.visible.rle(),
            boxes3d=np.full((n, 7), np.nan, np.float32) if boxes3d is None else boxes3d.copy(),
            embeddings=looks,
        )

    def joined(self, other: Book) -> Book:
        """These tracks followed by the others; classes and embeddings are widened where needed."""
        parts: dict[str, Any] = {}
        for f in fields(self):
            a, b = getattr(self, f.name), getattr(other, f.name)
            if isinstance(a, Motion):
                parts[f.name] = a.joined(b)
            elif isinstance(a, RleMasks):
                parts[f.name] = RleMasks.concatenated([a, b])
            elif f.name in ("votes", "embeddings"):
                width = max(a.shape[1], b.shape[1])
                parts[f.name] = np.concatenate([widened(a, width), widened(b, width)])
            else:
                parts[f.name] = np.concatenate([a, b])
        return Book(**parts)

    def looks(self, rows: np.ndarray, width: int) -> np.ndarray:
        """(len(rows), W) embeddings, W at least `width`; zeros where there was none so long."""
        self.embeddings = widened(self.embeddings, width)
        return self.embeddings[rows]

    def see(
        self,
        rows: np.ndarray,
        seen: Instances,
        looks: np.ndarray,
        measured: np.ndarray,
        stamp: int,
        frame: int,
        dt: float,
    ) -> None:
        """Take in the instances (on the host) that these rows were found to be, in place.

        One that shows nothing is no sight: a model with a memory drew it where something hides it.
        It gives its mask, but neither measures the motion, nor proves the track, nor tells its
        looks.

        Args:
            rows: of the tracks.
            seen: what each of them is.
            looks: what their embeddings are now, as wide as the book's, or (M, 0) to leave them.
            measured: as `motion.measure` gives it.
            stamp: of the frame, nanoseconds.
            frame: its number.
            dt: seconds since the frame before.
        """
        shows = seen.visible.rle().areas() > 0
        sights = rows[shows]
        self.motion.update(sights, measured[shows])
        self.hits[sights] += 1
        self.watched[sights] += dt
        self.seen[sights] = stamp
        self.last[sights] = frame
        self.explained[rows] = stamp
        self.absent[rows] = 0
        self.lost[rows] = False
        self.scores[rows] += 0.3 * (np.asarray(seen.scores) - self.scores[rows])
        ballot = ballots(seen)
        width = max(self.votes.shape[1], ballot.shape[1])
        self.votes = widened(self.votes, width)
        self.votes[rows] += widened(ballot, width)
        self.boxes[rows] = seen.amodal_boxes
        newest = np.arange(len(self))
        newest[rows] = len(self) + np.arange(len(rows))
        self.amodal = RleMasks.concatenated([self.amodal, seen.amodal.rle()])[newest]
        self.visible = RleMasks.concatenated([self.visible, seen.visible.rle()])[newest]
        if seen.boxes3d is not None:
            fresh = np.isfinite(np.asarray(seen.boxes3d)).all(axis=1)
            self.boxes3d[rows[fresh]] = np.asarray(seen.boxes3d)[fresh]
        if looks.shape[1]:
            self.embeddings[sights] = looks[shows]


def unit(seen: Instances, n: int) -> np.ndarray:
    """(N, D) float32 embeddings of length one; D is 0 where there are none."""
    if seen.embeddings is None:
        return np.zeros((n, 0), np.float32)
    looks = np.asarray(seen.embeddings, np.float32)
    return looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-9)


def ballots(seen: Instances) -> np.ndarray:
    """(N, C) float64: each instance votes for its class, the louder the surer and less hidden."""
    classes = np.asarray(seen.class_ids, np.int64)
    out = np.zeros((len(classes), int(classes.max(initial=0)) + 1))
    weight = np.asarray(seen.scores) * (1.0 - 0.7 * np.asarray(seen.occlusion_rates)) + 1e-3
    out[np.arange(len(classes)), classes] = weight
    return out


def widened(array: np.ndarray, width: int) -> np.ndarray:
    """The array with zero columns added up to a width."""
    missing = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, missing))) if missing > 0 else array
