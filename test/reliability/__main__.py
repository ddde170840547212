"""`python -m reliability`: plays the drive with every fault and writes docs/reliability.md."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import argparse
from pathlib import Path

import rclpy
from node_bench import Together

from amodal_core.files import write_text
from amodal_ros.domains import own_domain
from amodal_ros.live_bench import LiveBench

from .faults import FAULTS
from .page import BEFORE, DURING, PAGE, page
from .play import Outcome, Player, judge
from .processes import ARGUMENTS, PROCESS_FAULTS, Seen, kill_launch
from .processes import judge as judge_process
from .processes import play as play_process

ROOT = Path(__file__).resolve().parents[2]


def say(name: str, line: str) -> bool:
    """Print the judgement of a row; whether its promise was not kept."""
    print(f"{name}: {line or 'as promised'}", flush=True)
    return bool(line)


def messages() -> tuple[list[Outcome], int]:
    """All rows of faults.py: what was seen, and how many promises were not kept."""
    outcomes: list[Outcome] = []
    running: list[Together] = []
    wrong = 0

    def start(*args: object) -> Together:
        running.append(Together(*args))  # type: ignore[arg-type]
        return running[-1]

    with own_domain():
        player = Player(start)
        for fault in FAULTS:
            outcomes.append(player.play(fault, BEFORE, DURING, BEFORE))
            wrong += say(fault.name, judge(fault, outcomes[-1]))
        running.pop().close()
        rclpy.try_shutdown()
    return outcomes, wrong


def processes(bag: Path, log: Path) -> tuple[list[Seen], tuple[float, list[str]], int]:
    """All rows of processes.py, the end of the killed launch, and promises not kept."""
    seen: list[Seen] = []
    wrong = 0
    with LiveBench(bag, ARGUMENTS, log, 600) as bench:
        for fault in PROCESS_FAULTS:
            seen.append(play_process(bench, fault))
            wrong += say(fault.name, judge_process(fault, seen[-1]))
        ended = kill_launch(bench)
        wrong += say("the launch is killed", ", ".join(ended[1]))
    return seen, ended, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--bag", type=Path, default=ROOT / "data" / "sample_drive")
    parser.add_argument("--log", type=Path, default=Path("build/faults.log"), help="of the nodes")
    given = parser.parse_args()
    given.log.parent.mkdir(parents=True, exist_ok=True)
    outcomes, wrong = messages()
    seen, ended, also = processes(given.bag, given.log)
    write_text(given.out, page(outcomes, seen, ended))
    print(f"{len(FAULTS) + len(seen) + 1} faults, {wrong + also} not as promised: {given.out}")
    return 1 if wrong + also else 0


if __name__ == "__main__":
    raise SystemExit(main())
