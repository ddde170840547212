"""Text that is known only while launching."""

from __future__ import annotations

import ast
import operator
import os
from collections.abc import Callable, Iterable
from typing import Any

from .core import LaunchContext, SomeSubstitutionsType, Substitution, as_substitutions, missing
from .core import TextSubstitution as TextSubstitution
from .core import perform as perform_all


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
        name = perform_all(context, self.variable_name)
        if name in context.launch_configurations:
            return context.launch_configurations[name]
        if self.default is None:
            raise SubstitutionFailure(f"launch configuration '{name}' does not exist")
        return perform_all(context, self.default)

    def describe(self) -> str:
        """LaunchConfiguration(name)."""
        return f"LaunchConfig({' + '.join(s.describe() for s in self.variable_name)})"


class EnvironmentVariable(Substitution):
    """The value of an environment variable."""

    def __init__(
        self, name: SomeSubstitutionsType, *, default_value: SomeSubstitutionsType | None = None
    ) -> None:
        self.name = name
        self.default_value = default_value

    def perform(self, context: LaunchContext) -> str:
        """The value; SubstitutionFailure where there is none and no default."""
        name = perform_all(context, self.name)
        if name in context.environment:
            return context.environment[name]
        if self.default_value is None:
            raise SubstitutionFailure(f"environment variable '{name}' does not exist")
        return perform_all(context, self.default_value)


class PathJoinSubstitution(Substitution):
    """Parts joined by the path separator."""

    def __init__(self, substitutions: Iterable[SomeSubstitutionsType]) -> None:
        self.pieces = list(substitutions)

    def perform(self, context: LaunchContext) -> str:
        """The path."""
        return os.path.join(*(perform_all(context, piece) for piece in self.pieces))


class ThisLaunchFileDir(Substitution):
    """The folder of the launch file that is being visited."""

    def perform(self, context: LaunchContext) -> str:
        """The folder; SubstitutionFailure outside a launch file."""
        if context.launch_file is None:
            raise SubstitutionFailure("ThisLaunchFileDir is used outside of a launch file")
        return str(context.launch_file.parent)


class ThisLaunchFile(Substitution):
    """The launch file that is being visited."""

    def perform(self, context: LaunchContext) -> str:
        """The path; SubstitutionFailure outside a launch file."""
        if context.launch_file is None:
            raise SubstitutionFailure("ThisLaunchFile is used outside of a launch file")
        return str(context.launch_file)


_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "str": str,
}


def _evaluate(node: ast.AST) -> Any:
    """The value of an expression of literals and operators; nothing else is run."""
    if isinstance(node, ast.Expression):
        return _evaluate(node.body)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_evaluate(e) for e in node.elts]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    if isinstance(node, ast.BoolOp):
        value: Any = None
        for operand in node.values:
            value = _evaluate(operand)
            if bool(value) == isinstance(node.op, ast.Or):
                break
        return value
    if isinstance(node, ast.IfExp):
        return _evaluate(node.body if _evaluate(node.test) else node.orelse)
    if isinstance(node, ast.Compare) and all(type(o) in _OPERATORS for o in node.ops):
        left = _evaluate(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = _evaluate(right_node)
            if not _OPERATORS[type(op)](left, right):
                return False
            left = right
        return True
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _FUNCTIONS
        and not node.keywords
    ):
        return _FUNCTIONS[node.func.id](*(_evaluate(a) for a in node.args))
    raise missing(f"PythonExpression with {ast.unparse(node)!r}", "PythonExpression")


class PythonExpression(Substitution):
    """The value of a Python expression; here literals, operators and a few conversions only."""

    def __init__(self, expression: SomeSubstitutionsType) -> None:
        self.expression = expression

    def perform(self, context: LaunchContext) -> str:
        """The value as text."""
        text = perform_all(context, self.expression)
        try:
            return str(_evaluate(ast.parse(text.strip(), mode="eval")))
        except SyntaxError as error:
            raise SubstitutionFailure(f"not a Python expression: {text}") from error


def truth(text: str) -> bool:
    """The meaning of true/false/1/0, any case; RuntimeError otherwise."""
    word = text.strip().lower()
    if word in ("true", "1"):
        return True
    if word in ("false", "0"):
        return False
    raise RuntimeError(f"'{text}' is neither true nor false (true, false, 1 or 0 are)")


class NotSubstitution(Substitution):
    """`true` where the value is false."""

    def __init__(self, value: SomeSubstitutionsType) -> None:
        self.value = value

    def perform(self, context: LaunchContext) -> str:
        """`true` or `false`."""
        return str(not truth(perform_all(context, self.value))).lower()


class AndSubstitution(Substitution):
    """`true` where both are."""

    def __init__(self, left: SomeSubstitutionsType, right: SomeSubstitutionsType) -> None:
        self.left, self.right = left, right

    def perform(self, context: LaunchContext) -> str:
        """`true` or `false`."""
        both = [truth(perform_all(context, v)) for v in (self.left, self.right)]
        return str(all(both)).lower()


class OrSubstitution(Substitution):
    """`true` where one of both is."""

    def __init__(self, left: SomeSubstitutionsType, right: SomeSubstitutionsType) -> None:
        self.left, self.right = left, right

    def perform(self, context: LaunchContext) -> str:
        """`true` or `false`."""
        both = [truth(perform_all(context, v)) for v in (self.left, self.right)]
        return str(any(both)).lower()


class EqualsSubstitution(Substitution):
    """`true` where both texts are the same."""

    def __init__(self, left: SomeSubstitutionsType, right: SomeSubstitutionsType) -> None:
        self.left, self.right = left, right

    def perform(self, context: LaunchContext) -> str:
        """`true` or `false`."""
        return str(perform_all(context, self.left) == perform_all(context, self.right)).lower()


class NotEqualsSubstitution(EqualsSubstitution):
    """`true` where both texts differ."""

    def perform(self, context: LaunchContext) -> str:
        """`true` or `false`."""
        return str(not truth(super().perform(context))).lower()


def __getattr__(name: str) -> Any:
    raise missing(f"launch.substitutions.{name}", name)
