"""Executors: wait for entities, run their callbacks."""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from embedded_ros import dds
from embedded_ros.importer import Partial, refuse

from .context import get_default_context
from .task import Future

# Python runs signal handlers between byte codes of the main thread only: wake up for them.
_SIGNAL_NAP = 100_000_000


class ExternalShutdownException(Exception):
    """The context was shut down, by a signal or another thread, while spinning."""

    def __init__(self, *args: Any) -> None:
        super().__init__("The executor has been shut down externally", *args)


class Executor(Partial):
    """Runs callbacks of its nodes, one after the other, in the thread that spins."""

    _absent = "create_task spin_once_until_future_complete"

    def __init__(self, *, context: Any = None) -> None:
        self.context = context or get_default_context()
        self._nodes: list[Any] = []
        self._lock = threading.Lock()
        self._ready: deque[Any] = deque()
        self._is_shutdown = False
        self._guard = dds.Guard(self.context.participant)
        self._wait_set = dds.WaitSet(self.context.participant)
        self.context.on_shutdown(self.wake)

    def add_node(self, node: Any) -> bool:
        """Serve a node's callbacks; False where it is served already."""
        with self._lock:
            if node in self._nodes:
                return False
            self._nodes.append(node)
        node.executor = self
        self.wake()
        return True

    def remove_node(self, node: Any) -> None:
        """Serve a node no more."""
        with self._lock:
            if node not in self._nodes:
                return
            self._nodes.remove(node)
        node.executor = None
        self.wake()

    def get_nodes(self) -> list[Any]:
        """The nodes served."""
        with self._lock:
            return list(self._nodes)

    @contextmanager
    def serving(self, node: Any) -> Iterator[Executor]:
        """Serve a node for a while; it is no longer served afterwards."""
        self.add_node(node)
        try:
            yield self
        finally:
            self.remove_node(node)

    def wake(self) -> None:
        """Look again at what there is to wait for."""
        self._guard.trigger()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop spinning, after the callback that runs."""
        self._is_shutdown = True
        self.wake()
        for node in self.get_nodes():
            self.remove_node(node)
        return True

    def spin(self) -> None:
        """Run callbacks until shutdown.

        Raises:
            ExternalShutdownException: the context was shut down while it waited.
        """
        while self.context.ok() and not self._is_shutdown:
            self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and run it; return after the time without one."""
        self._spin_once(timeout_sec, lambda: False)

    def spin_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        """Run callbacks until the future is done or the time is over."""
        future.add_done_callback(lambda _: self.wake())
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        while self.context.ok() and not future.done() and not self._is_shutdown:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            self._spin_once(left, future.done)

    def _spin_once(self, timeout_sec: float | None, stop: Callable[[], bool]) -> None:
        forever = timeout_sec is None or timeout_sec < 0
        end = None if forever else time.monotonic_ns() + int((timeout_sec or 0) * 1e9)
        looked = False
        while not stop() and not self._is_shutdown:
            if not self.context.ok():
                raise ExternalShutdownException
            while self._ready:
                job = self._ready.popleft()._take()
                if job is None:
                    continue
                result = job()
                if inspect.iscoroutine(result):
                    result.close()
                    refuse("rclpy.executors.Executor with coroutine callbacks")
                return
            left = None if end is None else end - time.monotonic_ns()
            if left is not None and left <= 0 and looked:
                return
            self._wait(left)
            looked = True

    def _wait(self, left: int | None) -> None:
        """Sleep until something is ready, something changes, or `left` nanoseconds are over."""
        waiting: dict[int, Any] = {}
        timers = []
        for node in self.get_nodes():
            for entity in node._entities():
                if entity.condition is None:
                    timers.append(entity)
                else:
                    waiting[entity.condition] = entity
        waits = [t for timer in timers if (t := timer._wait_nanoseconds()) is not None]
        if left is not None:
            waits.append(left)
        if threading.current_thread() is threading.main_thread():
            waits.append(_SIGNAL_NAP)
        refs = {self._guard.ref, *waiting}
        try:
            triggered = self._wait_set.wait(refs, min(waits) if waits else None)
        except dds.DDSException:
            # Shut down and left in another thread: there is nothing to wait for any more.
            if self.context.ok():
                raise
            return
        if self._guard.ref in triggered:
            self._guard.take()
        self._ready.extend(timer for timer in timers if timer.is_ready())
        self._ready.extend(entity for ref, entity in waiting.items() if ref in triggered)


class SingleThreadedExecutor(Executor):
    """The executor that there is."""
