"""Write COCO-like JSON without holding its annotations in memory, and never half."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from amodal_core.errors import InputError
from amodal_core.files import atomic


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def dumps(value: Any) -> str:
    """Compact JSON of dictionaries, lists and NumPy values."""
    return json.dumps(value, separators=(",", ":"), default=_plain)


class JsonWriter:
    """A JSON object of lists: `annotations` goes to the disk at once, the others at the end.

    Use it in a `with` block: the file appears under its name when the block ends without an error.

    Raises:
        InputError: the place cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._ending = ExitStack()
        self._lists: dict[str, list[str]] = {}
        self._count = 0
        self._file: TextIO | None = None

    def __enter__(self) -> JsonWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self._ending.enter_context(atomic(self.path))
            self._file = self._ending.enter_context(part.open("w"))
            self._ending.push(self._finish)
            self._file.write('{"annotations":[')
        except OSError as error:
            raise InputError(f"cannot write: {error.strerror}", str(self.path)) from None
        return self

    def annotation(self, annotation: dict[str, Any]) -> None:
        """Append to `annotations`."""
        assert self._file is not None
        self._file.write(("," if self._count else "") + "\n" + dumps(annotation))
        self._count += 1

    def add(self, name: str, element: dict[str, Any]) -> None:
        """Append to another list."""
        self._lists.setdefault(name, []).append(dumps(element))

    def extend(self, name: str, elements: list[dict[str, Any]]) -> None:
        """Append several to another list; the list is written even if it stays empty."""
        self._lists.setdefault(name, []).extend(map(dumps, elements))

    def categories(self, names: Mapping[int, str]) -> None:
        """Write `categories` of these names by id."""
        rows = [{"supercategory": name, "id": k, "name": name} for k, name in names.items()]
        self.extend("categories", rows)

    def __exit__(self, *raised: Any) -> None:
        self._ending.__exit__(*raised)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._file is not None
        if kind is None:
            self._file.write("\n]")
            for name, elements in self._lists.items():
                self._file.write(f",\n{dumps(name)}:[\n" + ",\n".join(elements) + "\n]")
            self._file.write("}\n")
