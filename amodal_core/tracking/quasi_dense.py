"""Identities by appearance: bi-directional softmax over quasi-dense embeddings, with memory.

Pang et al., Quasi-Dense Similarity Learning for Multiple Object Tracking, CVPR 2021. What is
remembered are tracks, for a while after they were last matched, and backdrops: detections of the
last frame that were no track, so that their likes do not become one.

As published, one detection against one remembered object fits perfectly whatever it looks like,
since a softmax over one entry is 1. Here pairs of different classes, of different appearance and in
impossible places are taken out before anything is normalised, and how far a pair is from the
predicted place counts beside its appearance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numba import njit
from pydantic import Field

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.settings import Share, settings_type
from amodal_core.tracking.association import MAX_CENTRE, MAX_SIZE_ERROR
from amodal_core.tracking.coasting import CoastingConfig, CoastingTracker, Matches
from amodal_core.tracking.motion import RANGE, Motion, measurement_noise
from amodal_core.tracking.track_store import TrackStore, widened

_MIN_OVERLAP = 0.1  # IoU of the boxes from which on a place is the predicted one, however it turns
_TURN = 0.5  # standard deviation of what the camera's own turning adds, in sides of the box


@settings_type
class QuasiDenseTrackerConfig(CoastingConfig):
    """The published parameters under their own names, ours below; presets are in `PRESETS`.

    Attributes:
        init_score_thr: a detection that is no track begins one above this score.
        obj_score_thr: a detection prolongs a track above this score.
        match_score_thr: a pair that fits worse is no match.
        memo_tracklet_frames: frames after which an unmatched track is forgotten.
        memo_backdrop_frames: frames for which backdrops are remembered.
        memo_momentum: share of the newest embedding in a track's.
        nms_conf_thr: a detection too faint to prolong a track that it fits better than this is a
            copy of it and no backdrop.
        nms_backdrop_iou_thr: overlap with one of higher score above which a faint one is dropped,
            and a backdrop not remembered.
        nms_class_iou_thr: overlap with one of higher score, of any class, above which a detection
            is dropped.
        with_cats: only equal classes match.
        match_metric: bisoftmax, softmax (over what is remembered) or cosine.
        cats_first: take pairs of different classes out before normalising, not after.
        min_cosine: pairs whose embeddings' cosine is lower are no match; -1 for no limit.
        motion: pairs that no motion explains are no match, and the predicted place counts.
        skip_empty: a frame without detections is no step: backdrops stay, and tracks whose time is
            over may come back in the next one.
    """

    init_score_thr: Share = 0.7
    obj_score_thr: Share = 0.3
    match_score_thr: Share = 0.5
    memo_tracklet_frames: Annotated[int, Field(ge=1, le=1000)] = 10
    memo_backdrop_frames: Annotated[int, Field(ge=0, le=1000)] = 1
    memo_momentum: Share = 0.8
    nms_conf_thr: Share = 0.5
    nms_backdrop_iou_thr: Share = 0.3
    nms_class_iou_thr: Share = 0.7
    with_cats: bool = True
    match_metric: Literal["bisoftmax", "softmax", "cosine"] = "bisoftmax"
    cats_first: bool = True
    min_cosine: Annotated[float, Field(ge=-1, le=1)] = 0.5
    motion: bool = True
    skip_empty: bool = False

    def published(self) -> QuasiDenseTrackerConfig:
        """The same without what is ours: no gate, and nothing is carried through occlusion.

        Embeddings are compared in double precision still, the original's in single.
        """
        return replace(
            self,
            cats_first=False,
            min_cosine=-1.0,
            motion=False,
            skip_empty=True,
            coast_seconds=0.0,
            missed_seconds=0.0,
            longest_gap=1e9,
        )


PRESETS = {
    # Of the driving data (BDD100K).
    "driving": QuasiDenseTrackerConfig(),
    # Of SAIL-VOS: everything becomes a track, which finds more and keeps identities worse.
    "sailvos": QuasiDenseTrackerConfig(
        init_score_thr=0.01, obj_score_thr=0.01, memo_tracklet_frames=32
    ),
}
PRESETS["published"] = PRESETS["sailvos"].published()


class QuasiDenseTracker(CoastingTracker):
    """Gives detections the id of what they look like, and carries hidden objects on.

    A track is given out at its first sight. One that is neither matched nor coasts is remembered
    by its embedding for `memo_tracklet_frames`, and comes back under its id.
    """

    config: QuasiDenseTrackerConfig

    def __init__(self, config: QuasiDenseTrackerConfig | None = None) -> None:
        super().__init__(config or PRESETS["driving"])

    def step(
        self,
        instances: Instances,
        stamp: int,
        frame: Frame | None = None,
        report: Report | None = None,
    ) -> Tracks:
        """The tracks of the next frame; see `CoastingTracker.step`."""
        if self.config.skip_empty and not len(instances):
            self._check_stream(stamp, instances.size, report or Report())
            self._frame += 1
            self.origins = np.zeros(0, np.int64)
            return Tracks.empty(instances.size)
        self._steps += 1
        return super().step(instances, stamp, frame, report)

    def _usable(self, detections: Instances) -> np.ndarray:
        """Detections without one of higher score in the same place.

        Raises:
            InputError: detections without embeddings.
        """
        if len(detections) and detections.embeddings is None:
            raise InputError(
                "quasi-dense tracking without embeddings",
                "tracker",
                "take a model that gives them, such as vatrack, or the tracker 'motion'",
            )
        usable = np.isfinite(np.asarray(detections.scores)) & np.isfinite(
            self._embeddings(detections)
        ).all(axis=1)
        scores = np.asarray(detections.scores)
        order = np.argsort(-np.where(usable, scores, -np.inf), kind="stable")
        boxes = np.asarray(detections.amodal_boxes, np.float64)[order]
        overlaps = np.tril(box_iou(boxes, boxes), k=-1)
        limit = np.where(
            scores[order] < self.config.obj_score_thr,
            self.config.nms_backdrop_iou_thr,
            self.config.nms_class_iou_thr,
        )
        usable[order] &= ~(overlaps > limit[:, None]).any(axis=1)
        return usable

    def _embeddings(self, detections: Instances) -> np.ndarray:
        if detections.embeddings is None:
            return np.zeros((len(detections), 0), np.float32)
        return np.asarray(detections.embeddings, np.float32)

    def _mixed(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        share = self.config.memo_momentum
        return np.asarray((1 - share) * old + share * new)

    def _confirmed(self, tracks: TrackStore) -> np.ndarray:
        return np.ones(len(tracks), bool)

    def _remembered(self, tracks: TrackStore, lost: np.ndarray) -> np.ndarray:
        frames_lost = self._frame - tracks.last_frame[lost]
        return lost[frames_lost < self.config.memo_tracklet_frames]

    def _forget(self) -> None:
        super()._forget()
        self._backdrops: TrackStore | None = None
        self._steps = 0

    def _match(
        self,
        tracks: TrackStore,
        detections: Instances,
        embeddings: np.ndarray,
        measured: np.ndarray,
        dt: float,
    ) -> Matches:
        config = self.config
        scores = np.asarray(detections.scores)
        order = np.argsort(-scores, kind="stable")
        entries = tracks
        if self._backdrops is not None and len(self._backdrops):
            self._backdrops.motion.predict(dt)
            entries = tracks.joined(self._backdrops)
        track = np.full(len(detections), -1, np.int64)
        if len(tracks) and len(detections):
            track = _assigned(
                self._affinities(entries, detections, embeddings, measured),
                order,
                scores > config.obj_score_thr,
                len(tracks),
                config.match_score_thr,
                config.nms_conf_thr,
            )
        unmatched = track == -1
        new = unmatched & (scores > config.init_score_thr)
        self._backdrops = self._new_backdrops(detections, embeddings, order, unmatched & ~new)
        columns = np.flatnonzero(track >= 0)
        columns = columns[np.argsort(track[columns], kind="stable")]
        return Matches(track[columns], columns, order[new[order]])

    def _affinities(
        self,
        entries: TrackStore,
        detections: Instances,
        embeddings: np.ndarray,
        measured: np.ndarray,
    ) -> np.ndarray:
        """(D, T) float64, 0-1: how well each detection fits what is remembered."""
        config = self.config
        width = max(embeddings.shape[1], entries.embeddings.shape[1])
        a = widened(embeddings, width).astype(np.float64)
        b = widened(entries.embeddings, width).astype(np.float64)
        similarity = a @ b.T
        lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
        cosines = similarity / np.maximum(lengths, 1e-9)
        same_class = np.asarray(detections.class_ids)[:, None] == entries.class_ids[None, :]
        possible = cosines >= config.min_cosine
        if config.with_cats and config.cats_first:
            possible &= same_class
        if config.motion:
            distances = plausible(
                entries.motion,
                measured,
                np.asarray(detections.amodal_boxes),
                config.max_range_error,
            )
            possible &= np.isfinite(distances)
            # Appearance and motion are two witnesses: their logarithms add up.
            similarity = similarity - 0.5 * distances
        if config.match_metric == "cosine":
            affinities = np.where(possible, cosines, 0.0)
        else:
            affinities = softmax(similarity, possible)
        if config.match_metric == "bisoftmax":
            columns = softmax(np.ascontiguousarray(similarity.T), np.ascontiguousarray(possible.T))
            affinities = (affinities + columns.T) / 2
        return np.where(same_class, affinities, 0.0) if config.with_cats else affinities

    def _new_backdrops(
        self,
        detections: Instances,
        embeddings: np.ndarray,
        order: np.ndarray,
        unmatched: np.ndarray,
    ) -> TrackStore:
        """What is remembered of detections that are no track: those with no higher score near."""
        assert self._stamp is not None
        backdrops = self._backdrops
        if backdrops is not None and len(backdrops):
            backdrops = backdrops[
                self._steps - backdrops.last_frame < self.config.memo_backdrop_frames
            ]
        if backdrops is not None and not unmatched.any():
            return backdrops
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        boxes = np.asarray(detections.amodal_boxes, np.float64)
        selected = np.flatnonzero(unmatched)
        near = box_iou(boxes[selected], boxes) > self.config.nms_backdrop_iou_thr
        higher = rank[None, :] < rank[selected, None]
        selected = selected[~(near & higher).any(axis=1)]
        started = TrackStore.started(
            detections[selected], embeddings[selected], self._stamp, self._steps
        )
        return backdrops.joined(started) if backdrops is not None and len(backdrops) else started


@njit(cache=True, nogil=True)
def softmax(values: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """(D, T) float64: softmax of the possible entries of each row; 0 for all others.

    Args:
        values: (D, T) float64, C order.
        possible: (D, T) bool, C order.
    """
    out = np.zeros(values.shape)
    for d in range(values.shape[0]):
        top, total = -np.inf, 0.0
        for t in range(values.shape[1]):
            if possible[d, t]:
                top = max(top, values[d, t])
        for t in range(values.shape[1]):
            if possible[d, t]:
                out[d, t] = np.exp(values[d, t] - top)
                total += out[d, t]
        if total > 0:
            out[d] /= total
    return out


def plausible(
    motion: Motion, measured: np.ndarray, boxes: np.ndarray, max_range_error: float
) -> np.ndarray:
    """How far each of D detections is from each of T predicted tracks that it may be.

    Args:
        motion: of the tracks.
        measured: (D, 8) quantities of the detections.
        boxes: (D, 4) their boxes, xyxy in pixels.
        max_range_error: share of the range by which a pair may differ beyond 2 m and what the
            prediction leaves open.

    Returns:
        (D, T) float64 squared Mahalanobis distances of centre and range, up to `MAX_CENTRE`; inf
        where place, size or range rule the pair out.
    """
    noise = measurement_noise(measured)
    # A camera that turns sharply moves everything by more than its motion so far lets expect.
    turn = _TURN * np.exp(measured[:, 2:4])
    near = box_iou(boxes.astype(np.float64), motion.boxes()) > _MIN_OVERLAP
    return np.asarray(
        _distances(
            motion.values,
            np.ascontiguousarray(motion.covariances[..., 0]),
            measured,
            noise**2,
            turn**2,
            near,
            max_range_error,
        )
    )


@njit(cache=True, nogil=True)
def _distances(
    values: np.ndarray,
    spread: np.ndarray,
    measured: np.ndarray,
    noise: np.ndarray,
    turn: np.ndarray,
    near: np.ndarray,
    max_range_error: float,
) -> np.ndarray:
    """(D, T) float64, see `plausible`.

    Args:
        values: (T, 8) predicted quantities of the tracks.
        spread: (T, 8) variances of the predictions.
        measured: (D, 8) quantities of the detections.
        noise: (D, 8) variances of the measurements.
        turn: (D, 2) variances that a turning camera adds to the centres.
        near: (D, T) bool, pairs whose boxes overlap enough to be one whatever the centres say.
        max_range_error: see `plausible`.
    """
    out = np.full(near.shape, np.inf)
    for d in range(near.shape[0]):
        for t in range(near.shape[1]):
            width_error = abs(measured[d, 2] - values[t, 2])
            if max(width_error, abs(measured[d, 3] - values[t, 3])) > MAX_SIZE_ERROR:
                continue
            distance, loose = 0.0, 0.0
            for k in range(2):
                square = (measured[d, k] - values[t, k]) ** 2
                variance = noise[d, k] + spread[t, k]
                distance += square / variance
                loose += square / (variance + turn[d, k])
            if loose > MAX_CENTRE and not near[d, t]:
                continue
            range_error = abs(measured[d, RANGE] - values[t, RANGE])
            if np.isfinite(range_error):
                nearer = min(measured[d, RANGE], values[t, RANGE])
                open_range = 2.0 * np.sqrt(spread[t, RANGE])
                if range_error > 2.0 + max_range_error * nearer + open_range:
                    continue
                distance += range_error**2 / (noise[d, RANGE] + spread[t, RANGE])
            out[d, t] = min(distance, MAX_CENTRE)
    return out


@njit(cache=True, nogil=True)
def _assigned(
    affinities: np.ndarray,
    order: np.ndarray,
    high: np.ndarray,
    track_count: int,
    minimum: float,
    copy_score: float,
) -> np.ndarray:
    """(D,) int64: the track that each detection prolongs, -1 none, -2 none as it is a copy.

    Args:
        affinities: (D, M) float64; the first `track_count` columns are tracks, then backdrops.
        order: (D,) in which the detections choose, each what fits best of what is left.
        high: (D,) bool, those that may prolong a track.
        track_count: see above.
        minimum: a pair that fits no better is no match.
        copy_score: one that may not prolong a track and fits it better is a copy.
    """
    out = np.full(len(order), -1, np.int64)
    taken = np.zeros(affinities.shape[1], np.bool_)
    for d in order:
        best, top = -1, minimum
        for m in range(affinities.shape[1]):
            if affinities[d, m] > top and not taken[m]:
                best, top = m, affinities[d, m]
        if best < 0 or best >= track_count:
            continue
        if high[d]:
            out[d], taken[best] = best, True
        elif top > copy_score:
            out[d] = -2
    return out


@njit(cache=True, nogil=True)
def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) float64 intersection over union of (N, 4) and (M, 4) boxes xyxy; 0 between empty."""
    out = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        area = (a[i, 2] - a[i, 0]) * (a[i, 3] - a[i, 1])
        for j in range(len(b)):
            width = min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0])
            height = min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1])
            if width > 0 and height > 0:
                other = (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1])
                out[i, j] = width * height / max(area + other - width * height, 1e-9)
    return out
