"""How often what has failed is started again, and after how long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

REFUSED = 2  # exit code of nodes that are told what they cannot do: starting them again is no help
LIMIT = 5  # times within WINDOW
WINDOW = 300.0  # seconds
_FIRST = 1.0  # seconds before the first time; twice as long before each that follows


class Restarts:
    """Of one process or one viewer; after a while without a failure all begins anew.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: deque[float] = deque()

    def delay(self) -> float | None:
        """It has failed: seconds until it is started again; None where that is given up."""
        now = self._clock()
        while self._failures and now - self._failures[0] > WINDOW:
            self._failures.popleft()
        if len(self._failures) >= LIMIT:
            return None
        self._failures.append(now)
        return float(_FIRST * 2 ** (len(self._failures) - 1))

    @property
    def count(self) -> int:
        """How often it was started again of late."""
        return len(self._failures)
