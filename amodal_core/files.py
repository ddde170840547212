"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amodal_core.errors import InputError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` at the block's end.

    Where the block raises, nothing is left of it and an older file at `path` stays as it was. The
    path that is given is hidden, keeps the suffix, by which many writers choose a format, and is
    this process's own, so that two may fill one cache. Writers that stay open hold the block in an
    `ExitStack`.

    Raises:
        OSError: the file cannot be renamed; what the block raises.
    """
    part = _part(Path(path))
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: str | Path) -> Iterator[Path]:
    """A new hidden folder on the file system of `path`, gone with what is in it at the block's end.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = _part(Path(path))
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process with this number
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(value: Any, path: str | Path) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value))


def inside(folder: str | Path, name: str, at: str | Path = "") -> Path:
    """The path that a name from outside stands for, below a folder.

    Args:
        folder: what the name must not lead out of.
        name: relative, with slashes.
        at: the folder below `folder` that the name starts from.

    Raises:
        InputError: the name is absolute, leads out of the folder or to itself, or is no name.
    """
    steps = os.path.normpath(os.path.join(at, name))
    try:
        lengths = [len(os.fsencode(step)) for step in steps.split(os.sep)]
    except UnicodeEncodeError:
        lengths = [0]
    leaves = os.path.isabs(steps) or steps == "." or steps.split(os.sep)[0] == ".."
    if not name or "\0" in name or leaves or min(lengths) < 1 or max(lengths) > 255:
        shown = name[:60].encode("ascii", "backslashreplace").decode()
        raise InputError(f"'{shown}' names nothing in this folder", str(folder), "mend the name")
    if len(steps) > 2000:
        raise InputError(f"a name of {len(steps)} letters", str(folder), "shorten it")
    return Path(folder) / steps


def _part(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
