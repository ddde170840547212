"""The scan's points on each track, coloured as in the overlay."""

from __future__ import annotations

import sys

from sensor_msgs_py.point_cloud2 import create_cloud

from amodal_core.bags.sensors import header_message, point_fields
from amodal_core.drive.assembler import Moment
from amodal_core.drive.topics import CAMERA_INFO, ODOM, POINTS, TF, TF_STATIC, TRACK_POINTS, TRACKS
from amodal_core.frame import Tracks
from amodal_core.views.track_cloud import track_cloud
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import Declaration
from amodal_ros.running import run
from amodal_ros.synced_node import SENSORS, SyncedNode


class TrackPoints(SyncedNode):
    """Works only while someone listens."""

    declaration = Declaration(
        viewer=True,
        name="track_points",
        purpose="Picks the points of each scan that lie on a track: those under its visible mask "
        "that are together in depth. Nothing is made while nobody listens, and nothing of tracks "
        "without a scan.",
        subscribes=(TRACKS, CAMERA_INFO, POINTS, TF_STATIC, TF, ODOM),
        publishes=(TRACK_POINTS,),
        parameters=SENSORS,
    )
    calibrated = True

    def frame_topics(self) -> tuple[str, ...]:
        """Tracks, which have their image's stamp, and a scan."""
        return (TRACKS.name, POINTS.name)

    def optional_topics(self) -> tuple[str, ...]:
        """The scan: a camera may be faster than the LiDAR."""
        return (POINTS.name,)

    def process(self, stamp: int, item: Moment) -> None:
        """The cloud of one frame."""
        if not self.listeners(TRACK_POINTS.name):
            return
        made = self.read(item)
        if made.frame.points is None:
            return
        assert isinstance(made.instances, Tracks)
        cloud = track_cloud(made.instances, made.frame)
        header = header_message(FACTORY, stamp, made.lidar_frame)
        fields = point_fields(FACTORY, cloud.dtype)
        self.publish(TRACK_POINTS.name, create_cloud(header, fields, cloud))


def main() -> int:
    """Run the node."""
    return run(TrackPoints)


if __name__ == "__main__":
    sys.exit(main())
