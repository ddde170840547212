"""Instances to tracks: identities that survive being hidden."""

from __future__ import annotations

import sys
from typing import Any

from amodal_core.bags.messages import (
    class_names,
    detections_message,
    instances_message,
    label_info_message,
    read_instances,
    visible_labels_message,
)
from amodal_core.bags.sensors import read_depth
from amodal_core.frame import Frame, Report, Tracks
from amodal_core.sync import MatchedSet
from amodal_core.tracking import TRACKERS, CoastingTracker, Tracker, TrackerConfig, make_tracker
from amodal_core.warm_up import warm_up_tracker
from amodal_ros.base_node import run
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import Declaration, Parameter
from amodal_ros.synced_node import SyncedNode
from amodal_ros.topics import DEPTH, DETECTIONS, INSTANCES, LABEL_INFO, TRACKS, VISIBLE_LABELS

_DEFAULT = TrackerConfig()
_ONLY_MOTION = " Of the tracker 'motion'."
# Fields of CoastingConfig, as parameters under the same names.
_COASTING: tuple[Parameter, ...] = (
    Parameter(
        "coast_seconds",
        _DEFAULT.coast_seconds,
        "Seconds for which a hidden object is carried on.",
        low=0.0,
        high=60.0,
    ),
    Parameter(
        "missed_seconds",
        _DEFAULT.missed_seconds,
        "Seconds for which an object is carried on that nothing hides.",
        low=0.0,
        high=60.0,
    ),
    Parameter(
        "max_range_error",
        _DEFAULT.max_range_error,
        "Share of the range by which a match may differ, beyond 2 m.",
        low=0.0,
        high=1.0,
    ),
    Parameter(
        "absent_looks",
        _DEFAULT.absent_looks,
        "Looks in a row that must find free space before a track ends by it.",
        low=1,
        high=100,
    ),
)
# The other fields of TrackerConfig.
_MOTION: tuple[Parameter, ...] = (
    Parameter(
        "high_score",
        _DEFAULT.high_score,
        "Detections from this score on are matched first and may begin tracks." + _ONLY_MOTION,
        low=0.0,
        high=1.0,
    ),
    Parameter(
        "low_score",
        _DEFAULT.low_score,
        "Detections below this score are ignored; those between only prolong tracks."
        + _ONLY_MOTION,
        low=0.0,
        high=1.0,
    ),
    Parameter(
        "min_affinity",
        _DEFAULT.min_affinity,
        "Pairs of track and detection that fit worse than this are no match." + _ONLY_MOTION,
        low=0.0,
        high=1.0,
    ),
    Parameter(
        "min_hits",
        _DEFAULT.min_hits,
        "Sights before a track is given out; in a stream's first frame one is enough."
        + _ONLY_MOTION,
        low=1,
        high=100,
    ),
)


class Tracking(SyncedNode):
    """Steps the tracker once for every array of instances, empty ones included."""

    declaration = Declaration(
        name="tracking",
        purpose="Gives objects identities that survive being hidden. An object that is hidden "
        "coasts: its amodal mask moves on until a time limit, or until free space is seen there.",
        subscribes=(INSTANCES, DEPTH),
        publishes=(TRACKS, DETECTIONS, VISIBLE_LABELS, LABEL_INFO),
        parameters=(
            Parameter(
                "use_depth",
                True,
                "Wait for the depth image of the same stamp, to see free space; without it hidden "
                "tracks end by time alone.",
            ),
            Parameter(
                "sync_timeout",
                0.5,
                "Seconds that instances wait for the depth image of their stamp before they are "
                "dropped and counted.",
                low=0.01,
                high=60.0,
            ),
            Parameter(
                "tracker",
                "motion",
                "What gives identities: masks and motion, or embeddings by bi-directional softmax "
                "with the thresholds for driving or for SAIL-VOS; those need a model that gives "
                "embeddings.",
                choices=tuple(TRACKERS),
            ),
            *_COASTING,
            *_MOTION,
        ),
    )

    def configure(self) -> None:
        """Set up the tracker."""
        coasting = {p.name: self.value(p.name) for p in _COASTING}
        name = self.value("tracker")
        if name == "motion":
            own = {p.name: self.value(p.name) for p in _MOTION}
            self._tracker: CoastingTracker = Tracker(TrackerConfig(**coasting, **own))
        else:
            self._tracker = make_tracker(name, **coasting)
        self._classes: dict[int, str] = {}
        warm_up_tracker()
        super().configure()

    def frame_topics(self) -> tuple[str, ...]:
        """Instances, and the depth image of exactly their stamp."""
        return (INSTANCES.name, DEPTH.name) if self.value("use_depth") else (INSTANCES.name,)

    def inputs(self) -> tuple[Any, ...]:
        """What makes a frame."""
        return (INSTANCES, DEPTH) if self.value("use_depth") else (INSTANCES,)

    def process(self, stamp: int, item: MatchedSet) -> None:
        """One step of the tracker."""
        message = item.messages[INSTANCES.name]
        frame_id = message.header.frame_id
        instances = read_instances(message, self.topic_name(INSTANCES.name))
        frame = None
        if DEPTH.name in item.messages:
            depth = read_depth(item.messages[DEPTH.name], self.topic_name(DEPTH.name))
            frame = Frame(stamp, depth=depth)
        report = Report()
        tracks = self._tracker.step(instances, stamp, frame, report)
        for warning in report.warnings:
            # The jump has been logged when it came in.
            if not warning.startswith("time jumped back"):
                self.warn(f"tracker: {warning[:20]}", warning)
        self._learn_classes(message, stamp, frame_id)
        self._publish(tracks, stamp, frame_id)

    def reset_state(self) -> None:
        """Nothing: the tracker sees by the stamps that its tracks end; ids are not used twice."""

    def _learn_classes(self, message: Any, stamp: int, frame_id: str) -> None:
        """Names come with the instances; whenever there are new ones the label info is renewed."""
        names = class_names(message)
        if not names.items() <= self._classes.items():
            self._classes.update(names)
            self.publish(
                LABEL_INFO.name,
                label_info_message(FACTORY, self._classes, stamp=stamp, frame_id=frame_id),
            )

    def _publish(self, tracks: Tracks, stamp: int, frame_id: str) -> None:
        top = max(self._classes, default=-1)
        classes = [self._classes.get(k, str(k)) for k in range(top + 1)]
        self.publish(
            TRACKS.name,
            instances_message(FACTORY, tracks, stamp=stamp, frame_id=frame_id, classes=classes),
        )
        if self.listeners(DETECTIONS.name):
            self.publish(
                DETECTIONS.name,
                detections_message(
                    FACTORY, tracks, stamp=stamp, frame_id=frame_id, classes=classes
                ),
            )
        if self.listeners(VISIBLE_LABELS.name):
            self.publish(
                VISIBLE_LABELS.name,
                visible_labels_message(FACTORY, tracks, stamp=stamp, frame_id=frame_id),
            )


def main() -> int:
    """Run the node."""
    return run(Tracking)


if __name__ == "__main__":
    sys.exit(main())
