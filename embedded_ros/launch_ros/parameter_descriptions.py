"""How a launch file gives parameters to nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from launch import LaunchContext, SomeSubstitutionsType, Substitution

from ._missing import missing


def _text(context: LaunchContext, value: SomeSubstitutionsType) -> str:
    if isinstance(value, Substitution):
        return value.perform(context)
    if isinstance(value, (str, Path)):
        return str(value)
    return "".join(_text(context, v) for v in value)


class ParameterValue:
    """A value whose type is said, or taken from the text as YAML would.

    Args:
        value: the value, substitutions allowed.
        value_type: bool, int, float or str; None reads the text as YAML.
    """

    def __init__(self, value: Any, *, value_type: type | None = None) -> None:
        self.value, self.value_type = value, value_type

    def evaluate(self, context: LaunchContext) -> Any:
        """The value; RuntimeError where the text is not of the type."""
        if isinstance(self.value, (bool, int, float)):
            value: Any = self.value
        else:
            text = _text(context, self.value)
            value = text if self.value_type is str else yaml.safe_load(text)
        if self.value_type is float and type(value) is int:
            value = float(value)
        if self.value_type is not None and type(value) is not self.value_type:
            raise RuntimeError(f"'{value}' is not of type {self.value_type.__name__}")
        return value


class ParameterFile:
    """A YAML file of parameters.

    Args:
        param_file: its path, substitutions allowed.
        allow_substs: substitutions inside the file are not offered here and must be False.
    """

    def __init__(self, param_file: SomeSubstitutionsType, *, allow_substs: bool = False) -> None:
        if allow_substs:
            raise missing("launch_ros.parameter_descriptions", "ParameterFile(allow_substs=True)")
        self.param_file = param_file

    def evaluate(self, context: LaunchContext) -> Path:
        """The path; FileNotFoundError where there is no such file."""
        path = Path(_text(context, self.param_file))
        if not path.is_file():
            raise FileNotFoundError(f"there is no parameter file {path}")
        return path


def evaluate_dictionary(context: LaunchContext, values: Mapping[Any, Any]) -> dict[str, Any]:
    """Parameters with all substitutions done; nested dictionaries stay nested."""
    return {_text(context, k): _evaluate(context, v) for k, v in values.items()}


def _evaluate(context: LaunchContext, value: Any) -> Any:
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    if isinstance(value, Mapping):
        return evaluate_dictionary(context, value)
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Substitution):
        return yaml.safe_load(_text(context, value))
    if isinstance(value, Iterable):
        items = list(value)
        # As in ROS 2: substitutions in a list are the parts of one text.
        if any(isinstance(i, Substitution) for i in items):
            return yaml.safe_load(_text(context, items))
        return [_evaluate(context, i) for i in items]
    raise RuntimeError(f"a parameter of type {type(value).__name__}: {value}")


def __getattr__(name: str) -> Any:
    raise missing("launch_ros.parameter_descriptions", name)
