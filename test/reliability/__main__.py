"""`python -m reliability`: plays the drive with every fault and writes docs/reliability.md."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import argparse
from pathlib import Path

import rclpy
from node_bench import Together

from amodal_core.files import write_text
from amodal_ros.domains import own_domain

from .faults import FAULTS
from .page import BEFORE, DURING, PAGE, page
from .play import Outcome, Player, judge


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    outcomes: list[Outcome] = []
    wrong = 0
    with own_domain():
        running: list[Together] = []

        def start(*args: object) -> Together:
            running.append(Together(*args))  # type: ignore[arg-type]
            return running[-1]

        player = Player(start)
        for fault in FAULTS:
            outcomes.append(player.play(fault, BEFORE, DURING, BEFORE))
            line = judge(fault, outcomes[-1])
            wrong += bool(line)
            print(f"{fault.name}: {line or 'as promised'}", flush=True)
        running.pop().close()
        rclpy.try_shutdown()
    write_text(given.out, page(outcomes))
    print(f"{len(FAULTS)} faults, {wrong} not as promised: {given.out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
