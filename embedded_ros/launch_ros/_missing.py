"""The error for what only the real launch_ros has."""

from __future__ import annotations


def missing(module: str, name: str) -> AttributeError:
    """Name the package to install; dunder names stay plain lookups."""
    if name.startswith("__"):
        return AttributeError(name)
    return AttributeError(
        f"{module}.{name} is not part of embedded_ros; install ros-${{ROS_DISTRO}}-launch-ros"
    )
