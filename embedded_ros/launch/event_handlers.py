"""What reacts to events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from .core import Event, LaunchContext, LaunchDescriptionEntity, missing
from .events import Shutdown
from .events.process import ProcessExited, ProcessStarted

Reaction: TypeAlias = (
    "LaunchDescriptionEntity | Iterable[LaunchDescriptionEntity] | Callable[..., Any]"
)


def react(reaction: Any, event: Event, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The entities of a reaction: given as such, or returned by a function of (event, context)."""
    if callable(reaction):
        reaction = reaction(event, context)
    if reaction is None:
        return []
    if isinstance(reaction, LaunchDescriptionEntity):
        return [reaction]
    return [e for e in reaction if e is not None]


class EventHandler:
    """Entities to visit when an event matches.

    Args:
        matcher: whether an event matters.
        entities: a list, or a function of (event, context) that returns one.
        handle_once: unregister after the first match.
    """

    def __init__(
        self,
        *,
        matcher: Callable[[Event], bool],
        entities: Reaction | None = None,
        handle_once: bool = False,
    ) -> None:
        self.matcher = matcher
        self.entities = entities
        self.handle_once = handle_once

    def matches(self, event: Event) -> bool:
        """Whether the event matters."""
        return self.matcher(event)

    def handle(self, event: Event, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """What to visit."""
        context.locals.event = event
        if self.handle_once:
            context.unregister_event_handler(self)
        return react(self.entities, event, context)


def _concerns(target: Any, event: Any) -> bool:
    if target is None:
        return True
    if isinstance(target, LaunchDescriptionEntity):
        return event.action is target
    return bool(target(event.action))


class OnProcessExit(EventHandler):
    """Reacts when a process ends."""

    def __init__(
        self, *, target_action: Any = None, on_exit: Reaction, handle_once: bool = False
    ) -> None:
        super().__init__(
            matcher=lambda e: isinstance(e, ProcessExited) and _concerns(target_action, e),
            entities=on_exit,
            handle_once=handle_once,
        )


class OnProcessStart(EventHandler):
    """Reacts when a process has started."""

    def __init__(
        self, *, target_action: Any = None, on_start: Reaction, handle_once: bool = False
    ) -> None:
        super().__init__(
            matcher=lambda e: type(e) is ProcessStarted and _concerns(target_action, e),
            entities=on_start,
            handle_once=handle_once,
        )


class OnShutdown(EventHandler):
    """Reacts when the launch is to end."""

    def __init__(self, *, on_shutdown: Reaction, handle_once: bool = False) -> None:
        super().__init__(
            matcher=lambda e: isinstance(e, Shutdown),
            entities=on_shutdown,
            handle_once=handle_once,
        )


def __getattr__(name: str) -> Any:
    raise missing(f"launch.event_handlers.{name}", name)
