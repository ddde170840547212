"""Starts rviz2 with our view of a launch: its topics, its namespace and its LiDAR's frame."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException

from amodal_core.drive.topics import POINTS, TRACKS, Topic
from amodal_ros import lifeline
from amodal_ros.conversions import message_class
from amodal_ros.qos import profile
from amodal_ros.rviz import view

_PATIENCE = 5.0  # seconds between two lines about a frame that is not known yet


def frame_of(topic: Topic, name: str) -> str:
    """The frame of the first message on a topic; waits for it.

    Of tracks it is the 3D boxes', or the image's where there are none.
    """
    frames: list[str] = []
    node = rclpy.create_node("rviz_view")

    def receive(message: Any) -> None:
        frame = getattr(message, "box3d_frame_id", "") or message.header.frame_id
        frames.extend([frame.lstrip("/")] if frame else [])

    subscription = node.create_subscription(
        message_class(topic.type), name, receive, profile(topic.qos)
    )
    node.create_timer(
        _PATIENCE,
        lambda: node.get_logger().info(
            f"rviz starts with the first message on {name}; rviz_frame:=FRAME starts it at once"
        ),
    )
    try:
        while not frames:
            rclpy.spin_once(node)
    finally:
        node.destroy_subscription(subscription)
        node.destroy_node()
    return frames[0]


def main(args: Sequence[str] | None = None) -> int:
    """Write the view into a temporary file and become rviz2; what follows --ros-args is rviz2's."""
    lifeline.follow()
    given = list(args if args is not None else sys.argv[1:])
    ours = given.index("--ros-args") if "--ros-args" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("template", type=Path, help="our view")
    parser.add_argument("topics", type=json.loads, help="what is shown, as `shown_topics` gives it")
    parser.add_argument("--frame", default="", help="fixed frame; found where absent")
    options = parser.parse_args(given[:ours])
    frame = options.frame
    if not frame:
        rclpy.init(args=[])
        try:
            topic = POINTS if POINTS.bag_name in options.topics else TRACKS
            frame = frame_of(topic, options.topics[topic.bag_name])
        except (KeyboardInterrupt, ExternalShutdownException):
            return 0
        finally:
            rclpy.try_shutdown()
    text = view(options.template.read_text(encoding="utf-8"), options.topics, frame)
    # rviz2 offers to save it, so that it stays.
    with tempfile.NamedTemporaryFile("w", prefix="amodal_", suffix=".rviz", delete=False) as file:
        file.write(text)
    os.execvp("rviz2", ["rviz2", "-d", file.name, *given[ours:]])


if __name__ == "__main__":
    sys.exit(main())
