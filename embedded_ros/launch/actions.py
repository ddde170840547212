"""What a launch description can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .core import (
    Action,
    Event,
    LaunchContext,
    LaunchDescription,
    LaunchDescriptionEntity,
    SomeSubstitutionsType,
    as_substitutions,
    missing,
    perform,
)
from .event_handlers import EventHandler
from .events import Shutdown as ShutdownEvent
from .launch_description_sources import LaunchDescriptionSource, PythonLaunchDescriptionSource
from .output import say
from .process import ExecuteProcess
from .substitutions import SubstitutionFailure

__all__ = [
    "DeclareLaunchArgument",
    "EmitEvent",
    "ExecuteProcess",
    "GroupAction",
    "IncludeLaunchDescription",
    "LogInfo",
    "OpaqueFunction",
    "RegisterEventHandler",
    "SetEnvironmentVariable",
    "SetLaunchConfiguration",
    "Shutdown",
    "TimerAction",
    "UnsetEnvironmentVariable",
]

_Entities = Sequence[LaunchDescriptionEntity]


class DeclareLaunchArgument(Action):
    """An argument of the launch file.

    Args:
        name: its name in `name:=value`.
        default_value: value where none is given; without it the argument is required.
        description: for `--show-args`.
        choices: the values that it may have.
        **kwargs: see Action.
    """

    declares_argument = True

    def __init__(
        self,
        name: str,
        *,
        default_value: SomeSubstitutionsType | None = None,
        description: str = "no description given",
        choices: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.default_value = None if default_value is None else as_substitutions(default_value)
        self.description = description
        self.choices = list(choices) if choices is not None else None

    def describe(self) -> str:
        """Name, description, valid values and default, as `ros2 launch --show-args` prints them."""
        lines = [f"    '{self.name}':", f"        {self.description}"]
        if self.choices is not None:
            lines[1] += f" (one of: {', '.join(self.choices)})"
        if self.default_value is not None:
            default = " + ".join(s.describe() for s in self.default_value) or "''"
            lines.append(f"        (default: {default})")
        return "\n".join(lines)

    def execute(self, context: LaunchContext) -> None:
        """Set the default where no value was given; check the choices."""
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f"the required launch argument '{self.name}' was not provided")
            context.launch_configurations[self.name] = perform(context, self.default_value)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(
                f"launch argument '{self.name}' is '{value}' where one of {self.choices} is valid"
            )


class SetLaunchConfiguration(Action):
    """Give a launch argument a value."""

    def __init__(
        self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        context.launch_configurations[perform(context, self.name)] = perform(context, self.value)


class SetEnvironmentVariable(Action):
    """Set a variable for the processes that start after it."""

    def __init__(
        self, name: SomeSubstitutionsType, value: SomeSubstitutionsType, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        context.environment[perform(context, self.name)] = perform(context, self.value)


class UnsetEnvironmentVariable(Action):
    """Remove a variable for the processes that start after it."""

    def __init__(self, name: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name

    def execute(self, context: LaunchContext) -> None:
        """Remove it."""
        context.environment.pop(perform(context, self.name), None)


class LogInfo(Action):
    """Print a line."""

    def __init__(self, *, msg: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.msg = msg

    def execute(self, context: LaunchContext) -> None:
        """Print it."""
        say("INFO", "launch.user", perform(context, self.msg))


class OpaqueFunction(Action):
    """Entities that a function returns: function(context, *args, **kwargs)."""

    def __init__(
        self,
        *,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        **action: Any,
    ) -> None:
        super().__init__(**action)
        self.function, self.args, self.kwargs = function, tuple(args), dict(kwargs or {})

    def execute(self, context: LaunchContext) -> _Entities | None:
        """Call it."""
        entities: _Entities | None = self.function(context, *self.args, **self.kwargs)
        return entities


class _Restore(Action):
    """Ends the scope of a group or an included file."""

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__()
        self.function = function

    def execute(self, context: LaunchContext) -> None:
        self.function()


class GroupAction(Action):
    """Actions under one condition; arguments and environment that they set end with the group."""

    def __init__(
        self, actions: Iterable[LaunchDescriptionEntity], *, scoped: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.actions, self.scoped = list(actions), scoped

    def sub_entities(self, context: LaunchContext) -> _Entities:
        """The actions."""
        return self.actions

    def execute(self, context: LaunchContext) -> _Entities:
        """All of them, then the old state again."""
        if not self.scoped:
            return self.actions
        old = dict(context.launch_configurations), dict(context.environment)

        def restore() -> None:
            context.launch_configurations, context.environment = old

        return [*self.actions, _Restore(restore)]


class IncludeLaunchDescription(Action):
    """Another launch file, or another description.

    Args:
        launch_description_source: a source, a description, or the path of a Python launch file.
        launch_arguments: (name, value) pairs for it.
        **kwargs: see Action.
    """

    def __init__(
        self,
        launch_description_source: Any,
        *,
        launch_arguments: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        source = launch_description_source
        if isinstance(source, LaunchDescription):
            source = LaunchDescriptionSource(source)
        elif not isinstance(source, LaunchDescriptionSource):
            source = PythonLaunchDescriptionSource(source)
        self.source: LaunchDescriptionSource = source
        self.launch_arguments = list(launch_arguments)

    def sub_entities(self, context: LaunchContext) -> _Entities:
        """The description, where its path is known before launching."""
        try:
            return [self.source.load(context)[0]]
        except SubstitutionFailure:
            return ()

    def execute(self, context: LaunchContext) -> _Entities:
        """Set the arguments, then visit it."""
        description, path = self.source.load(context)
        for name, value in self.launch_arguments:
            context.launch_configurations[perform(context, name)] = perform(context, value)
        outer = context.launch_file

        def leave() -> None:
            context.launch_file = outer

        if path is not None:
            context.launch_file = path
        return [description, _Restore(leave)]


class RegisterEventHandler(Action):
    """Let a handler see the events from now on."""

    def __init__(self, event_handler: EventHandler, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_handler = event_handler

    def execute(self, context: LaunchContext) -> None:
        """Register it."""
        context.register_event_handler(self.event_handler)


class EmitEvent(Action):
    """Queue an event."""

    def __init__(self, *, event: Event, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event = event

    def execute(self, context: LaunchContext) -> None:
        """Queue it."""
        context.emit_event_sync(self.event)


class Shutdown(EmitEvent):
    """End the launch."""

    def __init__(self, *, reason: str = "reason not given", **kwargs: Any) -> None:
        super().__init__(event=ShutdownEvent(reason=reason), **kwargs)


class TimerAction(Action):
    """Actions after a time."""

    def __init__(
        self, *, period: float, actions: Iterable[LaunchDescriptionEntity], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.period, self.actions = float(period), list(actions)

    def execute(self, context: LaunchContext) -> None:
        """Start the time."""
        handler = EventHandler(
            matcher=lambda e: e is due, entities=lambda *_: self.actions, handle_once=True
        )
        due = Event()
        context.register_event_handler(handler)
        context.call_later(self.period, lambda: context.emit_event_sync(due))


def __getattr__(name: str) -> Any:
    raise missing(f"launch.actions.{name}", name)
