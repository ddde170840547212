"""Which callbacks may run at the same time."""

from __future__ import annotations

import threading
from typing import Any


class CallbackGroup:
    """Base of the groups."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.entities: list[Any] = []

    def add_entity(self, entity: Any) -> None:
        """Let an entity's callback follow this group's rule."""
        self.entities.append(entity)

    def has_entity(self, entity: Any) -> bool:
        """Whether the entity belongs to the group."""
        return entity in self.entities

    def can_execute(self, entity: Any) -> bool:
        """Whether the entity's callback might begin now."""
        raise NotImplementedError

    def beginning_execution(self, entity: Any) -> bool:
        """Claim the right to run; False where another callback holds it."""
        raise NotImplementedError

    def ending_execution(self, entity: Any) -> None:
        """Give the right back."""
        raise NotImplementedError


class ReentrantCallbackGroup(CallbackGroup):
    """Any number of callbacks at once."""

    def can_execute(self, entity: Any) -> bool:
        """Always."""
        return True

    def beginning_execution(self, entity: Any) -> bool:
        """Always."""
        return True

    def ending_execution(self, entity: Any) -> None:
        """Nothing to give back."""


class MutuallyExclusiveCallbackGroup(CallbackGroup):
    """One callback at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = False

    def can_execute(self, entity: Any) -> bool:
        """Whether none runs."""
        return not self._busy

    def beginning_execution(self, entity: Any) -> bool:
        """Claim the group."""
        with self._lock:
            if self._busy:
                return False
            self._busy = True
            return True

    def ending_execution(self, entity: Any) -> None:
        """Free the group."""
        with self._lock:
            self._busy = False
