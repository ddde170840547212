"""YAML from outside: plain values, of no more size than a person writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from amodal_core.errors import InputError, foreign

# Values in one text, each alias counted as what it stands for: nine lines can stand for 10^9.
_MOST = 100_000


def parse_yaml(text: str | bytes, where: str | Path, what: str = "not YAML", cure: str = "") -> Any:
    """The plain values of a YAML text.

    Args:
        text: UTF-8 where it is bytes.
        where: whose it is, for the error.
        what: what is then said of it.
        cure: what the user can do about it.

    Raises:
        InputError: it is no YAML, holds other objects, or its aliases stand for too many values.
    """
    with foreign(where, what, cure):
        loader = yaml.SafeLoader(text.decode("utf-8") if isinstance(text, bytes) else text)
        try:
            node = loader.get_single_node()
            if node is not None and _size(node, {}) > _MOST:
                raise InputError(f"{what}: over {_MOST} values in it", str(where), cure)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()


def read_yaml(path: str | Path, what: str = "not YAML", cure: str = "mend the file") -> Any:
    """The same of a file.

    Raises:
        InputError: also where the file cannot be read.
    """
    with foreign(path, what, cure):
        text = Path(path).read_bytes()
    return parse_yaml(text, path, what, cure)


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node stands for; one that holds itself is refused."""
    if node in sizes:
        if not sizes[node]:
            raise ValueError("a value that holds itself")
        return sizes[node]
    sizes[node] = 0
    inner: Any = node.value if isinstance(node, yaml.CollectionNode) else ()
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in inner for part in pair]
    sizes[node] = 1 + sum(_size(part, sizes) for part in inner)
    return sizes[node]
