"""Guard conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedded_ros import dds


class GuardCondition:
    """Calls back in the executor after any thread has triggered it."""

    def __init__(self, callback: Callable[[], Any], callback_group: Any, context: Any) -> None:
        self.callback = callback
        self.callback_group = callback_group
        self._guard: dds.Guard = context.create_guard()
        self.condition = self._guard.ref

    def trigger(self) -> None:
        """Let the callback run once."""
        self._guard.trigger()

    def _take(self) -> Callable[[], Any] | None:
        return self.callback if self._guard.take() else None

    def _close(self) -> list[Any]:
        self._guard.close()
        return []
