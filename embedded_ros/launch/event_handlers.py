"""What reacts to events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from embedded_ros.importer import refuse_arguments

from .core import Event, LaunchContext, LaunchDescriptionEntity
from .events import ProcessExited

Reaction: TypeAlias = (
    "LaunchDescriptionEntity | Iterable[LaunchDescriptionEntity] | Callable[..., Any]"
)


class OnProcessExit:
    """Reacts when a process ends.

    Args:
        target_action: the process; any where absent.
        on_exit: entities to visit, or a function of (event, context) that returns them.
        absent: what launch has besides; refused.
    """

    def __init__(self, *, target_action: Any = None, on_exit: Reaction, **absent: Any) -> None:
        refuse_arguments("launch.event_handlers.OnProcessExit", absent)
        self.target_action, self.on_exit = target_action, on_exit

    def matches(self, event: Event) -> bool:
        """Whether the event matters."""
        return isinstance(event, ProcessExited) and self.target_action in (None, event.action)

    def handle(self, event: Event, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """What to visit."""
        reaction: Any = self.on_exit
        if callable(reaction):
            reaction = reaction(event, context)
        if isinstance(reaction, LaunchDescriptionEntity):
            return [reaction]
        return [entity for entity in reaction or () if entity is not None]
