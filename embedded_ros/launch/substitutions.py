"""Text that is known only while launching."""

from __future__ import annotations

from .core import LaunchContext, SomeSubstitutionsType, Substitution, as_substitutions, perform


class SubstitutionFailure(RuntimeError):
    """A substitution has no value."""


class LaunchConfiguration(Substitution):
    """The value of a launch argument."""

    def __init__(
        self, variable_name: SomeSubstitutionsType, *, default: SomeSubstitutionsType | None = None
    ) -> None:
        self.variable_name = as_substitutions(variable_name)
        self.default = default

    def perform(self, context: LaunchContext) -> str:
        """The value; SubstitutionFailure where there is none and no default."""
        name = perform(context, self.variable_name)
        if name in context.launch_configurations:
            return context.launch_configurations[name]
        if self.default is None:
            raise SubstitutionFailure(f"launch configuration '{name}' does not exist")
        return perform(context, self.default)

    def describe(self) -> str:
        """LaunchConfiguration(name)."""
        return f"LaunchConfig({' + '.join(s.describe() for s in self.variable_name)})"
