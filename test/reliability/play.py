"""Plays a drive through live nodes, a fault in its middle, and counts what was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import node_bench as drive
from node_bench import Together, until

from amodal_core.bags.sensors import stamp_of
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS, TF_STATIC, TRACKS
from amodal_ros.nodes import perception

Messages = dict[str, list[Any]]
ARGUMENTS = ("queue:=0", "reliability:=reliable", "sync_timeout:=10.0", "model:=geometric")


@dataclass
class Moment:
    """A frame that is about to be sent; a fault changes it.

    Attributes:
        index: of the frame in the drive.
        messages: by topic, in the order in which they are sent; CDR where they are bytes.
        nodes: the graph.
        kept: messages of a frame before, for the next one.
        undo: called when the fault is over.
    """

    index: int
    messages: Messages
    nodes: Together
    kept: Messages
    undo: list[Callable[[], None]]


@dataclass(frozen=True)
class Fault:
    """A row of docs/reliability.md.

    Attributes:
        name: what is wrong.
        promise: what the stack answers.
        inject: changes a frame's messages.
        lost: of the frames that it is injected into, the share that is not answered.
        counted: reasons that the nodes must count.
        once: it is injected into one frame alone.
        also: reasons that another middleware leaves the nodes to count.
        raises: an exception is part of it; else the nodes count none.
    """

    name: str
    promise: str
    inject: Callable[[Moment], None]
    lost: float = 0
    counted: tuple[str, ...] = ()
    once: bool = False
    also: tuple[str, ...] = ()
    raises: bool = False


@dataclass
class Outcome:
    """What was seen of a fault.

    Attributes:
        sent: frames.
        injected: those of them that the fault was injected into.
        lost: frames without an answer.
        twice: frames with more than one.
        counted: what the nodes counted, by reason.
        errors: exceptions that the nodes counted.
    """

    sent: int
    injected: int
    lost: int
    twice: int
    counted: Counter[str] = field(default_factory=Counter)
    errors: int = 0


class Player:
    """A graph of stages, and the drive that goes on through all faults.

    Args:
        together: starts the graph.
    """

    def __init__(self, together: Callable[..., Together]) -> None:
        parameters = [part for a in ARGUMENTS for part in ("-p", a)]
        sensors = [IMAGE, CAMERA_INFO, POINTS, TF_STATIC]
        self.nodes = together(list(perception.USUAL), [TRACKS], sensors, *parameters)
        self.nodes.send(TF_STATIC.name, drive.tf_static())
        self._next = 0

    def play(self, fault: Fault, before: int, during: int, after: int) -> Outcome:
        """So many frames before, with and after a fault."""
        counts, errors = self._counts(), self._errors()
        during = 1 if fault.once else during
        stamps: list[int] = []
        kept: Messages = {}
        undo: list[Callable[[], None]] = []
        answered = len(self.nodes.received[TRACKS.name])
        for turn in range(before + during + after):
            if turn == before + during:
                while undo:
                    undo.pop()()
            moment = self._moment(kept, undo)
            stamps.append(stamp_of(moment.messages[IMAGE.name][0].header))
            if before <= turn < before + during:
                fault.inject(moment)
                own = moment.messages.get(IMAGE.name)
                if own and not isinstance(own[0], bytes):
                    stamps[-1] = stamp_of(own[0].header)
            for topic, messages in moment.messages.items():
                for message in messages:
                    self.nodes.send(topic, message)
        last = stamps[-1]
        until(lambda: last in self._answers(answered), f"the drive after: {fault.name}", 120)
        answers = Counter(self._answers(answered))
        return Outcome(
            sent=len(stamps),
            injected=during,
            lost=sum(s not in answers for s in stamps),
            twice=sum(answers[s] > 1 for s in set(stamps)),
            counted=self._counts() - counts,
            errors=self._errors() - errors,
        )

    def _moment(self, kept: Messages, undo: list[Callable[[], None]]) -> Moment:
        index = self._next
        self._next += 1
        shift = -0.15 * (index % 12)
        messages = {
            IMAGE.name: [drive.image(index)],
            CAMERA_INFO.name: [drive.info(index)],
            POINTS.name: [drive.cloud(index, shift)],
        }
        return Moment(index, messages, self.nodes, kept, undo)

    def _answers(self, first: int) -> list[int]:
        return [stamp_of(m.header) for m in self.nodes.received[TRACKS.name][first:]]

    def _counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for node in self.nodes.nodes.values():
            total.update(node.health.drops)
        return total

    def _errors(self) -> int:
        return sum(node.health.errors for node in self.nodes.nodes.values())


def judge(fault: Fault, outcome: Outcome) -> str:
    """What of the promise was not kept, "" where all was."""
    expected = round(fault.lost * outcome.injected)
    wrong = []
    if outcome.lost != expected:
        wrong.append(f"{outcome.lost} frames lost, {expected} expected")
    if outcome.twice:
        wrong.append(f"{outcome.twice} frames answered twice")
    missing = [r for r in fault.counted if not any(r in c for c in outcome.counted)]
    if missing:
        wrong.append(f"not counted: {', '.join(missing)}; counted were {dict(outcome.counted)}")
    unexpected = [c for c in outcome.counted if not any(r in c for r in fault.counted + fault.also)]
    if unexpected:
        wrong.append(f"counted too: {', '.join(unexpected)}")
    if bool(outcome.errors) != fault.raises:
        wrong.append(f"{outcome.errors} exceptions")
    return "; ".join(wrong)
