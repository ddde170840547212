"""Settings of components: checked types, and one line for what does not fit.

A component's settings are a frozen pydantic dataclass made with `settings_type`. Whoever takes
settings from a user (command line, ROS parameters, launch files, training files) makes them with
`checked`, so that a wrong name, type or range is the same one line everywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from amodal_core.errors import InputError

_T = TypeVar("_T")

# Unknown names are refused, NaN and infinity too.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
if TYPE_CHECKING:
    # mypy knows fields, `replace` and `asdict` of the standard library's dataclasses.
    from dataclasses import dataclass as settings_type
else:
    settings_type = dataclass(frozen=True, config=STRICT)


def checked(kind: type[_T], values: Mapping[str, Any], where: str) -> _T:
    """Settings of a type from plain values (of JSON, YAML, or ROS parameters).

    Args:
        kind: made with `settings_type`; nested ones take mappings.
        values: by name; those left out have their defaults.
        where: who gave them, for the error.

    Raises:
        InputError: a wrong name, type or range: the setting, what was given, what is allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise input_error(error, where, kind) from None


def input_error(error: ValidationError, where: str, *kinds: type) -> InputError:
    """The first fault of a pydantic error as one line.

    Args:
        error: what pydantic raised.
        where: who gave the values.
        *kinds: settings types whose names are offered where a name is misspelt.
    """
    first = error.errors()[0]
    name = ".".join(str(step) for step in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "unexpected_keyword_argument":
        names = sorted(set(_names(kinds)))
        near = difflib.get_close_matches(str(first["loc"][-1]), names, 1)
        cure = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        return InputError(f"no setting '{name}'{more}", where, cure)
    if first["type"] in ("missing", "missing_argument"):
        return InputError(f"'{name}' is missing{more}", where, "add it")
    message = first["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}{more}"
    given = first["input"]
    if not name:  # settings that do not fit together
        return InputError(message, where, f"got {', '.join(f'{k}={v}' for k, v in given.items())}")
    return InputError(f"{name}: {message}", where, f"got {given!r}")


def _names(kinds: Iterable[Any]) -> Iterable[str]:
    """Names of all settings of types, nested ones included."""
    for kind in kinds:
        if isinstance(kind, type) and is_dataclass(kind):
            yield from (f.name for f in fields(kind))
            yield from _names(get_type_hints(kind).values())
        else:
            yield from _names(get_args(kind))


def parse_rules(rules: Sequence[str], where: str) -> dict[str, Any]:
    """Plain values from texts.

    Args:
        rules: "setting=value" each; values are YAML.
        where: who gave them, for the error.

    Raises:
        InputError: a text is something else.
    """
    values = {}
    for rule in rules:
        name, equals, text = rule.partition("=")
        if not equals or not name.strip():
            raise InputError(f"'{rule}' is not setting=value", where, "such as min_score=0.3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"'{text}' is no YAML value", f"{where} {name}", "quote it") from None
        values[name.strip()] = value if text.strip() else ""
    return values
