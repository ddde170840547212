"""LiDAR scans to depth images in the camera's frame."""

from __future__ import annotations

import sys

from amodal_core.drive.assembler import Moment
from amodal_core.drive.outputs import depth_output
from amodal_core.drive.shared import Shared
from amodal_core.drive.topics import CAMERA_INFO, DEPTH, IMAGE, ODOM, POINTS, TF, TF_STATIC, Topic
from amodal_core.frame import Report
from amodal_core.pipeline import Pipeline
from amodal_core.warm_up import warm_up_frame
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import Declaration
from amodal_ros.running import run
from amodal_ros.synced_node import SENSORS, SyncedNode


class DepthProjection(SyncedNode):
    """Publishes, for every image, the scan of its moment as a depth image."""

    declaration = Declaration(
        name="depth_projection",
        purpose="Projects each scan into the image of its moment, moved to the image's time where "
        "the vehicle's motion is known; where several returns fall into a pixel, the nearest wins.",
        subscribes=(CAMERA_INFO, IMAGE, POINTS, TF_STATIC, TF, ODOM),
        publishes=(DEPTH,),
        parameters=SENSORS,
    )
    calibrated = True

    def configure(self) -> None:
        """Compile the projection before the first scan comes."""
        Pipeline.project(warm_up_frame(), Report())
        super().configure()

    def frame_topics(self) -> tuple[str, ...]:
        """The image, whose stamp the depth image has (a camera_info may have another), a scan."""
        return (IMAGE.name, POINTS.name)

    def inputs(self) -> tuple[Topic, ...]:
        """Without camera_info where the calibration is a file's."""
        info = () if self.value("calibration") else (CAMERA_INFO,)
        return (IMAGE, *info, POINTS, TF_STATIC, TF, ODOM)

    def process(self, stamp: int, item: Moment) -> None:
        """Project one scan."""
        made = self.read(item)
        frame = Pipeline.project(made.frame, Report())
        depth = Shared.made(DEPTH.name, frame.depth, stamp, made.frame_id)
        self.pass_on(DEPTH, depth, lambda: depth_output(FACTORY, frame, made.frame_id))


def main() -> int:
    """Run the node."""
    return run(DepthProjection)


if __name__ == "__main__":
    sys.exit(main())
