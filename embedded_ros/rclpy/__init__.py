"""The Python client library of ROS 2, as far as embedded_ros has it."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any

from embedded_ros.importer import refuse_arguments

from . import context as _contexts
from . import exceptions
from .context import Context, get_default_context
from .executors import Executor, SingleThreadedExecutor
from .node import Node
from .parameter import Parameter
from .task import Future

__all__ = ["Context", "Future", "Node", "Parameter", "exceptions", "get_default_context"]

_executor: Executor | None = None


def init(
    *,
    args: Sequence[str] | None = None,
    context: Context | None = None,
    domain_id: int | None = None,
    **absent: Any,
) -> Context:
    """Start ROS communication; handles SIGINT and SIGTERM for the default context."""
    refuse_arguments("rclpy.init", absent)
    if context is None:
        context = get_default_context(shutting_down=False)
        _contexts.handle_signals()
    context.init(args, domain_id=domain_id)
    return context


def ok(*, context: Context | None = None) -> bool:
    """Whether init() was called and shutdown() was not."""
    return (context or get_default_context()).ok()


def shutdown(*, context: Context | None = None) -> None:
    """Stop ROS communication.

    Raises:
        RuntimeError: it is not running.
    """
    _drop_executor()
    (context or get_default_context()).shutdown()
    if context is None:
        _contexts.restore_signals()


def try_shutdown(*, context: Context | None = None) -> None:
    """Stop ROS communication, where it runs; handlers of signals go in any case, as under rclpy."""
    if ok(context=context):
        shutdown(context=context)
    elif context is None:
        _drop_executor()
        _contexts.restore_signals()


def _drop_executor() -> None:
    global _executor
    executor, _executor = _executor, None
    if executor is not None:
        executor.shutdown()


def get_global_executor() -> Executor:
    """The executor of spin(), spin_once() and spin_until_future_complete()."""
    global _executor
    if _executor is None or not _executor.context.ok():
        _executor = SingleThreadedExecutor()
    return _executor


def create_node(node_name: str, **kwargs: Any) -> Node:
    """A node; arguments as Node's."""
    return Node(node_name, **kwargs)


def spin_once(
    node: Node, *, executor: Executor | None = None, timeout_sec: float | None = None
) -> None:
    """Wait for one callback of the node and run it."""
    with (executor or get_global_executor()).serving(node) as serving:
        serving.spin_once(timeout_sec)


def spin(node: Node, executor: Executor | None = None) -> None:
    """Run the node's callbacks until shutdown.

    Raises:
        ExternalShutdownException: a signal or another thread shut the context down.
    """
    with (executor or get_global_executor()).serving(node) as serving:
        serving.spin()


def spin_until_future_complete(
    node: Node,
    future: Future,
    executor: Executor | None = None,
    timeout_sec: float | None = None,
) -> None:
    """Run the node's callbacks until the future is done or the time is over."""
    with (executor or get_global_executor()).serving(node) as serving:
        serving.spin_until_future_complete(future, timeout_sec)


@atexit.register
def _leave() -> None:
    """Tell peers that this process is gone; they would take ten seconds to notice."""
    _drop_executor()
    for running in list(_contexts.running):
        running.leave()
