"""The part of ROS 2's `launch_ros` that starts nodes, without ROS 2."""

from __future__ import annotations

from typing import Any

from . import actions, parameter_descriptions, substitutions
from ._missing import missing

__all__ = ["actions", "parameter_descriptions", "substitutions"]


def __getattr__(name: str) -> Any:
    raise missing("launch_ros", name)
