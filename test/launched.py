"""What pipeline.launch.py would start, without starting it; for the embedded launch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from launch import LaunchService


def commands(root: Path, **arguments: str) -> list[list[str]]:
    """The command lines of the nodes that pipeline.launch.py starts."""
    context = LaunchService().context
    context.launch_configurations.update(arguments)
    file = root / "launch" / "pipeline.launch.py"
    stack: list[Any] = [PythonLaunchDescriptionSource(str(file)).load(context)]
    lines = []
    while stack:
        entity = stack.pop(0)
        if isinstance(entity, Node):
            lines.append(entity.command(context))
        else:
            stack = [*(entity.visit(context) or ()), *stack]
    return lines
