"""Settings of components: checked types, and one line for what does not fit.

A component's settings are a frozen pydantic dataclass made with `settings_type`. Whoever takes
settings from a user (command line, ROS parameters, launch files, training files) makes them with
`checked`, so that a wrong name, type or range is the same one line everywhere.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from amodal_core.errors import InputError
from amodal_core.yaml_texts import parse_yaml, read_yaml

_T = TypeVar("_T")

# Unknown names are refused, NaN and infinity too.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
if TYPE_CHECKING:
    # mypy knows fields, `replace` and `asdict` of the standard library's dataclasses.
    from dataclasses import dataclass as settings_type
else:
    settings_type = dataclass(frozen=True, config=STRICT)

# Metres; nearer LiDAR returns are the vehicle's own body, or (0, 0, 0) for no return.
MINIMUM_RANGE = 0.5

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Size = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


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
        return TypeAdapter(kind).validate_python(_completed(kind, values))
    except ValidationError as error:
        raise input_error(error, where, kind) from None


def _completed(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Groups that have no defaults of their own and are given in part: the rest is the default."""
    values = dict(values)
    for name, field in getattr(kind, "__pydantic_fields__", {}).items():
        default, given = field.default, values.get(name)
        inner = getattr(default, "__pydantic_fields__", None)
        if inner and isinstance(given, Mapping):
            group = {n: getattr(default, n) for n, f in inner.items() if f.is_required()}
            values[name] = _completed(type(default), group | dict(given))
    return values


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
    if not name and isinstance(given, Mapping):  # settings that do not fit together
        got = ", ".join(f"{k}={v}" for k, v in given.items() if k in message)
        return InputError(message, where, f"got {got}" if got else "")
    return InputError(f"{name}: {message}" if name else message, where, f"got {given!r}")


def _names(kinds: Iterable[Any]) -> Iterable[str]:
    """Names of all settings of types, nested ones included."""
    for kind in kinds:
        if isinstance(kind, type) and is_dataclass(kind):
            yield from (f.name for f in fields(kind))
            yield from _names(get_type_hints(kind).values())
        else:
            yield from _names(get_args(kind))


def parse_rules(rules: Sequence[str], where: str) -> dict[str, Any]:
    """Plain values from texts, later ones in place of earlier ones.

    Args:
        rules: "setting=value", values being YAML and a dot leading into a group; or the path of a
            YAML file of settings.
        where: who gave them, for the error.

    Raises:
        InputError: a text is neither, or the file holds no settings.
    """
    values: dict[str, Any] = {}
    for rule in rules:
        name, equals, text = rule.partition("=")
        if not equals and rule.endswith((".yaml", ".yml")):
            merge(values, _read(rule))
            continue
        if not equals or not name.strip():
            raise InputError(f"'{rule}' is not setting=value", where, "such as min_score=0.3")
        value: Any = ""
        if text.strip():
            value = parse_yaml(text, f"{where} {name}", f"'{text}' is no YAML value", "quote it")
        for step in reversed(name.strip().split(".")):
            value = {step: value}
        merge(values, value)
    return values


def _read(path: str) -> dict[str, Any]:
    values = read_yaml(path, "no settings", "mend it")
    if not isinstance(values, dict):
        raise InputError("no settings", path, "one line a setting, as min_score: 0.3")
    return values


def merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put values in the place of those of the same name, in groups one by one."""
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(values.get(name), dict):
            merge(values[name], value)
        else:
            values[name] = value


def as_yaml(kind: Any) -> str:
    """A settings file with every default, what it means and its range beside it.

    Args:
        kind: made with `settings_type`; its fields are described with pydantic's `Field`.
    """
    return "\n".join([f"# {_first_line(kind)}", *_yaml_lines(kind(), "")]) + "\n"


def _yaml_lines(settings: Any, indent: str) -> Iterable[str]:
    for name, field in settings.__pydantic_fields__.items():
        value = getattr(settings, name)
        if is_dataclass(value):
            yield f"{indent}{name}:  # {_first_line(type(value))}"
            yield from _yaml_lines(value, indent + "  ")
            continue
        if isinstance(value, tuple) and isinstance(value[0], tuple):
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {list(row)}" for row in value)
            continue
        text = str(list(value)) if isinstance(value, tuple) else json.dumps(value)
        limits = [str(getattr(m, k)) for m in field.metadata for k in ("ge", "le") if hasattr(m, k)]
        notes = [field.description or "", f"({' to '.join(limits)})" if len(limits) == 2 else ""]
        note = " ".join(n for n in notes if n)
        yield f"{indent}{name}: {text}" + (f"  # {note}" if note else "")


@dataclass(frozen=True)
class Setting:
    """A setting in words: dotted name, type, default, range and meaning; "" where there is none."""

    name: str
    kind: str
    default: str
    limits: str
    description: str


def described(kind: Any, prefix: str = "") -> Iterable[Setting]:
    """All settings of a type, groups opened, in their order.

    Args:
        kind: made with `settings_type`; meanings are those of pydantic's `Field`, or of the
            docstring's attributes.
        prefix: of the names.
    """
    meanings: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        meanings |= _attributes(base.__doc__ or "")
    for name, field in kind.__pydantic_fields__.items():
        if hasattr(field.annotation, "__pydantic_fields__"):
            yield from described(field.annotation, f"{prefix}{name}.")
            continue
        value = field.get_default(call_default_factory=True)
        default = "" if field.is_required() else json.dumps(value)
        limits = [
            f"{text} {getattr(m, key)}"
            for m in field.metadata
            for key, text in _LIMITS.items()
            if getattr(m, key, None) is not None
        ]
        description = field.description or meanings.get(name, "")
        yield Setting(
            prefix + name, _in_words(field.annotation), default, ", ".join(limits), description
        )


_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}


def _in_words(annotation: Any) -> str:
    """A type as a user writes its values."""
    arguments = [a for a in get_args(annotation) if a is not Ellipsis]
    if get_origin(annotation) is Literal:
        return " | ".join(str(a) for a in arguments)
    if get_origin(annotation) is Annotated:
        return _in_words(arguments[0])
    if get_origin(annotation) is tuple:
        return f"list of {_in_words(arguments[0])}"
    if arguments:
        return " or ".join(_in_words(a) for a in arguments)
    return {"str": "text", "NoneType": "null"}.get(annotation.__name__, annotation.__name__)


def _attributes(docstring: str) -> dict[str, str]:
    """Meanings by name, of the section "Attributes:"."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    result: dict[str, str] = {}
    for line in section.split("\n\n")[0].splitlines():
        name, colon, text = line.strip().partition(": ")
        if colon and line.startswith("    ") and not line.startswith("     "):
            result[name] = text
        elif result:
            result[list(result)[-1]] += f" {line.strip()}"
    return result


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]
