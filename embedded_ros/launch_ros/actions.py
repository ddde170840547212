"""Actions that concern ROS nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from launch.actions import ExecuteProcess
from launch.core import perform

from launch import LaunchContext, SomeSubstitutionsType, Substitution

from .executables import command_of


class Node(ExecuteProcess):
    """Run a node.

    Args:
        executable: its name in the package, or a path where no package is given.
        package: the package.
        name: the node's name; the one in its code without it.
        namespace: its namespace.
        parameters: dictionaries or YAML files, the last one wins.
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
        namespace: SomeSubstitutionsType = "",
        parameters: Iterable[Any] = (),
        remappings: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] = (),
        ros_arguments: Iterable[SomeSubstitutionsType] = (),
        arguments: Iterable[SomeSubstitutionsType] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(cmd=[], name=executable, **kwargs)
        self.package, self.executable = package, executable
        self.node_name, self.namespace = name, namespace
        self.parameters, self.remappings = list(parameters), list(remappings)
        self.ros_arguments, self.arguments = list(ros_arguments), list(arguments)

    def command(self, context: LaunchContext) -> list[str]:
        """The executable with the node's name, namespace, parameters and remappings."""
        executable = perform(context, self.executable)
        command = [executable]
        if self.package is not None:
            command = command_of(perform(context, self.package), executable)
        command += [perform(context, a) for a in self.arguments]
        command += ["--ros-args", *(perform(context, a) for a in self.ros_arguments)]
        if self.node_name is not None:
            command += ["-r", f"__node:={perform(context, self.node_name)}"]
        namespace = perform(context, self.namespace).strip("/")
        if namespace:
            command += ["-r", f"__ns:=/{namespace}"]
        for values in self.parameters:
            command += ["--params-file", self._parameter_file(context, values)]
        for source, target in self.remappings:
            command += ["-r", f"{perform(context, source)}:={perform(context, target)}"]
        return command

    def _parameter_file(self, context: LaunchContext, values: Any) -> str:
        if not isinstance(values, Mapping):
            path = Path(perform(context, values))
            if not path.is_file():
                raise FileNotFoundError(f"there is no parameter file {path}")
            return str(path)
        parameters = _evaluate(context, values)
        path = context.scratch() / f"{len(list(context.scratch().iterdir()))}.yaml"
        path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
        return str(path)


def _evaluate(context: LaunchContext, value: Any) -> Any:
    """A parameter with all substitutions done; what they give is read as YAML."""
    if isinstance(value, Mapping):
        return {perform(context, k): _evaluate(context, v) for k, v in value.items()}
    if isinstance(value, Substitution):
        return yaml.safe_load(value.perform(context))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_evaluate(context, item) for item in value]
    return value
