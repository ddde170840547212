"""The synchroniser: what belongs together comes together, and every other message says why not."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sync_scenes import EPOCH, MS, Event, add, drive, run, stamps_of

from amodal_core.drive.sync import Drop, SyncConfig, Synchronizer, SyncResult, estimate_offset


def quiet(stamps: list[int], index: int, slop: int) -> int:
    """How long after a message none of its topic is expected: from the stamps up to it."""
    gaps = [b - a for a, b in itertools.pairwise(stamps[: index + 1])]
    return int(min(gaps[-8:]) * 0.8) if gaps else slop // 2


def matched(streams: dict[str, list[int]], slop: int) -> list[tuple[int, ...]]:
    """The definition, all messages known: reference by reference, the nearest that is free.

    Free is what no set has used and, where the next reference may come near enough, what is not
    nearer to it. Where the next message of a topic is not expected to be nearer it is not asked.
    """
    name, *others = streams
    references = streams[name]
    used = dict.fromkeys(others, -1)
    sets = []
    for k, moment in enumerate(references):

        def free(stamp: int, k: int = k, moment: int = moment) -> bool:
            lead = stamp - moment
            following = references[k + 1 : k + 2] if quiet(references, k, slop) < 2 * lead else []
            return all(lead <= abs(other - stamp) for other in following)

        chosen = {}
        for topic in others:
            stamps = streams[topic]
            near = [s for s in stamps if abs(s - moment) <= slop and s > used[topic]]
            before = [s for s in near if s <= moment][-1:]
            after = [s for s in near if s > moment][:1]
            if before and quiet(stamps, stamps.index(before[0]), slop) >= 2 * (moment - before[0]):
                after = []
            candidates = [*before, *(s for s in after if free(s))]
            if candidates:
                chosen[topic] = min(candidates, key=lambda s: (abs(s - moment), s))
        if len(chosen) == len(others):
            used.update(chosen)
            sets.append((moment, *chosen.values()))
    return sets


def nearest(streams: dict[str, list[int]], slop: int) -> list[tuple[int, ...]]:
    """What sensors of steady rates must give: image and scan that are each other's nearest."""
    images, scans = streams.values()
    pairs = []
    for image in images:
        scan = min(scans, key=lambda s: (abs(s - image), s))
        if abs(scan - image) <= slop and image == min(images, key=lambda i: (abs(scan - i), i)):
            pairs.append((image, scan))
    return pairs


@st.composite
def streams(draw: st.DrawFn) -> dict[str, list[int]]:
    """Three topics of any gaps."""
    out = {}
    for topic in ("image", "lidar", "depth"):
        gaps = draw(st.lists(st.integers(1, 30), max_size=12))
        begin = draw(st.integers(0, 20))
        out[topic] = list(itertools.accumulate(gaps, initial=begin))[: len(gaps)]
    return out


def interleaved(draw: Any, queues: dict[str, list[int]]) -> list[Event]:
    """Any arrival order that keeps each topic's own."""
    left = {t: list(s) for t, s in queues.items() if s}
    events = []
    while left:
        topic = draw(st.sampled_from(sorted(left)))
        events.append((topic, left[topic].pop(0)))
        if not left[topic]:
            del left[topic]
    return events


CONFIG = {"topics": ("image", "lidar", "depth"), "timeout_ns": 10_000, "jump_ns": 10_000}


@given(st.data(), st.integers(0, 9))
def test_sets_are_those_of_the_definition_whatever_the_arrival(data: Any, slop: int) -> None:
    given_streams = data.draw(streams())
    events = interleaved(data.draw, given_streams)
    result = run(Synchronizer(SyncConfig(**CONFIG, slop_ns=slop)), events)
    assert stamps_of(result) == matched(given_streams, slop)


def arrivals(streams: dict[str, list[int]], delays: dict[str, int]) -> list[Event]:
    """All messages in the order of their arrival, each topic's its own delay after its stamp."""
    events = [(topic, stamp) for topic, stamps in streams.items() for stamp in stamps]
    return sorted(events, key=lambda e: e[1] + delays[e[0]])


