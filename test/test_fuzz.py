"""Every parser: what is no input of its kind is one InputError, in little memory and time.

The short form of `make fuzz`: valid inputs, all that were ever found, and a few spoilt ones, which
are the same in every run.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import campaign
from fuzzing.campaign import CASES, Campaign
from fuzzing.targets import TARGETS, Target

from amodal_core.errors import InputError


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_no_input_is_more_than_one_error(target: Target) -> None:
    findings = Campaign(target, seconds=240, count=4).run()
    assert [(f.what, f.where) for f in findings] == []


def test_every_case_belongs_to_a_parser_and_is_small() -> None:
    names = {t.name for t in TARGETS}
    for case in CASES.iterdir():
        assert case.stem.rpartition("-")[0] in names
        assert case.stat().st_size < 5000


def raises(data: bytes) -> None:
    if data == b"refused":
        raise InputError("no input", "here")
    if data == b"bug":
        raise KeyError("a")
    if data == b"nowhere":
        raise InputError("no input")
    if data == b"memory":
        bytearray(2 * campaign.MEMORY)
    if data == b"hidden":
        try:
            bytearray(2 * campaign.MEMORY)
        except MemoryError:
            raise InputError("too large", "here") from None
    if data == b"used":
        bytearray(3 * 2**27)
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"hang":
        time.sleep(60)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"fine", []),
        (b"refused", []),
        (b"bug", ["KeyError: 'a'"]),
        (b"nowhere", ["an error without a place: no input"]),
        (b"memory", ["asks for too much memory"]),
        (b"hidden", ["asks for too much memory"]),
        (b"used", [r"takes 38\d MB"]),  # 384, but for pages that were there before
        (b"crash", ["SIGSEGV"]),
        (b"hang", ["silent for 1 s"]),
    ],
)
def test_a_campaign_finds_what_a_parser_must_not_do(
    data: bytes, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if data == b"hang":
        monkeypatch.setattr(campaign, "_SILENT", 1.0)

    def read(given: bytes, folder: Path) -> None:
        raises(given)

    target = Target("made", [b"fine", data, b"fine"], lambda rng, valid: valid, read)
    run = Campaign(target, count=1)
    said = [f.what for f in run.run()]
    assert len(said) == len(found)
    for what, expected in zip(said, found, strict=True):
        assert re.fullmatch(expected, what)
    assert run.done == 4  # what comes after it was tried, too


def test_a_crash_is_found_where_it_is() -> None:
    def read(given: bytes, folder: Path) -> None:
        raises(given)

    run = Campaign(Target("made", [b"fine", b"crash"], lambda rng, valid: valid, read), count=0)
    (finding,) = run.run()
    assert re.fullmatch(r"test_fuzz\.py:\d+", finding.where)
    line = int(finding.where.partition(":")[2])
    assert "SIGSEGV" in Path(__file__).read_text().splitlines()[line - 1]


_at_fork: list[Callable[[], object]] = []
os.register_at_fork(after_in_child=lambda: [call() for call in _at_fork])


@pytest.mark.parametrize("when", ["as it begins", "as it reads"])
def test_what_was_made_before_is_not_taken_apart_in_another_process(when: str) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGSEGV)

    def read(given: bytes, folder: Path) -> None:
        if when == "as it reads":
            gc.collect()

    gc.disable()  # until the process has been forked
    if when == "as it begins":
        _at_fork.append(gc.collect)  # as libraries' own callbacks do where it is due
    try:
        cycle = Cycle()
        del cycle
        found = Campaign(Target("made", [b"fine"], lambda rng, valid: valid, read), count=0).run()
        assert found == []
    finally:
        _at_fork.clear()
        del Cycle.__del__
        gc.enable()
