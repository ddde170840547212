"""Instances to tracks: identities that survive being hidden."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from amodal_core.drive.assembler import Moment
from amodal_core.drive.outputs import Output, label_info_output, track_outputs
from amodal_core.drive.shared import Shared
from amodal_core.drive.topics import (
    CAMERA_INFO,
    DEPTH,
    DETECTIONS,
    DETECTIONS_3D,
    INSTANCES,
    LABEL_INFO,
    ODOM,
    POINTS,
    TF,
    TF_STATIC,
    TRACKS,
    VISIBLE_LABELS,
    Topic,
)
from amodal_core.frame import Report
from amodal_core.settings import parse_rules
from amodal_core.tracking import TRACKERS, CoastingTracker, make_tracker
from amodal_core.warm_up import warm_up_tracker
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import Declaration, Parameter
from amodal_ros.running import run
from amodal_ros.synced_node import SENSORS, SyncedNode

TRACKER_SETTINGS = "tracker_settings"


class Tracking(SyncedNode):
    """Steps the tracker once for every array of instances, empty ones included."""

    declaration = Declaration(
        name="tracking",
        purpose="Gives objects identities that survive being hidden. An object that is hidden "
        "coasts: its amodal mask moves on until a time limit, or until free space is seen there. "
        "Scans tell how the vehicle itself moves.",
        subscribes=(INSTANCES, DEPTH, CAMERA_INFO, POINTS, TF_STATIC, TF, ODOM),
        publishes=(TRACKS, DETECTIONS, DETECTIONS_3D, VISIBLE_LABELS, LABEL_INFO),
        parameters=(
            Parameter(
                "use_depth",
                True,
                "Wait for the depth image of the same stamp, to see free space; without it hidden "
                "tracks end by time alone.",
            ),
            Parameter(
                "use_points",
                False,
                "Wait for the scan, too, which tells how the vehicle moves: what stands still is "
                "then expected where it stands. Needs the calibration; launches with a LiDAR set "
                "it.",
            ),
            *SENSORS,
            Parameter(
                "tracker",
                "motion",
                "What gives identities: masks and motion, or embeddings by bi-directional softmax "
                "with the thresholds for driving or for SAIL-VOS, or wholly as published; those "
                "need a model that gives embeddings.",
                choices=tuple(TRACKERS),
            ),
            Parameter(
                TRACKER_SETTINGS,
                "",
                "Settings of the tracker, such as coast_seconds=2,min_hits=1; a wrong one says "
                "which there are. They replace all given before, from the next frame on.",
                dynamic=True,
            ),
        ),
    )

    def configure(self) -> None:
        """Set up the tracker."""
        self._settings = self.value(TRACKER_SETTINGS)
        self._tracker = self._made(self._settings)
        self.calibrated = self.value("use_points")
        self._classes: dict[int, str] = {}
        warm_up_tracker()
        super().configure()

    def check(self, name: str, value: Any) -> None:
        """Settings must be the tracker's."""
        if name == TRACKER_SETTINGS:
            self._made(value)

    def _made(self, text: str) -> CoastingTracker:
        """A tracker with the settings of a parameter's text."""
        where = f"parameter {TRACKER_SETTINGS}"
        rules = [rule for rule in text.split(",") if rule.strip()]
        return make_tracker(self.value("tracker"), parse_rules(rules, where), where)

    def frame_topics(self) -> tuple[str, ...]:
        """Instances, the depth image of exactly their stamp, and a scan."""
        return (INSTANCES.name, *self.optional_topics())

    def optional_topics(self) -> tuple[str, ...]:
        """Depth image and scan: a camera may be faster than the LiDAR."""
        wanted = (("use_depth", DEPTH), ("use_points", POINTS))
        return tuple(topic.name for name, topic in wanted if self.value(name))

    def inputs(self) -> tuple[Any, ...]:
        """What makes a frame."""
        depth = (DEPTH,) if self.value("use_depth") else ()
        sensors = (CAMERA_INFO, POINTS, TF_STATIC, TF, ODOM) if self.value("use_points") else ()
        return (INSTANCES, *depth, *sensors)

    def process(self, stamp: int, item: Moment) -> None:
        """One step of the tracker."""
        made, report = self.read(item), Report()
        assert made.instances is not None
        if self._settings != self.value(TRACKER_SETTINGS):
            self._settings = self.value(TRACKER_SETTINGS)
            self._tracker.config = self._made(self._settings).config
            self.get_logger().info(f"tracker settings: {self._tracker.config}")
        tracks = self._tracker.step(made.instances, stamp, made.frame, report)
        self.warn_all(report.warnings)
        # Names come with the instances; whenever there are new ones the label info is renewed.
        if not made.classes.items() <= self._classes.items():
            self._classes.update(made.classes)
            self.publish_all([label_info_output(FACTORY, self._classes, stamp, made.frame_id)])
        names = [self._classes.get(k, str(k)) for k in range(max(self._classes, default=-1) + 1)]
        tracks = tracks.numpy()

        def outputs(wanted: Callable[[Topic], bool]) -> list[Output]:
            frames = made.frame_id, names, made.lidar_frame
            return track_outputs(FACTORY, tracks, stamp, *frames, wanted)

        result = tracks, dict(enumerate(names)), made.lidar_frame
        self.pass_on(
            TRACKS,
            Shared.made(TRACKS.name, result, stamp, made.frame_id),
            lambda: outputs(lambda topic: topic is TRACKS)[0],
        )
        self.publish_all(
            outputs(lambda topic: topic is not TRACKS and self.listeners(topic.name) > 0)
        )

    def reset_state(self) -> None:
        """Nothing: the tracker sees by the stamps that its tracks end; ids are not used twice."""


def main() -> int:
    """Run the node."""
    return run(Tracking)


if __name__ == "__main__":
    sys.exit(main())
