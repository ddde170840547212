"""The one error that a user's input can cause: what is wrong, where, and how to mend it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile


class InputError(Exception):
    """Bad input from outside: a file, a bag, a calibration, an annotation, an option.

    Args:
        what: what is wrong, one line.
        where: the file, topic or place.
        cure: what the user can do about it.
    """

    def __init__(self, what: str, where: str = "", cure: str = "") -> None:
        self.what, self.where, self.cure = what, where, cure
        super().__init__(": ".join(p for p in (where, what) if p) + (f" ({cure})" if cure else ""))


# What parsers raise when their input is not what they expect.
_FOREIGN = (
    ArithmeticError, AssertionError, AttributeError, BadZipFile, EOFError, LookupError, MemoryError,
    OSError, RecursionError, SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


@contextmanager
def foreign(where: str | Path, what: str = "cannot be read", cure: str = "") -> Iterator[None]:
    """The one boundary between foreign data and us: what its parsing raises becomes an InputError.

    It stands around the lines that take values out of a file, and around nothing else: an error of
    our own code elsewhere keeps its traceback.

    Args:
        where: the file or place in it.
        what: what is then said of it; the reason follows.
        cure: what the user can do about it.

    Raises:
        InputError: the block raised one, or anything that parsers raise.
    """
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}", str(where), cure) from None
    except _FOREIGN as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, KeyError):
            reason = f"no {reason}"
        elif isinstance(error, MemoryError | RecursionError):
            reason = "it is too large or nested too deeply"
        raise InputError(f"{what}: {reason or type(error).__name__}", str(where), cure) from None
