"""The one error that a user's input can cause: what is wrong, where, and how to mend it."""

from __future__ import annotations

import pickle
import struct
import sys
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

# Letters of each part of an error; what a file put into it may be longer.
_LONGEST = 1000


class InputError(Exception):
    """Bad input from outside: a file, a bag, a calibration, an annotation, an option.

    Args:
        what: what is wrong.
        where: the file, topic or place.
        cure: what the user can do about it.

    Each becomes one line that any terminal can show, whatever of a file's content is in it.
    """

    def __init__(self, what: str, where: str = "", cure: str = "") -> None:
        self.what, self.where, self.cure = map(_line, (what, where, cure))
        text = ": ".join(p for p in (self.where, self.what) if p)
        super().__init__(text + (f" ({self.cure})" if self.cure else ""))


def _line(text: str) -> str:
    """One line of printable letters; the middle of a very long one is left out."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 4 :]}"
    if text.isprintable():
        return text
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


# What parsers raise when their input is not what they expect.
_FOREIGN = (
    ArithmeticError, AssertionError, AttributeError, BadZipFile, EOFError, LookupError, MemoryError,
    NotImplementedError, OSError, RecursionError, SyntaxError, TypeError, ValueError,
    pickle.PickleError, struct.error, tokenize.TokenError, zlib.error,
)  # fmt: skip


def _foreign_errors() -> tuple[type[Exception], ...]:
    """With those of a library too heavy to import here: only a loaded one raises its own."""
    yaml = sys.modules.get("yaml")
    return _FOREIGN if yaml is None else (*_FOREIGN, yaml.YAMLError)


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
    except _foreign_errors() as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, KeyError):
            reason = f"no {reason}"
        elif isinstance(error, MemoryError | RecursionError):
            reason = "it is too large or nested too deeply"
        raise InputError(f"{what}: {reason or type(error).__name__}", str(where), cure) from None
