"""Identities by looks: bi-directional softmax over quasi-dense embeddings, with memory.

Pang et al., Quasi-Dense Similarity Learning for Multiple Object Tracking, CVPR 2021. What is
remembered are tracks, for a while after they were last seen, and backdrops: detections of the last
frame that were no track, so that their likes do not become one.

As published, one detection against one remembered object fits perfectly however it looks, since a
softmax over one entry is 1. Here pairs of different classes, of different looks and in impossible
places are taken out before anything is normalised, and how far a pair is from the predicted place
counts beside its looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from amodal_core.errors import InputError
from amodal_core.frame import Instances
from amodal_core.tracking.association import LEAST_OVERLAP, MAX_CENTRE, MAX_SIZE_ERROR
from amodal_core.tracking.book import Book, widened
from amodal_core.tracking.coasting import CoastingConfig, CoastingTracker, Matches
from amodal_core.tracking.motion import RANGE, Motion, measurement_noise

_TURN = 0.5  # standard deviation of what the camera's own turning adds, in sides of the box


@dataclass(frozen=True)
class QuasiDenseConfig(CoastingConfig):
    """The published parameters under their own names, ours below; presets are in `PRESETS`.

    Attributes:
        init_score_thr: a detection that is no track begins one above this score.
        obj_score_thr: a detection prolongs a track above this score.
        match_score_thr: a pair that fits worse is no match.
        memo_tracklet_frames: frames after which an unseen track is forgotten.
        memo_backdrop_frames: frames for which backdrops are remembered.
        memo_momentum: share of the newest embedding in a track's.
        nms_conf_thr: a detection too faint to prolong a track that it fits better than this is a
            copy of it and no backdrop.
        nms_backdrop_iou_thr: overlap with a surer detection above which a faint one is dropped, and
            a backdrop not remembered.
        nms_class_iou_thr: overlap with a surer detection of any class above which one is dropped.
        with_cats: only equal classes match.
        match_metric: bisoftmax, softmax (over what is remembered) or cosine.
        cats_first: take pairs of different classes out before normalising, not after.
        min_cosine: pairs whose embeddings' cosine is lower are no match; -1 for no limit.
        motion: pairs that no motion explains are no match, and the predicted place counts.
    """

    init_score_thr: float = 0.7
    obj_score_thr: float = 0.3
    match_score_thr: float = 0.5
    memo_tracklet_frames: int = 10
    memo_backdrop_frames: int = 1
    memo_momentum: float = 0.8
    nms_conf_thr: float = 0.5
    nms_backdrop_iou_thr: float = 0.3
    nms_class_iou_thr: float = 0.7
    with_cats: bool = True
    match_metric: Literal["bisoftmax", "softmax", "cosine"] = "bisoftmax"
    cats_first: bool = True
    min_cosine: float = 0.5
    motion: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memo_tracklet_frames < 1 or self.memo_backdrop_frames < 0:
            raise ValueError("memo_tracklet_frames must be 1 or more, memo_backdrop_frames 0")
        if not 0 <= self.memo_momentum <= 1:
            raise ValueError(f"memo_momentum must be 0 to 1, not {self.memo_momentum}")
        if self.match_metric not in ("bisoftmax", "softmax", "cosine"):
            raise ValueError(f"no match_metric '{self.match_metric}'")

    def published(self) -> QuasiDenseConfig:
        """The same without what is ours: no gate, and nothing is carried through occlusion."""
        return replace(
            self,
            cats_first=False,
            min_cosine=-1.0,
            motion=False,
            coast_seconds=0.0,
            missed_seconds=0.0,
        )


PRESETS = {
    # Of the driving data (BDD100K).
    "driving": QuasiDenseConfig(),
    # Of SAIL-VOS: everything becomes a track, which finds more and keeps identities worse.
    "sailvos": QuasiDenseConfig(init_score_thr=0.01, obj_score_thr=0.01, memo_tracklet_frames=32),
}


class QuasiDenseTracker(CoastingTracker):
    """Gives detections the id of what they look like, and carries hidden objects on.

    A track is given out at its first sight. One that is neither seen nor carried on is remembered
    by its looks for `memo_tracklet_frames`, and comes back under its id.
    """

    config: QuasiDenseConfig

    def __init__(self, config: QuasiDenseConfig | None = None) -> None:
        super().__init__(config or PRESETS["driving"])

    def _worth(self, seen: Instances) -> np.ndarray:
        """Detections without a surer one in the same place.

        Raises:
            InputError: detections without embeddings.
        """
        if len(seen) and seen.embeddings is None:
            raise InputError(
                "quasi-dense tracking without embeddings",
                "tracker",
                "take a model that gives them, such as vatrack, or the tracker 'motion'",
            )
        worth = np.isfinite(np.asarray(seen.scores)) & np.isfinite(self._looks(seen)).all(axis=1)
        scores = np.asarray(seen.scores)
        order = np.argsort(-np.where(worth, scores, -np.inf), kind="stable")
        boxes = np.asarray(seen.amodal_boxes, np.float64)[order]
        overlaps = np.tril(box_iou(boxes, boxes), k=-1)
        limit = np.where(
            scores[order] < self.config.obj_score_thr,
            self.config.nms_backdrop_iou_thr,
            self.config.nms_class_iou_thr,
        )
        worth[order] &= ~(overlaps > limit[:, None]).any(axis=1)
        return worth

    def _looks(self, seen: Instances) -> np.ndarray:
        if seen.embeddings is None:
            return np.zeros((len(seen), 0), np.float32)
        return np.asarray(seen.embeddings, np.float32)

    def _mixed(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        share = self.config.memo_momentum
        return np.asarray((1 - share) * old + share * new)

    def _named(self, book: Book) -> np.ndarray:
        return np.ones(len(book), bool)

    def _remembered(self, book: Book, gone: np.ndarray) -> np.ndarray:
        unseen = self._frame - book.last[gone]
        return gone[unseen < self.config.memo_tracklet_frames]

    def _forget(self) -> None:
        super()._forget()
        self._backdrops: Book | None = None

    def _match(self, book: Book, seen: Instances, measured: np.ndarray, dt: float) -> Matches:
        config = self.config
        scores, looks = np.asarray(seen.scores), self._looks(seen)
        order = np.argsort(-scores, kind="stable")
        memory = book
        if self._backdrops is not None:
            self._backdrops.motion.predict(dt)
            memory = book.joined(self._backdrops)
        track = np.full(len(seen), -1, np.int64)
        copy = np.zeros(len(seen), bool)
        if len(book) and len(seen):
            fits = self._fits(memory, seen, measured)
            for d in order.tolist():
                best = int(fits[d].argmax())
                if fits[d, best] <= config.match_score_thr or best >= len(book):
                    continue
                if scores[d] > config.obj_score_thr:
                    track[d] = best
                    fits[:, best] = 0.0
                else:
                    copy[d] = fits[d, best] > config.nms_conf_thr
        free = (track < 0) & ~copy
        born = free & (scores > config.init_score_thr)
        self._backdrops = self._new_backdrops(seen, looks, order, free & ~born)
        columns = np.flatnonzero(track >= 0)
        columns = columns[np.argsort(track[columns], kind="stable")]
        return Matches(track[columns], columns, order[born[order]])

    def _fits(self, memory: Book, seen: Instances, measured: np.ndarray) -> np.ndarray:
        """(D, T) float64, 0-1: how well each detection fits what is remembered."""
        config = self.config
        looks = self._looks(seen)
        width = max(looks.shape[1], memory.embeddings.shape[1])
        a = widened(looks, width).astype(np.float64)
        b = widened(memory.embeddings, width).astype(np.float64)
        alike = a @ b.T
        lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
        cosines = alike / np.maximum(lengths, 1e-9)
        same = np.asarray(seen.class_ids)[:, None] == memory.class_ids[None, :]
        possible = cosines >= config.min_cosine
        if config.with_cats and config.cats_first:
            possible &= same
        if config.motion:
            near, apart = plausible(
                memory.motion, measured, np.asarray(seen.amodal_boxes), config.max_range_error
            )
            possible &= near
            # Looks and motion are two witnesses: their logarithms add up.
            alike = alike - 0.5 * apart
        if config.match_metric == "cosine":
            fits = np.where(possible, cosines, 0.0)
        elif config.match_metric == "softmax":
            fits = softmax(alike, possible, axis=1)
        else:
            fits = (softmax(alike, possible, 1) + softmax(alike, possible, 0)) / 2
        return np.where(same, fits, 0.0) if config.with_cats else fits

    def _new_backdrops(
        self, seen: Instances, looks: np.ndarray, order: np.ndarray, free: np.ndarray
    ) -> Book:
        """What is remembered of detections that are no track: those without a surer one near."""
        assert self._stamp is not None
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        boxes = np.asarray(seen.amodal_boxes, np.float64)
        chosen = np.flatnonzero(free)
        near = box_iou(boxes[chosen], boxes) > self.config.nms_backdrop_iou_thr
        surer = rank[None, :] < rank[chosen, None]
        chosen = chosen[~(near & surer).any(axis=1)]
        begun = Book.begun(seen[chosen], looks[chosen], self._stamp, self._frame)
        if self._backdrops is None:
            return begun
        recent = self._frame - self._backdrops.last < self.config.memo_backdrop_frames
        return self._backdrops[recent].joined(begun)


def softmax(values: np.ndarray, possible: np.ndarray, axis: int) -> np.ndarray:
    """Softmax of the possible entries along an axis; 0 for all others.

    Args:
        values: (D, T) float64.
        possible: (D, T) bool.
        axis: see above.
    """
    masked = np.where(possible, values, -np.inf)
    top = masked.max(axis=axis, keepdims=True, initial=-np.inf)
    shares = np.exp(masked - np.where(np.isfinite(top), top, 0.0))
    return np.asarray(shares / np.maximum(shares.sum(axis=axis, keepdims=True), 1e-300))


def plausible(
    motion: Motion, measured: np.ndarray, boxes: np.ndarray, max_range_error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which of D detections may be which of T predicted tracks, by place, size and range.

    Args:
        motion: of the tracks.
        measured: (D, 8) quantities of the detections.
        boxes: (D, 4) their boxes, xyxy in pixels.
        max_range_error: share of the range by which a pair may differ beyond 2 m and what the
            prediction leaves open.

    Returns:
        (D, T) bool, and (D, T) float64 squared Mahalanobis distances of centre and range, up to
        `MAX_CENTRE`.
    """
    used = slice(0, RANGE + 1)
    noise = measurement_noise(measured)[:, used]
    error = measured[:, None, used] - motion.values[None, :, used]
    variance = noise[:, None] ** 2 + motion.covariances[None, :, used, 0]
    squares = error**2 / variance
    apart = squares[..., 0] + squares[..., 1] + np.nan_to_num(squares[..., RANGE])
    # A camera that turns sharply moves everything by more than its motion so far lets expect.
    turn = (_TURN * np.exp(measured[:, None, 2:4])) ** 2
    loose = error[..., :2] ** 2 / (variance[..., :2] + turn)
    centre = loose[..., 0] + loose[..., 1]
    overlap = box_iou(boxes.astype(np.float64), motion.boxes()) > LEAST_OVERLAP
    fits = (centre <= MAX_CENTRE) | overlap
    fits &= np.maximum(np.abs(error[..., 2]), np.abs(error[..., 3])) <= MAX_SIZE_ERROR
    nearer = np.minimum(measured[:, None, RANGE], motion.values[None, :, RANGE])
    open_range = 2.0 * np.sqrt(motion.covariances[None, :, RANGE, 0])
    far = np.abs(error[..., RANGE]) > 2.0 + max_range_error * nearer + open_range
    return fits & ~far, np.minimum(apart, MAX_CENTRE)


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) float64 intersection over union of (N, 4) and (M, 4) boxes xyxy; 0 between empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(high - low, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    area_a, area_b = (np.prod(np.maximum(box[:, 2:] - box[:, :2], 0.0), axis=1) for box in (a, b))
    return np.asarray(shared / np.maximum(area_a[:, None] + area_b[None] - shared, 1e-9))
