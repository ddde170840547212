"""What a node is from outside, as data: its topics and parameters; the README is made from it."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from amodal_core.drive.topics import Topic

Value = bool | int | float | str | list[float]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a node.

    Attributes:
        name: dots group names.
        default: its type is the parameter's type.
        description: one sentence, with the unit.
        low: smallest number, with `high`.
        high: largest number.
        choices: the texts that are valid.
        lengths: the lengths that a list may have.
        dynamic: may change while the node runs.
    """

    name: str
    default: Value
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    dynamic: bool = False

    @property
    def constraint(self) -> str:
        """What values are valid, in words; empty where all of the type are."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.low is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.lengths:
            return f"{' or '.join(str(n) for n in self.lengths)} numbers"
        return ""

    def refusal(self, value: Value) -> str:
        """Why a value is not valid, or an empty text."""
        if self.choices:
            valid = value in self.choices
        elif self.low is not None and self.high is not None:
            valid = isinstance(value, (int, float)) and self.low <= value <= self.high
        elif self.lengths:
            valid = isinstance(value, Sized) and len(value) in self.lengths
        else:
            valid = True
        return "" if valid else f"{self.name} is {value!r} where {self.constraint} is valid"


@dataclass(frozen=True)
class Declaration:
    """A node from outside.

    Attributes:
        name: of the node and of its executable.
        purpose: one or two sentences.
        subscribes: topics that it reads.
        publishes: topics that it writes.
        parameters: its own; those of every node come on top.
        viewer: it only looks on: its failure ends none of the others.
    """

    name: str
    purpose: str
    subscribes: tuple[Topic, ...] = ()
    publishes: tuple[Topic, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    viewer: bool = False


RATES = (0.01, 100.0)  # how slowly and how fast a bag may be played

# Parameters of every node.
COMMON: tuple[Parameter, ...] = (
    Parameter(
        "queue",
        1,
        "Frames that may wait for the worker; the newest replaces the oldest, which is counted as "
        "dropped. 1 for a live vehicle; 0 keeps every frame, for replays that must lose nothing.",
        low=0,
        high=1000,
    ),
    Parameter(
        "reliability",
        "best_effort",
        "Reliability asked of sensor topics: best_effort matches every driver, reliable loses "
        "nothing but needs a reliable publisher.",
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "autostart",
        True,
        "Configure and activate at start; false leaves both to a lifecycle manager.",
    ),
    Parameter(
        "stale_after",
        1.0,
        "Seconds of silence of a required input until the diagnostics warn.",
        low=0.05,
        high=3600.0,
        dynamic=True,
    ),
    Parameter(
        "lost_after",
        5.0,
        "Seconds of silence of a required input until the diagnostics report an error.",
        low=0.1,
        high=3600.0,
        dynamic=True,
    ),
    Parameter(
        "diagnostics_period",
        1.0,
        "Seconds between two messages on /diagnostics.",
        low=0.1,
        high=60.0,
    ),
)


def parameters_of(kind: Any, **defaults: Value) -> tuple[Parameter, ...]:
    """Parameters made from the fields of a settings type.

    Args:
        kind: made with `amodal_core.settings.settings_type`.
        **defaults: where given, only these fields become parameters, with these defaults.
    """
    made = []
    for name, field in kind.__pydantic_fields__.items():
        if defaults and name not in defaults:
            continue
        limits = {
            attribute: getattr(m, attribute)
            for m in field.metadata
            for attribute in ("ge", "le", "min_length", "max_length")
            if hasattr(m, attribute)
        }
        default = defaults.get(name, field.default)
        made.append(
            Parameter(
                name,
                list(default) if isinstance(default, tuple) else default,
                field.description,
                low=limits.get("ge"),
                high=limits.get("le"),
                choices=get_args(field.annotation)
                if get_origin(field.annotation) is Literal
                else (),
                lengths=(limits["min_length"],) if "min_length" in limits else (),
            )
        )
    return tuple(made)
