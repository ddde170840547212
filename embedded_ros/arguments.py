"""What follows --ros-args on a command line: remaps, parameters, log levels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_FLAGS = ("--enable-stdout-logs", "--disable-external-lib-logs", "--enable-external-lib-logs")
_ROSOUT = {"--enable-rosout-logs": True, "--disable-rosout-logs": False}
_IGNORED = ("-e", "--enclave", "--log-file-name", "--log-config-file")


class Rule(NamedTuple):
    """One remap; `node` is empty where it holds for every node."""

    node: str
    match: str
    replacement: str


@dataclass
class Arguments:
    """A parsed command line."""

    others: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    # Parameter sources in the order given: (node pattern, name -> value).
    parameters: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    # Logger name ("" is the root) -> severity name.
    log_levels: dict[str, str] = field(default_factory=dict)
    rosout: bool = True


def parse(argv: Sequence[str]) -> Arguments:
    """Split a command line into ROS arguments and the rest.

    Raises:
        ValueError: a ROS argument is malformed, or a parameter file cannot be read.
    """
    parsed, ros, items = Arguments(), False, iter(argv)
    for item in items:
        if not ros:
            ros = item == "--ros-args"
            if not ros:
                parsed.others.append(item)
        elif item == "--":
            ros = False
        elif item in _ROSOUT:
            parsed.rosout = _ROSOUT[item]
        elif item != "--ros-args" and item not in _FLAGS:
            value = next(items, None)
            if value is None:
                raise ValueError(f"{item} needs a value")
            _parse_one(parsed, item, value)
    return parsed


def _parse_one(parsed: Arguments, item: str, value: str) -> None:
    if item in ("-r", "--remap"):
        match, _, replacement = value.partition(":=")
        # The last colon ends the node's name; rostopic://x has none.
        node, _, name = match.rpartition(":") if "://" not in match else ("", "", match)
        if not replacement:
            raise ValueError(f"Failed to parse remap rule '{value}'; it is FROM:=TO")
        parsed.rules.append(Rule(node, name, replacement))
    elif item in ("-p", "--param"):
        match, sep, text = value.partition(":=")
        if not sep:
            raise ValueError(f"Failed to parse parameter '{value}'; it is NAME:=VALUE")
        node, _, name = match.rpartition(":")
        parsed.parameters.append((f"/**/{node}" if node else "/**", {name: _yaml_value(text)}))
    elif item == "--params-file":
        parsed.parameters.extend(parameter_file(Path(value)))
    elif item == "--log-level":
        name, _, level = value.rpartition(":=")
        parsed.log_levels[name] = level
    elif item not in _IGNORED:
        raise ValueError(f"unknown ROS argument '{item}'")


def _yaml_value(text: str) -> Any:
    """A parameter's value as rcl reads it: YAML, and what is no YAML is a string."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if value is None or isinstance(value, dict) else _number(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as a string; rcl reads it as a number."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parameter_file(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Node patterns and their parameters from a parameter file, in its order.

    Raises:
        ValueError: the file cannot be read or is no ROS parameter file.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read parameter file {path}: {error}") from error
    sources: list[tuple[str, dict[str, Any]]] = []

    def walk(prefix: str, tree: Any) -> None:
        if not isinstance(tree, dict):
            raise ValueError(f"{path} is not a ROS parameter file: '{prefix}' holds no mapping")
        for key, value in tree.items():
            if key == "ros__parameters":
                sources.append((prefix or "/", _flatten("", value)))
            else:
                walk(f"{prefix}/{str(key).strip('/')}", value)

    walk("", content or {})
    return sources


def _flatten(prefix: str, tree: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in (tree or {}).items():
        if isinstance(value, dict):
            flat.update(_flatten(f"{prefix}{key}.", value))
        else:
            flat[f"{prefix}{key}"] = _number(value) if isinstance(value, list) else value
    return flat


def node_matches(pattern: str, full_name: str) -> bool:
    """Whether a parameter file's node pattern (* one level, ** any) names a node."""
    levels = (
        "(/[^/]+)*" if level == "**" else "/" + re.escape(level).replace(r"\*", "[^/]*")
        for level in pattern.strip("/").split("/")
    )
    return re.fullmatch("".join(levels), full_name) is not None
