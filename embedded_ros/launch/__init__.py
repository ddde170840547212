"""The part of ROS 2's `launch` that describes and runs a tree of processes, without ROS 2.

Importable as `launch` where the real package is missing; what it lacks raises an error that names
the package to install.
"""

from __future__ import annotations

from typing import Any

from . import (
    actions,
    conditions,
    event_handlers,
    events,
    launch_description_sources,
    substitutions,
)
from .core import (
    Action,
    Condition,
    Event,
    LaunchContext,
    LaunchDescription,
    LaunchDescriptionEntity,
    SomeSubstitutionsType,
    Substitution,
    missing,
)
from .event_handlers import EventHandler
from .launch_description_sources import LaunchDescriptionSource
from .service import LaunchService

__all__ = [
    "Action",
    "Condition",
    "Event",
    "EventHandler",
    "LaunchContext",
    "LaunchDescription",
    "LaunchDescriptionEntity",
    "LaunchDescriptionSource",
    "LaunchService",
    "SomeSubstitutionsType",
    "Substitution",
    "actions",
    "conditions",
    "event_handlers",
    "events",
    "launch_description_sources",
    "substitutions",
]


def __getattr__(name: str) -> Any:
    raise missing(f"launch.{name}", name)
