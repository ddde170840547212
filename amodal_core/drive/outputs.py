"""Results to messages with their topics: what the nodes publish and what tracks.mcap holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from amodal_core.bags.factory import MessageFactory
from amodal_core.bags.messages import (
    detections3d_message,
    detections_message,
    instances_message,
    label_info_message,
    visible_labels_message,
)
from amodal_core.bags.sensors import image_message
from amodal_core.drive.topics import (
    DEPTH,
    DETECTIONS,
    DETECTIONS_3D,
    INSTANCES,
    LABEL_INFO,
    TRACKS,
    VISIBLE_LABELS,
    Topic,
)
from amodal_core.frame import Frame, Instances, Tracks

Output: TypeAlias = tuple[Topic, Any]


def depth_output(factory: MessageFactory, frame: Frame, frame_id: str) -> Output:
    """The depth image of a frame that has one."""
    assert frame.depth is not None
    return DEPTH, image_message(factory, frame.depth, frame.stamp, frame_id)


def instances_output(
    factory: MessageFactory,
    instances: Instances,
    stamp: int,
    frame_id: str,
    classes: Sequence[str],
    lidar_frame: str = "",
) -> Output:
    """What the model gave for one frame."""
    return INSTANCES, instances_message(
        factory,
        instances,
        stamp=stamp,
        frame_id=frame_id,
        classes=classes,
        lidar_frame=lidar_frame,
    )


def label_info_output(
    factory: MessageFactory,
    classes: Sequence[str] | Mapping[int, str],
    stamp: int,
    frame_id: str,
) -> Output:
    """What the labels mean; it is latched, and renewed when there are new names."""
    return LABEL_INFO, label_info_message(factory, classes, stamp=stamp, frame_id=frame_id)


def track_outputs(
    factory: MessageFactory,
    tracks: Tracks,
    stamp: int,
    frame_id: str,
    classes: Sequence[str],
    lidar_frame: str = "",
    wanted: Callable[[Topic], bool] = lambda topic: True,
) -> list[Output]:
    """Tracks, their detections and visible labels, as far as they are wanted.

    Without a LiDAR's frame there are no 3D detections.

    Args:
        factory: makes the messages.
        tracks: of one frame.
        stamp: the image's, nanoseconds.
        frame_id: the camera's optical frame.
        classes: names that class ids index into.
        lidar_frame: of 3D boxes and velocities, "" where none is known.
        wanted: whether a topic's message is to be made.
    """
    host = tracks.numpy()
    header: dict[str, Any] = {"stamp": stamp, "frame_id": frame_id}
    named: dict[str, Any] = {"classes": classes, "lidar_frame": lidar_frame}
    makers: list[tuple[Topic, Callable[[], Any]]] = [
        (TRACKS, lambda: instances_message(factory, host, **header, **named)),
        (DETECTIONS, lambda: detections_message(factory, host, classes=classes, **header)),
        (VISIBLE_LABELS, lambda: visible_labels_message(factory, host, **header)),
    ]
    if lidar_frame:
        makers.append(
            (DETECTIONS_3D, lambda: detections3d_message(factory, host, stamp=stamp, **named))
        )
    return [(topic, make()) for topic, make in makers if wanted(topic)]
