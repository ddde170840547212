"""Conditions on which actions run."""

from __future__ import annotations

from typing import Any

from .core import Condition, LaunchContext, SomeSubstitutionsType, missing, perform
from .substitutions import truth


class IfCondition(Condition):
    """Holds where the text is true or 1."""

    def __init__(self, predicate_expression: SomeSubstitutionsType) -> None:
        self.predicate = predicate_expression

    def evaluate(self, context: LaunchContext) -> bool:
        """Whether it holds."""
        return truth(perform(context, self.predicate))


class UnlessCondition(IfCondition):
    """Holds where the text is false or 0."""

    def evaluate(self, context: LaunchContext) -> bool:
        """Whether it holds."""
        return not super().evaluate(context)


class LaunchConfigurationEquals(Condition):
    """Holds where a launch argument has a value."""

    def __init__(self, launch_configuration_name: str, expected_value: str | None) -> None:
        self.name, self.expected = launch_configuration_name, expected_value

    def evaluate(self, context: LaunchContext) -> bool:
        """Whether it holds."""
        return context.launch_configurations.get(self.name) == self.expected


class LaunchConfigurationNotEquals(LaunchConfigurationEquals):
    """Holds where a launch argument has another value."""

    def evaluate(self, context: LaunchContext) -> bool:
        """Whether it holds."""
        return not super().evaluate(context)


def __getattr__(name: str) -> Any:
    raise missing(f"launch.conditions.{name}", name)
