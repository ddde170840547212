"""What the tracker keeps of its tracks, as a structure of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from amodal_core.arrays import positions
from amodal_core.frame import Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.motion import Motion, measure

_BOX_RATE = 0.3  # of a new box's sizes and heading, in a frame that shows the object whole
_BOX_MEMORY = 0.97  # what is left, a frame later, of the trust in a heading


@dataclass(eq=False)
class TrackStore:
    """The states of T tracks, the unconfirmed ones included.

    A track is visible in a frame in which a detection matches it that shows something.

    Attributes:
        ids: (T,) int64, -1 while unconfirmed.
        first_frame: (T,) int64, number of the frame in which the track began.
        hits: (T,) int64, frames in which it was visible.
        visible_seconds: (T,) float64, seconds over which it was visible.
        visible_stamp: (T,) int64 ns, when it was last visible.
        explained_stamp: (T,) int64 ns, when it was last matched or its place hidden.
        last_frame: (T,) int64, number of the frame in which it was last visible.
        absences: (T,) int64, frames in a row that found its place empty.
        lost: (T,) bool, neither matched nor coasting, only remembered.
        scores: (T,) float32, smoothed.
        votes: (T, C) float64, evidence for each class.
        motion: filters.
        boxes: (T, 4) float32, the amodal box of the last match.
        amodal: T amodal masks of the last match.
        visible: T visible masks, the same.
        boxes3d: (T, 7) float32, smoothed, NaN where unknown; where the centre is, `motion` tells.
        box_trust: (T,) float64, pixels that showed where the box's heading was taken from.
        embeddings: (T, D) float32 as the tracker compares them, zeros where unknown.
    """

    ids: np.ndarray
    first_frame: np.ndarray
    hits: np.ndarray
    visible_seconds: np.ndarray
    visible_stamp: np.ndarray
    explained_stamp: np.ndarray
    last_frame: np.ndarray
    absences: np.ndarray
    lost: np.ndarray
    scores: np.ndarray
    votes: np.ndarray
    motion: Motion
    boxes: np.ndarray
    amodal: RleMasks
    visible: RleMasks
    boxes3d: np.ndarray
    box_trust: np.ndarray
    embeddings: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: np.ndarray | slice) -> TrackStore:
        chosen = positions(index, len(self))
        columns: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            column = getattr(self, name)
            # What NumPy does in a fifth of the time of indexing.
            own = isinstance(column, np.ndarray)
            columns[name] = column.take(chosen, 0) if own else column[chosen]
        return TrackStore(**columns)

    @property
    def class_ids(self) -> np.ndarray:
        """(T,) int64, the class with the most evidence."""
        return np.argmax(self.votes, axis=1)

    def class_probabilities(self, rows: np.ndarray, count: int) -> np.ndarray:
        """(len(rows), count) float32, the share of each class in all votes of these tracks."""
        votes = widened(self.votes[rows], count)[:, :count]
        total = np.maximum(votes.sum(axis=1, keepdims=True), 1e-9)
        return np.asarray(votes / total, np.float32)

    @classmethod
    def started(
        cls, detections: Instances, embeddings: np.ndarray, stamp: int, frame: int
    ) -> TrackStore:
        """New tracks, one for each detection (on the host) and its embedding."""
        n = len(detections)
        depths = np.asarray(detections.depths)
        boxes3d = None if detections.boxes3d is None else np.asarray(detections.boxes3d)
        return cls(
            ids=np.full(n, -1, np.int64),
            first_frame=np.full(n, frame, np.int64),
            hits=np.ones(n, np.int64),
            visible_seconds=np.zeros(n),
            visible_stamp=np.full(n, stamp, np.int64),
            explained_stamp=np.full(n, stamp, np.int64),
            last_frame=np.full(n, frame, np.int64),
            absences=np.zeros(n, np.int64),
            lost=np.zeros(n, bool),
            scores=np.array(detections.scores, np.float32),
            votes=class_votes(detections),
            motion=Motion.started(
                measure(np.asarray(detections.amodal_boxes), depths, boxes3d),
                np.asarray(detections.occlusion_rates, np.float64),
                np.asarray(detections.scores, np.float64),
            ),
            boxes=np.array(detections.amodal_boxes, np.float32),
            amodal=detections.amodal.rle(),
            visible=detections.visible.rle(),
            boxes3d=np.full((n, 7), np.nan, np.float32) if boxes3d is None else boxes3d.copy(),
            box_trust=detections.visible.rle().areas().astype(np.float64),
            embeddings=embeddings,
        )

    def joined(self, other: TrackStore) -> TrackStore:
        """These tracks followed by the others; classes and embeddings are widened where needed."""
        columns: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            a, b = getattr(self, name), getattr(other, name)
            if isinstance(a, Motion):
                columns[name] = a.joined(b)
            elif isinstance(a, RleMasks):
                columns[name] = RleMasks.concatenated([a, b])
            elif name in ("votes", "embeddings"):
                width = max(a.shape[1], b.shape[1])
                columns[name] = np.concatenate([widened(a, width), widened(b, width)])
            else:
                columns[name] = np.concatenate([a, b])
        return TrackStore(**columns)

    def continue_as(self, rows: np.ndarray, previous: np.ndarray) -> None:
        """Let tracks go on under the ids of others, with what those had proven, in place."""
        self.ids[rows] = self.ids[previous]
        self.first_frame[rows] = self.first_frame[previous]
        self.hits[rows] += self.hits[previous]
        self.visible_seconds[rows] += self.visible_seconds[previous]
        self.votes[rows] += self.votes[previous]

    def embeddings_of(self, rows: np.ndarray, width: int) -> np.ndarray:
        """(len(rows), W) embeddings, W at least `width`; zeros where there was none so long."""
        self.embeddings = widened(self.embeddings, width)
        return self.embeddings[rows]

    def update(
        self,
        rows: np.ndarray,
        detections: Instances,
        chosen: np.ndarray,
        embeddings: np.ndarray,
        measured: np.ndarray,
        stamp: int,
        frame: int,
        dt: float,
    ) -> None:
        """Take in the detections that match these rows, in place.

        One that shows nothing is no sight: a model with a memory drew it where something hides it.
        It gives its mask, but neither measures the motion, nor proves the track, nor changes its
        embedding.

        Args:
            rows: (M,) of the tracks.
            detections: D, on the host.
            chosen: (M,) int64, which of them each of the tracks is.
            embeddings: theirs from now on, as wide as the store's, or (M, 0) to leave them.
            measured: (M, 8) as `motion.measure` gives it.
            stamp: of the frame, nanoseconds.
            frame: its number.
            dt: seconds since the frame before.
        """
        areas = detections.visible.rle().areas()[chosen]
        scores = np.asarray(detections.scores)[chosen]
        hidden = np.asarray(detections.occlusion_rates)[chosen]
        shows = areas > 0
        visible_rows = rows[shows]
        self.motion.update(
            visible_rows,
            measured[shows],
            hidden[shows].astype(np.float64),
            scores[shows].astype(np.float64),
        )
        self.hits[visible_rows] += 1
        self.visible_seconds[visible_rows] += dt
        self.visible_stamp[visible_rows] = stamp
        self.last_frame[visible_rows] = frame
        self.explained_stamp[rows] = stamp
        self.absences[rows] = 0
        self.lost[rows] = False
        self.scores[rows] += 0.3 * (scores - self.scores[rows])
        votes = class_votes(detections)[chosen]
        width = max(self.votes.shape[1], votes.shape[1])
        self.votes = widened(self.votes, width)
        self.votes[rows] += widened(votes, width)
        self.boxes[rows] = np.asarray(detections.amodal_boxes)[chosen]
        newest = np.arange(len(self))
        newest[rows] = len(self) + chosen
        self.amodal = self.amodal.picked(detections.amodal.rle(), newest)
        self.visible = self.visible.picked(detections.visible.rle(), newest)
        if detections.boxes3d is not None:
            boxes3d = np.asarray(detections.boxes3d, np.float32)[chosen]
            self._update_boxes(rows, boxes3d, hidden, areas)
        if embeddings.shape[1]:
            self.embeddings[visible_rows] = embeddings[shows]

    def _update_boxes(
        self, rows: np.ndarray, new: np.ndarray, hidden: np.ndarray, areas: np.ndarray
    ) -> None:
        """Smooth sizes and headings; the less of an object shows, the less its box counts.

        A box that lies across the one kept took its front for its side, or the other way round:
        that which more of the object showed for is right.
        """
        fresh = np.isfinite(new).all(axis=1)
        rows, new = rows[fresh], new[fresh]
        old = self.boxes3d[rows]
        trust = areas[fresh] * 1.0
        turn = (new[:, 6] - old[:, 6] + np.pi / 2) % np.pi - np.pi / 2
        first = ~np.isfinite(old[:, 6])
        across = np.abs(turn) > np.pi / 4
        taken = first | (across & (trust > self.box_trust[rows]))
        rate = _BOX_RATE * (1.0 - hidden[fresh])
        rate = np.where(across, 0.0, rate)[:, None]
        mixed = old + rate * (new - old)
        mixed[:, 6] = old[:, 6] + rate[:, 0] * turn
        self.boxes3d[rows] = np.where(taken[:, None], new, mixed)
        # What was seen long ago counts for less.
        kept = np.maximum(_BOX_MEMORY * self.box_trust[rows], np.where(across, 0.0, trust))
        self.box_trust[rows] = np.where(taken, trust, kept)


def unit_embeddings(instances: Instances) -> np.ndarray:
    """(N, D) float32 embeddings of length one; D is 0 where there are none."""
    if instances.embeddings is None:
        return np.zeros((len(instances), 0), np.float32)
    embeddings = np.asarray(instances.embeddings, np.float32)
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)


def class_votes(instances: Instances) -> np.ndarray:
    """(N, C) float64: each votes for its class, with its score and the less, the more is hidden.

    What knows the probabilities of its classes shares its vote among them.
    """
    classes = np.asarray(instances.class_ids, np.int64)
    weight = np.asarray(instances.scores) * (1.0 - 0.7 * np.asarray(instances.occlusion_rates))
    if instances.class_probabilities is not None:
        shares = np.asarray(instances.class_probabilities, np.float64)
    else:
        shares = np.eye(int(classes.max(initial=0)) + 1)[classes]
    return np.asarray((weight + 1e-3)[:, None] * shares)


def widened(array: np.ndarray, width: int) -> np.ndarray:
    """The array with zero columns added up to a width."""
    missing = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, missing))) if missing > 0 else array
