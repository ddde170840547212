"""Whether a stamp far from its stream's time is that of a new time, or a stray one.

Time jumps back where a bag begins anew or a simulated clock is reset, and far ahead where a clock
is set. One message alone proves neither: a driver may stamp one with 1970, a network bring one
late. So a message that is far off waits until a second one, the source's next or another source's,
is of the same time; both then go on in their order, and nothing of the new time is lost. Where the
source goes on in the old time, the one that waited was a stray. So a source that resumes after a
pause is answered with its second message, or with the first of a second source.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")
JUMP_NS = 500_000_000  # what is farther off than this is no ordinary late message, and no next one
_NEAR_NS = 2_000_000_000  # messages that are no farther apart are of the same time
_GAPS, _FACTOR = 8, 3  # last gaps of a source, and what of the largest a slow one may be off
_MOST = 5  # messages in a row without a witness after which a source's time is what it says
STRAY = "stray stamp"  # why a message without a witness is dropped


class Suspect(NamedTuple, Generic[_T]):
    """A message, and whether its stamp lies ahead of its source's newest."""

    source: str
    stamp: int
    message: _T
    ahead: bool


class Judged(NamedTuple, Generic[_T]):
    """What may pass, in the order in which it came, and what was a stray."""

    passed: list[Suspect[_T]]
    strays: list[Suspect[_T]]


class Witnesses(Generic[_T]):
    """Messages far from their stream's time, one of each source at most.

    Args:
        jump_ns: a stamp this far behind its source's newest is far off, and so is one this far
            ahead of all that came, unless the source is a slow one.
        ahead: hold what is ahead, too; where False it passes, since nothing may follow it for long.
    """

    def __init__(self, jump_ns: int, *, ahead: bool = True) -> None:
        self._jump_ns = jump_ns
        self._ahead = ahead
        self._suspects: dict[str, Suspect[_T]] = {}
        # Of each source, between its last messages that passed.
        self._gaps: defaultdict[str, deque[int]] = defaultdict(lambda: deque([0], maxlen=_GAPS))
        self._strays: dict[str, int] = {}  # in a row

    def judge(
        self, source: str, stamp: int, message: _T, newest: int | None, clock: int | None = None
    ) -> Judged[_T]:
        """Take a message in.

        Args:
            source: whose it is.
            stamp: its time, nanoseconds.
            message: anything.
            newest: the source's newest that was let pass, None before the first one.
            clock: the newest of all sources; by default the source's.
        """
        own = Suspect(source, stamp, message, ahead=newest is not None and stamp > newest)
        before = self._suspects.get(source)
        if newest is None or self._plausible(own, before, newest, clock or newest):
            if newest is not None and stamp > newest:
                self._gaps[source].append(stamp - newest)
            return self._pass([], own)
        near = [s for s in self._suspects.values() if self._same_time(s, own)]
        if near or self._strays.get(source, 0) >= _MOST - 1:
            return self._pass(near, own)
        self._suspects[source] = own
        if before is None:
            return Judged([], [])
        self._strays[source] = self._strays.get(source, 0) + 1
        return Judged([], [before])

    def _pass(self, witnesses: list[Suspect[_T]], own: Suspect[_T]) -> Judged[_T]:
        for suspect in witnesses:
            del self._suspects[suspect.source]
        self._strays.pop(own.source, None)
        stray = self._suspects.pop(own.source, None)
        return Judged([*witnesses, own], [] if stray is None else [stray])

    def _plausible(
        self, own: Suspect[_T], before: Suspect[_T] | None, newest: int, clock: int
    ) -> bool:
        """Whether a stamp is of the source's time so far."""
        if before is not None and before.stamp < own.stamp < newest:
            return False  # a short drive that began anew: behind, but going on from the one before
        if own.stamp < newest - self._jump_ns:
            return False
        reach = max(self._jump_ns, _FACTOR * max(self._gaps[own.source]))
        return not self._ahead or own.stamp <= max(newest, clock) + reach

    def _same_time(self, other: Suspect[_T], own: Suspect[_T]) -> bool:
        if other.source == own.source:
            if other.stamp >= own.stamp:
                return False
            if other.ahead:  # it goes on and on ahead, in whatever steps
                return True
        reach = max(_NEAR_NS, _FACTOR * max(self._gaps[own.source]))
        return abs(other.stamp - own.stamp) <= reach

    def settle(self) -> Judged[_T]:
        """Nothing has come for a while: what is ahead may pass, as nothing speaks against it."""
        passed = [s for s in self._suspects.values() if s.ahead]
        for suspect in passed:
            del self._suspects[suspect.source]
        return Judged(passed, [])

    def end(self) -> Judged[_T]:
        """Nothing follows: as `settle`, and what is behind was a stray."""
        passed = self.settle().passed
        strays = list(self._suspects.values())
        self._suspects.clear()
        return Judged(passed, strays)
