"""The synchroniser takes a message within 20 us."""

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
