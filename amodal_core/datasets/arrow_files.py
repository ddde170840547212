"""Feather and Parquet files by pyarrow (extra `arrow`): columns as arrays, rows as streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.datasets.ipc_sizes import unpacked_size
from amodal_core.errors import InputError, foreign
from amodal_core.extras import extra

_CURE = "download the file again"
_LARGEST = 2**28  # bytes that a whole table may have in memory


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of numbers or texts of a Feather or Parquet file.

    Lists of one length become rows of an array; other lists, and texts, arrays of objects.

    Raises:
        InputError: the file is missing or broken, or lacks a column; pyarrow is not installed.
    """
    with extra("arrow", str(path)):
        from pyarrow import ipc, parquet
    with foreign(path, "cannot read the table", _CURE):
        if not path.is_file():
            raise InputError("there is no such file", str(path), _CURE)
        # Not mapped: a file that is cut while it is mapped ends the process.
        if path.suffix == ".parquet":
            table = parquet.read_table(path, columns=list(names))
        else:
            data = memoryview(path.read_bytes())
            if bytes(data[:8]) != b"ARROW1\0\0":
                raise ValueError("no Feather file of version 2")
            if bytes(data[-6:]) != b"ARROW1":
                raise ValueError("it is cut off")
            if unpacked_size(data[8:]) > _LARGEST:
                raise ValueError(f"its columns unpack to over {_LARGEST} bytes")
            # As a stream: read from where the sizes were read, not where the file's end points.
            table = ipc.open_stream(data[8:]).read_all()
        if table.nbytes > _LARGEST:
            raise ValueError(f"{table.nbytes} bytes, at most {_LARGEST} are read")
        # Offsets and lengths that lead out of the file are else followed.
        table.validate(full=True)
        missing = [name for name in names if name not in table.column_names]
        if missing:
            raise ValueError(f"no column {missing[0]}")
        return {name: _array(table.column(name).combine_chunks()) for name in names}


def _array(column: Any) -> np.ndarray:
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype == object and len(values) and isinstance(values[0], np.ndarray):
        lengths = {None if v is None else len(v) for v in values}
        if len(lengths) == 1 and None not in lengths:
            return np.stack(values)
    return np.asarray(values)


class ParquetRows:
    """Rows of a Parquet file, one in memory; going on is quick, going back begins its group anew.

    Args:
        path: the file.
        names: columns that rows have.

    Raises:
        InputError: the file is missing or broken, or lacks a column; pyarrow is not installed.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self._names = path, list(names)
        self._ends: list[int] = []
        with extra("arrow", str(path)):
            from pyarrow import parquet
        with foreign(path, "cannot read the table", _CURE):
            with parquet.ParquetFile(path) as file:
                absent = set(names) - set(file.schema_arrow.names)
                if absent:
                    raise ValueError(f"no column {min(absent)}")
                groups = range(file.metadata.num_row_groups)
                counts = [file.metadata.row_group(g).num_rows for g in groups]
            self._ends = np.cumsum(counts).tolist()
        self._stream: Iterator[Any] = iter(())
        self._group = self._next = -1  # of the stream: its group, and the row that comes next

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": iter(()), "_group": -1}

    def row(self, index: int) -> dict[str, Any]:
        """The columns' values of a row: numbers, bytes, and arrays in place of lists.

        Raises:
            InputError: there is no such row, or it cannot be read.
        """
        with foreign(self.path, "cannot read the table", _CURE):
            group = int(np.searchsorted(self._ends, index, side="right"))
            if not 0 <= index < (self._ends[-1] if self._ends else 0):
                raise IndexError(f"no row {index}")
            first = self._ends[group - 1] if group else 0
            if group != self._group or index < self._next:
                self._stream, self._group, self._next = self._rows(group), group, first
            while True:
                row = next(self._stream, None)
                if row is None:
                    raise IndexError(f"no row {index}")
                self._next += 1
                if self._next > index:
                    row.validate(full=True)
                    return {name: _value(row.column(name)[0]) for name in self._names}

    def _rows(self, group: int) -> Iterator[Any]:
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as file:
            yield from file.iter_batches(1, row_groups=[group], columns=self._names)


def _value(scalar: Any) -> Any:
    """A scalar as Python has it; lists of numbers as arrays, without a Python object for each."""
    inner = getattr(scalar, "values", None)
    return scalar.as_py() if inner is None else inner.to_numpy(zero_copy_only=False)
