"""Tracks drawn on their image, and as 3D markers."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from amodal_core.bags.sensors import header_message, image_message, pose_message, vector_message
from amodal_core.drive.assembler import Moment
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, MARKERS, OVERLAY, TRACKS
from amodal_core.frame import Tracks
from amodal_core.views.overlay import OverlayStyle, draw_overlay
from amodal_core.views.palette import track_colour
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import Declaration, Parameter, parameters_of
from amodal_ros.running import run
from amodal_ros.synced_node import SyncedNode

# visualization_msgs/Marker's numbers.
_CUBE, _TEXT, _ADD, _DELETE_ALL = 1, 9, 0, 3


class Overlay(SyncedNode):
    """Draws only while someone listens."""

    declaration = Declaration(
        viewer=True,
        name="overlay",
        purpose="Draws each image's tracks on it, hidden parts hatched, and as 3D markers; nothing "
        "is drawn while nobody listens.",
        subscribes=(TRACKS, IMAGE, replace(CAMERA_INFO, required=False)),
        publishes=(OVERLAY, MARKERS),
        parameters=(
            Parameter(
                "labels",
                True,
                "Write id, class, distance and occluder beside each object.",
                dynamic=True,
            ),
            *parameters_of(DriveSettings, sync_timeout=2.0, calibration="", rectify="auto"),
        ),
    )

    def frame_topics(self) -> tuple[str, ...]:
        """Tracks, and the image of exactly their stamp."""
        return (TRACKS.name, IMAGE.name)

    def process(self, stamp: int, item: Moment) -> None:
        """Draw one frame."""
        draw, mark = self.listeners(OVERLAY.name) > 0, self.listeners(MARKERS.name) > 0
        if not draw and not mark:
            return
        made = self.read(item)
        tracks, names = made.instances, made.classes
        assert isinstance(tracks, Tracks)
        assert made.frame.image is not None
        classes = [names.get(k, str(k)) for k in range(max(names, default=-1) + 1)]
        if draw:
            style = OverlayStyle(labels=self.value("labels"))
            drawn = draw_overlay(made.frame.image, tracks, classes, style)
            self.publish(OVERLAY.name, image_message(FACTORY, drawn, stamp, made.frame_id))
        if mark:
            self.publish(MARKERS.name, markers_message(tracks, classes, stamp, made.lidar_frame))


def markers_message(tracks: Tracks, classes: list[str], stamp: int, frame_id: str) -> Any:
    """A visualization_msgs/MarkerArray: each track's 3D box and a label over it.

    Begins with a marker that deletes those of the frame before; coasted tracks are fainter.
    """

    def marker(**values: Any) -> Any:
        header = header_message(FACTORY, stamp, frame_id)
        return FACTORY.create("visualization_msgs/msg/Marker", header=header, **values)

    markers = [marker(action=_DELETE_ALL)]
    boxes = tracks.boxes3d
    for k, box in enumerate(() if boxes is None else np.asarray(boxes, np.float64)):
        if not np.isfinite(box).all():
            continue
        track = int(tracks.ids[k])
        r, g, b = (c / 255 for c in track_colour(track))
        opacity = 0.2 if tracks.coasted[k] else 0.5
        markers.append(
            marker(
                ns="boxes",
                id=track % 2**31,
                type=_CUBE,
                action=_ADD,
                pose=pose_message(FACTORY, box[:3], box[6]),
                scale=vector_message(FACTORY, np.maximum(box[3:6], 0.05)),
                color=FACTORY.create("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=opacity),
            )
        )
        top = box[:3] + np.array((0.0, 0.0, box[5] / 2 + 0.6))
        hidden = " hidden" if tracks.coasted[k] else ""
        markers.append(
            marker(
                ns="labels",
                id=track % 2**31,
                type=_TEXT,
                action=_ADD,
                pose=pose_message(FACTORY, top, 0.0),
                scale=vector_message(FACTORY, np.full(3, 0.8)),
                color=FACTORY.create("std_msgs/msg/ColorRGBA", r=1.0, g=1.0, b=1.0, a=0.9),
                text=f"{track} {classes[int(tracks.class_ids[k])]}{hidden}",
            )
        )
    return FACTORY.create("visualization_msgs/msg/MarkerArray", markers=markers)


def main() -> int:
    """Run the node."""
    return run(Overlay)


if __name__ == "__main__":
    sys.exit(main())
