"""The first run waits for nothing that can be done beforehand, and says so where it must."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from amodal_core.frame import Frame
from amodal_core.tracking import make_tracker
from amodal_core.warm_up import _rectangles, warm_up_tracker
from amodal_ros.cli import _warm
from amodal_ros.cli.main import app

KERNELS = """
from numba import njit
from amodal_core.progress import announce_compiling
announce_compiling(), announce_compiling()

@njit(cache=True)
def one(x):
    return x + 1

@njit(cache=True)
def two(x):
    return x + 2

assert (one(1), two(1)) == (2, 3)
"""


def test_compiling_is_told_once_and_not_where_it_was_done(tmp_path):
    script = tmp_path / "kernels.py"
    script.write_text(KERNELS)
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": root}
    told = [
        subprocess.run(
            [sys.executable, str(script)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stderr.splitlines()
        for _ in range(2)
    ]
    assert len(told[0]) == 1
    assert "amodal doctor --warm" in told[0][0]
    assert told[1] == []


@pytest.mark.parametrize("name", ["motion", "quasi_dense"])
def test_a_tracker_forgets_what_warmed_it(name):
    objects = _rectangles((60, 100), [(20, 10, 60, 50), (70, 20, 90, 45)])
    ids = []
    for warm in (False, True):
        tracker = make_tracker(name)
        if warm:
            warm_up_tracker(tracker)
        for k in range(3):
            stamp = 5 + k * 100_000_000
            frame = Frame(stamp, depth=np.zeros((60, 100), np.float32))
            tracks = tracker.step(objects, stamp, frame)
        ids.append(np.asarray(tracks.ids).tolist())
    assert len(ids[0]) == 2
    assert ids[0] == ids[1]


@pytest.fixture
def interpreter(monkeypatch, tmp_path):
    """In the interpreter's place, a script that runs for some time and fails for one job."""
    script = tmp_path / "python"
    script.write_text(
        f"#!/bin/sh\ncd {tmp_path}\ndate +%s.%N > $3.begin\nsleep 0.3\ndate +%s.%N > $3.end\n"
        '[ "$3" = tracking ] && { echo "a trace" >&2; echo "no room" >&2; exit 1; }\nexit 0\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return lambda name, edge: float((tmp_path / f"{name}.{edge}").read_text())


def test_jobs_run_beside_each_other_and_the_last_one_after_all(interpreter):
    begin = time.monotonic()
    results = {name: error for name, _, error in _warm.run_all(workers=3)}
    assert time.monotonic() - begin < 30
    assert results == {"network": "", "geometry": "", "tracking": "no room", "replay": ""}
    early = ("network", "geometry", "tracking")
    assert max(interpreter(n, "begin") for n in early) < min(interpreter(n, "end") for n in early)
    assert interpreter("replay", "begin") >= max(interpreter(n, "end") for n in early)


def test_the_doctor_warms_up_and_tells_what_failed(interpreter):
    done = CliRunner().invoke(app, ["doctor", "--warm"])
    assert done.exit_code == 1
    assert "tracking: no room" in done.output
    assert "network: ready" in done.output
