"""What a launch description can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from embedded_ros.importer import refuse_arguments

from .core import (
    Action,
    LaunchContext,
    LaunchDescriptionEntity,
    SomeSubstitutionsType,
    as_substitutions,
    perform,
)
from .event_handlers import OnProcessExit
from .events import Shutdown as ShutdownEvent
from .events import TimerEvent
from .launch_description_sources import PythonLaunchDescriptionSource
from .output import say
from .process import ExecuteProcess
from .substitutions import SubstitutionFailure

__all__ = [
    "DeclareLaunchArgument",
    "ExecuteProcess",
    "IncludeLaunchDescription",
    "LogInfo",
    "OpaqueFunction",
    "RegisterEventHandler",
    "SetEnvironmentVariable",
    "Shutdown",
    "TimerAction",
]

_Entities = Sequence[LaunchDescriptionEntity]


class DeclareLaunchArgument(Action):
    """An argument of the launch file.

    Args:
        name: its name in `name:=value`.
        default_value: value where none is given; without it the argument is required.
        description: for `--show-args`.
        choices: the values that it may have.
        absent: what launch has besides; refused.
    """

    declares_argument = True

    def __init__(
        self,
        name: str,
        *,
        default_value: SomeSubstitutionsType | None = None,
        description: str = "no description given",
        choices: Iterable[str] | None = None,
        **absent: Any,
    ) -> None:
        refuse_arguments("launch.actions.DeclareLaunchArgument", absent)
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


class SetEnvironmentVariable(Action):
    """Set a variable for the processes that start after it."""

    def __init__(self, name: SomeSubstitutionsType, value: SomeSubstitutionsType) -> None:
        self.name, self.value = name, value

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        context.environment[perform(context, self.name)] = perform(context, self.value)


class OpaqueFunction(Action):
    """Entities that a function of the context returns."""

    def __init__(self, *, function: Callable[[LaunchContext], Any], **absent: Any) -> None:
        refuse_arguments("launch.actions.OpaqueFunction", absent)
        self.function = function

    def execute(self, context: LaunchContext) -> _Entities | None:
        """Call it."""
        entities: _Entities | None = self.function(context)
        return entities


class IncludeLaunchDescription(Action):
    """Another launch file; `launch_arguments` are (name, value) pairs for it."""

    def __init__(
        self,
        launch_description_source: PythonLaunchDescriptionSource,
        *,
        launch_arguments: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] = (),
        **absent: Any,
    ) -> None:
        refuse_arguments("launch.actions.IncludeLaunchDescription", absent)
        self.source = launch_description_source
        self.launch_arguments = list(launch_arguments)

    def sub_entities(self, context: LaunchContext) -> _Entities:
        """The description, where its path is known before launching."""
        try:
            return [self.source.load(context)]
        except SubstitutionFailure:
            return ()

    def execute(self, context: LaunchContext) -> _Entities:
        """Set the arguments, then visit it."""
        description = self.source.load(context)
        for name, value in self.launch_arguments:
            context.launch_configurations[perform(context, name)] = perform(context, value)
        return [description]


class LogInfo(Action):
    """A line in the log."""

    def __init__(self, *, msg: SomeSubstitutionsType) -> None:
        self.msg = msg

    def execute(self, context: LaunchContext) -> None:
        """Say it."""
        say("INFO", "launch.user", perform(context, self.msg))


class TimerAction(Action):
    """Entities to visit after `period` seconds, unless the launch shuts down before."""

    def __init__(
        self, *, period: float, actions: Iterable[LaunchDescriptionEntity], **absent: Any
    ) -> None:
        refuse_arguments("launch.actions.TimerAction", absent)
        self.period, self.actions = float(period), list(actions)

    def execute(self, context: LaunchContext) -> None:
        """Begin to wait."""
        context.call_later(self.period, lambda: context.emit_event_sync(TimerEvent(self.actions)))


class RegisterEventHandler(Action):
    """Let a handler see the events from now on."""

    def __init__(self, event_handler: OnProcessExit) -> None:
        self.event_handler = event_handler

    def execute(self, context: LaunchContext) -> None:
        """Register it."""
        context.register_event_handler(self.event_handler)


class Shutdown(Action):
    """End the launch."""

    def __init__(self, *, reason: str = "reason not given") -> None:
        self.reason = reason

    def execute(self, context: LaunchContext) -> None:
        """Queue the event."""
        context.emit_event_sync(ShutdownEvent(reason=self.reason))
