"""Rules for node and topic names, and their expansion to full names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from embedded_ros.arguments import Rule

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def node_name_error(name: str) -> tuple[str, int] | None:
    """What is wrong with a node name, and where."""
    if not name:
        return "node name must not be empty", 0
    for index, character in enumerate(name):
        if not re.match(r"[A-Za-z0-9_]", character):
            return (
                "node name must not contain characters other than alphanumerics or '_'",
                index,
            )
    return ("node name must not start with a number", 0) if name[0].isdigit() else None


def topic_name_error(name: str) -> tuple[str, int] | None:
    """What is wrong with a topic or service name, before expansion, and where."""
    if not name:
        return "topic name must not be empty", 0
    bare = re.sub(r"\{[A-Za-z_][A-Za-z0-9_]*\}", lambda m: "x" * len(m[0]), name)
    if bare != "/" and bare.endswith("/"):
        return "topic name must not end with a forward slash", len(name) - 1
    start = 0 if not bare.startswith("~") else 1
    if start and len(bare) > 1 and bare[1] != "/":
        return "tilde must be followed by a forward slash", 1
    position = start
    for token in bare[start:].split("/"):
        if token and not _TOKEN.fullmatch(token):
            if token[0].isdigit():
                return "topic name token must not start with a number", position
            return (
                "topic name must not contain characters other than alphanumerics, '_', '~', '{',"
                " or '}'",
                position,
            )
        if not token and position > start and position < len(bare):
            return "topic name must not contain repeated '/'", position
        position += len(token) + 1
    return None


def expand(name: str, node: str, namespace: str) -> str:
    """The full name of a relative, private or absolute topic or service name."""
    base = "" if namespace == "/" else namespace
    name = name.replace("{node}", node).replace("{ns}", namespace).replace("{namespace}", namespace)
    if name.startswith("~"):
        return f"{base}/{node}{name[1:]}"
    return name if name.startswith("/") else f"{base}/{name}"


def remap(full: str, node: str, namespace: str, rules: Sequence[Rule]) -> str:
    """The name after the first rule that fits; rules are expanded as the node would."""
    for rule in rules:
        if rule.match.startswith("__") or (rule.node and rule.node != node):
            continue
        match = rule.match.removeprefix("rostopic://").removeprefix("rosservice://")
        if expand(match, node, namespace) == full:
            return expand(rule.replacement, node, namespace)
    return full
