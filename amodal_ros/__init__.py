"""ROS 2 nodes and the `amodal` command.

What of ROS 2 cannot be imported, embedded_ros puts in place, package by package.
"""

import embedded_ros
from amodal_core.interfaces import message_definitions

embedded_ros.activate(message_definitions)
