"""docs/reliability.md: its words, and the table of what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .faults import FAULTS
from .play import Outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEFORE, DURING = 5, 10  # frames before and after a fault, and with it

_HEAD = f"""# Reliability

Written by `make faults`. One drive goes on through all rows: live nodes (projection, segmentation with `geometric`, tracking) in one process, messages over DDS, {BEFORE} good frames before each fault, {DURING} with it (or one), {BEFORE} good ones after; the last must be answered. `make test` plays the same rows with fewer frames and holds their promises.

| fault | promise | frames with it | lost | counted in the diagnostics |
|---|---|---|---|---|
"""  # noqa: E501

_ELSEWHERE = (
    ("a bag loops; time jumps back", "all forgotten once, ids go on", "test_faults.py"),
    ("no transform", "never identity: no frame, an ERROR that names both frames", "test_faults.py"),
    ("more frames than the machine can do", "newest wins, every drop counted", "test_faults.py"),
    ("a viewer fails or is killed", "started again, with a limit; perception goes on",
     "test_live_supervision.py"),
    ("a stage is killed", "started again, with a limit; then the launch ends with an error",
     "test_live_supervision.py"),
    ("the launch is killed", "its nodes end themselves", "test_live_supervision.py"),
    ("two graphs on the same names", "named once, with process and host",
     "test_live_supervision.py"),
    ("participants with names that are no text, metrics that are none", "passed over",
     "test_live_strangers.py"),
    ("ids, sizes and vectors of instances beyond bounds", "refused before memory is given",
     "test_bags_limits.py"),
    ("SIGTERM, SIGINT, kill -9 of a command", "nothing half done; the next run clears up",
     "test_cli_signals.py"),
    ("a full or read-only disk", "one line with file and room", "test_cli_signals.py"),
    ("a broken file of any kind", "one line with file, place and cure", "test_fuzz.py"),
)  # fmt: skip

_TAIL = """
Faults of processes, machines and files have tests of their own:

| fault | promise | held by |
|---|---|---|
"""


def page(outcomes: Sequence[Outcome]) -> str:
    """The text of docs/reliability.md."""
    rows = []
    for fault, outcome in zip(FAULTS, outcomes, strict=True):
        counted = ", ".join(sorted(f"`{reason}`" for reason in outcome.counted))
        if outcome.errors:
            counted = f"{counted}, exceptions".removeprefix(", ")
        cells = (fault.name, fault.promise, outcome.injected, outcome.lost, counted or "-")
        rows.append("| " + " | ".join(map(str, cells)) + " |\n")
    others = ["| " + " | ".join((*row[:2], f"`test/{row[2]}`")) + " |\n" for row in _ELSEWHERE]
    return _HEAD + "".join(rows) + _TAIL + "".join(others)


def expected() -> str:
    """The page when every promise is kept, but for what is counted."""
    return page(
        [
            Outcome(0, 1 if f.once else DURING, round(f.lost * (1 if f.once else DURING)), 0)
            for f in FAULTS
        ]
    )
