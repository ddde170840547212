"""The synchroniser where time itself is wrong: loops, jumps, stray stamps, clocks that are set."""

from __future__ import annotations

from collections import Counter

import pytest
from sync_scenes import EPOCH, MS, add, drive, run

from amodal_core.drive.sync import Drop, SyncConfig, Synchronizer, SyncResult


def test_a_looping_bag_resets_once_and_goes_on() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    first = run(sync, drive(36), flush=False)
    # The scan that was under way when the bag began anew is still from its end.
    again = drive(36)
    results = [sync.push(t, s, None) for t, s in again[:1]]
    results += [sync.push("lidar", EPOCH + 3600 * MS + 3 * MS, None)]
    results += [sync.push(t, s, None) for t, s in again[1:]]
    assert len(first.sets) == 36
    assert [r.reset for r in results].count(True) == 1
    # The first image of the new time has a witness in its scan, and is not lost.
    assert [r.reset for r in results[:3]] == [False, False, True]
    sets = [s for r in results for s in r.sets]
    assert [s.stamp for s in sets][-36:] == [EPOCH + k * 100 * MS for k in range(36)]


@pytest.mark.parametrize("frames", [7, 36])
def test_what_jumped_first_keeps_its_new_part(frames: int) -> None:
    """The LiDAR begins anew two scans before the camera, whose last image comes in between."""
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS, timeout_ns=5000 * MS))
    again = drive(frames)
    run(sync, again[:-2], flush=False)
    sync.push("lidar", again[-1][1], None)
    early = [e for e in again if e[0] == "lidar"][:2]
    events = [*early, again[-2], *(e for e in again if e not in early)]
    result = run(sync, events)
    assert [s.stamp for s in result.sets] == [e[1] for e in again if e[0] == "image"]
    assert result.reset


def test_time_before_a_jump_makes_nothing_late_after_it() -> None:
    """The newest stamp is the new one: an image waits for its scan as long as ever."""
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS, timeout_ns=200 * MS))
    run(sync, drive(36), flush=False)
    sync.advance(EPOCH + 10_000 * MS)
    first = run(sync, [("image", EPOCH), ("image", EPOCH + 100 * MS)], flush=False)
    assert {d.reason for d in first.drops} <= {"time jumped back"}
    rest = run(sync, [("lidar", EPOCH + 3 * MS), ("lidar", EPOCH + 103 * MS)], flush=False)
    assert [s.stamp for s in rest.sets] == [EPOCH, EPOCH + 100 * MS]


def test_a_stamp_from_the_far_future_does_not_stop_the_stream() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    events = drive(10)
    events.insert(8, ("lidar", EPOCH * 2))
    result = run(sync, events)
    assert len(result.sets) == 10
    assert result.drops == [Drop("lidar", EPOCH * 2, "stray stamp")]
    assert not result.reset


@pytest.mark.parametrize("topic", ["image", "lidar"])
@pytest.mark.parametrize(
    "stray",
    [7, 10**18, *(EPOCH + s * MS for s in (-3_600_000, 300, 1_800, 11_000, 7_200_000))],
    ids=str,
)
def test_one_stray_stamp_is_dropped_with_its_reason_and_nothing_is_reset(
    topic: str, stray: int
) -> None:
    """1970, another year, an hour or 0.7 s late or early: one message is no jump in time."""
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    events = drive(20)
    place = next(k for k, (t, s) in enumerate(events) if t == topic and s >= EPOCH + 1000 * MS)
    events.insert(place + 1, (topic, stray))
    result = run(sync, events)
    assert [s.stamp for s in result.sets] == [EPOCH + k * 100 * MS for k in range(20)]
    assert result.drops == [Drop(topic, stray, "stray stamp")]
    assert not result.reset


def test_strays_of_different_times_are_no_witnesses_of_each_other() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    events = drive(20)
    hour = 3600 * 1000 * MS
    events[12:12] = [("image", EPOCH - hour), ("lidar", EPOCH - 2 * hour), ("image", 7)]
    result = run(sync, events)
    assert len(result.sets) == 20
    assert [d.reason for d in result.drops] == ["stray stamp"] * 3
    assert not result.reset


@pytest.mark.parametrize("second", ["image", "lidar"])
@pytest.mark.parametrize("back", [1, 3600, 1_300_000_000])
def test_two_messages_of_the_new_time_are_a_jump_and_neither_is_lost(
    second: str, back: int
) -> None:
    """The source's next, or another source's; a bag that loops, a simulated clock that is reset."""
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    run(sync, drive(20), flush=False)
    again = [(t, s + 1900 * MS - back * 1000 * MS) for t, s in drive(20)]
    if second == "image":
        scan = again.pop(1)
        again.insert(2, scan)
    resets = []
    total = SyncResult()
    for event in again:
        result = sync.push(*event, event)
        resets.append(result.reset)
        add(total, result)
    assert resets == [False, True, *[False] * 38]
    assert [s.stamp for s in total.sets] == [s for t, s in again if t == "image"]
    assert {d.reason for d in total.drops} <= {"time jumped back"}


@pytest.mark.parametrize("period", [400, 1_000, 12_000])
def test_a_slow_stream_that_begins_anew_resets_once_and_loses_nothing(period: int) -> None:
    config = SyncConfig(("image", "lidar"), 5 * MS, timeout_ns=60_000 * MS)
    sync = Synchronizer(config)
    turn = [
        (topic, EPOCH + k * period * MS + lag)
        for k in range(6)
        for topic, lag in (("image", 0), ("lidar", 3 * MS))
    ]
    results = [sync.push(*event, event) for event in [*turn, *turn]]
    results.append(sync.flush())
    assert [s.stamp for r in results for s in r.sets] == [
        s for t, s in [*turn, *turn] if t == "image"
    ]
    assert [r.reset for r in results].count(True) == 1


def test_a_source_whose_stamps_mean_nothing_is_not_mute_for_ever() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    run(sync, drive(10), flush=False)
    wild = [("image", EPOCH - 1000 * MS * 3600 * (k * 7 % 11 + 1)) for k in range(12)]
    result = run(sync, wild, flush=False)
    assert result.reset
    assert Counter(d.reason for d in result.drops)["stray stamp"] >= 4


@pytest.mark.parametrize("gap", [600, 5_000, 3_600_000])
def test_after_a_gap_the_first_message_is_answered_with_its_partner_or_when_nothing_follows(
    gap: int,
) -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    run(sync, drive(10), flush=False)
    image, scan = drive(1, begin=EPOCH + 900 * MS + gap * MS)
    assert sync.push(*image, image) == SyncResult()
    assert [s.stamp for s in sync.push(*scan, scan).sets] == [image[1]]
    image, scan = drive(1, begin=EPOCH + 5 * gap * MS + 2000 * MS)
    assert sync.push(*scan, scan) == SyncResult()
    assert sync.advance(EPOCH).sets == []
    assert [s.stamp for s in sync.push(*image, image).sets] == [image[1]]


def test_a_clock_that_is_set_ahead_loses_nothing_and_resets_nothing() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    day = 86_400_000 * MS
    result = run(sync, [*drive(5), *((t, s + day) for t, s in drive(5))])
    expected = [EPOCH + k * 100 * MS for k in range(5)]
    assert [s.stamp for s in result.sets] == [*expected, *(s + day for s in expected)]
    assert (result.drops, result.reset) == ([], False)
