"""What the first run would wait for, done beforehand: kernels are compiled, the graph is written.

Each job runs in a process of its own, as many at once as there are cores; the last one replays some
frames of the sample drive and finds what the others left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def _geometry() -> None:
    from dataclasses import replace

    from amodal_core.frame import Report
    from amodal_core.geometry.lifting import lift
    from amodal_core.models.geometric import Geometric
    from amodal_core.pipeline import Pipeline
    from amodal_core.warm_up import warm_up_frame

    frame, model = Pipeline.project(warm_up_frame(), Report()), Geometric()
    instances = model.infer([frame])[0]
    lift(replace(instances, boxes3d=None), frame, model.classes)


def _tracking() -> None:
    from amodal_core.tracking import make_tracker
    from amodal_core.warm_up import warm_up_tracker

    for name in ("motion", "quasi_dense"):
        warm_up_tracker(make_tracker(name))


def _network() -> None:
    from amodal_core.frame import Report
    from amodal_core.models.registry import create
    from amodal_core.pipeline import Pipeline
    from amodal_core.warm_up import warm_up_frame

    # The default's other half is another job.
    create("flagship").infer([Pipeline.project(warm_up_frame(), Report())])


def _replay() -> None:
    from amodal_core.models.registry import DEFAULT, create
    from amodal_core.pipeline import Pipeline
    from amodal_core.replay import ReplayOptions, replay
    from amodal_ros.cli.demo import sample_drive

    drive = sample_drive()
    if drive is not None:
        with tempfile.TemporaryDirectory() as out:
            replay(drive, Path(out) / "out", Pipeline(create(DEFAULT)), ReplayOptions(3))


# The longest first; the last one needs what the others compile.
JOBS: dict[str, Callable[[], None]] = {
    "network": _network,
    "geometry": _geometry,
    "tracking": _tracking,
    "replay": _replay,
}


def run_all(workers: int | None = None) -> Iterator[tuple[str, float, str]]:
    """Do all jobs.

    Args:
        workers: processes at once; as many as cores where none are given.

    Yields:
        Name, seconds and the last line of the error, "" for none, of each job that has ended.
    """
    workers = workers or len(os.sched_getaffinity(0))
    *early, last = JOBS
    yield from _run(early, workers)
    yield from _run([last], 1)


def _run(names: list[str], workers: int) -> Iterator[tuple[str, float, str]]:
    waiting = list(names)
    running: dict[str, tuple[float, subprocess.Popen[str]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                command = [sys.executable, "-m", "amodal_ros.cli._warm", name]
                running[name] = (
                    time.monotonic(),
                    subprocess.Popen(
                        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                    ),
                )
            for name, (began, process) in list(running.items()):
                try:
                    _, errors = process.communicate(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                del running[name]
                line = (errors.strip().splitlines() or ["it ended without a word"])[-1]
                yield name, time.monotonic() - began, line if process.returncode else ""
    finally:
        for _, process in running.values():
            process.kill()
            process.wait()


def _main(names: list[str]) -> None:
    """One job here, or several in processes of their own."""
    if len(names) == 1:
        JOBS[names[0]]()
        return
    for name, _, error in _run(names, len(os.sched_getaffinity(0))):
        if error:
            print(f"{name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    _main(sys.argv[1:])
