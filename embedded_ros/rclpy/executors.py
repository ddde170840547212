"""Executors: wait for entities, run their callbacks."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as PoolFuture
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from embedded_ros.dds import WaitSet
from embedded_ros.importer import absent_attribute

from .task import Future, Task
from .utilities import get_default_context

if TYPE_CHECKING:
    from .node import Node

__getattr__ = absent_attribute(__name__)

# Python runs signal handlers between byte codes of the main thread only: wake up for them.
_SIGNAL_NAP = 100_000_000


class TimeoutException(Exception):
    """Nothing became ready in time."""


class ShutdownException(Exception):
    """The executor was shut down."""


class ExternalShutdownException(Exception):
    """The context was shut down, by a signal or another thread, while spinning."""

    def __init__(self, *args: Any) -> None:
        super().__init__("The executor has been shut down externally", *args)


class Executor:
    """Base of the executors; spins in one thread at a time."""

    def __init__(self, *, context: Any = None) -> None:
        self._context = context or get_default_context()
        self._nodes: list[Node] = []
        self._lock = threading.RLock()
        self._tasks: deque[Task] = deque()
        self._ready: deque[Any] = deque()
        self._is_shutdown = False
        self._guard = self._context.create_guard()
        self._wait_set = WaitSet(self._context.participant)
        self._active = 0
        self._idle = threading.Condition()
        self._context.on_shutdown(self.wake)

    @property
    def context(self) -> Any:
        """The context it belongs to."""
        return self._context

    def add_node(self, node: Node) -> bool:
        """Serve a node's callbacks; False where it is served already."""
        with self._lock:
            if node in self._nodes:
                return False
            self._nodes.append(node)
        node.executor = self
        self.wake()
        return True

    def remove_node(self, node: Node) -> None:
        """Serve a node no more."""
        with self._lock:
            if node not in self._nodes:
                return
            self._nodes.remove(node)
        node.executor = None
        self.wake()

    def get_nodes(self) -> list[Node]:
        """The nodes served."""
        with self._lock:
            return list(self._nodes)

    def wake(self) -> None:
        """Look again at what there is to wait for."""
        if not self._is_shutdown:
            self._guard.trigger()

    def create_task(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        """Run a function or coroutine while spinning."""
        task = Task(callback, args, kwargs, executor=self)
        self._resume(task)
        return task

    def _resume(self, task: Task) -> None:
        self._tasks.append(task)
        self.wake()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop; wait for running callbacks. False where they take longer than the time given."""
        if self._is_shutdown:
            return True
        self._is_shutdown = True
        self._guard.trigger()
        with self._idle:
            if not self._idle.wait_for(lambda: self._active == 0, timeout_sec):
                return False
        for node in self.get_nodes():
            self.remove_node(node)
        return True

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def spin(self) -> None:
        """Run callbacks until shutdown."""
        while self._context.ok() and not self._is_shutdown:
            self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and run it; return after the time without one."""
        self._spin_once(timeout_sec)

    def spin_until_future_complete(self, future: Future, timeout_sec: float | None = None) -> None:
        """Run callbacks until the future is done or the time is over."""
        future.add_done_callback(lambda _: self.wake())
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        while self._context.ok() and not future.done() and not self._is_shutdown:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            self._spin_once(left, future.done)

    def spin_once_until_future_complete(
        self, future: Future, timeout_sec: float | None = None
    ) -> None:
        """Like spin_once, but return also when the future is done."""
        future.add_done_callback(lambda _: self.wake())
        self._spin_once(timeout_sec, future.done)

    def _spin_once(
        self, timeout_sec: float | None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        try:
            work = self._next(timeout_sec, stop)
        except (TimeoutException, ShutdownException):
            return
        if work is not None:
            self._run(work)

    def _run(self, work: Task) -> None:
        """Run a task here and raise what it raises."""
        work()
        if work.done():
            work.result()

    def _next(self, timeout_sec: float | None, stop: Callable[[], bool]) -> Task | None:
        """The next piece of work; None when `stop` says so."""
        forever = timeout_sec is None or timeout_sec < 0
        end = 0 if forever else time.monotonic_ns() + int((timeout_sec or 0) * 1e9)
        looked = False
        while not stop():
            if self._is_shutdown:
                raise ShutdownException
            if not self._context.ok():
                raise ExternalShutdownException
            if self._tasks:
                return self._tasks.popleft()
            while self._ready:
                work = self._claim(self._ready.popleft())
                if work is not None:
                    return work
            left = None if forever else end - time.monotonic_ns()
            if left is not None and left <= 0 and looked:
                raise TimeoutException
            self._wait(left)
            looked = True
        return None

    def _wait(self, left: int | None) -> None:
        """Sleep until something is ready, something changes, or `left` nanoseconds are over."""
        refs, timers = {self._guard.ref: None}, []
        for node in self.get_nodes():
            for entity in node._entities():
                if not entity.callback_group.can_execute(entity):
                    continue
                if entity.condition is None:
                    timers.append(entity)
                else:
                    refs[entity.condition] = entity
        waits = [t for timer in timers if (t := timer._wait_nanoseconds()) is not None]
        if left is not None:
            waits.append(left)
        if threading.current_thread() is threading.main_thread():
            waits.append(_SIGNAL_NAP)
        triggered = self._wait_set.wait(set(refs), min(waits) if waits else None)
        if self._guard.ref in triggered:
            self._guard.take()
        self._ready.extend(timer for timer in timers if timer.is_ready())
        self._ready.extend(e for ref, e in refs.items() if e is not None and ref in triggered)

    def _claim(self, entity: Any) -> Task | None:
        """What an entity has to run, with its callback group held."""
        group = entity.callback_group
        if not group.beginning_execution(entity):
            return None
        try:
            job = entity._take()
        except BaseException:
            group.ending_execution(entity)
            raise
        if job is None:
            group.ending_execution(entity)
            return None
        with self._idle:
            self._active += 1

        def finished() -> None:
            group.ending_execution(entity)
            with self._idle:
                self._active -= 1
                self._idle.notify_all()
            self.wake()

        return Task(job, executor=self, finished=finished)


class SingleThreadedExecutor(Executor):
    """Runs callbacks in the thread that spins."""


class MultiThreadedExecutor(Executor):
    """Runs callbacks in a pool of threads; what they raise comes out of a later spin."""

    def __init__(self, num_threads: int | None = None, *, context: Any = None) -> None:
        super().__init__(context=context)
        self._pool = ThreadPoolExecutor(num_threads or max(2, os.cpu_count() or 1))
        self._futures: list[PoolFuture[None]] = []

    def _run(self, work: Task) -> None:
        future = self._pool.submit(super()._run, work)
        self._futures.append(future)
        future.add_done_callback(lambda _: self.wake())

    def _failed(self) -> bool:
        return any(f.done() and f.exception() is not None for f in self._futures)

    def _spin_once(
        self, timeout_sec: float | None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        super()._spin_once(timeout_sec, lambda: stop() or self._failed())
        for future in [f for f in self._futures if f.done()]:
            self._futures.remove(future)
            future.result()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop; wait for running callbacks."""
        done = super().shutdown(timeout_sec)
        self._pool.shutdown(wait=done)
        return done