@pytest.mark.parametrize("delay", [-30, -5, 0, 5, 30, 300])
def test_a_scan_that_comes_later_and_nearer_is_waited_for(delay: int) -> None:
    """A LiDAR of 20 Hz, 40 ms before and 10 ms after the images of a camera of 10 Hz."""
    images = [EPOCH + k * 100 * MS for k in range(1, 12)]
    scans = [EPOCH + 60 * MS + k * 50 * MS for k in range(23)]
    events = arrivals({"image": images, "lidar": scans}, {"image": delay * MS, "lidar": 0})
    result = run(Synchronizer(SyncConfig(("image", "lidar"), 50 * MS)), events)
    assert stamps_of(result) == [(i, i + 10 * MS) for i in images]


@pytest.mark.parametrize("delay", [-200, -20, 0, 20, 200])
def test_a_scan_goes_to_the_nearest_image_of_a_faster_camera(delay: int) -> None:
    """A camera of 30 Hz: of the images within reach of a scan, the nearest gets it."""
    images = [EPOCH + k * 33 * MS for k in range(40)]
    scans = [EPOCH + 29 * MS + k * 99 * MS for k in range(13)]
    events = arrivals({"image": images, "lidar": scans}, {"image": delay * MS, "lidar": 0})
    result = run(Synchronizer(SyncConfig(("image", "lidar"), 50 * MS)), events)
    assert stamps_of(result) == [(s + 4 * MS, s) for s in scans]


def test_a_scan_just_before_its_image_costs_no_time_once_the_rate_is_known() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 50 * MS))
    events = arrivals(
        {"image": [k * 100 * MS for k in range(1, 8)], "lidar": [k * 100 * MS for k in range(8)]},
        {"image": 30 * MS, "lidar": 0},
    )
    events = [(t, s + EPOCH - 30 * MS * (t == "lidar")) for t, s in events]
    counts = [len(sync.push(topic, stamp, None).sets) for topic, stamp in events]
    last = {topic: k for k, (topic, _) in enumerate(events)}
    assert counts[last["image"]] == 1
    assert sum(counts) == 7


@given(
    st.data(),
    st.sampled_from([(33, 100), (100, 50), (100, 100), (50, 100), (40, 33)]),
    st.integers(-50, 50),
)
def test_steady_sensors_of_any_rates_give_each_others_nearest(
    data: Any, periods: tuple[int, int], lag: int
) -> None:
    """Jitter of 4 % of the period, and any delay of either topic."""
    given_streams = {}
    for topic, period, begin in zip(("image", "lidar"), periods, (0, lag), strict=True):
        jitter = st.integers(-period * MS // 25, period * MS // 25)
        given_streams[topic] = [
            EPOCH + (begin + k * period) * MS + data.draw(jitter) for k in range(800 // period)
        ]
    delays = {t: data.draw(st.integers(0, 200)) * MS for t in given_streams}
    slop = 25 * MS
    result = run(
        Synchronizer(SyncConfig(("image", "lidar"), slop)), arrivals(given_streams, delays)
    )
    assert stamps_of(result) == nearest(given_streams, slop)


@given(st.data(), st.integers(0, 9))
def test_every_message_is_in_one_set_or_dropped_with_a_reason(data: Any, slop: int) -> None:
    topics = ("image", "lidar", "depth")
    events = data.draw(
        st.lists(st.tuples(st.sampled_from(topics), st.integers(0, 200)), max_size=40)
    )
    config = SyncConfig(topics, slop, queue_size=10, timeout_ns=50, jump_ns=80)
    sync = Synchronizer(config)
    total, newest = SyncResult(), -1
    for topic, stamp in events:
        result = sync.push(topic, stamp, (topic, stamp))
        for s in result.sets:
            assert s.stamp > newest or result.reset
            newest = s.stamp
            assert all(abs(t - s.stamp) <= slop for t in s.stamps.values())
            assert s.messages == {t: (t, at) for t, at in s.stamps.items()}
        if result.reset and not result.sets:
            newest = -1
        add(total, result)
    add(total, sync.flush())
    out = Counter((t, at) for s in total.sets for t, at in s.stamps.items())
    out += Counter((d.topic, d.stamp) for d in total.drops)
    assert out == Counter(events)
    assert all(d.reason for d in total.drops)


@given(st.data())
def test_each_topics_sets_go_forward(data: Any) -> None:
    given_streams = data.draw(streams())
    config = SyncConfig(**CONFIG, slop_ns=7)
    result = run(Synchronizer(config), interleaved(data.draw, given_streams))
    for topic in CONFIG["topics"]:
        of_topic = [s.stamps[topic] for s in result.sets]
        assert of_topic == sorted(set(of_topic))


def test_a_set_comes_with_its_last_message() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 50 * MS))
    for k, (topic, stamp) in enumerate(drive(5)):
        assert len(sync.push(topic, stamp, None).sets) == k % 2


