"""What every part of launch is made of: entities, actions, substitutions and their context."""

from __future__ import annotations

import os
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias


class Substitution(ABC):
    """Text that is known only while launching."""

    @abstractmethod
    def perform(self, context: LaunchContext) -> str:
        """The text."""

    def describe(self) -> str:
        """The substitution for `--show-args`."""
        return type(self).__name__


class TextSubstitution(Substitution):
    """Plain text."""

    def __init__(self, *, text: str) -> None:
        self.text = text

    def perform(self, context: LaunchContext) -> str:
        """The text."""
        return self.text

    def describe(self) -> str:
        """The text in quotes."""
        return f"'{self.text}'"


SomeSubstitutionsType: TypeAlias = "str | os.PathLike[str] | Substitution | Iterable[Any]"


def as_substitutions(value: SomeSubstitutionsType) -> list[Substitution]:
    """Any of the forms in which launch takes text, as a list of substitutions."""
    if isinstance(value, Substitution):
        return [value]
    if isinstance(value, (str, os.PathLike)):
        return [TextSubstitution(text=os.fspath(value))]
    return [s for item in value for s in as_substitutions(item)]


def perform(context: LaunchContext, value: SomeSubstitutionsType) -> str:
    """The text of `value`, all parts joined."""
    return "".join(s.perform(context) for s in as_substitutions(value))


class Event:
    """Something that happened; handlers react to it."""


class LaunchDescriptionEntity(ABC):
    """Anything that a launch description holds."""

    declares_argument = False

    @abstractmethod
    def visit(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity] | None:
        """Do it; entities that follow from it are visited next."""

    def sub_entities(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity]:
        """What it contains, for the search of declared arguments."""
        return ()


class Action(LaunchDescriptionEntity):
    """Something to do."""

    def visit(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity] | None:
        """Execute it."""
        return self.execute(context)

    def execute(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity] | None:
        """Do it; nothing by default."""
        return None


class LaunchDescription(LaunchDescriptionEntity):
    """Entities in the order in which they are visited."""

    def __init__(self, initial_entities: Iterable[LaunchDescriptionEntity] | None = None) -> None:
        self.entities = list(initial_entities or ())

    def visit(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity]:
        """All of them."""
        return self.entities

    def sub_entities(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity]:
        """All of them."""
        return self.entities

    def get_launch_arguments(self, context: LaunchContext | None = None) -> list[Any]:
        """The DeclareLaunchArgument actions in it and in what it includes, first of a name wins."""
        context = context or LaunchContext()
        declared: dict[str, Any] = {}
        stack: list[LaunchDescriptionEntity] = list(reversed(self.entities))
        while stack:
            entity = stack.pop()
            if entity.declares_argument:
                declared.setdefault(vars(entity)["name"], entity)
            stack.extend(reversed(entity.sub_entities(context)))
        return list(declared.values())


class LaunchContext:
    """State of one launch: configurations, environment, handlers, processes and the event queue."""

    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}
        self.environment: dict[str, str] = dict(os.environ)
        self.handlers: list[Any] = []
        # SimpleQueue.put is reentrant: signal handlers and threads use it.
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.running: set[Any] = set()
        self.deadlines: list[tuple[float, Callable[[], None]]] = []
        self.is_shutdown = False
        self.process_count = 0
        self._scratch: TemporaryDirectory[str] | None = None

    def emit_event_sync(self, event: Event) -> None:
        """Queue an event; safe from any thread."""
        self.events.put(event)

    def register_event_handler(self, handler: Any) -> None:
        """Let a handler see the events from now on; the newest is asked first."""
        self.handlers.insert(0, handler)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function from the event loop after `seconds`."""
        self.deadlines.append((time.monotonic() + seconds, function))

    def scratch(self) -> Path:
        """A folder for parameter files that lives as long as the launch."""
        if self._scratch is None:
            self._scratch = TemporaryDirectory(prefix="launch_params_")
        return Path(self._scratch.name)

    def close(self) -> None:
        """Remove the scratch folder."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
