"""LiDAR scans to depth images in the camera's frame."""

from __future__ import annotations

import sys

import numpy as np

from amodal_core.bags.sensors import image_message, read_points
from amodal_core.geometry.projection import depth_image
from amodal_core.sync import MatchedSet
from amodal_core.warm_up import warm_up_frame
from amodal_ros.base_node import run
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import SYNCHRONISER, Declaration
from amodal_ros.synced_node import CALIBRATED, SyncedNode
from amodal_ros.topics import CAMERA_INFO, DEPTH, POINTS, TF, TF_STATIC


class DepthProjection(SyncedNode):
    """Publishes, for every image, the scan of its moment as a depth image."""

    declaration = Declaration(
        name="depth_projection",
        purpose="Projects each scan into the image of its moment; where several returns fall into "
        "a pixel, the nearest wins.",
        subscribes=(CAMERA_INFO, POINTS, TF_STATIC, TF),
        publishes=(DEPTH,),
        parameters=(*SYNCHRONISER, *CALIBRATED),
    )

    def configure(self) -> None:
        """Compile the projection before the first scan comes."""
        frame = warm_up_frame()
        assert frame.points is not None
        assert frame.calibration is not None
        depth_image(frame.points, frame.calibration)
        super().configure()

    def frame_topics(self) -> tuple[str, ...]:
        """A calibration and a scan; the calibration has the image's stamp."""
        return (CAMERA_INFO.name, POINTS.name)

    def process(self, stamp: int, item: MatchedSet) -> None:
        """Project one scan."""
        info, cloud = item.messages[CAMERA_INFO.name], item.messages[POINTS.name]
        calibration = self.calibration(stamp, info.header.frame_id, cloud.header.frame_id)
        points = read_points(cloud, self.topic_name(POINTS.name))
        depth = np.asarray(depth_image(points, calibration))
        self.publish(DEPTH.name, image_message(FACTORY, depth, stamp, info.header.frame_id))


def main() -> int:
    """Run the node."""
    return run(DepthProjection)


if __name__ == "__main__":
    sys.exit(main())
