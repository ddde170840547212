"""The part of rclpy and its neighbours that nodes need, for machines without ROS 2.

`activate()` makes `import rclpy`, `import sensor_msgs.msg`, `import launch` and so on work on top
of the Cyclone DDS wheel. Real packages always win. See README.md for what is there and what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping


def activate(definitions: Callable[[], Mapping[str, str]] | None = None) -> None:
    """Make the embedded packages importable in this process; calling it again adds definitions.

    Args:
        definitions: gives the text of .msg files by full name, such as amodal_msgs/msg/Mask;
            called when the first message package is imported. What it raises, that import raises;
            so does ValueError where a text cannot be parsed or differs from one that is known.
    """
    from embedded_ros import importer

    importer.install(definitions)
