"""Kinds of clocks."""

from enum import IntEnum


class ClockType(IntEnum):
    """Kinds of clocks, numbered as in rcl."""

    UNINITIALIZED = 0
    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3
