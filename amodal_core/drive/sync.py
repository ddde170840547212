"""Time synchroniser: one message of each topic that belong to the same moment.

The first topic is the reference (the image): its messages are settled in the order of their stamps,
each with the nearest message of every other topic that lies within `slop_ns`, was not used before,
and is not nearer to the next reference (a camera may be faster than the LiDAR). A choice is made as
soon as no message that can still arrive would change it: in the ordinary case with the last message
of a set, and a missing message is known to be missing when its topic's next one arrives.

A message that has not come is not waited for where it could not be nearer: a topic's next message
is expected no sooner than `_REGULAR` of the smallest of its last gaps after the one before it (half
the slop, until there is a gap). That expectation, too, follows from stamps, and a message that
belies it is not taken even where it has come already. So the sets depend on the stamps alone, for
any rates, not on how the topics' arrivals interleave, as long as each topic arrives in order and
within `timeout_ns` of the others. That is the promise of message_filters' ApproximateTime policy in
C++; its Python twin, which takes the first set that happens to be complete, does not give it.
Unlike both, nothing is dropped silently.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from amodal_core.drive.witness import JUMP_NS, STRAY, Judged, Witnesses


@dataclass(frozen=True)
class SyncConfig:
    """What belongs together.

    Attributes:
        topics: two or more names, the reference first.
        slop_ns: how far a message may lie from the reference, offsets taken off; 0 is exact.
        offsets_ns: a topic's constant lag behind the reference (a LiDAR that is stamped 3 ms after
            its image has 3_000_000); None has it estimated from the stream's first messages.
        queue_size: messages kept of each topic.
        timeout_ns: stream time after which a waiting message is given up.
        jump_ns: two stamps this far behind their topics' newest mean that time jumped back (see
            `drive/witness.py`); less is an ordinary late message.
        optional: topics that a set may lack. One that fell silent for `timeout_ns` is not waited
            for until it speaks again.
        replaceable: topics that a set may lack since something else may stand in for their
            message, which is waited for as if the set could not.
    """

    topics: tuple[str, ...]
    slop_ns: int = 0
    offsets_ns: Mapping[str, int | None] = field(default_factory=dict)
    queue_size: int = 256
    timeout_ns: int = 500_000_000
    jump_ns: int = JUMP_NS
    optional: frozenset[str] = frozenset()
    replaceable: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.topics) < 2 or len(set(self.topics)) != len(self.topics):
            raise ValueError(f"topics must be two or more different names, got {self.topics}")
        dispensable = self.optional | self.replaceable
        unknown = (set(self.offsets_ns) | dispensable) - set(self.topics)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are not among the topics {self.topics}")
        if self.topics[0] in self.offsets_ns:
            raise ValueError(f"{self.topics[0]} is the reference: it has no offset to itself")
        if self.topics[0] in dispensable:
            raise ValueError(f"{self.topics[0]} is the reference: no set lacks it")
        if min(self.slop_ns, self.timeout_ns, self.jump_ns) < 0:
            raise ValueError("slop, timeout and jump cannot be negative")
        if self.queue_size < ESTIMATE_FROM:
            raise ValueError(f"queue_size must be {ESTIMATE_FROM} or more, got {self.queue_size}")


ESTIMATE_FROM = 10  # messages of both topics that an offset is estimated from
_GAPS = 8  # last gaps between messages that a topic's next one is expected from
_REGULAR = 0.8  # share of the smallest of them that the next one is not below


@dataclass(frozen=True)
class MatchedSet:
    """One message of each topic, save of those optional ones that have none near.

    Attributes:
        stamp: the reference message's stamp, nanoseconds.
        stamps: each topic's own stamp, nanoseconds, offsets left on.
        messages: each topic's message.
        lacks: why it has no message of a replaceable topic, "" where it has.
    """

    stamp: int
    stamps: dict[str, int]
    messages: dict[str, Any]
    lacks: str = ""


@dataclass(frozen=True)
class Drop:
    """A message that belongs to no set: its topic, its stamp, and why."""

    topic: str
    stamp: int
    reason: str


@dataclass
class SyncResult:
    """What a call brought about.

    Attributes:
        sets: new sets, in order of their stamps.
        drops: messages given up.
        reset: time jumped back behind sets that were already given out; whoever keeps a state of
            the stream clears it before it takes these sets.
    """

    sets: list[MatchedSet] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    reset: bool = False


class _Queue:
    """A topic's waiting messages, sorted by stamp less offset."""

    __slots__ = (
        "behind",
        "closed",
        "gaps",
        "messages",
        "newest",
        "offset",
        "optional",
        "quiet",
        "quiet_until",
        "replaceable",
        "silent",
        "stamps",
        "topic",
        "used",
    )

    def __init__(self, topic: str, offset: int | None, optional: bool, replaceable: bool) -> None:
        self.topic = topic
        self.offset = offset
        self.optional = optional
        self.replaceable = replaceable
        self.silent = False  # nothing came for a timeout: an optional one is not waited for
        self.quiet_until: int | None = None  # none is expected before, after the one in a set
        self.stamps: list[int] = []
        self.messages: list[Any] = []
        self.quiet: list[int] = []  # after each message, how long none of the topic is expected
        self.gaps: deque[int] = deque(maxlen=_GAPS)
        self.newest: int | None = None  # the newest that ever came
        self.behind = False  # another topic has jumped back, this one not yet
        self.used: int | None = None  # the newest in a set or, for the reference, settled
        self.closed: int | None = None  # nothing at or before this can be matched any more

    def take(self, count: int, out: list[Drop], reason: str) -> None:
        """Drop the oldest."""
        if count > 0:
            offset = self.offset or 0
            out.extend(Drop(self.topic, s + offset, reason) for s in self.stamps[:count])
            self.remove(0, count)

    def remove(self, first: int, end: int) -> None:
        """Forget the messages [first, end)."""
        for column in (self.stamps, self.messages, self.quiet):
            del column[first:end]

    def insert(self, place: int, at: int, message: Any, slop: int) -> None:
        """Put a message in its place, with what is expected after it."""
        quiet = int(min(self.gaps) * _REGULAR) if self.gaps else slop // 2
        self.stamps.insert(place, at)
        self.messages.insert(place, message)
        self.quiet.insert(place, quiet)

    def close(self, until: int, out: list[Drop], reason: str) -> None:
        """Drop everything at or before a stamp, now and later."""
        if self.closed is None or until > self.closed:
            self.closed = until
        if self.stamps and self.stamps[0] <= until:
            self.take(bisect_left(self.stamps, until + 1), out, reason)


