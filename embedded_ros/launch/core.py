"""What every part of launch is made of: entities, actions, substitutions and their context."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TypeAlias


def missing(what: str, name: str, package: str = "launch") -> Exception:
    """The error for API that only the real package has; dunder names stay plain lookups."""
    if name.startswith("__"):
        return AttributeError(name)
    # Not an AttributeError: `from launch import X` would replace its text with one of its own.
    return ImportError(f"{what} is not part of embedded_ros; install ros-jazzy-{package}")


class Substitution:
    """Text that is known only while launching."""

    def perform(self, context: LaunchContext) -> str:
        """The text."""
        raise NotImplementedError

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
    return [s for part in value for s in as_substitutions(part)]


def perform(context: LaunchContext, value: SomeSubstitutionsType) -> str:
    """The text of `value`, all parts joined."""
    return "".join(s.perform(context) for s in as_substitutions(value))


class Event:
    """Something that happened; handlers react to it."""


class Condition:
    """Decides whether an action runs."""

    def evaluate(self, context: LaunchContext) -> bool:
        """Whether it does."""
        raise NotImplementedError


class LaunchDescriptionEntity:
    """Anything that a launch description holds."""

    declares_argument = False

    def visit(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity] | None:
        """Do it; entities that follow from it are visited next."""
        raise NotImplementedError

    def sub_entities(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity]:
        """What it contains, for the search of declared arguments."""
        return ()


class Action(LaunchDescriptionEntity):
    """Something to do, on a condition or always."""

    def __init__(self, *, condition: Condition | None = None) -> None:
        self.condition = condition

    def visit(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity] | None:
        """Execute where the condition holds."""
        if self.condition is not None and not self.condition.evaluate(context):
            return None
        return self.execute(context)

    def execute(self, context: LaunchContext) -> Sequence[LaunchDescriptionEntity] | None:
        """Do it, without asking for the condition."""
        raise NotImplementedError


class LaunchDescription(LaunchDescriptionEntity):
    """Entities in the order in which they are visited."""

    def __init__(self, initial_entities: Iterable[LaunchDescriptionEntity] | None = None) -> None:
        self.entities = list(initial_entities or ())

    def add_action(self, action: LaunchDescriptionEntity) -> None:
        """Append one."""
        self.entities.append(action)

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
    """State of one launch: configurations, environment, handlers, processes and the event queue.

    Args:
        argv: command line of the launch, for those who ask.
        configurations: launch arguments that were given.
    """

    def __init__(
        self, *, argv: Iterable[str] = (), configurations: dict[str, str] | None = None
    ) -> None:
        self.argv = list(argv)
        self.launch_configurations: dict[str, str] = dict(configurations or {})
        self.environment: dict[str, str] = dict(os.environ)
        self.locals = SimpleNamespace(event=None)
        self.handlers: list[Any] = []
        # SimpleQueue.put is reentrant: signal handlers and threads use it.
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.running: set[Any] = set()
        self.deadlines: list[tuple[float, Callable[[], None]]] = []
        self.launch_file: Path | None = None
        self.is_shutdown = False
        self.process_count = 0
        self._scratch: TemporaryDirectory[str] | None = None

    def perform_substitution(self, substitution: Substitution) -> str:
        """The substitution's text."""
        return substitution.perform(self)

    def emit_event_sync(self, event: Event) -> None:
        """Queue an event; safe from any thread."""
        self.events.put(event)

    def register_event_handler(self, handler: Any) -> None:
        """Let a handler see the events from now on; the newest is asked first."""
        self.handlers.insert(0, handler)

    def unregister_event_handler(self, handler: Any) -> None:
        """Undo `register_event_handler`."""
        self.handlers.remove(handler)

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