def test_exact_matching_takes_equal_stamps_only() -> None:
    result = run(Synchronizer(SyncConfig(("image", "lidar"))), drive(3, 0) + drive(2, 1)[-1:])
    assert stamps_of(result) == [(EPOCH + k * 100 * MS,) * 2 for k in range(3)]
    result = run(Synchronizer(SyncConfig(("image", "lidar"))), drive(3, 1))
    assert result.sets == []
    assert len(result.drops) == 6


def test_a_known_offset_is_taken_off_before_matching() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 0, {"lidar": 3 * MS}))
    result = run(sync, drive(4))
    assert stamps_of(result) == [
        (EPOCH + k * 100 * MS, EPOCH + k * 100 * MS + 3 * MS) for k in range(4)
    ]


@pytest.mark.parametrize("lag", [3 * MS, -41 * MS, 0])
def test_an_unknown_offset_is_found_and_no_frame_is_lost(lag: int) -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 1 * MS, {"lidar": None}))
    assert sync.offsets_ns["lidar"] is None
    result = run(sync, sorted(drive(36, lag), key=lambda e: e[1]))
    assert sync.offsets_ns["lidar"] == lag
    assert len(result.sets) == 36
    assert result.drops == []


def test_offsets_are_found_through_jitter_and_dropouts(rng) -> None:  # type: ignore[no-untyped-def]
    image = [EPOCH + k * 100 * MS for k in range(20)]
    lidar = [s + 48 * MS + int(rng.normal(0, 2 * MS)) for k, s in enumerate(image) if k % 5]
    assert estimate_offset(image, lidar) == pytest.approx(48 * MS, abs=2 * MS)
    assert estimate_offset(image, lidar[:1]) == 0


def test_a_missing_message_costs_its_own_set_only() -> None:
    events = drive(6)
    gone = events.pop(5)
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    result = run(sync, events)
    assert [s.stamp for s in result.sets] == [EPOCH + k * 100 * MS for k in (0, 1, 3, 4, 5)]
    assert result.drops == [Drop("image", gone[1] - 3 * MS, "no lidar")]


def test_a_message_that_a_dropped_reference_left_serves_the_next() -> None:
    config = SyncConfig(("image", "lidar", "depth"), 9)
    events = [("lidar", 5), ("image", 6), ("image", 12), ("depth", 20), ("lidar", 40)]
    assert stamps_of(run(Synchronizer(config), events)) == [(12, 5, 20)]


def test_messages_out_of_order_within_a_topic_still_match() -> None:
    events = drive(4)
    events[2], events[4] = events[4], events[2]  # the second image comes after the third
    result = run(Synchronizer(SyncConfig(("image", "lidar"), 5 * MS)), events)
    late = [d for d in result.drops if d.topic == "image"]
    assert len(result.sets) + len(late) == 4
    events = [("lidar", 3), ("image", 100), ("image", 0), ("lidar", 103)]
    config = SyncConfig(("image", "lidar"), 5)
    assert stamps_of(run(Synchronizer(config), events)) == [(0, 3), (100, 103)]


def test_duplicates_are_dropped_as_such() -> None:
    config = SyncConfig(("image", "lidar"), 5)
    events = [("image", 0), ("image", 0), ("lidar", 1), ("lidar", 1), ("image", 0)]
    result = run(Synchronizer(config), events)
    assert stamps_of(result) == [(0, 1)]
    assert [(d.topic, d.reason) for d in result.drops] == [
        ("image", "duplicate"),
        ("lidar", "duplicate"),
        ("image", "duplicate"),
    ]


def test_a_silent_topic_times_out_and_comes_back() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS, timeout_ns=200 * MS))
    first = run(sync, drive(2), flush=False)
    silent = run(sync, [e for e in drive(12)[4:] if e[0] == "image"], flush=False)
    assert silent.sets == []
    assert {d.reason for d in silent.drops} == {"no lidar in time"}
    assert len(silent.drops) == 7  # those of the last 200 ms still wait
    back = run(sync, drive(14)[24:], flush=False)
    assert len(first.sets) == len(back.sets) == 2


def _optional(slop: int) -> Synchronizer:
    lacks = frozenset({"lidar"})
    return Synchronizer(SyncConfig(("image", "lidar"), slop, timeout_ns=200 * MS, optional=lacks))


