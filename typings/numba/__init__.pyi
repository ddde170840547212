"""What mypy is to know of numba, which has no types: a compiled function is called as written."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

def njit(
    *,
    cache: bool = ...,
    nogil: bool = ...,
    fastmath: bool | set[str] = ...,
    inline: Literal["never", "always"] = ...,
) -> Callable[[_F], _F]: ...
