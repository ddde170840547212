"""What follows --ros-args on a command line: remaps, parameters, log levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml


@dataclass
class Rule:
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
    found, ros, items = Arguments(), False, iter(argv)
    for item in items:
        if not ros:
            if item == "--ros-args":
                ros = True
            else:
                found.others.append(item)
        elif item == "--":
            ros = False
        elif item != "--ros-args":
            _parse_one(found, item, items)
    return found


def _parse_one(found: Arguments, item: str, items: Any) -> None:
    if item in ("--enable-rosout-logs", "--disable-rosout-logs"):
        found.rosout = item.startswith("--enable")
        return
    if item in (
        "--enable-stdout-logs",
        "--disable-external-lib-logs",
        "--enable-external-lib-logs",
    ):
        return
    value = next(items, None)
    if value is None:
        raise ValueError(f"{item} needs a value")
    if item in ("-r", "--remap"):
        match, sep, replacement = value.partition(":=")
        node, colon, rest = match.rpartition(":")
        if match in ("__node", "__name", "__ns") or rest in ("__node", "__name", "__ns"):
            match, node = (rest or match), (node if colon else "")
        elif colon:
            match = rest
        if not sep or not replacement:
            raise ValueError(f"Failed to parse remap rule '{value}'; it is FROM:=TO")
        found.rules.append(Rule(node, match, replacement))
    elif item in ("-p", "--param"):
        name, sep, text = value.partition(":=")
        if not sep:
            raise ValueError(f"Failed to parse parameter '{value}'; it is NAME:=VALUE")
        node, _, short = name.rpartition(":")
        found.parameters.append((f"/**/{node}" if node else "/**", {short: yaml_value(text)}))
    elif item == "--params-file":
        found.parameters.extend(parameter_file(Path(value)))
    elif item == "--log-level":
        name, sep, level = value.rpartition(":=")
        found.log_levels[name if sep else ""] = level
    elif item in (
        "-e",
        "--enclave",
        "--log-file-name",
        "--log-config-file",
        "--log-stdout-disabled",
    ):
        return
    else:
        raise ValueError(f"unknown ROS argument '{item}'")


def yaml_value(text: str) -> Any:
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

    def match(wanted: list[str], given: list[str]) -> bool:
        if not wanted:
            return not given
        if wanted[0] == "**":
            return any(match(wanted[1:], given[n:]) for n in range(len(given) + 1))
        return bool(given) and fnmatchcase(given[0], wanted[0]) and match(wanted[1:], given[1:])

    return match(pattern.strip("/").split("/"), full_name.strip("/").split("/"))
