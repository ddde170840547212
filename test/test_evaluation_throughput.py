"""The search for the highest sustainable rate finds the capacity of pipelines of known capacity."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amodal_core.evaluation.throughput import RunResult, Search, measure, trimmed_mean
from amodal_core.evaluation.throughput_report import write_throughput


def pipeline(capacity: float, *, publisher: float = math.inf, stumbles: int = 0):
    """A node that needs 1 / capacity seconds a frame; while it works, the newest frame waits.

    Args:
        capacity: frames a second.
        publisher: the rate beyond which the player cannot publish.
        stumbles: frames lost at the beginning of the first run only, as a cold start loses them.
    """
    cold = [stumbles]

    def run(rate: float, seconds: float) -> RunResult:
        count = round(rate * seconds)
        period = 1 / min(rate, publisher)
        free, waiting = 0.0, None
        done: list[tuple[float, float]] = []
        for k in range(count):
            now = k * period
            while waiting is not None and free <= now:
                free = max(free, waiting) + 1 / capacity
                done.append((waiting, free))
                waiting = None
            if cold[0]:
                cold[0] -= 1
            else:
                waiting = now
        if waiting is not None:
            free = max(free, waiting) + 1 / capacity
            done.append((waiting, free))
        ends = [end for _, end in done]
        span = ends[-1] - ends[0] if len(ends) > 1 else 0.0
        return RunResult(
            rate=rate,
            sent=count,
            answered=len(done),
            published_hz=1 / period,
            answered_hz=(len(ends) - 1) / span if span else 0.0,
            latencies_ms=np.array([(end - begin) * 1e3 for begin, end in done]),
            drops={"node: overload": count - len(done)} if count > len(done) else {},
            cpu={"node": min(rate / capacity, 1.0)},
            memory_mb={"node": 100.0},
        )

    return run


@given(st.floats(1.5, 55.0))
@settings(max_examples=40)
def test_the_rate_found_is_the_capacity_within_a_step_and_the_allowed_lag(capacity):
    search = Search()
    found = measure(pipeline(capacity), search)
    assert capacity - search.step <= found.rate <= capacity / (1 - search.lag) + 1e-6
    assert not any("not even" in w for w in found.warnings)


def test_the_search_is_binary_then_linear_then_five_runs():
    """Capacity 10 in 1..60 Hz: halving from 30.5 ends in [8.4, 10.2], 1.84 wide.

    The scan then climbs in steps of .5 until the first rate beyond 10 / .95 = 10.5.
    """
    found = measure(pipeline(10.0), Search())
    rates = [round(r.rate, 2) for r, _ in found.probes]
    assert rates == [30.5, 15.75, 8.38, 12.06, 10.22, 10.72]
    assert [good for _, good in found.probes] == [False, False, True, False, True, False]
    assert [r.rate for r in found.runs] == [found.rate] * 5


def test_a_cold_start_loses_no_probe_because_a_trial_run_comes_first():
    """Capacity 40: the first probe, at 30.5 Hz, is sustained only by a graph that is warm."""
    warm, cold = measure(pipeline(40.0)), measure(pipeline(40.0, stumbles=50))
    assert [(r.rate, good) for r, good in cold.probes] == [
        (r.rate, good) for r, good in warm.probes
    ]


@pytest.mark.parametrize(
    ("published", "answered_hz", "answered", "sustained"),
    [
        (10.0, 10.0, 40, True),
        (10.0, 10.0, 38, True),  # 5 % of 40 frames may be missing
        (10.0, 10.0, 37, False),
        (10.0, 9.5, 40, True),
        (10.0, 9.4, 40, False),  # answers come slower than frames go out
        (9.4, 9.4, 40, False),  # the frames themselves went out too slowly
    ],
)
def test_a_run_is_sustained_within_the_allowed_loss_and_lag(
    published, answered_hz, answered, sustained
):
    result = RunResult(10.0, 40, answered, published, answered_hz, np.ones(answered))
    assert Search().sustained(result) == sustained


def test_best_and_worst_of_the_five_runs_are_dropped_from_every_number():
    """Latencies of 9, 1, 5, 3 and 100 ms: the middle three give (3 + 5 + 9) / 3."""
    latencies = iter([9.0, 1.0, 5.0, 3.0, 100.0])

    def run(rate: float, seconds: float) -> RunResult:
        final = seconds == Search().run_seconds
        ms = next(latencies) if final else 1.0
        good = rate <= 10
        return RunResult(rate, 40, 40 if good else 0, rate, rate if good else 0, np.full(40, ms))

    found = measure(run)
    assert found.numbers["p50_ms"] == pytest.approx(17 / 3)
    assert trimmed_mean([1, 2, 3, 4, 1000]) == 3


def tiring(limit: float, most_seconds: float = 5.0):
    """Keeps up with anything for a few seconds, for longer with `limit` frames a second alone."""
    quick, slow = pipeline(1000.0), pipeline(limit)
    return lambda rate, seconds: (quick if seconds < most_seconds else slow)(rate, seconds)


def test_a_rate_that_five_runs_do_not_bear_out_is_not_reported():
    search = Search(highest=12.0)
    found = measure(tiring(8.0), search)
    assert found.rate <= 8.0 / (1 - search.lag)
    assert len(found.runs) == 5
    assert sum(not search.sustained(r) for r in found.runs) <= 1
    assert found.numbers["missed_share"] <= search.loss
    assert any("was sustained in a probe of 4 s, in 5 runs of 8 s" in w for w in found.warnings)
    # Those that failed are told, and ended with the second failure.
    failed = [r for r, good in found.probes if not good and r.sent >= 8 * 8]
    assert len(failed) == 2 * len({r.rate for r in failed})
    hopeless = measure(tiring(0.1), Search(highest=4.0))
    assert math.isnan(hopeless.rate)
    assert "not even 1 Hz is sustained in 5 runs" in hopeless.warnings[-1]


def test_a_pipeline_too_slow_for_the_lowest_rate_gets_no_rate():
    found = measure(pipeline(0.2))
    assert math.isnan(found.rate)
    assert found.runs == []
    assert "not even 1 Hz" in found.warnings[0]


def test_a_rate_between_the_lowest_and_the_first_failure_is_still_found():
    """Capacity 1.4: no probe of the binary search passes, the scan begins at the lowest rate."""
    assert measure(pipeline(1.4)).rate == pytest.approx(1.0)


def test_a_pipeline_faster_than_the_search_says_so():
    found = measure(pipeline(500.0), Search(highest=30.0))
    assert found.rate == pytest.approx(30.0, abs=0.5)
    assert any("search higher" in w for w in found.warnings)


def test_a_player_that_cannot_publish_fast_enough_is_not_taken_for_the_pipeline():
    found = measure(pipeline(50.0, publisher=12.0))
    assert found.rate <= 12.0 / 0.95
    assert any("player itself" in w for w in found.warnings)


def test_drops_are_summed_by_reason_and_a_tolerated_loss_is_counted():
    found = measure(pipeline(10.0), Search(loss=0.2, lag=0.2))
    assert found.rate > 10.5
    assert found.drops["node: overload"] > 0
    assert found.numbers["missed_share"] > 0
    assert found.cpu == {"node": pytest.approx(1.0)}


def test_what_was_found_is_written_as_json_and_as_a_page(tmp_path):
    search = Search()
    found = measure(pipeline(10.0), search)
    page, numbers = write_throughput(found, search, tmp_path, "geometric on cpu", "drive")
    values = json.loads(numbers.read_text())
    assert values["rate_hz"] == found.rate
    assert len(values["runs"]) == 5
    assert "geometric on cpu" in page.read_text()
    none = measure(pipeline(0.2))
    assert (
        json.loads(write_throughput(none, search, tmp_path, "m", "b")[1].read_text())["rate_hz"]
        is None
    )


def test_impossible_searches_are_refused():
    with pytest.raises(ValueError, match="rates"):
        Search(lowest=5, highest=5)
