"""Rules for node and topic names, and their expansion to full names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from embedded_ros.arguments import Rule

_SUBSTITUTION = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
# What must not be in a name before expansion, and why.
_TOPIC_ERRORS = (
    (re.compile(r"^$"), "topic name must not be empty"),
    (re.compile(r"(?<=.)/$"), "topic name must not end with a forward slash"),
    (re.compile(r"(?<=^~)[^/]"), "tilde must be followed by a forward slash"),
    (re.compile(r"//"), "topic name must not contain repeated '/'"),
    (re.compile(r"(^|(?<=/))[0-9]"), "topic name token must not start with a number"),
    (
        re.compile(r"[^A-Za-z0-9_/~]|(?<!^)~"),
        "topic name must not contain characters other than alphanumerics, '_', '~', '{', or '}'",
    ),
)
_NODE_ERRORS = (
    (re.compile(r"^$"), "node name must not be empty"),
    (
        re.compile(r"[^A-Za-z0-9_]"),
        "node name must not contain characters other than alphanumerics or '_'",
    ),
    (re.compile(r"^[0-9]"), "node name must not start with a number"),
)


def node_name_error(name: str) -> tuple[str, int] | None:
    """What is wrong with a node name, and where."""
    return _first_error(name, _NODE_ERRORS)


def topic_name_error(name: str) -> tuple[str, int] | None:
    """What is wrong with a topic or service name, before expansion, and where."""
    return _first_error(_SUBSTITUTION.sub(lambda m: "x" * len(m[0]), name), _TOPIC_ERRORS)


def _first_error(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> tuple[str, int] | None:
    errors = ((text, match.start()) for rule, text in rules if (match := rule.search(name)))
    return next(errors, None)


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
