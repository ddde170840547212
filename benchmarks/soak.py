"""A long drive through the running nodes: what memory grows by a frame, what latency drifts.

`python benchmarks/soak.py BAG [--minutes 60] [--rate 10] [--single-process false] [NAME:=VALUE]`
With evaluation:=true and overlay:=true the viewers run, too, and what they draw is taken in.
Samples go to --samples as they come; `--read FILE` judges those of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amodal_core.drive.topics import MARKERS, OVERLAY, TRACK_POINTS
from amodal_core.errors import InputError
from amodal_core.files import write_text
from amodal_ros.live_bench import LiveBench

GOAL = 0.5  # kB a frame that a node may grow by
_DRIFT = 0.05  # share of the median latency that it may drift by, over the time that is judged
_WINDOW = 15.0  # seconds between two looks at the memory
_WARM = 0.25  # share of the time after which caches and allocators have settled
_FEWEST = 8  # samples that can be judged
_PARTS = ("Rss", "Private_Clean", "Private_Dirty", "Anonymous", "AnonHugePages", "Shared_Dirty")


class Slope(NamedTuple):
    """Of a line through samples, and its interval of 95 %."""

    low: float
    middle: float
    high: float

    def under(self, goal: float) -> str:
        """Whether it is under a goal: "held", "grows", or "not shown" where it may be either."""
        return "held" if self.high < goal else "grows" if self.low > goal else "not shown"


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """Median slope of all pairs (Theil), with Sen's interval of 95 %.

    The variance of Kendall's S is widened for samples that follow each other closely: by
    (1 + r) / (1 - r), r the correlation of neighbours about the line, where r is positive.
    """
    frames, values = np.array(x, float), np.array(y, float)
    keep = np.isfinite(values)
    frames, values = frames[keep], values[keep]
    n = len(values)
    if n < _FEWEST:
        return Slope(-np.inf, np.nan, np.inf)
    a, b = np.triu_indices(n, 1)
    slopes = np.sort((values[b] - values[a]) / (frames[b] - frames[a]))
    middle = float(np.median(slopes))
    rest = values - middle * frames
    rest -= np.median(rest)
    power = float(rest @ rest)
    r = max(0.0, float(rest[1:] @ rest[:-1]) / power) if power else 0.0
    wider = (1 + r) / max(1 - r, 1e-3)
    half = 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18 * wider)
    low, high = (len(slopes) - half) / 2, (len(slopes) + half) / 2
    if low < 0:  # too few samples that say something of their own
        return Slope(-np.inf, middle, np.inf)
    return Slope(
        float(slopes[int(low)]), middle, float(slopes[min(int(high) + 1, len(slopes) - 1)])
    )


def play(bench: LiveBench, rate: float, minutes: float, samples: Path) -> None:
    """Play the bag again and again; one sample a window, all in a JSON file."""
    windows: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        run = bench.run(rate, _WINDOW)
        took = run.sent / rate
        window = {
            "sent": run.sent,
            "ms": [round(float(v), 2) for v in run.latencies_ms],
            "cpu_ms": {n: 1e3 * share * took / run.sent for n, share in run.cpu.items()},
            "kB": {n: {p: sizes[p] for p in _PARTS} for n, sizes in bench.memory().items()},
        }
        windows.append(window)
        write_text(samples, json.dumps(windows))
        print(f"{len(windows) * _WINDOW:.0f} s, {np.median(run.latencies_ms):.1f} ms", flush=True)


def report(windows: Sequence[dict[str, Any]]) -> str:
    """The lines of the judgement.

    Anonymous memory is what the node has asked for; private and resident memory have pages of
    files, too, which the kernel takes away and gives back as it likes.
    """
    frames = np.cumsum([w["sent"] for w in windows])
    first = int(len(windows) * _WARM)
    judged, at = windows[first:], frames[first:]
    lost = int(frames[-1]) - sum(len(w["ms"]) for w in windows)
    lines = [
        f"{frames[-1]} frames, {lost} without an answer; judged from frame {at[0]} on",
        "| node | memory | MB at the end | kB a frame, with its interval of 95 % | goal |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(set.intersection(*(set(w["kB"]) for w in judged))):
        for what, parts in (
            ("anonymous", ("Anonymous",)),
            ("private", ("Private_Clean", "Private_Dirty")),
            ("resident", ("Rss",)),
        ):
            values = [sum(w["kB"][name][p] for p in parts) for w in judged]
            grows = slope(at, values)
            lines.append(
                f"| {name} | {what} | {values[-1] / 1e3:.1f} | {grows.middle:+.3f} "
                f"({grows.low:+.3f} to {grows.high:+.3f}) | {grows.under(GOAL)} |"
            )
    quarter = max(1, len(windows) // 4)
    ends = [np.concatenate([w["ms"] for w in part]) for part in _ends(windows, quarter)]
    for part, name in zip(ends, ("first", "last"), strict=True):
        p50, p95, p99 = np.percentile(part, (50, 95, 99)) if len(part) else [np.nan] * 3
        lines.append(
            f"latency in the {name} quarter: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms"
        )
    medians = [float(np.median(w["ms"])) if w["ms"] else np.nan for w in judged]
    drift, allowed = slope(at, medians), _DRIFT * float(np.nanmedian(medians))
    took = float(at[-1] - at[0])
    low, middle, high = (took * v for v in drift)
    verdict = Slope(low, middle, high).under(allowed)
    lines.append(
        f"latency drifted by {middle:+.1f} ms ({low:+.1f} to {high:+.1f}); "
        f"under {allowed:.1f} ms: {verdict}"
    )
    before, after = (
        sum(np.median([w["cpu_ms"].get(n, 0.0) for w in part]) for n in judged[-1]["cpu_ms"])
        for part in _ends(windows, quarter)
    )
    lines.append(f"CPU a frame, all nodes: {before:.1f} ms first, {after:.1f} ms last quarter")
    return "\n".join(lines)


def _ends(windows: Sequence[Any], quarter: int) -> tuple[Sequence[Any], Sequence[Any]]:
    return windows[:quarter], windows[-quarter:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second")
    parser.add_argument("--single-process", default="false", help="true: all stages in one")
    parser.add_argument("--log", type=Path, default=Path("build/soak.log"), help="of the nodes")
    parser.add_argument("--samples", type=Path, default=Path("build/soak.json"))
    parser.add_argument("--read", type=Path, help="judge these samples; nothing is played")
    parser.add_argument("arguments", nargs="*", help="of the launch, such as model:=geometric")
    given = parser.parse_intermixed_args()
    if given.read is None:
        if given.bag is None:
            raise InputError("no bag", "soak.py", "name one, or --read FILE")
        arguments = [f"single_process:={given.single_process}", *given.arguments]
        given.log.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as ending:
            bench = ending.enter_context(LiveBench(given.bag, arguments, given.log, 600))
            if "overlay:=true" in arguments:
                for topic in (OVERLAY, MARKERS, TRACK_POINTS):
                    bench.listen(topic)
            play(bench, given.rate, given.minutes, given.samples)
    print(report(json.loads((given.read or given.samples).read_text())))


if __name__ == "__main__":
    main()
