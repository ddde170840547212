"""The default context, and questions about it."""

from __future__ import annotations

from typing import Any

from .context import Context

_default: Context | None = None


def get_default_context() -> Context:
    """The context that everything uses where none is given."""
    global _default
    if _default is None:
        _default = Context()
    return _default


def fresh_default_context() -> Context:
    """The default context, or a new one after it was shut down."""
    global _default
    if _default is None or _default.used:
        _default = Context()
    return _default


def ok(*, context: Context | None = None) -> bool:
    """Whether init() was called and shutdown() was not."""
    return (context or get_default_context()).ok()


def shutdown(*, context: Context | None = None) -> None:
    """Shut a context down.

    Raises:
        RuntimeError: it is not running.
    """
    (context or get_default_context()).shutdown()


def try_shutdown(*, context: Context | None = None, uninstall_handlers: Any = None) -> None:
    """Shut a context down, where it runs."""
    (context or get_default_context()).try_shutdown()


def get_rmw_implementation_identifier() -> str:
    """Whose wire protocol this is."""
    return "rmw_cyclonedds_cpp"


def remove_ros_args(args: list[str] | None = None) -> list[str]:
    """The arguments that are not for ROS."""
    import sys

    from embedded_ros.arguments import parse

    return parse(sys.argv if args is None else args).others
