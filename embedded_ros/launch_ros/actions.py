"""Actions that concern ROS nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from launch.actions import ExecuteProcess

from launch import Action, LaunchContext, SomeSubstitutionsType

from ._missing import missing
from .executables import command_of
from .parameter_descriptions import ParameterFile, _evaluate, _text, evaluate_dictionary

# The keys that ROS 2 uses for them, so that a group's scope covers them.
_NAMESPACE = "ros_namespace"
_GLOBAL = "global_params"


def _join(outer: str, inner: str) -> str:
    if inner.startswith("/"):
        return inner
    return "/".join(filter(None, [outer.rstrip("/"), inner])) or ""


class PushRosNamespace(Action):
    """Put what follows in this group under a namespace."""

    def __init__(self, namespace: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.namespace = namespace

    def execute(self, context: LaunchContext) -> None:
        """Push it."""
        outer = context.launch_configurations.get(_NAMESPACE, "")
        inner = _text(context, self.namespace)
        if not outer and inner and not inner.startswith("/"):
            inner = "/" + inner
        context.launch_configurations[_NAMESPACE] = _join(outer, inner)


class SetParameter(Action):
    """Give all nodes that follow in this group a parameter."""

    def __init__(self, name: SomeSubstitutionsType, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context: LaunchContext) -> None:
        """Add it."""
        values = yaml.safe_load(context.launch_configurations.get(_GLOBAL, "{}"))
        values[_text(context, self.name)] = _evaluate(context, self.value)
        context.launch_configurations[_GLOBAL] = yaml.safe_dump(values)


class Node(ExecuteProcess):
    """Run a node.

    Args:
        executable: its name in the package, or a path where no package is given.
        package: the package.
        name: the node's name; the one in its code without it.
        namespace: its namespace, inside the group's unless it begins with a slash.
        exec_name: its name in the log.
        parameters: dictionaries, YAML files or ParameterFile, the last one wins.
        remappings: (from, to) pairs.
        ros_arguments: what follows `--ros-args`, such as `["--log-level", "debug"]`.
        arguments: what stands before it.
        **kwargs: see ExecuteProcess.
    """

    def __init__(
        self,
        *,
        executable: SomeSubstitutionsType,
        package: SomeSubstitutionsType | None = None,
        name: SomeSubstitutionsType | None = None,
        namespace: SomeSubstitutionsType | None = None,
        exec_name: SomeSubstitutionsType | None = None,
        parameters: Iterable[Any] | None = None,
        remappings: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] | None = None,
        ros_arguments: Iterable[SomeSubstitutionsType] | None = None,
        arguments: Iterable[SomeSubstitutionsType] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cmd=[], name=exec_name or executable, **kwargs)
        self.package, self.executable = package, executable
        self.node_name, self.namespace = name, namespace
        self.parameters = list(parameters or ())
        self.remappings = list(remappings or ())
        self.ros_arguments, self.arguments = list(ros_arguments or ()), list(arguments or ())

    def command(self, context: LaunchContext) -> list[str]:
        """The executable with the node's name, namespace, parameters and remappings."""
        executable = _text(context, self.executable)
        command = [executable]
        if self.package is not None:
            command = command_of(_text(context, self.package), executable)
        command += [_text(context, a) for a in self.arguments]
        command += ["--ros-args", *(_text(context, a) for a in self.ros_arguments)]
        if self.node_name is not None:
            command += ["-r", f"__node:={_text(context, self.node_name)}"]
        namespace = _join(
            context.launch_configurations.get(_NAMESPACE, ""),
            "" if self.namespace is None else _text(context, self.namespace),
        )
        if namespace not in ("", "/"):
            command += ["-r", f"__ns:=/{namespace.strip('/')}"]
        given = yaml.safe_load(context.launch_configurations.get(_GLOBAL, "{}"))
        for values in ([given] if given else []) + self.parameters:
            command += ["--params-file", self._parameter_file(context, values)]
        for source, target in self.remappings:
            command += ["-r", f"{_text(context, source)}:={_text(context, target)}"]
        return command

    def _parameter_file(self, context: LaunchContext, values: Any) -> str:
        if isinstance(values, dict):
            parameters = evaluate_dictionary(context, values)
            place = context.scratch() / f"{len(list(context.scratch().iterdir()))}.yaml"
            place.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
            return str(place)
        file = values if isinstance(values, ParameterFile) else ParameterFile(values)
        return str(file.evaluate(context))


def __getattr__(name: str) -> Any:
    raise missing("launch_ros.actions", name)
