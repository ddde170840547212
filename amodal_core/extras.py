"""Libraries that only a part of the product needs, installed as extras of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amodal_core.errors import InputError

# The extra that brings a library, for imports that name none themselves.
_BRINGS = {"torch": "torch", "torchvision": "torch"}


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
        raise _refused(error, name, where) from error


def missing_extra(error: ModuleNotFoundError, where: str) -> InputError | None:
    """The one line for a library that an extra brings; None where no extra would help.

    Args:
        error: of an import somewhere.
        where: what was being done.
    """
    name = _BRINGS.get((error.name or "").partition(".")[0])
    return None if name is None else _refused(error, name, where)


def _refused(error: ModuleNotFoundError, name: str, where: str) -> InputError:
    cure = f"pip install 'amodal_ros[{name}]'"
    return InputError(f"{error.name} is not installed", where, cure)
