"""Trackers take 100 detections into 100 tracks within 2 ms."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from amodal_core.frame import Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates, visible_from_order
from amodal_core.tracking import make_tracker

SIZE = (375, 1242)
STEP = 100_000_000


def crowd(step: int, n: int = 100) -> Instances:
    """As many round objects of a car's and a pedestrian's size, all moving."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 1150, n), rng.uniform(130, 260, n)
    depths = rng.uniform(6, 60, n)
    w, h = 900 / depths * rng.uniform(0.5, 1.5, n), 900 / depths
    x = x + step * rng.uniform(-4, 4, n)
    crops = []
    for width, height in zip(w.astype(int), h.astype(int), strict=True):
        v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        crops.append(u**4 + v**4 < 1)
    amodal = RleMasks.from_crops(crops, np.stack([x, y], 1).astype(int), SIZE)
    visible = visible_from_order(amodal, depths)
    return Instances(
        SIZE,
        amodal.boxes(),
        visible.boxes(),
        np.full(n, 0.9, np.float32),
        np.zeros(n, np.int64),
        RleMasks(SIZE, amodal.counts),
        RleMasks(SIZE, visible.counts),
        occlusion_rates(amodal, visible),
        depths.astype(np.float32),
        occlusion_order(depths, amodal, visible),
    )


def looks(step: int, n: int) -> np.ndarray:
    """(N, 256) float32 embeddings, nearly the same at every step."""
    of_each = np.random.default_rng(2).normal(size=(n, 256))
    noise = 0.1 * np.random.default_rng([3, step]).normal(size=(n, 256))
    return (of_each + noise).astype(np.float32)


@pytest.mark.benchmark(group="tracker, 100 detections x 100 tracks (budget 2 ms)")
@pytest.mark.parametrize("name", ["motion", "quasi_dense"])
def test_tracker_ours(benchmark: Any, name: str) -> None:
    steps(benchmark, name, 100)


@pytest.mark.benchmark(group="tracker, 200 detections x 200 tracks")
@pytest.mark.parametrize("name", ["motion", "quasi_dense"])
def test_tracker_ours_with_twice_the_objects(benchmark: Any, name: str) -> None:
    steps(benchmark, name, 200)


def steps(benchmark: Any, name: str, n: int) -> None:
    """Time the steps of a tracker over n objects that all stay in view."""
    frames = [crowd(k, n) for k in range(12)]
    if name == "quasi_dense":
        for k, seen in enumerate(frames):
            seen.embeddings = looks(k, n)
    # There and back, so that the objects stay in view however often it is repeated.
    order = itertools.cycle([*range(12), *range(10, 0, -1)])
    tracker, stamps = make_tracker(name), itertools.count(0, STEP)
    for _ in range(4):
        tracker.step(frames[next(order)], next(stamps))

    def fresh() -> tuple[tuple[Instances, int], dict]:
        # Detections arrive as bytes: parsing them belongs to the step.
        seen = frames[next(order)][:]
        seen.amodal = RleMasks(SIZE, seen.amodal.rle().counts)
        seen.visible = RleMasks(SIZE, seen.visible.rle().counts)
        return (seen, next(stamps)), {}

    tracks = benchmark.pedantic(tracker.step, setup=fresh, rounds=100)
    # What shows in no frame is nothing to follow.
    shown = np.any([f.visible.rle().areas() > 0 for f in frames], axis=0)
    assert len(tracks) >= 0.97 * shown.sum()
