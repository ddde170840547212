"""The rviz view of a launch: `rviz/amodal.rviz` with its topics, namespace and LiDAR's frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from amodal_core.drive.topics import (
    DEPTH,
    IMAGE,
    LIDAR_FRAME,
    MARKERS,
    NO_LIDAR,
    OVERLAY,
    POINTS,
    TRACK_POINTS,
    TRACKS,
)


def shown_topics(namespace: str, image: str, points: str) -> dict[str, str]:
    """What a launch shows, by the topics' names in the view's file; and the tracks.

    Args:
        namespace: of the nodes.
        image: the camera's topic.
        points: the LiDAR's; `NO_LIDAR` for the camera alone.
    """
    base = f"/{namespace.strip('/')}".rstrip("/")

    def full(name: str) -> str:
        return name if name.startswith("/") else f"{base}/{name}"

    names = {IMAGE.bag_name: full(image)}
    if points != NO_LIDAR:
        names[POINTS.bag_name] = full(points)
    results = [OVERLAY, MARKERS, TRACKS, *([] if points == NO_LIDAR else [TRACK_POINTS, DEPTH])]
    return names | {t.bag_name: full(t.name) for t in results}


def view(text: str, topics: Mapping[str, str], frame: str) -> str:
    """The configuration of rviz2 for a launch, YAML.

    Args:
        text: our view, with the topics of the default namespace and the frame of our own bags.
        topics: as `shown_topics` gives them; displays of others are left out.
        frame: fixed frame, which the camera follows and the ground lies in.
    """
    config: dict[str, Any] = yaml.safe_load(text)
    manager = config["Visualization Manager"]
    displays = []
    for display in manager["Displays"]:
        topic = display.get("Topic")
        if topic is None or topic["Value"] in topics:
            displays.append(display)
        if topic is not None:
            topic["Value"] = topics.get(topic["Value"])
    manager["Displays"] = displays
    names = {display["Name"] for display in displays}
    for panel in config["Panels"]:
        if panel.get("SyncSource") not in names:
            panel.pop("SyncSource", None)

    def in_frame(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: in_frame(v) for key, v in value.items()}
        if isinstance(value, list):
            return [in_frame(v) for v in value]
        return frame if value == LIDAR_FRAME else value

    return yaml.safe_dump(in_frame(config), sort_keys=False)
