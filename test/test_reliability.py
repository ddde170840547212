"""A live drive with every fault of docs/reliability.md, in a few frames each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_bench import together
from reliability.faults import FAULTS, Fault
from reliability.page import _ELSEWHERE, PAGE, expected
from reliability.play import Outcome, Player, judge
from reliability.processes import (
    ARGUMENTS,
    LAUNCH_KILLED,
    PROCESS_FAULTS,
    ProcessFault,
    Seen,
    kill_launch,
)
from reliability.processes import judge as judge_process
from reliability.processes import play as play_process

from amodal_ros.live_bench import LiveBench

pytestmark = pytest.mark.dds
DRIVE = Path(__file__).parents[1] / "data" / "sample_drive"
__all__ = ["together"]


def test_a_drive_goes_on_through_every_fault(together: Callable[..., Any]) -> None:
    player = Player(together)
    wrong = {}
    for fault in FAULTS:
        line = judge(fault, player.play(fault, before=1, during=2, after=2))
        if line:
            wrong[fault.name] = line
    assert wrong == {}


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (Outcome(5, 2, 2, 0, {"refused /points": 4}), ""),
        (Outcome(5, 2, 3, 0, {"refused /points": 4}), "3 frames lost, 2 expected"),
        (Outcome(5, 2, 2, 1, {"refused /points": 4}), "1 frames answered twice"),
        (Outcome(5, 2, 2, 0, {}), "not counted: refused /points"),
        (Outcome(5, 2, 2, 0, {"refused /points": 4, "overload": 1}), "counted too: overload"),
        (Outcome(5, 2, 2, 0, {"refused /points": 4}, errors=3), "3 exceptions"),
    ],
)
def test_a_promise_that_is_not_kept_is_said(outcome: Outcome, says: str) -> None:
    fault = Fault("a scan", "refused", lambda moment: None, 1, ("refused /points",))
    assert judge(fault, outcome).partition(";")[0] == says


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_launch_goes_on_through_every_fault_of_its_processes(tmp_path: Path) -> None:
    with LiveBench(DRIVE, ARGUMENTS, tmp_path / "nodes.log", 240) as bench:
        wrong = {}
        for fault in PROCESS_FAULTS:
            if line := judge_process(fault, play_process(bench, fault)):
                wrong[fault.name] = line
        assert wrong == {}
        assert kill_launch(bench)[1] == []


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (Seen(8, 0, 1.0), ""),
        (Seen(8, 1, 1.0), "1 of 8 frames lost"),
        (Seen(8, 0, None), "frames were not answered any more"),
        (Seen(8, 0, 1.0, said=False), "not said: two nodes"),
    ],
)
def test_a_promise_of_processes_that_is_not_kept_is_said(seen: Seen, says: str) -> None:
    fault = ProcessFault("a double", "said", lambda bench: None, False, "two nodes")
    assert judge_process(fault, seen) == says


def test_the_page_has_every_fault_with_what_it_may_cost() -> None:
    """`make faults` writes it."""

    processes = {"| " + name for name in (*(f.name for f in PROCESS_FAULTS), LAUNCH_KILLED[0])}

    def cells(text: str) -> list[list[str]]:
        rows = [line.split(" | ") for line in text.splitlines() if line.startswith("|")]
        # What a killed process costs is the machine's affair.
        return [row[: 2 if row[0] in processes else 4] for row in rows]

    assert cells(PAGE.read_text()) == cells(expected())
    for *_, file in _ELSEWHERE:
        assert (PAGE.parents[1] / "test" / file).is_file()
