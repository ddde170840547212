"""One process against one a stage: CPU, memory and latency of the running nodes, turn by turn.

`python benchmarks/processes.py BAG [--model geometric] [--rate 10] [--seconds 8] [--turns 3]`
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from amodal_core.evaluation.throughput import RunResult
from amodal_ros.live_bench import LiveBench


def measured(bag: Path, model: str, single: str, rate: float, seconds: float) -> RunResult:
    """A run of the nodes, after one to warm up."""
    arguments = [f"model:={model}", f"single_process:={single}"]
    with (
        tempfile.TemporaryDirectory() as folder,
        LiveBench(bag, arguments, Path(folder) / "nodes.log") as bench,
    ):
        bench.run(rate, 2.0)
        return bench.run(rate, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--model", default="geometric")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    rows: dict[str, list[list[float]]] = {"true": [], "false": []}
    for _ in range(given.turns):
        for single, results in rows.items():
            run = measured(given.bag, given.model, single, given.rate, given.seconds)
            numbers = run.numbers()
            cpu = numbers["cpu_cores"] * 1e3 / numbers["answered_hz"]
            names = ("p50_ms", "p95_ms", "memory_mb", "missed_share")
            results.append([cpu, *(numbers[n] for n in names)])
    print("single_process  CPU ms a frame  p50 ms  p95 ms  memory MB  missed")
    for single, results in rows.items():
        cpu, p50, p95, memory, missed = np.median(results, axis=0)
        print(f"{single:14} {cpu:15.1f} {p50:7.1f} {p95:7.1f} {memory:10.0f} {missed:7.1%}")


if __name__ == "__main__":
    main()
