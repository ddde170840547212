"""The error for what only the real launch_ros has."""

from __future__ import annotations


def missing(module: str, name: str) -> Exception:
    """Name the package to install; dunder names stay plain lookups."""
    if name.startswith("__"):
        return AttributeError(name)
    return ImportError(f"{module}.{name} is not part of embedded_ros; install ros-jazzy-launch-ros")
