"""A live drive with every fault of docs/reliability.md, in a few frames each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from node_bench import together
from reliability.faults import FAULTS, Fault
from reliability.page import _ELSEWHERE, PAGE, expected
from reliability.play import Outcome, Player, judge

pytestmark = pytest.mark.dds
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
    ],
)
def test_a_promise_that_is_not_kept_is_said(outcome: Outcome, says: str) -> None:
    fault = Fault("a scan", "refused", lambda moment: None, 1, ("refused /points",))
    assert judge(fault, outcome).partition(";")[0] == says


def test_the_page_has_every_fault_with_what_it_may_cost() -> None:
    """`make faults` writes it."""

    def cells(text: str) -> list[list[str]]:
        return [line.split(" | ")[:4] for line in text.splitlines() if line.startswith("|")]

    assert cells(PAGE.read_text()) == cells(expected())
    for *_, file in _ELSEWHERE:
        assert (PAGE.parents[1] / "test" / file).is_file()
