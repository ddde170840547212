"""The Python client library of ROS 2, as far as embedded_ros has it."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Any

from embedded_ros.importer import absent_attribute

from . import context as _contexts
from . import signals, utilities
from .context import Context
from .executors import Executor, SingleThreadedExecutor
from .node import Node
from .parameter import Parameter
from .signals import SignalHandlerOptions
from .task import Future
from .utilities import get_default_context, ok

__getattr__ = absent_attribute(__name__)

_executor: Executor | None = None


def init(
    *,
    args: Sequence[str] | None = None,
    context: Context | None = None,
    domain_id: int | None = None,
    signal_handler_options: SignalHandlerOptions | None = None,
) -> Context:
    """Start ROS communication; handles SIGINT and SIGTERM for the default context.

    Returns:
        the context, which is also a context manager that shuts down.
    """
    if context is None:
        context = utilities.fresh_default_context()
        if signal_handler_options is None:
            signal_handler_options = SignalHandlerOptions.ALL
    context.init(args, domain_id=domain_id)
    if signal_handler_options:
        signals.install_signal_handlers(signal_handler_options)
    return context


def shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """Stop ROS communication.

    Raises:
        RuntimeError: it is not running.
    """
    _drop_executor()
    utilities.shutdown(context=context)
    if uninstall_handlers or (uninstall_handlers is None and context is None):
        signals.uninstall_signal_handlers()


def try_shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """Stop ROS communication, where it runs."""
    if ok(context=context):
        shutdown(context=context, uninstall_handlers=uninstall_handlers)


def _drop_executor() -> None:
    global _executor
    executor, _executor = _executor, None
    if executor is not None:
        executor.shutdown(timeout_sec=0)


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
    executor = executor or get_global_executor()
    executor.add_node(node)
    try:
        executor.spin_once(timeout_sec=timeout_sec)
    finally:
        executor.remove_node(node)


def spin(node: Node, executor: Executor | None = None) -> None:
    """Run the node's callbacks until shutdown.

    Raises:
        ExternalShutdownException: a signal or another thread shut the context down.
    """
    executor = executor or get_global_executor()
    executor.add_node(node)
    try:
        while executor.context.ok():
            executor.spin_once()
    finally:
        executor.remove_node(node)


def spin_until_future_complete(
    node: Node,
    future: Future,
    executor: Executor | None = None,
    timeout_sec: float | None = None,
) -> None:
    """Run the node's callbacks until the future is done or the time is over."""
    executor = executor or get_global_executor()
    executor.add_node(node)
    try:
        executor.spin_until_future_complete(future, timeout_sec)
    finally:
        executor.remove_node(node)


@atexit.register
def _leave() -> None:
    """Tell peers that this process is gone; they would take ten seconds to notice."""
    _drop_executor()
    for running in list(_contexts.running):
        running.try_shutdown()
        running.leave()


__all__ = [
    "Context",
    "Future",
    "Node",
    "Parameter",
    "create_node",
    "get_default_context",
    "get_global_executor",
    "init",
    "ok",
    "shutdown",
    "spin",
    "spin_once",
    "spin_until_future_complete",
    "try_shutdown",
]
