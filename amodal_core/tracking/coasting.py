"""Tracks that survive being hidden, whatever says which detection is which track."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from amodal_core.frame import TIME_JUMP, Frame, Instances, Report, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.settings import Amount, Share, settings_type
from amodal_core.tracking.association import within_image
from amodal_core.tracking.evidence import PlaceEvidence, weigh_evidence
from amodal_core.tracking.motion import RANGE, Motion, measure, measurement_noise
from amodal_core.tracking.output import matched_tracks, with_coasting
from amodal_core.tracking.scan_motion import ScanMotion
from amodal_core.tracking.track_store import TrackStore, widened

_TRUST = 6.0  # a hidden track is carried so many times as long as it was visible
_LEAST_MATCHED = 4  # tracks that tell how the camera turned


Seconds = Annotated[float, Field(ge=0, le=60)]


@settings_type
class CoastingConfig:
    """Settings of every tracker. Times are in seconds, so that they hold at any frame rate.

    Attributes:
        coast_seconds: how long a hidden object is carried on.
        missed_seconds: how long one that nothing hides is carried on.
        max_range_error: share of the range by which a match may differ, beyond 2 m.
        absent_looks: looks in a row that must find free space before a track ends by it.
        longest_gap: seconds; a gap in the stream that is longer, and longer than `coast_seconds`,
            ends all tracks.
    """

    coast_seconds: Seconds = 3.0
    missed_seconds: Seconds = 0.5
    max_range_error: Share = 0.12
    absent_looks: Annotated[int, Field(ge=1, le=100)] = 2
    longest_gap: Amount = 3.0


@dataclass(eq=False)
class Matches:
    """What the D detections of a frame are; those named nowhere are nothing.

    Attributes:
        tracks: (M,) int64 rows of the tracks that are matched, ascending.
        detections: (M,) int64, the detection that each of them is.
        new_tracks: (B,) int64, unmatched detections that begin a track.
    """

    tracks: np.ndarray
    detections: np.ndarray
    new_tracks: np.ndarray


class CoastingTracker(ABC):
    """Gives detections identities, frame by frame; the result depends on the inputs alone.

    A constant-velocity Kalman filter in the image, in range and, where given, in 3D predicts each
    track, over ground where scans tell the vehicle's own motion. A track that no detection matches
    coasts: its amodal mask moves on with the prediction, as long as something nearer hides its
    place, or briefly without reason, and ends when returns from beyond show that the place is
    empty. A subclass says which detection is which track.

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
        self._tracks: TrackStore | None = None
        self._size: tuple[int, int] | None = None
        self._stamp: int | None = None
        self._frame = 0
        self.origins = np.zeros(0, np.int64)
        self._vehicle = ScanMotion()
        self._alongside: Motion | None = None
        self._classes = 0  # how many the detections weigh, once they have told

    @abstractmethod
    def _usable(self, detections: Instances) -> np.ndarray:
        """(D,) bool, detections that are looked at; their boxes are finite already."""

    @abstractmethod
    def _match(
        self,
        tracks: TrackStore,
        detections: Instances,
        embeddings: np.ndarray,
        measured: np.ndarray,
        dt: float,
    ) -> Matches:
        """Which detection is which of the predicted tracks, and which are new.

        Args:
            tracks: T predicted ones.
            detections: D, on the host.
            embeddings: (D, W) theirs, see `_embeddings`.
            measured: (D, 8) their quantities, as `motion.measure` gives them.
            dt: seconds since the frame before.
        """

    @abstractmethod
    def _confirmed(self, tracks: TrackStore) -> np.ndarray:
        """(T,) bool, tracks that have proven enough to get an id where they have none."""

    @abstractmethod
    def _embeddings(self, detections: Instances) -> np.ndarray:
        """(D, W) float32 embeddings to compare, W = 0 where there are none."""

    @abstractmethod
    def _mixed(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        """(M, W) embeddings of tracks after another match."""

    def _returned(
        self, tracks: TrackStore, named: np.ndarray, coasting: np.ndarray, stamp: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of the tracks about to be named are coasting ones that came back.

        Args:
            tracks: T tracks.
            named: rows of those that have just proven enough.
            coasting: rows of those that coast.
            stamp: of the frame, nanoseconds.

        Returns:
            Rows of the former and, for each, the row of the latter.
        """
        return named[:0], coasting[:0]

    def _remembered(self, tracks: TrackStore, lost: np.ndarray) -> np.ndarray:
        """Those of the tracks `lost`, neither matched nor coasting, that may still come back."""
        return lost[:0]

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
            frame: what the sensors saw; its depth tells free space from a hidden object, its points
                and calibration how the vehicle moves.
            report: takes the warnings.
        """
        # First the stream: what ends it, and the time since the frame before.
        detections = instances.numpy()
        self._check_stream(stamp, detections.size, report or Report())
        dt = 0.0 if self._stamp is None else (stamp - self._stamp) * 1e-9
        self._stamp, self._size = stamp, detections.size
        self._frame += 1

        # Detections that may be matched.
        usable = np.isfinite(np.asarray(detections.amodal_boxes)).all(axis=1)
        usable &= self._usable(detections)
        indices = np.flatnonzero(usable)
        if not usable.all():
            detections = detections[indices]
        embeddings = self._embeddings(detections)
        if detections.class_probabilities is not None:
            self._classes = int(detections.class_probabilities.shape[1])

        # Prediction: where the tracks should be now.
        tracks = self._tracks
        if tracks is None:
            tracks = TrackStore.started(detections[:0], embeddings[:0], stamp, 0)
        if dt > max(self.config.coast_seconds, self.config.longest_gap):
            tracks = tracks[:0]
        self._predict(tracks, frame, dt)

        # Association, and what the matches tell of all tracks.
        boxes3d = None if detections.boxes3d is None else np.asarray(detections.boxes3d)
        measured = measure(
            np.asarray(detections.amodal_boxes), np.asarray(detections.depths), boxes3d
        )
        matches = self._match(tracks, detections, embeddings, measured, dt)
        rows, columns = matches.tracks, matches.detections
        gone = np.ones(len(tracks), bool)
        gone[rows] = False
        unmatched = np.flatnonzero(gone)
        self._learn(tracks, rows, unmatched, detections, columns, measured, embeddings, dt)

        # Unmatched tracks coast, are only remembered, or end.
        candidates = unmatched[~tracks.lost[unmatched]]
        masks, evidence = self._evidence(tracks, candidates, detections, columns, frame)
        stay = self._stay(tracks, candidates, masks, evidence, stamp, dt)
        coasting, masks = candidates[stay], masks[np.flatnonzero(stay)]
        hidden = evidence.hidden[stay]
        gone[coasting] = False
        lost = self._remembered(tracks, np.flatnonzero(gone))
        tracks.lost[lost] = True

        # New tracks join; those that have proven enough get an id, their old one if they had any.
        no_detection = np.full(len(coasting) + len(lost), -1, np.int64)
        origin = np.concatenate([columns, no_detection, matches.new_tracks])
        if len(rows) < len(tracks):
            tracks = tracks[np.concatenate([rows, coasting, lost])]
        if len(matches.new_tracks):
            new = matches.new_tracks
            tracks = tracks.joined(
                TrackStore.started(detections[new], embeddings[new], stamp, self._frame)
            )
        named = np.flatnonzero((tracks.ids < 0) & self._confirmed(tracks) & (origin >= 0))
        carried = len(rows) + np.arange(len(coasting))
        # What comes back elsewhere than predicted has begun a track of its own.
        returned, previous = self._returned(tracks, named, carried, stamp)
        if len(returned):
            tracks.continue_as(returned, previous)
            named = np.setdiff1d(named, returned)
            stay = ~np.isin(carried, previous)
            kept = np.setdiff1d(np.arange(len(tracks)), previous)
            named = np.searchsorted(kept, named)
            tracks, origin = tracks[kept], origin[kept]
            masks, hidden = masks[np.flatnonzero(stay)], hidden[stay]
            carried = len(rows) + np.arange(len(masks))
        tracks.ids[named] = np.arange(self._next_id, self._next_id + len(named))
        self._next_id += len(named)
        self._tracks = tracks

        # Output: matched tracks as detected, coasting ones as predicted, by id.
        shown = np.flatnonzero((origin >= 0) & (tracks.ids >= 0))
        shown = shown[np.argsort(tracks.ids[shown])]
        result = matched_tracks(detections[origin[shown]], tracks, shown, self._frame)
        if len(carried):
            coasted = tracks[carried]
            result = with_coasting(
                result, coasted, masks, hidden, self._faded(coasted), self._frame
            )
        if self._classes:
            # A frame without detections tells nothing of classes; its tracks know them.
            every = np.concatenate([shown, carried])
            known = tracks.class_probabilities(every, self._classes)
            result = replace(result, class_probabilities=known)
        self.origins = indices[origin[shown]]
        if not len(carried):
            return result
        order = np.argsort(result.ids)
        self.origins = np.append(self.origins, np.full(len(carried), -1))[order]
        return result[order]

    def _predict(self, tracks: TrackStore, frame: Frame | None, dt: float) -> None:
        """Move the tracks on, those that stand still by the vehicle's own motion."""
        step = self._alongside = None
        if frame is not None and frame.points is not None and frame.calibration is not None:
            step = self._vehicle.step(frame.points, dt)
        else:
            self._vehicle.reset()
        if step is not None:
            assert frame is not None
            assert frame.calibration is not None
            # Of what was seen once nobody knows whether it stands or goes along with the vehicle.
            self._alongside = tracks.motion[tracks.hits == 1]
            tracks.motion.carry(step, frame.calibration, dt)
            self._alongside.predict(dt)
        tracks.motion.predict(dt, carried=step is not None)

    def _learn(
        self,
        tracks: TrackStore,
        rows: np.ndarray,
        unmatched: np.ndarray,
        detections: Instances,
        columns: np.ndarray,
        measured: np.ndarray,
        embeddings: np.ndarray,
        dt: float,
    ) -> None:
        """Give matched tracks their detections; how the camera turned moves all others, too.

        Args:
            tracks: T predicted ones.
            rows: (M,) of the matched ones.
            unmatched: (T - M,) rows of the others.
            detections: D of this frame.
            columns: (M,) which of them the matched tracks are.
            measured: (D, 8) their quantities.
            embeddings: (D, W) theirs.
            dt: seconds since the frame before.
        """
        motion, measured, embeddings = tracks.motion, measured[columns], embeddings[columns]
        self._go_along(tracks, rows, measured, dt)
        errors, rates = measured[:, :2] - motion.values[rows, :2], motion.rates[rows, :2]
        turned = np.median(errors, axis=0) if len(rows) >= _LEAST_MATCHED else np.zeros(2)
        if self._alongside is not None:
            turned[0] = 0.0  # the scans have told; not how the vehicle nods
        if dt > 0:
            motion.stir(turned, dt)
        if embeddings.shape[1]:
            old = tracks.embeddings_of(rows, embeddings.shape[1])
            embeddings = self._mixed(old, widened(embeddings, old.shape[1]))
        # What the image cuts off of a prediction it cuts off of the measurement, too.
        quantities, predicted = measured.copy(), motion.values[rows]
        quantities[:, :4] += (predicted - within_image(predicted, detections.size))[:, :4]
        assert self._stamp is not None
        tracks.update(
            rows, detections, columns, embeddings, quantities, self._stamp, self._frame, dt
        )
        if len(rows) >= _LEAST_MATCHED:
            # A camera that turns moves all by the same, those that are hidden too.
            motion.values[unmatched, :2] += turned
            motion.rates[unmatched, :2] += np.median(motion.rates[rows, :2] - rates, axis=0)

    def _faded(self, coasted: TrackStore) -> np.ndarray:
        """(C,) factors of the scores of coasting tracks, from 1 down to a half."""
        assert self._stamp is not None
        idle = (self._stamp - coasted.visible_stamp) * 1e-9 / max(self.config.coast_seconds, 1e-9)
        return np.asarray(1.0 - 0.5 * np.clip(idle, 0.0, 1.0))

    def _go_along(
        self, tracks: TrackStore, rows: np.ndarray, measured: np.ndarray, dt: float
    ) -> None:
        """Give matched tracks that were seen once the vehicle's speed where that fits better."""
        if self._alongside is None or not len(self._alongside.values):
            return
        place = np.full(len(tracks), -1)
        place[tracks.hits == 1] = np.arange(len(self._alongside.values))
        chosen = place[rows] >= 0
        rows, measured, motion = rows[chosen], measured[chosen], tracks.motion
        along = self._alongside.values[place[rows]]
        noise = measurement_noise(measured)[:, : RANGE + 1]

        def off(values: np.ndarray) -> np.ndarray:
            error = (values - measured)[:, : RANGE + 1] / noise
            return np.asarray(np.nansum(error**2, axis=1))

        better = off(along) < off(motion.values[rows])
        rows, along = rows[better], along[better]
        motion.rates[rows] += np.nan_to_num(along - motion.values[rows]) / dt
        motion.values[rows] = along

    def _check_stream(self, stamp: int, size: tuple[int, int], report: Report) -> None:
        """End all tracks where time jumps back or the image size changes."""
        if self._stamp is not None and stamp < self._stamp:
            back = (self._stamp - stamp) * 1e-9
            report.warn(TIME_JUMP, f"time jumped back by {back:.3f} s: all tracks end")
            self._forget()
        if self._size is not None and self._size != tuple(size):
            report.warn(
                "image size",
                f"the image size changed from {self._size} to {size}: all tracks end",
            )
            self._forget()

    def _evidence(
        self,
        tracks: TrackStore,
        unmatched: np.ndarray,
        detections: Instances,
        matched: np.ndarray,
        frame: Frame | None,
    ) -> tuple[RleMasks, PlaceEvidence]:
        """Predicted amodal masks of unmatched tracks, and what the frame says of their places."""
        if not len(unmatched):
            none = np.zeros(0, bool)
            return RleMasks.empty(detections.size), PlaceEvidence(none, none)
        masks = tracks.amodal[unmatched].moved(
            tracks.boxes[unmatched], tracks.motion[unmatched].boxes()
        )
        depth = None if frame is None else frame.depth
        if depth is not None and depth.shape != tuple(detections.size):
            depth = None
        evidence = weigh_evidence(
            masks,
            tracks.motion.ranges()[unmatched],
            np.sqrt(tracks.motion.covariances[unmatched, RANGE, 0]),
            detections.visible.rle()[matched],
            np.asarray(detections.depths)[matched],
            depth,
        )
        return masks, evidence

    def _stay(
        self,
        tracks: TrackStore,
        unmatched: np.ndarray,
        masks: RleMasks,
        evidence: PlaceEvidence,
        stamp: int,
        dt: float,
    ) -> np.ndarray:
        """(U,) bool, which of the unmatched tracks coast; notes what the evidence says of them."""
        if not len(unmatched):
            return np.zeros(0, bool)
        config = self.config
        tracks.explained_stamp[unmatched[evidence.hidden]] = stamp
        tracks.absences[unmatched] = np.where(evidence.absent, tracks.absences[unmatched] + 1, 0)
        # A track is trusted no longer than it has proven itself, and hidden some times as long.
        proven = tracks.visible_seconds[unmatched] + dt
        patience = np.minimum(config.missed_seconds, proven) + 1e-6
        coast = np.minimum(config.coast_seconds, _TRUST * proven) + 1e-6
        boxes = tracks.motion[unmatched].boxes()
        areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0), axis=1)
        inside = np.clip(boxes, 0, [masks.size[1], masks.size[0]] * 2)
        share = np.prod(inside[:, 2:] - inside[:, :2], axis=1) / areas
        return (
            (tracks.ids[unmatched] >= 0)
            & ((stamp - tracks.explained_stamp[unmatched]) * 1e-9 <= patience)
            & ((stamp - tracks.visible_stamp[unmatched]) * 1e-9 <= coast)
            & (tracks.absences[unmatched] < config.absent_looks)
            & (share >= 0.3)
            & (masks.areas() > 0)
        )
