"""Futures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from embedded_ros.importer import Partial


class Future(Partial):
    """The result of work that finishes later."""

    _absent = "cancel cancelled exception set_exception"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = False
        self._result: Any = None
        self._callbacks: list[Callable[[Future], Any]] = []

    def done(self) -> bool:
        """Whether there is a result."""
        return self._done

    def result(self) -> Any:
        """The result; None before it is done."""
        return self._result

    def set_result(self, result: Any) -> None:
        """Finish with a result."""
        with self._lock:
            self._result, self._done = result, True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def add_done_callback(self, callback: Callable[[Future], Any]) -> None:
        """Call with this future when it is done; at once where it is."""
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)
