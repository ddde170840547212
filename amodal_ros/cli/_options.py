"""Options of the command line made from the fields of a settings type."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from amodal_core.errors import InputError
from amodal_core.settings import checked
from amodal_ros.declarations import parameters_of

_T = TypeVar("_T")
_WIDE = 1e6  # limits beyond it are no range that a help says


def with_options(
    argument: str, kind: type[Any], *names: str
) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """A decorator that gives a typer command an option for each of these fields.

    Args:
        argument: of the command; it gets the settings.
        kind: made with `amodal_core.settings.settings_type`.
        *names: of its fields. Those that are lists are given as numbers with commas between.
    """
    parameters = [p for p in parameters_of(kind) if p.name in names]
    lists = {p.name for p in parameters if isinstance(p.default, list)}

    def decorate(command: Callable[..., _T]) -> Callable[..., _T]:
        def run(**values: Any) -> _T:
            given = {p.name: values.pop(p.name) for p in parameters}
            for name, value in given.items():
                if isinstance(value, str) and name in lists:
                    given[name] = _numbers(value, name)
            changed = {name: value for name, value in given.items() if value is not None}
            return command(**values, **{argument: checked(kind, changed, "options")})

        signature = inspect.signature(command, eval_str=True)
        kept = [p for p in signature.parameters.values() if p.name != argument]
        for p in parameters:
            listed = p.name in lists
            limits: dict[str, Any] = {"min": p.low, "max": p.high}
            if p.low is None or p.low < -_WIDE:
                limits = {}  # its check says them
            # None says that it was not given; what then holds, where the words do not say it.
            says = f"{p.description}  [default: {p.default}]" if p.default and not listed else None
            switch = [f"--{p.name.replace('_', '-')}"] if p.default is False else []
            option = typer.Option(*switch, help=says or p.description, **limits)
            value: Any = str if listed else type(p.default)
            annotation = Annotated[value | None, option]
            kept.append(
                inspect.Parameter(
                    p.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
                )
            )
        run.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in kept}
        run.__doc__ = command.__doc__
        return run

    return decorate


def _numbers(text: str, name: str) -> list[float]:
    try:
        return [float(v) for v in text.split(",")]
    except ValueError:
        raise InputError(
            f"'{text}' is not numbers with commas between", f"--{name}", "such as 0,0,0,0,0,0,1"
        ) from None
