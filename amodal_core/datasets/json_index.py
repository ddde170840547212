"""Random access to the elements of a large COCO-like JSON file, which stays on the disk.

One pass over the bytes finds where each element of the top-level lists begins and ends and which
image it belongs to; elements are parsed when they are asked for. A file of 95,000 annotations costs
24 bytes of memory for each, where parsing it whole takes gigabytes; streaming parsers such as ijson
bound the memory too, but cannot go to an annotation without reading all before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from amodal_core.errors import InputError

_LISTS = ("images", "annotations", "categories", "videos")
_NO_IMAGE = np.iinfo(np.int64).min


class JsonIndex:
    """The places of a COCO-like JSON file's elements.

    Args:
        path: a JSON object with lists `images`, `annotations`, `categories` and maybe `videos`.

    Attributes:
        top: keys of the JSON object itself.

    Raises:
        InputError: the file cannot be read, or is cut off.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        data = self._map()
        spans, owners, tops, depth = _scan(data, *_names())
        if depth != 0 or not len(data):
            raise InputError(
                "the JSON is cut off or malformed", str(path), "download or export the file again"
            )
        self._spans = {name: spans[spans[:, 0] == k, 1:] for k, name in enumerate(_LISTS)}
        self.top = tuple(bytes(data[a:b]).decode("utf-8", "replace") for a, b in tops.tolist())
        self.owners: np.ndarray = owners[spans[:, 0] == _LISTS.index("annotations")]
        self._order = np.argsort(self.owners, kind="stable")
        self._sorted = self.owners[self._order]

    def _map(self) -> np.ndarray:
        try:
            if self.path.stat().st_size == 0:
                return np.zeros(0, np.uint8)
            return np.memmap(self.path, np.uint8, "r")
        except OSError as error:
            raise InputError(f"cannot read it: {error.strerror}", str(self.path)) from None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_open"}

    @property
    def _bytes(self) -> np.ndarray:
        if "_open" not in self.__dict__:
            self.__dict__["_open"] = self._map()
        return self.__dict__["_open"]

    def count(self, name: str) -> int:
        """Number of elements of a top-level list."""
        return len(self._spans[name])

    def element(self, name: str, index: int) -> dict[str, Any]:
        """One element of a top-level list.

        Raises:
            InputError: it is malformed.
        """
        begin, end = self._spans[name][index].tolist()
        try:
            value = json.loads(self._bytes[begin:end].tobytes())
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"malformed JSON in element {index} of '{name}': {error}",
                f"{self.path} (byte {begin})",
                "export the file again",
            ) from None
        return dict(value)

    def elements(self, name: str) -> Iterator[dict[str, Any]]:
        """All elements of a top-level list, one at a time."""
        for index in range(self.count(name)):
            yield self.element(name, index)

    def annotations_of(self, image_id: int) -> np.ndarray:
        """Indices of an image's annotations in the file's order."""
        a, b = np.searchsorted(self._sorted, [image_id, image_id + 1])
        return np.sort(self._order[a:b])


def _names() -> tuple[np.ndarray, np.ndarray]:
    """The searched keys as bytes, and where each begins; the last is `image_id`."""
    words = [w.encode() for w in (*_LISTS, "image_id")]
    return (
        np.frombuffer(b"".join(words), np.uint8),
        np.cumsum([0, *map(len, words)]).astype(np.int64),
    )


@njit(cache=True, nogil=True)
def _which(
    data: np.ndarray,
    begin: int,
    end: int,
    names: np.ndarray,
    first: np.ndarray,
    low: int,
    high: int,
) -> int:
    for k in range(low, high):
        length = first[k + 1] - first[k]
        if length != end - begin:
            continue
        same = True
        for i in range(length):
            if data[begin + i] != names[first[k] + i]:
                same = False
                break
        if same:
            return k
    return -1


@njit(cache=True, nogil=True)
def _scan(
    data: np.ndarray, names: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Elements (list, begin, end), their image ids, spans of the top-level keys, last depth."""
    lists = len(first) - 2
    # Room for every brace at once: arrays that grow inside the loop slow it down 45 times.
    braces = 0
    for c in data:
        braces += c == 123
    spans = np.empty((braces, 3), np.int64)
    owners = np.empty(braces, np.int64)
    tops = np.empty((64, 2), np.int64)
    n, keys, roots = 0, 0, 0
    depth, section, begin, owner = 0, -1, 0, np.int64(_NO_IMAGE)
    size = len(data)
    i = 0
    while i < size:
        c = data[i]
        if c == 34:  # a string: "
            start = i + 1
            i += 1
            while i < size and data[i] != 34:
                i += 2 if data[i] == 92 else 1
            if i >= size:
                return spans[:n], owners[:n], tops[:keys], -1
            if depth == 1 or (depth == 3 and section >= 0):
                end = i
                j = i + 1
                while j < size and data[j] <= 32:
                    j += 1
                if j < size and data[j] == 58:  # a key: it is followed by :
                    if depth == 1:
                        section = _which(data, start, end, names, first, 0, lists)
                        if keys < len(tops):
                            tops[keys, 0], tops[keys, 1] = start, end
                            keys += 1
                    elif _which(data, start, end, names, first, lists, lists + 1) == lists:
                        j += 1
                        while j < size and data[j] <= 32:
                            j += 1
                        negative = j < size and data[j] == 45
                        if negative:
                            j += 1
                        value, digits = np.int64(0), 0
                        while j < size and 48 <= data[j] <= 57 and digits < 18:
                            value = value * 10 + (data[j] - 48)
                            digits += 1
                            j += 1
                        if digits > 0:
                            owner = -value if negative else value
        elif c == 123 or c == 91:
            if depth == 0:
                roots += 1
                if roots > 1:  # files that were put together
                    return spans[:n], owners[:n], tops[:keys], -1
            depth += 1
            if c == 123 and depth == 3 and section >= 0:
                begin = i
                owner = np.int64(_NO_IMAGE)
        elif c == 125 or c == 93:
            if c == 125 and depth == 3 and section >= 0:
                spans[n, 0], spans[n, 1], spans[n, 2] = section, begin, i + 1
                owners[n] = owner
                n += 1
            depth -= 1
            if depth < 0:
                return spans[:n], owners[:n], tops[:keys], depth
            if depth == 1:
                section = -1
        i += 1
    return spans[:n], owners[:n], tops[:keys], depth
