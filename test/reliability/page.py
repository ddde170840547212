"""docs/reliability.md: its words, and the table of what was seen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .faults import FAULTS
from .play import Outcome
from .processes import LAUNCH_KILLED, PROCESS_FAULTS, Seen

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEFORE, DURING = 5, 10  # frames before and after a fault, and with it

_HEAD = f"""# Reliability

Written by `make faults`. One drive goes on through all rows: live nodes (projection, segmentation with `geometric`, tracking) in one process, messages over DDS, {BEFORE} good frames before each fault, {DURING} with it (or one), {BEFORE} good ones after; the last must be answered. `make test` plays the same rows with fewer frames and holds their promises.

| fault | promise | frames with it | lost | counted in the diagnostics |
|---|---|---|---|---|
"""  # noqa: E501

_PROCESSES = """
The sample drive at 1 Hz through a launch whose nodes are processes of their own (`single_process:=false`), with both viewers and the evaluation. "Lost" is of the frames of the six seconds in which the fault falls, without those that a loaded machine gives up for newer ones; "back" is when all are answered again: starting a process takes its time, most of all on a loaded machine. These were played on {cores} cores under a load of {load:.0f}.

| fault | promise | frames | lost | back after |
|---|---|---|---|---|
"""  # noqa: E501

_ELSEWHERE = (
    ("a bag loops; time jumps back", "all forgotten once, ids go on", "test_faults.py"),
    ("no transform", "never identity: no frame, an ERROR that names both frames", "test_faults.py"),
    ("more frames than the machine can do", "newest wins, every drop counted", "test_faults.py"),
    ("a process fails again and again", "given up after 5 restarts in 5 minutes: a viewer alone, "
     "a stage with its launch, with an error", "test_live_supervision.py"),
    ("participants with names that are no text, metrics that are none", "passed over",
     "test_live_strangers.py"),
    ("ids, sizes and vectors of instances beyond bounds", "refused before memory is given",
     "test_bags_limits.py"),
    ("SIGTERM, SIGINT, kill -9 of a command", "nothing half done; the next run clears up",
     "test_cli_signals.py"),
    ("a full or read-only disk: recordings, reports, metrics", "one line with file and room; "
     "nothing half written", "test_cli_signals.py"),
    ("/dev/shm is missing, full or read-only", "nodes without ROS 2 do not use it; commands with "
     "workers end with one line that names it", "test_cli_signals.py"),
    ("other machines send to the nodes' ports", "dropped by the kernel, without ROS 2",
     "test_loopback.py"),
    ("a broken file of any kind", "one line with file, place and cure", "test_fuzz.py"),
)  # fmt: skip

_TAIL = """
All this is without ROS 2. On a real rclpy: `. .venv-ros/environment; PYTHONPATH=$PWD:$PWD/test:$PYTHONPATH python -m reliability --out build/reliability_ros.md`, where `make test-ros` has made `.venv-ros`. On two cores under a load of 30 the rows of messages held there (Fast DDS, Jazzy), but for a flood of scans, which cost 1 or 2 frames of 10 (`no points`): its subscriptions keep the last messages only. The rows of processes have not been played there.

Faults of processes, machines and files have tests of their own:

| fault | promise | held by |
|---|---|---|
"""  # noqa: E501


def page(outcomes: Sequence[Outcome], seen: Sequence[Seen], ended: tuple[float, list[str]]) -> str:
    """The text of docs/reliability.md.

    Args:
        outcomes: of FAULTS.
        seen: of PROCESS_FAULTS.
        ended: seconds until the nodes of the killed launch had ended, and those that had not.
    """
    rows = []
    for fault, outcome in zip(FAULTS, outcomes, strict=True):
        counted = ", ".join(sorted(f"`{reason}`" for reason in outcome.counted))
        if outcome.errors:
            counted = f"{counted}, exceptions".removeprefix(", ")
        cells = (fault.name, fault.promise, outcome.injected, outcome.lost, counted or "-")
        rows.append("| " + " | ".join(map(str, cells)) + " |\n")
    processes = []
    for row, what in zip(PROCESS_FAULTS, seen, strict=True):
        back = "never" if what.back is None else f"{what.back:.0f} s"
        cells = (row.name, row.promise, what.sent, what.lost, back)
        processes.append("| " + " | ".join(map(str, cells)) + " |\n")
    left = f"still there: {', '.join(ended[1])}" if ended[1] else f"all after {ended[0]:.0f} s"
    processes.append("| " + " | ".join((*LAUNCH_KILLED, "-", "-", left)) + " |\n")
    others = ["| " + " | ".join((*row[:2], f"`test/{row[2]}`")) + " |\n" for row in _ELSEWHERE]
    machine = _PROCESSES.format(cores=os.cpu_count(), load=os.getloadavg()[2])
    return "".join((_HEAD, *rows, machine, *processes, _TAIL, *others))


def expected() -> str:
    """The page when every promise is kept, but for what is counted."""
    return page(
        [
            Outcome(0, 1 if f.once else DURING, round(f.lost * (1 if f.once else DURING)), 0)
            for f in FAULTS
        ],
        [Seen(6, 0, 0.0) for _ in PROCESS_FAULTS],
        (0.0, []),
    )
