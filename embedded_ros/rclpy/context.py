"""A context: one DDS participant, its nodes' arguments, and shutdown."""

from __future__ import annotations

import os
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from embedded_ros import arguments, dds
from embedded_ros.graph import Graph

from .exceptions import NotInitializedException
from .logging import get_logging_severity_from_string, set_logger_level

_MAX_DOMAIN = 232
running: weakref.WeakSet[Context] = weakref.WeakSet()


class Context:
    """Between init() and shutdown(), what nodes and executors share."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ok = False
        self._on_shutdown: list[Any] = []
        self._service_count = 0
        self.arguments = arguments.Arguments()

    def init(
        self,
        args: Sequence[str] | None = None,
        *,
        initialize_logging: bool = True,
        domain_id: int | None = None,
    ) -> None:
        """Join a domain.

        Args:
            args: command line; the process's own where absent.
            initialize_logging: set log levels from the command line.
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
            if initialize_logging:
                for name, level in self.arguments.log_levels.items():
                    set_logger_level(name, get_logging_severity_from_string(level))
            self._domain_id = domain_id
            self._participant = dds.create_participant(domain_id)
            self._graph = Graph(self._participant)
            self._ok = True
            running.add(self)

    def ok(self) -> bool:
        """Whether init() was called and shutdown() was not."""
        return self._ok

    @property
    def used(self) -> bool:
        """Whether it was shut down."""
        return not self._ok and hasattr(self, "_participant")

    def leave(self) -> None:
        """Leave the domain at once, instead of when nothing refers to it any more."""
        dds.delete(self._participant)

    def get_domain_id(self) -> int:
        """The domain joined."""
        self._require()
        return self._domain_id

    @property
    def participant(self) -> Any:
        """The DDS participant."""
        self._require()
        return self._participant

    @property
    def graph(self) -> Graph:
        """What is on the network."""
        self._require()
        return self._graph

    def _require(self) -> None:
        # The participant outlives shutdown(), so that nodes can be destroyed after it.
        if not hasattr(self, "_participant"):
            raise NotInitializedException

    def create_guard(self) -> dds.Guard:
        """A guard condition that lives as long as the participant."""
        return dds.Guard(self.participant)

    def next_service_id(self) -> str:
        """What marks the two endpoints of one more service or client in USER_DATA."""
        with self._lock:
            self._service_count += 1
            unique = self.participant.guid.bytes[:12] + struct.pack(">I", self._service_count)
        return ".".join(f"{byte:x}" for byte in unique)

    def on_shutdown(self, callback: Callable[[], Any]) -> None:
        """Call a method when the context shuts down; its object is not kept alive."""
        with self._lock:
            if not self._ok:
                callback()
            elif hasattr(callback, "__self__"):
                self._on_shutdown.append(weakref.WeakMethod(callback))
            else:
                self._on_shutdown.append(lambda: callback)

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
        with self._lock:
            if not self._ok:
                return
            self._ok = False
            callbacks, self._on_shutdown = self._on_shutdown, []
        for reference in callbacks:
            callback = reference()
            if callback is not None:
                callback()

    def __enter__(self) -> Context:
        if not self._ok:
            self.init()
        return self

    def __exit__(self, *_: object) -> None:
        self.try_shutdown()
