"""What torch's own readers do not refuse in a file of untrusted origin."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZIP_STORED, ZipFile, is_zipfile

from amodal_core import limits
from amodal_core.pickles import Reader, RefusedError


class _Anything(dict[Any, Any]):
    """In the place of what a call would make: takes items, and is told apart by itself alone."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def append(self, _: Any) -> None:
        """Nothing of it is kept."""

    extend = append


class _Scan(Reader):
    """Walks through a pickle of any kind and calls nothing; only its keys are looked at."""

    def find_class(self, module: str, name: str) -> Any:
        return _Anything()

    def _made(self, given: int) -> None:
        del self.stack[len(self.stack) - given :]
        self.append(_Anything())

    def _named(self) -> None:
        self.readline()
        self.append(_Anything())

    def _state(self) -> None:
        self.stack.pop()

    dispatch: ClassVar = Reader.dispatch | {
        pickle.REDUCE[0]: lambda self: self._made(2),
        pickle.NEWOBJ[0]: lambda self: self._made(2),
        pickle.NEWOBJ_EX[0]: lambda self: self._made(3),
        pickle.BINPERSID[0]: lambda self: self._made(1),
        pickle.PERSID[0]: _named,
        pickle.BUILD[0]: _state,
    }


def check(source: bytes | Path) -> None:
    """Refuse a file of torch's that stands for endless work or memory, before torch reads it.

    torch's own readers run no code of it, but hash any key and unpack any member.

    Args:
        source: the file, or what is in it.

    Raises:
        ValueError: it is such a file. What is none of torch's passes, or raises what parsers raise.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    if not is_zipfile(file):
        reader = _Scan(source if isinstance(source, bytes) else source.read_bytes())
        for _ in range(5):  # magic number, version, machine, what was saved, keys of the storages
            reader.load()
        return
    with ZipFile(file) as archive:
        packed = [m for m in archive.infolist() if m.compress_type != ZIP_STORED]
        if sum(m.file_size for m in packed) > limits.UNPACKED:
            raise RefusedError("packed members that torch never writes")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                _Scan(archive.read(name)).load()
