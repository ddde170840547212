"""The highest rate at which a running pipeline keeps up, and what it costs there.

The search follows ros2_benchmark (NVIDIA Isaac ROS): a trial run to warm up; a binary search of the
publishing rate with short probes; a linear scan upwards from where it ends, because a single short
probe may mislead; then five runs at the rate found, the best and the worst of which are dropped
from every number. A probe is sustained when the answers come as fast as the frames went out and
few are missing. The five runs must be that, too, but for the one that is dropped: a rate that they
do not bear out is not reported, the next lower one is tried. Its rate steps (5 Hz) are coarse for a
LiDAR pipeline and are finer here; the allowed lag is a share of the rate for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np

RUNS = 5
TRIMMED = 1  # runs dropped at each end


@dataclass(frozen=True)
class RunResult:
    """One run at one rate.

    Attributes:
        rate: asked for, frames a second.
        sent: frames published.
        answered: frames with an answer.
        published_hz: rate at which they really went out.
        answered_hz: rate at which answers came.
        latencies_ms: (answered,) float64, from a frame's publication to its answer, by stamp.
        drops: frames given up by reason, named "node: reason".
        cpu: share of one core by process, 1 is a core kept busy.
        memory_mb: largest resident memory by process.
    """

    rate: float
    sent: int
    answered: int
    published_hz: float
    answered_hz: float
    latencies_ms: np.ndarray
    drops: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)

    @property
    def missed(self) -> int:
        """Frames without an answer."""
        return self.sent - self.answered

    def numbers(self) -> dict[str, float]:
        """The run as one row of numbers; latencies are NaN where nothing was answered."""
        p50, p95, p99, worst = (
            np.percentile(self.latencies_ms, (50, 95, 99, 100))
            if len(self.latencies_ms)
            else (np.nan,) * 4
        )
        return {
            "published_hz": self.published_hz,
            "answered_hz": self.answered_hz,
            "missed_share": self.missed / self.sent if self.sent else np.nan,
            "p50_ms": float(p50),
            "p95_ms": float(p95),
            "p99_ms": float(p99),
            "max_ms": float(worst),
            "cpu_cores": sum(self.cpu.values()),
            "memory_mb": sum(self.memory_mb.values()),
        }


@dataclass(frozen=True)
class Search:
    """How to look for the rate.

    Attributes:
        lowest: frames a second at which the search begins.
        highest: frames a second beyond which nobody asks.
        width: the binary search ends when the interval is this narrow, Hz.
        step: of the linear scan, Hz.
        loss: share of frames that may be missing.
        lag: share by which answers may come slower than frames go out.
        probe_seconds: length of a probe.
        run_seconds: length of each of the five runs.
    """

    lowest: float = 1.0
    highest: float = 60.0
    width: float = 2.0
    step: float = 0.5
    loss: float = 0.05
    lag: float = 0.05
    probe_seconds: float = 4.0
    run_seconds: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest or self.width <= 0 or self.step <= 0:
            raise ValueError(
                f"rates {self.lowest} to {self.highest}, width {self.width}, step {self.step}"
            )

    def sustained(self, result: RunResult) -> bool:
        """Whether the pipeline kept up in a run, and the frames really went out at its rate."""
        return (
            result.published_hz >= result.rate * (1 - self.lag)
            and result.answered_hz >= result.published_hz * (1 - self.lag)
            and result.missed <= ceil(result.sent * self.loss)
        )


@dataclass
class Throughput:
    """What the search throughput.

    Attributes:
        rate: highest sustained rate in Hz; NaN where not even the lowest was.
        numbers: means over the runs at that rate, the best and worst of each number dropped.
        drops: frames given up by reason in all five runs.
        cpu: share of one core by process, mean of the middle runs.
        memory_mb: by process, mean of the middle runs.
        probes: every probe in order, with whether it was sustained.
        runs: the five runs at that rate.
        warnings: one line each.
    """

    rate: float
    numbers: dict[str, float] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    probes: list[tuple[RunResult, bool]] = field(default_factory=list)
    runs: list[RunResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def measure(
    run: Callable[[float, float], RunResult],
    search: Search | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Throughput:
    """Find the highest sustainable rate and measure it.

    Args:
        run: publishes at a rate (Hz) for so many seconds and says what came back.
        search: how to look.
        step: told what comes next.
    """
    search = search or Search()
    throughput = Throughput(float("nan"))

    def probe(rate: float, why: str) -> bool:
        step(f"{why} at {rate:.3g} Hz")
        result = run(rate, search.probe_seconds)
        good = search.sustained(result)
        throughput.probes.append((result, good))
        return good

    low, high = search.lowest, search.highest
    step(f"warming up at {(low + high) / 2:.3g} Hz")
    run((low + high) / 2, search.probe_seconds)
    sustained = False
    while high - low > search.width:
        middle = (low + high) / 2
        if probe(middle, "binary search"):
            low, sustained = middle, True
        else:
            high = middle
    if not sustained and not probe(low, "lowest rate"):
        throughput.warnings.append(f"not even {low:g} Hz is sustained")
        return throughput
    while low + search.step <= search.highest and probe(low + search.step, "linear scan"):
        low += search.step
    if low + search.step > search.highest:
        throughput.warnings.append(
            f"the pipeline sustains the search's highest rate, {search.highest:g} Hz: search higher"
        )
    limited = [r for r, good in throughput.probes if r.published_hz < r.rate * (1 - search.lag)]
    if limited:
        slowest = min(r.rate for r in limited)
        throughput.warnings.append(
            f"from {slowest:.3g} Hz on, the player itself could not publish fast enough"
        )
    probed = low
    while not (runs := _borne_out(run, search, low, step, throughput)):
        if low <= search.lowest:
            throughput.warnings.append(f"not even {low:g} Hz is sustained in {RUNS} runs")
            return throughput
        low = max(low - search.step, search.lowest)
    if low < probed:
        throughput.warnings.append(
            f"{probed:.3g} Hz was sustained in a probe of {search.probe_seconds:g} s, "
            f"in {RUNS} runs of {search.run_seconds:g} s {low:.3g} Hz"
        )
    throughput.rate, throughput.runs = low, runs
    rows = [r.numbers() for r in throughput.runs]
    throughput.numbers = {k: trimmed_mean([row[k] for row in rows]) for k in rows[0]}
    for result in throughput.runs:
        for reason, count in result.drops.items():
            throughput.drops[reason] = throughput.drops.get(reason, 0) + count
    throughput.cpu = _by_process([r.cpu for r in throughput.runs])
    throughput.memory_mb = _by_process([r.memory_mb for r in throughput.runs])
    return throughput


def _borne_out(
    run: Callable[[float, float], RunResult],
    search: Search,
    rate: float,
    step: Callable[[str], None],
    throughput: Throughput,
) -> list[RunResult]:
    """Five runs at a rate; none where more of them break the rule than the numbers leave out."""
    runs: list[RunResult] = []
    for k in range(RUNS):
        step(f"run {k + 1} of {RUNS} at {rate:.3g} Hz")
        runs.append(run(rate, search.run_seconds))
        if sum(not search.sustained(r) for r in runs) > TRIMMED:
            throughput.probes += [(r, search.sustained(r)) for r in runs]
            return []
    return runs


def trimmed_mean(values: Sequence[float]) -> float:
    """Mean without the smallest and the largest; NaN where a value is NaN."""
    middle = sorted(values)[TRIMMED : len(values) - TRIMMED]
    return float("nan") if any(np.isnan(v) for v in values) else float(np.mean(middle))


def _by_process(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {n: trimmed_mean([row.get(n, 0.0) for row in rows]) for n in names}
