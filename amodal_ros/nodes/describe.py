"""Writes the tables of README.md from the nodes' declarations.

Run it with `python -m amodal_ros.nodes.describe`; `--check` only says whether they are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from amodal_core.drive.topics import DIAGNOSTICS, Topic
from amodal_core.files import write_text
from amodal_ros.declarations import COMMON, Declaration, Parameter
from amodal_ros.qos import PROFILES

MODULES = (
    "depth_projection",
    "segmentation",
    "tracking",
    "overlay",
    "track_points",
    "evaluation",
    "player",
)
README = Path(__file__).with_name("README.md")
BEGIN = "<!-- tables: begin, written by python -m amodal_ros.nodes.describe -->"
END = "<!-- tables: end -->"


def declarations() -> list[Declaration]:
    """What the nodes declare, in the order of the pipeline."""
    result: list[Declaration] = []
    for name in MODULES:
        module = import_module(f"amodal_ros.nodes.{name}")
        result.extend(
            c.declaration
            for c in vars(module).values()
            if isinstance(c, type) and c.__module__ == module.__name__ and hasattr(c, "declaration")
        )
    return result


def tables() -> str:
    """The generated part of the README."""
    parts: list[str] = []
    for declaration in declarations():
        parts += [f"### {declaration.name}", declaration.purpose]
        if declaration.subscribes:
            parts.append(_topics("Subscribes", declaration.subscribes))
        parts.append(_topics("Publishes", (*declaration.publishes, DIAGNOSTICS)))
        if declaration.parameters:
            parts.append(_parameters(declaration.parameters))
    parts += ["### Parameters of every node", _parameters(COMMON)]
    profiles = "\n".join(f"| {name} | {text} |" for name, text in PROFILES.items())
    parts += ["### QoS profiles", "| name | meaning |\n|---|---|\n" + profiles]
    parts.append("With `queue: 0`, `sensor` and `reliable` keep the last 100.")
    return "\n\n".join(parts)


def text() -> str:
    """The whole README with fresh tables."""
    head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{tail}"


def _topics(title: str, topics: Iterable[Topic]) -> str:
    rows = [
        f"| {t.name} | {t.type} | {t.qos} | {t.description}{'' if t.required else ' (optional)'} |"
        for t in topics
    ]
    return "\n".join([f"| {title} | type | QoS | |", "|---|---|---|---|", *rows])


def _parameters(parameters: Iterable[Parameter]) -> str:
    rows = [
        f"| {p.name}{' *' if p.dynamic else ''} | {_value(p)} | {p.constraint} | {p.description} |"
        for p in parameters
    ]
    return "\n".join(["| Parameter | default | valid | |", "|---|---|---|---|", *rows])


def _value(parameter: Parameter) -> str:
    value = parameter.default
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value!r}`" if isinstance(value, str) else f"{value}"


def main() -> int:
    """Write the tables, or check them."""
    fresh = text()
    if "--check" in sys.argv[1:]:
        return 0 if fresh == README.read_text(encoding="utf-8") else 1
    write_text(README, fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
