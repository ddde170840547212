"""Where a model's frame spends its CPU time: milliseconds of user and system time by stage.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/stages.py data/sample_drive --model fused
    ... --set runtime=torch --functions 25

Frames are read and projected first; then the whole pipeline runs over them in rounds. Of each frame
the quickest round counts, and the table shows the mean over frames: other work on the machine adds
to a round, never takes from it. Stages within stages are indented by their names' order.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from dataclasses import replace

import numpy as np
import torch

from amodal_core import frame as frame_module
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.frame import Frame
from amodal_core.models import registry
from amodal_core.pipeline import Pipeline
from amodal_core.settings import parse_rules


def read(path: str, count: int) -> list[Frame]:
    """The first frames of a drive."""
    frames = []
    with BagDrive(path) as drive:
        for item in drive:
            frames.append(item.frame)
            if len(frames) == count:
                break
    return frames


def measured(pipeline: Pipeline, frames: list[Frame], rounds: int) -> dict[str, np.ndarray]:
    """(frames,) milliseconds of CPU of each stage's quickest round, by stage."""
    best: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        pipeline.reset()
        for n, frame in enumerate(frames):
            begin = time.process_time()
            step = pipeline.run(replace(frame))  # nothing is kept of an earlier round
            total = (time.process_time() - begin) * 1e3
            for stage, ms in (step.report.timings | {"all": total}).items():
                row = best.setdefault(stage, np.full(len(frames), np.inf))
                row[n] = min(row[n], ms)
    return best


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("drive")
    parser.add_argument("--model", default=registry.DEFAULT)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--functions", type=int, default=0, help="show so many of the slowest")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Reports measure wall time, which other work on the machine adds to.
    frame_module.perf_counter = time.process_time  # type: ignore[attr-defined]
    frames = read(options.drive, options.frames)
    settings = parse_rules(options.settings, "--set")
    pipeline = Pipeline(registry.create(options.model, **settings))
    for note in pipeline.run(frames[0]).report.warnings:
        print(note.text)
    profile = cProfile.Profile(time.process_time)
    if options.functions:
        measured(pipeline, frames, 1)
        profile.enable()
    result = measured(pipeline, frames, options.rounds)
    profile.disable()
    size = frames[0].image.shape if frames[0].image is not None else frames[0].size
    points = np.mean([0 if f.points is None else len(f.points) for f in frames])
    print(f"{options.model}, {size[1]}x{size[0]}, {points:.0f} points, {len(frames)} frames")
    for stage, ms in result.items():
        known = ms[np.isfinite(ms)]
        print(f"{stage:24}{known.mean():8.2f} ms{known.max():8.2f} at most")
    if options.functions:
        pstats.Stats(profile).sort_stats("tottime").print_stats(options.functions)


if __name__ == "__main__":
    main()
