"""ROS 2 nodes and the `amodal` command.

Where `rclpy` cannot be imported, embedded_ros takes its place before any node is loaded.
"""

from importlib.util import find_spec

if find_spec("rclpy") is None:
    import embedded_ros
    from amodal_core.interfaces import message_definitions

    embedded_ros.activate(message_definitions())