_WAIT, _NONE = -1, -2


class Synchronizer:
    """Matches messages of several topics by their stamps; thread-safe. See the module's text.

    Args:
        config: topics and tolerances.
    """

    def __init__(self, config: SyncConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        optional, replaceable = config.optional, config.replaceable
        self._queues = {
            t: _Queue(t, config.offsets_ns.get(t, 0), t in optional, t in replaceable)
            for t in config.topics
        }
        self._reference = self._queues[config.topics[0]]
        self._others = [self._queues[t] for t in config.topics[1:]]
        self._witnesses: Witnesses[Any] = Witnesses(config.jump_ns)
        self._clock: int | None = None  # newest stream time seen
        self._given: int | None = None  # stamp of the newest set given out

    @property
    def offsets_ns(self) -> dict[str, int | None]:
        """Each topic's offset in use; None while it is still being estimated."""
        return {t: q.offset for t, q in self._queues.items()}

    @property
    def newest(self) -> int | None:
        """The newest stamp of the stream's time, offsets taken off; None before the first one."""
        return self._clock

    def push(self, topic: str, stamp: int, message: Any) -> SyncResult:
        """Take a message in.

        Args:
            topic: one of the configured topics.
            stamp: the message's own stamp in nanoseconds.
            message: anything.

        Raises:
            KeyError: the topic is none of the configured ones.
        """
        result = SyncResult()
        with self._lock:
            queue = self._queues[topic]
            at = stamp - (queue.offset or 0)
            # What was still under way when another topic jumped back must not take time along.
            if queue.behind and self._clock is not None and at > self._clock + self.config.jump_ns:
                result.drops.append(Drop(topic, stamp, "time jumped back"))
                return result
            own = stamp, message
            self._judged(self._witnesses.judge(topic, at, own, queue.newest, self._clock), result)
        return result

    def _judged(self, judged: Judged[Any], out: SyncResult) -> None:
        """Take in what is of the stream's time, old or new; drop strays."""
        for stray in judged.strays:
            out.drops.append(Drop(stray.source, stray.message[0], STRAY))
        for each in judged.passed:
            stamp, message = each.message
            self._take(self._queues[each.source], stamp, message, out)

    def _take(self, queue: _Queue, stamp: int, message: Any, result: SyncResult) -> None:
        at = stamp - (queue.offset or 0)
        queue.behind = queue.silent = False
        if queue.newest is None or at > queue.newest:
            if queue.newest is not None:
                queue.gaps.append(at - queue.newest)
            queue.newest = at
        elif at < queue.newest - self.config.jump_ns:
            self._jump(queue, at, result)
        if self._clock is None or at > self._clock:
            self._clock = at
        self._insert(queue, at, stamp, message, result)
        self._settle(result, False)

    def advance(self, stamp: int) -> SyncResult:
        """Let time pass without a message, so that timeouts run out when topics fall silent.

        Only for what waits now: a source that pauses, or catches up, goes on where it was, so that
        later messages are judged by their stamps alone.

        Args:
            stamp: the stream's present time in nanoseconds; an earlier one than seen is ignored.
        """
        result = SyncResult()
        with self._lock:
            self._judged(self._witnesses.settle(), result)
            newest = self._clock
            if newest is None or stamp > newest:
                self._clock = stamp
            self._settle(result, False)
            self._clock = newest
        return result

    def flush(self) -> SyncResult:
        """The stream has ended: settle what can be matched, drop the rest, start afresh."""
        result = SyncResult()
        with self._lock:
            self._judged(self._witnesses.end(), result)
            self._settle(result, True)
            self._clear(result.drops, "end of stream")
        return result

    def _clear(self, drops: list[Drop], reason: str) -> None:
        for queue in self._queues.values():
            queue.take(len(queue.stamps), drops, reason)
            queue.newest = queue.used = queue.closed = queue.quiet_until = None
            queue.behind = queue.silent = False
            queue.gaps.clear()
        self._clock = self._given = None

    def _jump(self, queue: _Queue, at: int, result: SyncResult) -> None:
        """Forget what lies ahead of a jump back; topics that jumped before keep their new part."""
        limit = at + self.config.jump_ns
        for each in self._queues.values():
            keep = 0 if each is queue else bisect_left(each.stamps, limit + 1)
            offset = each.offset or 0
            lost = (Drop(each.topic, s + offset, "time jumped back") for s in each.stamps[keep:])
            result.drops.extend(lost)
            each.remove(keep, len(each.stamps))
            if each.newest is not None and each.newest > limit:
                each.gaps.clear()
                each.behind = each is not queue
            for name in ("newest", "used", "closed", "quiet_until"):
                value = getattr(each, name)
                if each is queue or (value is not None and value > limit):
                    setattr(each, name, None)
        queue.newest = at
        newest = [q.newest for q in self._queues.values() if q.newest is not None]
        self._clock = max(newest)
        if self._given is not None and self._given > at:
            self._given = None
            result.reset = True

    def _insert(self, queue: _Queue, at: int, stamp: int, message: Any, result: SyncResult) -> None:
        if queue.closed is not None and at <= queue.closed:
            reason = "duplicate" if at == queue.used else "late"
            result.drops.append(Drop(queue.topic, stamp, reason))
            return
        stamps = queue.stamps
        place = bisect_left(stamps, at)
        if place < len(stamps) and stamps[place] == at:
            result.drops.append(Drop(queue.topic, stamp, "duplicate"))
            return
        queue.insert(place, at, message, self.config.slop_ns)
        if len(stamps) > self.config.queue_size:
            queue.close(stamps[0], result.drops, "queue full")

    def _settle(self, result: SyncResult, ended: bool) -> None:
        """Decide about reference messages, oldest first, until one has to wait."""
        for queue in self._others:
            if queue.offset is None and not self._estimate(queue, ended):
                return
        reference, slop = self._reference, self.config.slop_ns
        clock = self._clock
        expired = None if clock is None else clock - self.config.timeout_ns
        while reference.stamps:
            moment = reference.stamps[0]
            final = ended or (expired is not None and moment < expired)
            chosen, missing, lacks = [], None, ""
            waiting = False
            how = "" if not final else " before the end" if ended else " in time"
            for queue in self._others:
                index = self._nearest(queue, moment, final)
                if index == _NONE and queue.replaceable:
                    lacks = f"no {queue.topic}{how}"
                elif index == _NONE and not queue.optional:
                    missing = queue.topic
                    break
                waiting = waiting or index == _WAIT
                chosen.append(index)
            if missing is not None:
                reference.used = moment
                reference.close(moment, result.drops, f"no {missing}{how}")
            elif waiting:
                break
            else:
                self._emit(chosen, lacks, result)
            # The next reference message is later, so these are out of its reach.
            for queue in self._others:
                queue.close(moment - slop, result.drops, f"no {reference.topic} near it")
        if expired is not None and not ended:
            for queue in self._others:
                if queue.stamps and queue.stamps[0] < expired - slop:
                    until = expired - slop - 1
                    queue.close(until, result.drops, f"no {reference.topic} in time")

    def _nearest(self, queue: _Queue, moment: int, final: bool) -> int:
        """Index of the message to take at a moment, or _NONE, or _WAIT when it is too early."""
        stamps, slop = queue.stamps, self.config.slop_ns
        following = bisect_left(stamps, moment + 1)
        before = following - 1  # every message before the slop has been closed, or is skipped here
        if before >= 0 and stamps[before] < moment - slop:
            before = -1
        lag = moment - stamps[before] if before >= 0 else slop + 1

        # A slow topic with exact stamps is not waited for between two of its messages.
        if slop == 0 and queue.optional and moment < (queue.quiet_until or moment):
            return _NONE
        # The last message before the moment, where the next one will not be nearer.
        if before >= 0 and queue.quiet[before] >= 2 * lag:
            return before
        # The first one after it, where it is nearer to no other reference.
        if following == len(stamps):
            if not final and not queue.silent:
                return _WAIT
            queue.silent = queue.optional and before < 0
            return before if before >= 0 else _NONE
        lead = stamps[following] - moment
        if lead < lag and lead <= slop:
            other = self._next_lead(stamps[following], final)
            if other is None:
                return _WAIT
            if lead <= other:
                return following
        return before if before >= 0 else _NONE

    def _next_lead(self, stamp: int, final: bool) -> int | None:
        """How near the next reference at least comes to a stamp; None when it is too early."""
        reference = self._reference
        moment = reference.stamps[0]
        if reference.quiet[0] >= 2 * (stamp - moment):
            return stamp - moment
        if len(reference.stamps) > 1:
            return abs(reference.stamps[1] - stamp)
        return stamp - moment if final else None

    def _emit(self, chosen: Sequence[int], lacks: str, result: SyncResult) -> None:
        reference = self._reference
        moment = reference.stamps[0]
        stamps = {reference.topic: moment}
        messages = {reference.topic: reference.messages[0]}
        reference.remove(0, 1)
        reference.used = reference.closed = moment
        for queue, index in zip(self._others, chosen, strict=True):
            if index == _NONE:
                continue
            queue.take(index, result.drops, f"no {reference.topic} near it")
            queue.used = queue.closed = queue.stamps[0]
            queue.quiet_until = queue.used + queue.quiet[0]
            stamps[queue.topic] = queue.used + (queue.offset or 0)
            messages[queue.topic] = queue.messages[0]
            queue.remove(0, 1)
        self._given = moment
        result.sets.append(MatchedSet(moment, stamps, messages, lacks))

    def _estimate(self, queue: _Queue, ended: bool) -> bool:
        enough = min(len(queue.stamps), len(self._reference.stamps)) >= ESTIMATE_FROM
        if not enough and not ended:
            return False
        offset = estimate_offset(
            self._reference.stamps[:ESTIMATE_FROM], queue.stamps[:ESTIMATE_FROM]
        )
        queue.offset = offset
        queue.stamps = [s - offset for s in queue.stamps]
        if queue.newest is not None:
            queue.newest -= offset
        if queue.closed is not None:
            queue.closed -= offset
        return True


def estimate_offset(reference: Sequence[int], stamps: Sequence[int]) -> int:
    """A topic's constant lag behind the reference, nanoseconds, from the stamps of both.

    The lag is known up to the faster topic's period; the one nearest to zero is taken. The circular
    mean finds it whatever side of the period's border the single differences fall on; the median
    about it keeps dropouts and jitter out. 0 where either has fewer than two stamps.
    """
    if len(reference) < 2 or len(stamps) < 2:
        return 0
    # Relative to the first stamp: nanoseconds since 1970 do not fit into a float64.
    a = np.sort(np.array([r - reference[0] for r in reference], np.int64))
    b = np.sort(np.array([s - reference[0] for s in stamps], np.int64))
    period = float(min(np.median(np.diff(a)), np.median(np.diff(b))))
    if period <= 0:
        return 0
    right = np.clip(np.searchsorted(b, a), 1, len(b) - 1)
    nearest = np.where(a - b[right - 1] <= b[right] - a, b[right - 1], b[right])
    lags = (nearest - a).astype(np.float64)
    angles = lags * (2 * np.pi / period)
    mean = np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()) * period / (2 * np.pi)
    spread = (lags - mean + period / 2) % period - period / 2
    return round(mean + float(np.median(spread)))
