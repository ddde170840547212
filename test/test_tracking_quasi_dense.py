"""Identities by appearance: as published where asked, and through occlusion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tracking_scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking_scenes import SIZE, STEP, Scene, Thing, id_at, random_instances, view

from amodal_core.errors import InputError
from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking import QuasiDenseTracker, QuasiDenseTrackerConfig, Tracker, make_tracker
from amodal_core.tracking.motion import RANGE, Motion, measure, measurement_noise
from amodal_core.tracking.quasi_dense import PRESETS, box_iou, plausible
from amodal_core.tracking.track_store import TrackStore

EAST, WEST, BIG, ALIKE = (6.0, 0, 0, 0), (0, 6.0, 0, 0), (0, 0, 6.0, 0), (5.5, 2.0, 0, 0)


def play(
    scene: Scene,
    frames: range | int,
    tracker: QuasiDenseTracker | None = None,
    with_depth: bool = True,
) -> list[Tracks]:
    return tracking_scenes.play(scene, frames, tracker or QuasiDenseTracker(), with_depth)


def car(x: float, depth: float = 20.0, name: str = "car", **more: object) -> Thing:
    return tracking_scenes.car(x, depth, name, **{"embedding": EAST} | more)


def lorry(x: float, w: float = 150) -> Thing:
    return replace(tracking_scenes.lorry(x, w), embedding=BIG)


class Published:
    """The published tracker, one object at a time, in plain loops."""

    def __init__(self, config: QuasiDenseTrackerConfig) -> None:
        self.c, self.tracks, self.backdrops, self.count, self.frame = config, {}, [], 0, -1

    @staticmethod
    def iou(a, b):
        w = min(a[2], b[2]) - max(a[0], b[0])
        h = min(a[3], b[3]) - max(a[1], b[1])
        if w <= 0 or h <= 0:
            return 0.0
        areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return w * h / (areas - w * h)

    def scores(self, embeds, memory):
        dots = np.array([[float(np.dot(e, m[0])) for m in memory] for e in embeds])
        if self.c.match_metric == "cosine":
            return np.array(
                [
                    [np.dot(e, m[0]) / np.linalg.norm(e) / np.linalg.norm(m[0]) for m in memory]
                    for e in embeds
                ]
            )
        rows = np.exp(dots - dots.max(1, keepdims=True))
        rows /= rows.sum(1, keepdims=True)
        if self.c.match_metric == "softmax":
            return rows
        columns = np.exp(dots - dots.max(0, keepdims=True))
        columns /= columns.sum(0, keepdims=True)
        return (rows + columns) / 2

    def step(self, boxes, scores, labels, embeds):
        """Id of each detection, -1 where it has none."""
        c, result = self.c, [-1] * len(boxes)
        self.frame += 1
        if c.skip_empty and not result:
            return result
        remaining = []
        order = sorted(range(len(boxes)), key=lambda i: -scores[i])
        for place, i in enumerate(order):
            limit = c.nms_backdrop_iou_thr if scores[i] < c.obj_score_thr else c.nms_class_iou_thr
            if all(self.iou(boxes[i], boxes[j]) <= limit for j in order[:place]):
                remaining.append(i)
        memory = [(t["embed"], t["label"], n) for n, t in self.tracks.items()]
        memory += [(e, label, -1) for one in self.backdrops for e, label in one]
        ids = dict.fromkeys(remaining, -1)
        if remaining and self.tracks:
            fits = self.scores([embeds[i] for i in remaining], memory)
            if c.with_cats:
                fits = fits * np.array([[labels[i] == m[1] for m in memory] for i in remaining])
            for row, i in enumerate(remaining):
                best = int(fits[row].argmax())
                if fits[row, best] > c.match_score_thr and memory[best][2] > -1:
                    if scores[i] > c.obj_score_thr:
                        ids[i] = memory[best][2]
                        fits[:row, best] = fits[row + 1 :, best] = 0
                    elif fits[row, best] > c.nms_conf_thr:
                        ids[i] = -2
        for i in remaining:
            if ids[i] == -1 and scores[i] > c.init_score_thr:
                ids[i] = self.count
                self.count += 1
        for i in remaining:
            if ids[i] > -1:
                old = self.tracks.get(ids[i])
                new = embeds[i]
                if old:
                    new = (1 - c.memo_momentum) * old["embed"] + c.memo_momentum * new
                self.tracks[ids[i]] = {"embed": new, "label": labels[i], "last": self.frame}
                result[i] = ids[i]
        fresh = []
        for place, i in enumerate(remaining):
            near = (self.iou(boxes[i], boxes[j]) for j in remaining[:place])
            if ids[i] == -1 and all(n <= c.nms_backdrop_iou_thr for n in near):
                fresh.append((embeds[i], labels[i]))
        self.backdrops = [fresh, *self.backdrops][: c.memo_backdrop_frames]
        self.tracks = {
            n: t for n, t in self.tracks.items() if self.frame - t["last"] < c.memo_tracklet_frames
        }
        return result


@pytest.mark.parametrize("metric", ["bisoftmax", "softmax", "cosine"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("backdrops", [1, 3])
def test_without_what_is_ours_it_is_the_published_tracker(preset, metric, backdrops):
    config = PRESETS[preset].published()
    config = replace(config, match_metric=metric, memo_backdrop_frames=backdrops)
    reappeared = duplicates = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        prototypes = rng.normal(size=(7, 6)) * 1.5
        ours, theirs, last = QuasiDenseTracker(config), Published(config), {}
        for k in range(50):
            who = rng.permutation(7)[: rng.integers(0, 7)]
            who = np.concatenate([who, who[:2]])  # and second looks at two of them
            n = len(who)
            embedding = (prototypes[who] + rng.normal(size=(n, 6)) * 0.4).astype(np.float32)
            corner = np.stack([who % 4 * 90.0, who // 4 * 55.0], 1) + rng.uniform(0, 25, (n, 2))
            boxes = np.concatenate([corner, corner + rng.uniform(20, 40, (n, 2))], 1)
            boxes = boxes.astype(np.float32)
            masks = RleMasks.from_boxes(boxes, SIZE)
            instances = replace(
                Instances.empty(SIZE), amodal_boxes=boxes, visible_boxes=boxes,
                scores=rng.random(n).astype(np.float32) ** 0.5, class_ids=who % 2,
                amodal=masks, visible=masks, occlusion_rates=np.zeros(n, np.float32),
                depths=np.zeros(n, np.float32), occluders=np.zeros((n, n), bool),
                embeddings=embedding,
            )  # fmt: skip
            expected = theirs.step(
                boxes.astype(float), instances.scores, who % 2, embedding.astype(float)
            )
            tracks = ours.step(instances, k * STEP)
            result = {tuple(b): i for b, i in zip(tracks.amodal_boxes, tracks.ids, strict=True)}
            assert [result.get(tuple(b), -1) for b in boxes] == expected, k
            duplicates += sum(i == -1 for i in expected)
            for i in expected:
                reappeared += i >= 0 and k - last.get(i, k) > 1
                last[i] = k
    assert duplicates > 3
    assert reappeared > 20


def test_one_against_one_with_another_object_is_no_match():
    def other(k):
        return [car(100 + k)] if k < 10 else [car(102 + k, name="other", embedding=WEST)]

    def far(k):
        return [car(20)] if k < 10 else [car(320, name="look-alike")]

    def deep(k):
        return [car(100)] if k < 10 else [car(100, 55.0, name="behind")]

    for scene in (other, far, deep):
        ours = play(scene, 12)
        assert id_at(ours[9], scene(9)[0]) == 0
        assert id_at(ours[11], scene(11)[0]) > 0
        # The published one takes anything for the one that it remembers.
        theirs = play(scene, 12, QuasiDenseTracker(PRESETS["driving"].published()))
        assert id_at(theirs[11], scene(11)[0]) == 0


def slowly_plausible(motion, measured, boxes, share):
    """Distances of centre and range by whole arrays, a layer for each quantity; inf if ruled out.

    Beside them which of the limits each pair keeps: place, overlap, size, range.
    """
    used = slice(0, RANGE + 1)
    error = measured[:, None, used] - motion.values[None, :, used]
    variance = measurement_noise(measured)[:, None, used] ** 2
    variance = variance + motion.covariances[None, :, used, 0]
    squares = error**2 / variance
    apart = squares[..., 0] + squares[..., 1] + np.nan_to_num(squares[..., RANGE])
    turned = variance[..., :2] + (0.5 * np.exp(measured[:, None, 2:4])) ** 2
    place = (error[..., :2] ** 2 / turned).sum(2) <= 16
    overlap = np.array([[Published.iou(a, b) for b in motion.boxes()] for a in boxes]) > 0.1
    size = np.abs(error[..., 2:4]).max(2) <= 1.6
    nearer = np.minimum(measured[:, None, RANGE], motion.values[None, :, RANGE])
    open_range = 2 * np.sqrt(motion.covariances[None, :, RANGE, 0])
    far = np.abs(error[..., RANGE]) > 2 + share * nearer + open_range
    possible = (place | overlap) & size & ~far
    return np.where(possible, np.minimum(apart, 16), np.inf), (place, overlap, size, ~far)


def random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    corner = rng.uniform(-20, 400, (n, 2))
    return np.concatenate([corner, corner + np.exp(rng.uniform(1, 5, (n, 2)))], 1)


def test_which_pairs_are_possible_is_what_whole_arrays_say_too():
    rng, limits = np.random.default_rng(0), []
    for _ in range(20):
        before, now = random_boxes(rng, 40), random_boxes(rng, 30)
        now[:20] = before[:20] + rng.normal(size=(20, 4)) * 8
        now[20] = now[20, [2, 1, 0, 3]]  # inside out
        ranges = [np.where(rng.random(n) < 0.2, 0, rng.uniform(5, 40, n)) for n in (40, 30)]
        motion = Motion.started(measure(before, ranges[0], None))
        motion.predict(0.1)
        motion.update(np.arange(10), measure(before[:10], ranges[0][:10], None))
        measured = measure(now, ranges[1], None)
        expected, remaining = slowly_plausible(motion, measured, now, 0.12)
        result = plausible(motion, measured, now, 0.12)
        assert np.array_equal(np.isfinite(result), np.isfinite(expected))
        np.testing.assert_allclose(result, expected, rtol=1e-9)
        slowly = [[Published.iou(a, b) for b in before] for a in now]
        np.testing.assert_allclose(box_iou(now, before), slowly, rtol=1e-12)
        limits.append([~k for k in remaining] + [np.isfinite(expected), expected == 16])
    # All limits rule pairs out, and pairs remain, near ones and such as only overlap.
    assert all(np.concatenate(one).sum() > 100 for one in zip(*limits, strict=True))


def test_an_object_of_another_class_that_looks_alike_takes_nothing_away():
    def ids(config):
        tracker, out = QuasiDenseTracker(config), []
        for k in range(3):
            rider = Thing("rider", 100 + k, 10, 40, 30, 20.0, 2, embedding=EAST)
            _, instances, _ = view([rider, car(100 + k)])
            out.append(tracker.step(instances, k * STEP).ids.tolist())
        return out

    published = PRESETS["driving"].published()
    assert ids(replace(published, cats_first=True)) == [[0, 1]] * 3
    # Normalised together each gets half of what speaks for the two, which is not enough.
    assert ids(published) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("embedding", [(EAST, WEST), (EAST, ALIKE), (EAST, EAST)])
def test_crossing_look_alikes_keep_their_ids(embedding):
    def scene(k: int) -> list[Thing]:
        return [
            car(20 + 6 * k, 20.0, "east", embedding=embedding[0]),
            car(320 - 6 * k, 24.0, "west", embedding=embedding[1]),
        ]

    tracks = play(scene, 50)
    for k in (0, 10, 18, 33, 49):
        assert [id_at(tracks[k], t) for t in scene(k)] == [0, 1], k
    assert {i for t in tracks for i in t.ids.tolist()} == {0, 1}


@pytest.mark.parametrize("with_depth", [True, False])
@pytest.mark.parametrize(("speed", "width", "hidden"), [(11.0, 150, 10), (5.6, 196, 30)])
def test_a_hidden_object_keeps_its_id_and_its_mask_moves_on(speed, width, hidden, with_depth):
    start = 310 - 20 - width  # the lorry ends where the car comes out

    def scene(k: int) -> list[Thing]:
        return [lorry(start, width), car(20 + speed * k)]

    frames = int((310 - 20) / speed)
    tracks = play(scene, frames, with_depth=with_depth)
    unseen = [k for k in range(frames) if len(view(scene(k))[0]) == 1]
    assert len(unseen) >= hidden
    for k, result in enumerate(tracks):
        assert result.ids.tolist() == [0, 1], k
        assert result.coasted.tolist() == [False, k in unseen]
        truth = RleMasks.from_boxes(np.array([scene(k)[1].box]), SIZE)
        assert result.amodal.rle().iou(truth)[1] > 0.55
        if k in unseen:
            assert result.visible.rle().areas()[1] == 0
            assert result.occluders.tolist() == [[False, False], [True, False]]
            np.testing.assert_allclose(result.embeddings[1], EAST, atol=1e-3)


def test_lidar_decides_whether_a_hidden_place_is_really_hidden():
    # The car goes out of sight; the place where it should be is empty, and the LiDAR shows it.
    def gone(k: int) -> list[Thing]:
        return [car(100)] if k < 10 else []

    assert [len(t) for t in play(gone, 20)] == [1] * 11 + [0] * 9
    assert [len(t) for t in play(gone, 20, with_depth=False)] == [1] * 15 + [0] * 5

    def walled(k: int) -> list[Thing]:
        wall = Thing("wall", 150, 10, 120, 100, 8.0, embedding=BIG, detected=False)
        return [wall, car(20 + 8 * k)]

    tracks = play(walled, 34)
    assert all(t.ids.tolist() == [0] for t in tracks)
    assert sum(t.coasted.any() for t in tracks) > 8


def test_an_object_that_comes_back_in_time_keeps_its_id_and_a_late_one_gets_a_new_one():
    def scene(absent):
        return lambda k: [lorry(250)] + ([] if 10 <= k < 10 + absent else [car(100)])

    for absent, expected in ((6, 1), (9, 1), (10, 2), (14, 2)):
        tracks = play(scene(absent), 12 + absent)
        assert id_at(tracks[-1], car(100)) == expected, absent
        # Meanwhile it is not there: it is no guess, as the LiDAR sees through its place.
        assert tracks[9 + absent].ids.tolist() == [0]


def test_faint_detections_begin_nothing_and_their_likes_are_held_back_by_them():
    faint = play(lambda k: [lorry(250), car(100, score=0.5)], 10)
    assert all(t.ids.tolist() == [0] for t in faint)
    fading = play(lambda k: [car(100, score=0.9 if k < 5 else 0.35)], 30)
    assert [t.ids.tolist() for t in fading] == [[0]] * 30
    assert not any(t.coasted.any() for t in fading)


def test_second_copies_are_dropped_whatever_their_class():
    tracker = QuasiDenseTracker()
    things = [car(50), car(52, 20.3, score=0.8, kind=2)]
    for k in range(4):
        _, instances, frame = view(things, k * STEP, most_hidden=1.0)
        assert tracker.step(instances, k * STEP, frame).ids.tolist() == [0]


def test_the_sailvos_thresholds_make_a_track_of_everything():
    tracks = play(lambda k: [car(100, score=0.02)], 3, make_tracker("quasi_dense_sailvos"))
    assert [t.ids.tolist() for t in tracks] == [[0]] * 3


def test_empty_frames_are_steps_too():
    tracks = play(lambda k: [car(50 + k)] if 5 <= k < 12 else [], 30, with_depth=False)
    assert [len(t) for t in tracks] == [0] * 5 + [1] * 12 + [0] * 13
    assert [len(t) for t in play(lambda k: [], 3)] == [0, 0, 0]


def test_time_that_jumps_back_ends_all_tracks_and_no_id_comes_twice():
    tracker, report = QuasiDenseTracker(), Report()
    play(lambda k: [car(50 + k), lorry(200)], 10, tracker)
    _, instances, frame = view([car(50), lorry(200)])
    assert tracker.step(instances, 0, frame, report).ids.tolist() == [2, 3]
    assert "time jumped back by 0.900 s" in report.warnings[0].text


def test_a_gap_is_bridged_with_its_true_length_and_a_longer_one_than_any_occlusion_is_not():
    for gap, expected in ((8, 0), (25, 0), (60, 1)):
        tracker = QuasiDenseTracker()
        play(lambda k: [car(20 + 2 * k)], 15, tracker, with_depth=False)
        (after,) = play(lambda k: [car(20 + 2 * k)], range(15 + gap, 16 + gap), tracker)
        assert after.ids.tolist() == [expected]


def test_another_image_size_begins_anew():
    tracker, report = QuasiDenseTracker(), Report()
    play(lambda k: [car(50)], 3, tracker)
    assert len(tracker.step(Instances.empty((60, 80)), 3 * STEP, None, report)) == 0
    assert "image size changed" in report.warnings[0].text
    assert play(lambda k: [car(50)], range(4, 5), tracker)[0].ids.tolist() == [1]


def test_a_loop_after_reset_gives_the_same_tracks_again():
    def scene(k: int) -> list[Thing]:
        return [lorry(140), car(20 + 6 * k), car(330 - 2 * k, 30.0, "other", embedding=WEST)]

    tracker = QuasiDenseTracker()
    first = play(scene, 40, tracker)
    tracker.reset()
    second = play(scene, 40, tracker)
    for a, b in zip(first, second, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert a.ages.tolist() == b.ages.tolist()
        assert a.amodal.rle().counts == b.amodal.rle().counts


def crowd(rng: np.random.Generator, n: int) -> Instances:
    """Detections that never come again: the worst for a memory."""
    boxes = rng.uniform(0, 60, (n, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2] + 5
    masks = RleMasks.from_boxes(boxes, SIZE)
    return replace(
        Instances.empty(SIZE), amodal_boxes=boxes, visible_boxes=boxes,
        scores=rng.random(n).astype(np.float32), class_ids=rng.integers(0, 3, n), amodal=masks,
        visible=masks, occlusion_rates=np.zeros(n, np.float32), depths=np.zeros(n, np.float32),
        occluders=np.zeros((n, n), bool), embeddings=rng.normal(size=(n, 8)).astype(np.float32),
    )  # fmt: skip


def longest_memory(steps: int) -> int:
    rng, tracker = np.random.default_rng(0), QuasiDenseTracker()
    longest = 0
    for k in range(steps):
        tracker.step(crowd(rng, 3), k * STEP)
        longest = max(longest, len(tracker._tracks) + len(tracker._backdrops))
    return longest


# Three a frame, remembered for ten frames, or carried on for half a second or behind others.
_MOST = 3 * 10 + 3 * 30


def test_memory_stays_flat():
    assert longest_memory(600) <= _MOST


@pytest.mark.slow
def test_memory_stays_flat_over_ten_thousand_steps():
    assert longest_memory(10_000) <= _MOST


def test_detections_without_embeddings_are_refused_and_broken_ones_are_left_out():
    _, instances, frame = view([car(50, embedding=None), lorry(200)])
    with pytest.raises(InputError, match="without embeddings"):
        QuasiDenseTracker().step(instances, 0, frame)
    _, instances, frame = view([car(50), lorry(200)])
    instances.embeddings[0, 1] = np.nan
    tracks = QuasiDenseTracker().step(instances, 0, frame)
    assert tracks.class_ids.tolist() == [1]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_whatever_comes_in_what_goes_out_is_whole_and_repeatable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = [random_instances(rng, int(rng.integers(0, 7))) for _ in range(12)]
    for one in inputs:
        one.embeddings = rng.normal(size=(len(one), rng.choice([4, 4, 6]))).astype(np.float32)
        one.scores[:1] = np.nan if rng.random() < 0.1 else 0.9
    steps = rng.choice([0, STEP, STEP, 5 * STEP, 50 * STEP], 12).cumsum().tolist()
    depth = rng.choice([0, 4, 12, 60], (90, 120)).astype(np.float32)
    config = PRESETS[str(rng.choice(list(PRESETS)))]
    one, two = QuasiDenseTracker(config), QuasiDenseTracker(config)
    for instances, stamp in zip(inputs, steps, strict=True):
        frame = Frame(stamp, depth=depth)
        tracks, again = one.step(instances, stamp, frame), two.step(instances, stamp, frame)
        n = len(tracks)
        assert len(set(tracks.ids.tolist())) == n
        assert (np.diff(tracks.ids) > 0).all()
        assert tracks.ids.tolist() == again.ids.tolist()
        assert tracks.occluders.shape == (n, n)
        assert np.isfinite(tracks.amodal_boxes).all()
        assert np.isfinite(tracks.scores).all()


def test_trackers_are_made_by_name_with_their_settings():
    motion = make_tracker("motion", {"coast_seconds": 1, "min_hits": 2})
    assert isinstance(motion, Tracker)
    assert (motion.config.coast_seconds, motion.config.min_hits) == (1.0, 2)
    quick = make_tracker("quasi_dense", {"coast_seconds": 1.0})
    assert quick.config == replace(PRESETS["driving"], coast_seconds=1.0)
    every = make_tracker("quasi_dense_sailvos", {"memo_tracklet_frames": 20})
    assert every.config == replace(PRESETS["sailvos"], memo_tracklet_frames=20)


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("looks", {}, "no tracker 'looks'"),
        ("motion", {"memo_momentum": 0.5}, "no setting 'memo_momentum'.*there are: absent_looks"),
        ("motion", {"min_hit": 1}, "no setting 'min_hit'.*did you mean min_hits"),
        ("motion", {"min_hits": 0}, "min_hits: .*greater than or equal to 1"),
        ("motion", {"min_hits": "often"}, "min_hits: .*valid integer.*got 'often'"),
        ("motion", {"coast_seconds": -1.0}, "coast_seconds: .*greater than or equal to 0"),
        ("motion", {"absent_looks": 0}, "absent_looks: .*greater than or equal to 1"),
        ("motion", {"high_score": 0.2, "low_score": 0.5}, "low_score must not be above high_score"),
        ("quasi_dense", {"memo_momentum": 2.0}, "memo_momentum: .*less than or equal to 1"),
        ("quasi_dense", {"memo_tracklet_frames": 0}, "memo_tracklet_frames: .*equal to 1"),
        ("quasi_dense", {"match_metric": "l2"}, "match_metric: .*'bisoftmax', 'softmax' or"),
    ],
)
def test_wrong_settings_of_a_tracker_are_one_line(name, values, line):
    with pytest.raises(InputError, match=line):
        make_tracker(name, values, "--tracker-set")


@pytest.mark.parametrize("name", ["motion", "quasi_dense"])
def test_each_track_says_which_of_the_instances_it_is(name: str) -> None:
    tracker = make_tracker(name)
    coasted = 0
    for k in range(20):
        things = [car(10, embedding=WEST), car(200)] + ([lorry(140)] if k > 10 else [])
        _, instances, frame = view(things, k * STEP)
        instances.amodal_boxes[0] = np.nan if k == 5 else instances.amodal_boxes[0]
        tracks = tracker.step(instances, k * STEP, frame)
        assert len(tracker.origins) == len(tracks) > 0
        assert np.array_equal(tracker.origins < 0, tracks.coasted)
        for n in np.flatnonzero(~tracks.coasted).tolist():
            assert (
                tracks.amodal.rle().counts[n] == (instances.amodal.rle().counts[tracker.origins[n]])
            )
        coasted += int(tracks.coasted.sum())
    assert coasted > 9  # the second car behind the lorry
    tracker.reset()
    assert len(tracker.origins) == 0


def test_what_shows_nothing_is_no_sight_and_tells_no_embedding() -> None:
    _, detected, _ = view([car(10), car(200)])
    embedding = np.array([EAST, WEST], np.float32)
    tracks = TrackStore.started(detected, embedding, 0, 1)
    drawn = replace(
        detected,
        visible=RleMasks.concatenated([detected.visible.rle()[:1], RleMasks.empty(SIZE, 1)]),
    )
    measured = measure(detected.amodal_boxes + 6, detected.depths, None)
    before = tracks.motion.values.copy()
    tracks.motion.predict(0.1)
    both = np.arange(2)
    tracks.update(both, drawn, both, embedding[::-1], measured, STEP, 2, 0.1)
    assert tracks.hits.tolist() == [2, 1]
    assert tracks.last_frame.tolist() == [2, 1]
    assert tracks.visible_stamp.tolist() == [STEP, 0]
    assert tracks.explained_stamp.tolist() == [STEP, STEP]
    assert np.array_equal(tracks.embeddings, embedding[[1, 1]])
    assert tracks.motion.values[0, 0] > before[0, 0] + 1
    assert tracks.motion.values[1, 0] == pytest.approx(before[1, 0])
