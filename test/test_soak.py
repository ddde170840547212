"""The judgement of a soak: a slope with an interval that says when it cannot tell."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

_PATH = Path(__file__).parents[1] / "benchmarks" / "soak.py"
_spec = importlib.util.spec_from_file_location("soak", _PATH)
assert _spec is not None
assert _spec.loader is not None
soak = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(soak)

FRAMES = np.arange(200) * 45


def test_a_line_has_its_slope_and_no_width() -> None:
    assert soak.slope(FRAMES, 3 + 0.25 * FRAMES) == pytest.approx((0.25, 0.25, 0.25))


@pytest.mark.parametrize(("grows", "verdict"), [(0.0, "held"), (0.3, "held"), (0.8, "grows")])
def test_a_slope_is_told_beneath_noise_and_outliers(grows: float, verdict: str) -> None:
    rng = np.random.default_rng(1)
    values = grows * FRAMES + rng.normal(0, 300, 200)
    values[rng.integers(0, 200, 15)] += 20_000  # something else for a while
    found = soak.slope(FRAMES, values)
    assert found.low < grows < found.high
    assert found.under(0.5) == verdict


def test_noise_that_hides_the_slope_is_said() -> None:
    rng = np.random.default_rng(2)
    assert soak.slope(FRAMES, rng.normal(0, 30_000, 200)).under(0.5) == "not shown"
    assert soak.slope(FRAMES[:5], FRAMES[:5]).under(0.5) == "not shown"


def test_samples_that_follow_each_other_say_less() -> None:
    """A random walk without a trend is not taken for one in 19 of 20 cases, nearly."""
    rng = np.random.default_rng(3)
    taken = 0
    for _ in range(60):
        noise = np.zeros(200)
        for k in range(1, 200):
            noise[k] = 0.7 * noise[k - 1] + rng.normal()
        found = soak.slope(FRAMES, noise)
        taken += not found.low <= 0 <= found.high
    assert taken <= 6


def test_the_report_judges_each_node_and_the_latency_by_quarters(tmp_path: Path) -> None:
    def window(k: int) -> dict[str, object]:
        parts = dict.fromkeys(("Private_Clean", "Rss", "Anonymous"), 1000.0)
        sizes = {"steady": parts | {"Private_Dirty": 5e4}}
        sizes["leaking"] = parts | {"Private_Dirty": 5e4 + 90 * k, "Rss": 1000.0 + 90 * k}
        return {"sent": 45, "ms": [10.0] * 44, "cpu_ms": {"steady": 3.0}, "kB": sizes}

    text = soak.report(json.loads(json.dumps([window(k) for k in range(40)])))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    verdicts = {(row[0].strip("| "), row[1]): row[-1].strip("| ") for row in rows}
    assert verdicts["steady", "private"] == "held"
    assert verdicts["leaking", "private"] == verdicts["leaking", "resident"] == "grows"
    assert "1800 frames, 40 without an answer" in text
    assert "latency in the last quarter: p50 10.0 ms" in text
    assert "latency drifted by +0.0 ms (+0.0 to +0.0); under 0.5 ms: held" in text
