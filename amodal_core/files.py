"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` when the `with` block ends.

    Where the block raises, nothing is left of it and an older file at `path` stays as it was. The
    path that is given keeps the suffix, by which many writers choose a format.

    Raises:
        OSError: the file cannot be renamed; what the block raises.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
