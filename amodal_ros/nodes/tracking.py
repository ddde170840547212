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
from amodal_core.frame import TIME_JUMP, Frame, Report, Tracks
from amodal_core.settings import parse_rules
from amodal_core.sync import MatchedSet
from amodal_core.tracking import TRACKERS, make_tracker
from amodal_core.warm_up import warm_up_tracker
from amodal_ros.base_node import run
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import Declaration, Parameter
from amodal_ros.synced_node import SyncedNode
from amodal_ros.topics import DEPTH, DETECTIONS, INSTANCES, LABEL_INFO, TRACKS, VISIBLE_LABELS


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
            Parameter(
                "tracker_settings",
                "",
                "Settings of the tracker, such as coast_seconds=2,min_hits=1; a wrong one says "
                "which there are.",
            ),
        ),
    )

    def configure(self) -> None:
        """Set up the tracker."""
        rules = [rule for rule in self.value("tracker_settings").split(",") if rule.strip()]
        where = "parameter tracker_settings"
        self._tracker = make_tracker(self.value("tracker"), parse_rules(rules, where), where)
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
            if warning.kind != TIME_JUMP:
                self.warn(f"tracker: {warning.kind}", warning.text)
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
