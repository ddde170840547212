"""A context: one DDS participant, its nodes' arguments, and shutdown, by signals too."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from embedded_ros import arguments, dds
from embedded_ros.graph import Graph
from embedded_ros.importer import Partial

from .exceptions import NotInitializedException
from .logging import LoggingSeverity, get_logger, set_logger_level

_MAX_DOMAIN = 232
running: weakref.WeakSet[Context] = weakref.WeakSet()
_previous_handlers: dict[int, Any] = {}
_default: Context | None = None


class Context(Partial):
    """Between init() and shutdown(), what nodes and executors share."""

    _absent = "handle get_domain_id"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ok = False
        self._participant: dds.Participant | None = None
        self._nodes: weakref.WeakSet[Any] = weakref.WeakSet()
        self._on_shutdown: list[weakref.WeakMethod] = []
        self._service_count = 0
        self.arguments = arguments.Arguments()

    def init(self, args: Sequence[str] | None = None, *, domain_id: int | None = None) -> None:
        """Join a domain.

        Args:
            args: command line; the process's own where absent.
            domain_id: ROS_DOMAIN_ID, else 0, where absent.

        Raises:
            RuntimeError: it runs already, or the domain cannot be joined.
            ValueError: the arguments or the domain are malformed.
        """
        with self._lock:
            if self._ok:
                raise RuntimeError("Context.init() must only be called once")
            self.arguments = arguments.parse(sys.argv if args is None else args)
            if domain_id is None:
                domain_id = int(os.environ.get("ROS_DOMAIN_ID") or 0)
            if not 0 <= domain_id <= _MAX_DOMAIN:
                raise ValueError(f"Domain id ({domain_id}) should be between 0 and {_MAX_DOMAIN}")
            for name, level in self.arguments.log_levels.items():
                if level.upper() not in LoggingSeverity.__members__:
                    raise RuntimeError(f"Invalid severity string '{level}'")
                set_logger_level(name, LoggingSeverity[level.upper()])
            self._participant = dds.create_participant(domain_id)
            # At the latest when nothing refers to this context any more; once, whoever calls it.
            self._delete = weakref.finalize(self, dds.delete, self._participant._ref)
            self._delete.atexit = False
            warn = partial(get_logger("rclpy").warning, throttle_duration_sec=30.0)
            self._graph = Graph(self._participant, warn)
            if ports := self._participant.open_ports:
                get_logger("rclpy").warning(
                    f"UDP {', '.join(map(str, ports))} are open to other machines, since the "
                    "kernel binds no socket to the loopback device here: close them by a firewall",
                    once=True,
                )
            self._ok = True
            running.add(self)

    def ok(self) -> bool:
        """Whether init() was called and shutdown() was not."""
        return self._ok

    @property
    def used(self) -> bool:
        """Whether it was shut down."""
        return not self._ok and self._participant is not None

    def track_node(self, node: Any) -> None:
        """Stay in the domain until this node is destroyed, even after shutdown()."""
        with self._lock:
            self._nodes.add(node)

    def untrack_node(self, node: Any) -> None:
        """A node was destroyed; with the last one a context that was shut down leaves."""
        with self._lock:
            self._nodes.discard(node)
        self._leave_where_unused()

    def _leave_where_unused(self) -> None:
        with self._lock:
            unused = self.used and not self._nodes
        if unused:
            self._delete()

    def leave(self) -> None:
        """Shut down, destroy all nodes and leave the domain."""
        self.try_shutdown()
        for node in list(self._nodes):
            node.destroy_node()

    @property
    def participant(self) -> dds.Participant:
        """The DDS participant; it outlives shutdown(), so that nodes can be destroyed after it."""
        if self._participant is None:
            raise NotInitializedException
        return self._participant

    @property
    def graph(self) -> Graph:
        """What is on the network."""
        return self._graph

    def next_service_id(self) -> str:
        """What marks the two endpoints of one more service or client in USER_DATA."""
        with self._lock:
            self._service_count += 1
            unique = self.participant.guid.bytes[:12] + struct.pack(">I", self._service_count)
        return ".".join(f"{byte:x}" for byte in unique)

    def on_shutdown(self, callback: Callable[[], Any]) -> None:
        """Call a method when the context shuts down; its object is not kept alive."""
        with self._lock:
            self._on_shutdown.append(weakref.WeakMethod(callback))

    def shutdown(self) -> None:
        """Stop everything that spins.

        Raises:
            RuntimeError: it is not running.
        """
        if not self._ok:
            raise RuntimeError("Context must be initialized before it can be shutdown")
        self.try_shutdown()

    def try_shutdown(self) -> None:
        """Like shutdown(), where it runs."""
        self._stop()
        self._leave_where_unused()

    def _stop(self) -> None:
        with self._lock:
            self._ok = False
            callbacks, self._on_shutdown = self._on_shutdown, []
        for reference in callbacks:
            callback = reference()
            if callback is not None:
                callback()


def get_default_context(*, shutting_down: bool = True) -> Context:
    """The context that everything uses where none is given.

    Args:
        shutting_down: whether one that was shut down is asked for too; else a new one follows it.
    """
    global _default
    if _default is None or (_default.used and not shutting_down):
        _default = Context()
    return _default


def handle_signals() -> None:
    """Shut all contexts down on SIGINT and SIGTERM, in the main thread; Python allows no other."""
    if threading.current_thread() is threading.main_thread():
        for number in {signal.SIGINT, signal.SIGTERM} - _previous_handlers.keys():
            previous = signal.signal(number, _handle)
            if previous is _handle:  # put back by somebody after it was taken away
                usual = number == signal.SIGINT
                previous = signal.default_int_handler if usual else signal.SIG_DFL
            _previous_handlers[number] = previous


def restore_signals() -> None:
    """Put the former handlers back."""
    if threading.current_thread() is threading.main_thread():
        for number in list(_previous_handlers):
            signal.signal(number, _previous_handlers.pop(number))


def _handle(number: int, frame: Any) -> None:
    # The code that was interrupted may be about to make a node: nothing leaves its domain here.
    for context in list(running):
        context._stop()
    # Python's own SIGINT handler raises KeyboardInterrupt, as under rclpy.
    previous = _previous_handlers.get(number)
    if callable(previous):
        previous(number, frame)
