"""Libraries that only a part of the product needs, installed as extras of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amodal_core.errors import InputError


@contextmanager
def extra(name: str, where: str) -> Iterator[None]:
    """Around the imports of what an extra brings.

    Args:
        name: of the extra, as setup.py lists it.
        where: who needs it.

    Raises:
        InputError: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        cure = f"pip install 'amodal_ros[{name}]'"
        raise InputError(f"{error.name} is not installed", where, cure) from error