@pytest.mark.parametrize("slop", [0, 5 * MS])
def test_a_set_may_lack_an_optional_topic(slop: int) -> None:
    events = [e for k, e in enumerate(drive(12, 0)) if e[0] == "image" or k % 6 == 1]
    result = run(_optional(slop), events)
    images = [stamp for topic, stamp in events if topic == "image"]
    scans = {stamp for topic, stamp in events if topic == "lidar"}
    assert stamps_of(result) == [(s, s) if s in scans else (s,) for s in images]
    assert result.drops == []


def test_an_exact_optional_topic_is_not_waited_for_between_its_messages() -> None:
    sync = _optional(0)
    for k in range(4):
        run(sync, [("image", EPOCH + k * 100 * MS), ("lidar", EPOCH + k * 100 * MS)], flush=False)
    last = EPOCH + 300 * MS
    for lead, sets in ((33, 1), (66, 1), (100, 0)):
        assert len(sync.push("image", last + lead * MS, None).sets) == sets
    assert stamps_of(sync.push("lidar", last + 100 * MS, None)) == [(last + 100 * MS,) * 2]


def test_a_silent_optional_topic_is_waited_for_once_until_it_speaks() -> None:
    sync = _optional(5 * MS)
    run(sync, drive(2), flush=False)
    images = [e for e in drive(12) if e[0] == "image"]
    waited = [len(sync.push(*e, None).sets) for e in images[2:]]
    assert waited == [0, 0, 0, 4, 1, 1, 1, 1, 1, 1]
    sync.push(*drive(13)[-1], None)
    assert len(sync.push(*drive(14)[-2], None).sets) == 0


def test_the_reference_may_be_the_silent_one() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS, timeout_ns=200 * MS))
    result = run(sync, [e for e in drive(40) if e[0] == "lidar"], flush=False)
    assert {d.reason for d in result.drops} == {"no image in time"}
    assert len(result.drops) >= 36


def test_time_alone_ends_waiting() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS, timeout_ns=200 * MS))
    sync.push("image", EPOCH, None)
    assert sync.advance(EPOCH + 150 * MS).drops == []
    assert sync.advance(EPOCH + 250 * MS).drops == [Drop("image", EPOCH, "no lidar in time")]


@pytest.mark.parametrize("pause", [1, 10, 3600])
def test_a_source_that_pauses_costs_no_frame_after_it_resumes(pause):
    """The clock ran on meanwhile; what was delayed with the source comes with old stamps."""
    sync = Synchronizer(SyncConfig(("image", "lidar"), slop_ns=20 * MS, timeout_ns=200 * MS))
    made = []
    for k in range(20):
        at = EPOCH + k * 100 * MS
        if k == 10:
            assert sync.advance(at + pause * 1000 * MS).drops == []
        for topic in ("lidar", "image"):
            made += sync.push(topic, at, topic).sets
    assert [s.stamp for s in made] == [EPOCH + k * 100 * MS for k in range(20)]


def test_memory_is_bounded_by_the_queue() -> None:
    config = SyncConfig(("image", "lidar"), 5, queue_size=10, timeout_ns=10**12)
    sync = Synchronizer(config)
    result = run(sync, [("image", 10 * k) for k in range(100)], flush=False)
    assert [d.reason for d in result.drops] == ["queue full"] * 90
    assert [d.reason for d in sync.flush().drops] == ["no lidar before the end"] * 10


def test_a_flushed_synchroniser_starts_afresh() -> None:
    sync = Synchronizer(SyncConfig(("image", "lidar"), 5 * MS))
    for _ in range(2):
        assert len(run(sync, drive(3)).sets) == 3
    sync.push("image", 7, None)
    assert sync.flush().drops == [Drop("image", 7, "no lidar before the end")]
    assert not run(sync, drive(3)).reset


def test_configurations_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"topics": ("image",)},
        {"topics": ("image", "image")},
        {"topics": ("a", "b"), "slop_ns": -1},
        {"topics": ("a", "b"), "offsets_ns": {"a": 1}},
        {"topics": ("a", "b"), "offsets_ns": {"c": 1}},
        {"topics": ("a", "b"), "queue_size": 3},
        {"topics": ("a", "b"), "optional": frozenset("a")},
        {"topics": ("a", "b"), "optional": frozenset("c")},
    ):
        with pytest.raises(ValueError, match=r"topic|slop|reference|queue_size"):
            SyncConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        Synchronizer(SyncConfig(("a", "b"))).push("c", 0, None)
