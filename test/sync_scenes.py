"""Streams of stamps, and all that a synchroniser makes of them."""

from __future__ import annotations

from amodal_core.drive.sync import Synchronizer, SyncResult

MS = 1_000_000
EPOCH = 1_316_995_345_000_000_000  # real stamps do not fit into a float64
Event = tuple[str, int]


def run(sync: Synchronizer, events: list[Event], flush: bool = True) -> SyncResult:
    """Push all, each message being its own (topic, stamp); one result of everything."""
    total = SyncResult()
    for topic, stamp in events:
        add(total, sync.push(topic, stamp, (topic, stamp)))
    if flush:
        add(total, sync.flush())
    return total


def add(total: SyncResult, result: SyncResult) -> None:
    total.sets += result.sets
    total.drops += result.drops
    total.reset |= result.reset


def stamps_of(result: SyncResult) -> list[tuple[int, ...]]:
    return [tuple(s.stamps.values()) for s in result.sets]


def drive(frames: int, lag: int = 3 * MS, begin: int = EPOCH) -> list[Event]:
    """Image and LiDAR at 10 Hz, the LiDAR stamped later."""
    return [
        event
        for k in range(frames)
        for event in (("image", begin + k * 100 * MS), ("lidar", begin + k * 100 * MS + lag))
    ]
