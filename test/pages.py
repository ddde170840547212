"""The pages that tell people what to type, and the commands on them."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = ("docs", "amodal_core", "amodal_ros", "amodal_msgs", "embedded_ros", "launch",
            "training", "benchmarks", "examples")  # fmt: skip
# CHANGELOG tells of commands that are gone, too.
PAGES = sorted(
    p
    for p in [*ROOT.glob("*.md"), *(p for f in _FOLDERS for p in (ROOT / f).rglob("*.md"))]
    if p.name != "CHANGELOG.md"
)
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHELL = "bash"
_ENDS = {";", "&&"}


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages, without their indentation."""
    every = BLOCK.findall(page.read_text())
    return [re.sub(f"(?m)^{indent}", "", body) for indent, kind, body in every if kind in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in the blocks for a shell, as a shell would take them.

    Of a synopsis, what stands in brackets is given, `...` is left out, `a|b` is each of both.
    """
    for body in blocks(page, SHELL):
        for line in body.replace("\\\n", " ").splitlines():
            line = re.sub(r"(?<!\S)\[([^]]*)\]", r"\1", line).replace("...", "")
            words = shlex.shlex(line, posix=True, punctuation_chars=";&")
            words.whitespace_split = True
            for end, group in itertools.groupby(words, _ENDS.__contains__):
                if not end:
                    yield from _spelt_out(list(group))


def _spelt_out(words: list[str]) -> Iterator[list[str]]:
    choices = [word.split("|") for word in words]
    yield from (list(chosen) for chosen in itertools.product(*choices))


def named(page: Path) -> str:
    """Its path in the checkout."""
    return str(page.relative_to(ROOT))


def groups() -> list[list[str]]:
    """The commands of docs/reproduce.md, paper by paper."""
    bodies = blocks(ROOT / "docs" / "reproduce.md", SHELL)
    every = [g.splitlines() for body in bodies for g in body.strip().split("\n\n")]
    return [g for g in every if any(line.startswith("amodal infer") for line in g)]
