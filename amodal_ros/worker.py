"""A thread that takes frames one by one, so that receiving never waits for processing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    item: T


class Worker(Generic[T]):
    """Runs `process` on items in their order; when too many wait, the oldest goes.

    Args:
        process: called in the worker's thread.
        on_drop: called with each item that was dropped for a newer one, in the caller's thread.
        on_error: called with the item (None where it is a call's) and the exception that `process`
            raised; the next item follows.
        size: items that may wait; 0 for any number.
    """

    def __init__(
        self,
        process: Callable[[T], None],
        on_drop: Callable[[T], None],
        on_error: Callable[[T | None, Exception], None],
        size: int = 1,
    ) -> None:
        self._process, self._on_drop, self._on_error = process, on_drop, on_error
        self._size = size
        self._items: deque[_Waiting[T] | Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item; never waits."""
        dropped: list[T] = []
        with self._changed:
            self._items.append(_Waiting(item))
            waiting = [(k, e.item) for k, e in enumerate(self._items) if isinstance(e, _Waiting)]
            surplus = waiting[: max(len(waiting) - self._size, 0)] if self._size else []
            for k, old in reversed(surplus):
                dropped.append(old)
                del self._items[k]
            self._changed.notify()
        for old in dropped:
            self._on_drop(old)

    def call(self, function: Callable[[], None]) -> None:
        """Run a function in the thread, after the items before it; it is never dropped."""
        with self._changed:
            self._items.append(function)
            self._changed.notify()

    def stop(self, *, finish: bool = False, timeout: float = 10.0) -> bool:
        """End the thread.

        Args:
            finish: process what waits first, instead of forgetting it.
            timeout: seconds to wait for that.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            if not finish:
                self._items.clear()
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._items and not self._stopping:
                    self._changed.wait()
                if not self._items:
                    return
                entry = self._items.popleft()
            try:
                if isinstance(entry, _Waiting):
                    self._process(entry.item)
                else:
                    entry()
            except Exception as error:
                self._on_error(entry.item if isinstance(entry, _Waiting) else None, error)
