"""The synchroniser takes a message within 20 us; beside it, a search through all that is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amodal_core.drive.sync import SyncConfig, Synchronizer

MS = 1_000_000
TOPICS = ("image", "camera_info", "depth", "lidar")
FRAMES = 250


def messages() -> list[tuple[str, int]]:
    rng = np.random.default_rng(0)
    lags = {"image": 0, "camera_info": 0, "depth": 0, "lidar": 3 * MS}
    return [
        (topic, k * 100 * MS + lags[topic] + int(rng.integers(0, MS)))
        for k in range(FRAMES)
        for topic in TOPICS
    ]


@pytest.mark.benchmark(group="1000 messages of 4 topics (budget 20 ms)")
def test_sync_ours(benchmark: Any) -> None:
    events = messages()

    def ours() -> int:
        sync = Synchronizer(SyncConfig(TOPICS, 5 * MS))
        return sum(len(sync.push(topic, stamp, None).sets) for topic, stamp in events)

    assert benchmark(ours) == FRAMES


@pytest.mark.benchmark(group="1000 messages of 4 topics (budget 20 ms)")
def test_sync_naive(benchmark: Any) -> None:
    """The last 32 of each topic in NumPy arrays, searched at each message."""
    events = messages()

    def naive() -> int:
        kept: dict[str, np.ndarray] = {t: np.zeros(0, np.int64) for t in TOPICS}
        sets = 0
        for topic, stamp in events:
            kept[topic] = np.sort(np.append(kept[topic], stamp))[-32:]
            for moment in kept["image"]:
                near = {t: s[np.abs(s - moment) <= 5 * MS] for t, s in kept.items()}
                if all(len(s) for s in near.values()):
                    sets += 1
                    for t, s in near.items():
                        kept[t] = kept[t][kept[t] != s[np.argmin(np.abs(s - moment))]]
                    break
        return sets

    assert benchmark(naive) == FRAMES
