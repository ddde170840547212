"""The one error that a user's input can cause: what is wrong, where, and how to mend it."""

from __future__ import annotations


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
