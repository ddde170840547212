"""The part of ROS 2's `launch_ros` that starts nodes, without ROS 2."""

from __future__ import annotations

from . import actions

__all__ = ["actions"]
