"""The part of ROS 2's `launch` that our launch files use, without ROS 2.

Importable as `launch` where the real package is missing; what it lacks raises an error that names
the package to install.
"""

from __future__ import annotations

from . import actions, event_handlers, events, launch_description_sources, substitutions
from .core import (
    Action,
    Event,
    LaunchContext,
    LaunchDescription,
    LaunchDescriptionEntity,
    SomeSubstitutionsType,
    Substitution,
)
from .service import LaunchService

__all__ = [
    "Action",
    "Event",
    "LaunchContext",
    "LaunchDescription",
    "LaunchDescriptionEntity",
    "LaunchService",
    "SomeSubstitutionsType",
    "Substitution",
    "actions",
    "event_handlers",
    "events",
    "launch_description_sources",
    "substitutions",
]
