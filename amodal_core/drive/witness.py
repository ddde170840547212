"""Whether a stamp far from its stream's time is that of a new time, or a stray one.

Time jumps back where a bag begins anew or a simulated clock is reset, and far ahead where a clock
is set. One message alone proves neither: a driver may stamp one with 1970, a network bring one
late. So a message that is far off waits until a second one, the source's next or another source's,
is of the same time; both then go on in their order, and nothing of the new time is lost. Where the
source goes on in the old time, the one that waited was a stray.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")
JUMP_NS = 500_000_000  # what is this far behind is no ordinary late message
_NEAR_NS = 10_000_000_000  # messages that are no farther apart are of the same time
_AHEAD_NS = 60_000_000_000  # what is this far ahead of all that came is not of the stream's time
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
        jump_ns: a stamp this far behind its source's newest is far off; less is an ordinary late
            message.
    """

    def __init__(self, jump_ns: int) -> None:
        self._jump_ns = jump_ns
        self._suspects: dict[str, Suspect[_T]] = {}

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
        if newest is None or self._plausible(source, stamp, newest, clock or newest):
            stray = self._suspects.pop(source, None)
            return Judged([own], [] if stray is None else [stray])
        near = [s for s in self._suspects.values() if abs(s.stamp - stamp) <= _NEAR_NS]
        for suspect in near:
            del self._suspects[suspect.source]
        if near:
            return Judged([*near, own], [])
        stray = self._suspects.pop(source, None)
        self._suspects[source] = own
        return Judged([], [] if stray is None else [stray])

    def _plausible(self, source: str, stamp: int, newest: int, clock: int) -> bool:
        """Whether a stamp is of the source's time so far."""
        before = self._suspects.get(source)
        if before is not None and before.stamp < stamp < newest:
            return False  # a short drive that began anew: behind, but going on from the one before
        return newest - self._jump_ns <= stamp <= max(newest, clock) + _AHEAD_NS

    def end(self) -> Judged[_T]:
        """Nothing follows: what is ahead may pass, since nothing speaks against it."""
        waiting = list(self._suspects.values())
        self._suspects.clear()
        return Judged([s for s in waiting if s.ahead], [s for s in waiting if not s.ahead])
