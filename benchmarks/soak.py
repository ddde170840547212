"""A long drive through the running nodes: what memory grows by a frame, what latency drifts.

`python benchmarks/soak.py BAG [--minutes 60] [--rate 10] [--single-process false] [NAME:=VALUE]`
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from amodal_ros.live_bench import LiveBench

_WINDOW = 15.0  # seconds between two looks at the memory
_WARM = 0.25  # share of the time after which caches and allocators have settled


def slope(frames: list[float], values: list[float]) -> tuple[float, float]:
    """Median slope of all pairs (Theil and Sen), and half the spread of the middle half of them."""
    x, y = np.array(frames)[np.isfinite(values)], np.array(values)[np.isfinite(values)]
    a, b = np.triu_indices(len(x), 1)
    slopes = (y[b] - y[a]) / (x[b] - x[a])
    low, middle, high = np.percentile(slopes, (25, 50, 75))
    return float(middle), float(high - low) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second")
    parser.add_argument("--single-process", default="false", help="true: all stages in one")
    parser.add_argument("--log", type=Path, default=Path("build/soak.log"), help="of the nodes")
    parser.add_argument("arguments", nargs="*", help="of the launch, such as model:=geometric")
    given = parser.parse_intermixed_args()
    memory: dict[str, list[float]] = defaultdict(list)
    frames: list[float] = []
    latencies: list[float] = []
    sent = answered = 0
    arguments = [f"single_process:={given.single_process}", *given.arguments]
    given.log.parent.mkdir(parents=True, exist_ok=True)
    with LiveBench(given.bag, arguments, given.log, 600) as bench:
        end = time.monotonic() + 60 * given.minutes
        while time.monotonic() < end:
            run = bench.run(given.rate, _WINDOW)
            sent, answered = sent + run.sent, answered + run.answered
            frames.append(sent)
            latencies.append(float(np.median(run.latencies_ms)) if run.answered else np.nan)
            for name, size in bench.memory().items():
                memory[name].append(size / 1e3)
            print(f"{sent} frames, {latencies[-1]:.1f} ms", flush=True)
    first = int(len(frames) * _WARM)
    print(f"{sent} frames in {given.minutes:g} minutes, {sent - answered} without an answer")
    print("node                 MB at the end   kB a frame   spread")
    for name, values in sorted(memory.items()):
        if len(values) == len(frames):
            grows, spread = slope(frames[first:], values[first:])
            print(f"{name:20} {values[-1] / 1e3:13.1f} {grows:12.3f} {spread:8.3f}")
    third = max(1, (len(frames) - first) // 3)
    begin, late = np.nanmedian(latencies[first:][:third]), np.nanmedian(latencies[-third:])
    drift, spread = slope(frames[first:], latencies[first:])
    print(f"latency p50: {begin:.1f} ms in the first third, {late:.1f} ms in the last")
    print(f"drift {1e3 * drift:+.2f} ms in 1000 frames (spread {1e3 * spread:.2f})")


if __name__ == "__main__":
    main()
