"""Tracks of what is seen: where they begin, what they are given out as, and when they end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking_scenes import (
    BACKGROUND,
    SIZE,
    STEP,
    Thing,
    car,
    id_at,
    lorry,
    play,
    random_instances,
    view,
)

from amodal_core.frame import Frame, Instances, Report
from amodal_core.masks.mask_set import BoxMasks, RleMasks
from amodal_core.tracking import Tracker


def test_an_object_in_view_from_the_first_frame_is_a_track_from_the_first_frame() -> None:
    tracks = play(lambda k: [car(50 + 3 * k), lorry(200)], 20)
    assert [t.ids.tolist() for t in tracks] == [[0, 1]] * 20
    assert [t.ages.tolist() for t in tracks] == [[k + 1] * 2 for k in range(20)]
    assert not any(t.coasted.any() for t in tracks)
    assert tracks[0].ids.dtype == tracks[0].ages.dtype == np.int64


def test_seen_tracks_are_given_out_as_detected() -> None:
    things = [car(180), lorry(200), car(20, name="other")]
    _, instances, frame = view(things)
    tracks = Tracker().step(instances, 0, frame)
    order = [id_at(tracks, t) for t in things]
    assert sorted(order) == [0, 1, 2]
    for row, index in enumerate(order):
        at = tracks.ids.tolist().index(index)
        assert tracks.amodal.rle().counts[at] == instances.amodal.rle().counts[row]
        assert tracks.visible.rle().counts[at] == instances.visible.rle().counts[row]
        np.testing.assert_array_equal(tracks.amodal_boxes[at], instances.amodal_boxes[row])
        assert tracks.depths[at] == instances.depths[row]


def test_tracks_are_in_the_order_of_their_ids_and_say_which_instance_each_is() -> None:
    tracker = Tracker()
    for k in range(9):
        # The first one is overlooked for a while, and detections come in another order after it.
        things = [car(50, detected=k not in (3, 4)), car(200, name="other")][:: -1 if k > 5 else 1]
        names, instances, frame = view(things, k * STEP)
        tracks = tracker.step(instances, k * STEP, frame)
        assert tracks.ids.tolist() == [0, 1]
        wanted = [names.index(name) if name in names else -1 for name in ("car", "other")]
        assert tracker.origins.tolist() == wanted


def test_a_new_object_is_given_out_after_three_sights_with_its_true_age() -> None:
    tracks = play(lambda k: [lorry(200)] + [car(50)] * (k >= 5), 9)
    assert [len(t) for t in tracks] == [1] * 7 + [2, 2]
    assert tracks[7].ages.tolist() == [8, 3]


@pytest.mark.parametrize("side", [-1, 1])
def test_an_object_that_grows_and_leaves_the_view_keeps_its_identity_to_the_border(
    side: int,
) -> None:
    # A car that comes nearer at a constant speed, to the side of the camera.
    def oncoming(k: int) -> Thing:
        depth = 9.0 - 0.4 * k
        x, width, height = (metres * 160 / depth for metres in (-5.0, 2.0, 1.0))
        left = SIZE[1] / 2 + x if side < 0 else SIZE[1] / 2 - x - width
        return Thing("car", left, 60, width, height, depth)

    # From 9 m to 2.6 m; at 4 m its outer side leaves the view, at 2.4 m all of it.
    tracks = play(lambda k: [oncoming(k)], 17)
    assert [t.ids.tolist() for t in tracks] == [[0]] * 17
    assert not any(t.coasted.any() for t in tracks)


@pytest.mark.parametrize("side", [-1, 1])
def test_an_oncoming_car_keeps_its_identity_while_the_border_cuts_its_front_off(side: int) -> None:
    # 4.4 m long, 3 m to the side, 13.5 m a second nearer: what is left of it in the image loses
    # its near end in leaps, and shows what lies farther and farther back.
    def passing(k: int) -> Instances:
        x = 12 - 1.35 * k
        ends = np.maximum([x - 2.2, x + 2.2], 0.4)
        u = 200 - 230 * side * np.divide.outer([2.1, 3.9], ends)
        box = u.min(), 60 - 230 * 0.15 / ends[1], u.max() - u.min(), 230 * 1.35 / ends[0]
        front = max(ends[0], 2.1 * 230 / 200)  # the nearest that the image shows
        _, one, _ = view([Thing("car", *box, depth=(front + ends[1]) / 2)])
        return replace(one, boxes3d=np.array([[x, 3.0 * side, -0.9, 4.4, 1.8, 1.5, 0]], np.float32))

    tracker = Tracker()
    tracks = [tracker.step(passing(k), k * STEP) for k in range(9)]
    assert [t.ids.tolist() for t in tracks] == [[0]] * 9
    assert not any(t.coasted.any() for t in tracks)


def test_a_false_detection_that_flickers_never_becomes_a_track() -> None:
    tracks = play(lambda k: [lorry(200)] + [car(50)] * (k % 3 == 1), 30)
    assert {i for t in tracks for i in t.ids.tolist()} == {0}


def test_a_gap_in_the_stream_is_bridged_with_its_true_length() -> None:
    def scene(k: int) -> list[Thing]:
        return [car(20 + 8 * k)]

    tracker = Tracker()
    play(scene, 15, tracker, with_depth=False)
    after = play(scene, range(23, 26), tracker, with_depth=False)  # 0.8 s and 64 pixels later
    assert [t.ids.tolist() for t in after] == [[0]] * 3
    assert after[0].ages.tolist() == [16]


def test_a_gap_longer_than_any_occlusion_begins_anew() -> None:
    tracker = Tracker()
    play(lambda k: [car(50)], 10, tracker)
    after = play(lambda k: [car(50)], range(60, 64), tracker)
    assert [t.ids.tolist() for t in after] == [[], [], [1], [1]]


def test_time_that_jumps_back_ends_all_tracks_and_no_id_comes_twice() -> None:
    tracker, report = Tracker(), Report()
    play(lambda k: [car(50 + k), lorry(200)], 10, tracker)
    _, instances, frame = view([car(50), lorry(200)])
    again = tracker.step(instances, 0, frame, report)
    assert again.ids.tolist() == [2, 3]
    assert again.ages.tolist() == [1, 1]
    assert len(report.warnings) == 1
    assert "time jumped back by 0.900 s" in report.warnings[0].text


def test_reset_forgets_everything() -> None:
    tracker = Tracker()
    first = play(lambda k: [car(50 + k), lorry(200)], 5, tracker)
    tracker.reset()
    second = play(lambda k: [car(50 + k), lorry(200)], 5, tracker)
    assert [t.ids.tolist() for t in first] == [t.ids.tolist() for t in second]
    assert [t.ages.tolist() for t in first] == [t.ages.tolist() for t in second]


def test_empty_frames_are_steps_too() -> None:
    tracks = play(lambda k: [car(50 + k)] if 5 <= k < 12 else [], 30, with_depth=False)
    assert [len(t) for t in tracks] == [0] * 7 + [1] * 10 + [0] * 13
    assert tracks[0].occluders.shape == (0, 0)
    tracks = play(lambda k: [], 3)
    assert [len(t) for t in tracks] == [0, 0, 0]


def test_an_object_that_leaves_the_image_ends_there() -> None:
    tracks = play(lambda k: [car(250 + 14 * k)] if 250 + 14 * k < 395 else [], 20)
    last_seen = max(k for k, t in enumerate(tracks) if len(t) and not t.coasted.all())
    last = max(k for k, t in enumerate(tracks) if len(t))
    assert last - last_seen <= 2


def test_low_scores_prolong_tracks_but_begin_none() -> None:
    faint = play(lambda k: [car(50, score=0.2)], 10)
    assert all(len(t) == 0 for t in faint)
    fading = play(lambda k: [car(50, score=0.9 if k < 5 else 0.2)], 30)
    assert [t.ids.tolist() for t in fading] == [[0]] * 30
    assert not any(t.coasted.any() for t in fading)


def test_faint_sights_do_not_confirm_a_track() -> None:
    tracks = play(lambda k: [lorry(200), car(50, score=0.9 if k == 5 else 0.2)], 20)
    assert {i for t in tracks for i in t.ids.tolist()} == {0}


def test_a_false_detection_in_the_first_frame_is_gone_after_the_second() -> None:
    tracks = play(lambda k: [lorry(200)] + [car(50)] * (k == 0), 6, with_depth=False)
    assert [t.ids.tolist() for t in tracks] == [[0, 1], [0, 1], [0], [0], [0], [0]]


def test_a_second_copy_of_a_detection_begins_no_track() -> None:
    tracker = Tracker()
    for k in range(8):
        things = [car(50 + k), car(52 + k, 20.3)][: 1 + (k > 0)]
        _, instances, frame = view(things, k * STEP, most_hidden=1.0)
        assert len(instances) == len(things)
        assert tracker.step(instances, k * STEP, frame).ids.tolist() == [0]


def test_a_detection_in_the_same_place_at_another_range_is_another_object() -> None:
    tracks = play(lambda k: [car(50, 20.0 if k < 10 else 9.0)], 16)
    assert tracks[9].ids.tolist() == [0]
    assert tracks[15].ids.tolist() == [0, 1]
    assert tracks[15].coasted.tolist() == [True, False]  # the new one hides the old one


def test_the_class_is_what_most_of_the_tracks_life_says() -> None:
    tracks = play(lambda k: [car(50 + k, kind=3 if k in (4, 7, 8) else 2)], 12)
    assert {int(t.class_ids[0]) for t in tracks} == {2}
    assert not any(t.coasted.any() for t in tracks)
    assert {i for t in tracks for i in t.ids.tolist()} == {0}


def test_a_tracks_class_is_what_all_its_sights_make_likeliest() -> None:
    """Twice a truck by a hair, once a bus for sure: it is a bus."""
    tracker = Tracker()
    sights = ([0.0, 0.51, 0.49], [0.0, 0.51, 0.49], [0.0, 0.1, 0.9])
    for k, likely in enumerate(sights):
        _, detections, frame = view([Thing("it", 100, 40, 60, 30, 20.0)], k * STEP)
        detections.class_ids = np.array([int(np.argmax(likely))])
        detections.class_probabilities = np.array([likely], np.float32)
        tracks = tracker.step(detections, k * STEP, frame)
    assert tracks.class_ids.tolist() == [2]
    assert tracks.class_probabilities[0] == pytest.approx(np.mean(sights, axis=0), abs=1e-3)


def test_what_coasts_keeps_probabilities_and_embedding_in_a_frame_without_detections() -> None:
    tracker, things = Tracker(), [Thing("it", 100, 40, 60, 30, 20.0)]
    for k in range(4):
        _, detections, frame = view(things if k < 3 else [], k * STEP)
        if len(detections):  # an empty array of a message tells of neither
            detections.class_probabilities = np.array([[0.7, 0.3]], np.float32)
            detections.embeddings = np.array([[0.6, 0.8]], np.float32)
        tracks = tracker.step(detections, k * STEP, frame)
    assert tracks.coasted.tolist() == [True]
    assert tracks.class_probabilities[0] == pytest.approx([0.7, 0.3])
    assert tracks.embeddings[0] == pytest.approx([0.6, 0.8])


def test_occluders_follow_the_tracks_whatever_the_order_of_detections() -> None:
    things = [car(180), lorry(200), car(330, name="far"), car(60, 9.0, "near")]
    tracker = Tracker()
    for k in range(6):
        _, instances, frame = view(things if k % 2 else things[::-1], k * STEP)
        tracks = tracker.step(instances, k * STEP, frame)
        index = [tracks.ids.tolist().index(id_at(tracks, t)) for t in things]
        hides = np.argwhere(tracks.occluders[np.ix_(index, index)]).tolist()
        assert hides == [[0, 1], [2, 1]]


def boxed(box3d, k: int):
    """A lorry in view with a 3D box, which may be None, in frame k."""
    _, instances, frame = view([lorry(140)], k * STEP)
    instances.boxes3d = None if box3d is None else np.array([box3d], np.float32)
    return instances, k * STEP, frame


def test_a_3d_box_is_smoothed_and_stays_while_a_frame_gives_none() -> None:
    tracker, rng = Tracker(), np.random.default_rng(3)
    lengths = 6 + rng.normal(0, 0.5, 40)
    # Half a turn is no turn: a box has no front.
    yaws = 0.1 + rng.normal(0, 0.05, 40) + np.pi * rng.integers(0, 2, 40)
    boxes = [
        tracker.step(*boxed((10, 0, 0, length, 2, 3, yaw), k)).boxes3d[0]
        for k, (length, yaw) in enumerate(zip(lengths, yaws, strict=True))
    ]
    late = np.array(boxes[10:])
    assert late[:, 3].std() < 0.5 * lengths.std()
    turns = (late[:, 6] - 0.1 + np.pi / 2) % np.pi - np.pi / 2
    assert np.abs(turns).max() < 0.06
    kept = tracker.step(*boxed(None, 40)).boxes3d
    np.testing.assert_allclose(kept[0], boxes[-1], atol=0.15)


def test_one_look_at_the_wrong_side_does_not_turn_a_3d_box_and_a_better_look_does() -> None:
    tracker = Tracker()
    across = (10, 0, 0, 2.2, 1.9, 3, 0.1 + np.pi / 2)
    for k in range(5):
        tracks = tracker.step(*boxed((10, 0, 0, 6, 2, 3, 0.1), k))
    instances, stamp, frame = boxed(across, 5)
    half = instances.visible.rle() - view([car(140)], 0)[1].visible.rle()
    assert half.areas()[0] < instances.visible.rle().areas()[0]
    instances.visible = half
    tracks = tracker.step(instances, stamp, frame)
    np.testing.assert_allclose(tracks.boxes3d[0, 3:], (6, 2, 3, 0.1), atol=0.01)
    # What was seen whole replaces what was begun on half a look.
    tracker = Tracker()
    instances, stamp, frame = boxed(across, 0)
    instances.visible = half
    tracker.step(instances, stamp, frame)
    tracks = tracker.step(*boxed((10, 0, 0, 6, 2, 3, 0.1), 1))
    np.testing.assert_allclose(tracks.boxes3d[0, 3:], (6, 2, 3, 0.1), atol=0.01)


def test_instances_on_a_models_device_are_taken() -> None:
    boxes = torch.tensor([[10.0, 10, 50, 40]])
    masks = BoxMasks(SIZE, torch.ones((1, 7, 7)), boxes)
    instances = Instances(
        SIZE, boxes, boxes, torch.tensor([0.9]), torch.tensor([1]), masks, masks,
        torch.zeros(1), torch.tensor([12.0]), torch.zeros((1, 1), dtype=torch.bool),
    )  # fmt: skip
    tracks = Tracker().step(instances, 0)
    assert isinstance(tracks.amodal, RleMasks)
    assert tracks.amodal.areas().tolist() == [1200]


def test_another_image_size_begins_anew() -> None:
    tracker, report = Tracker(), Report()
    play(lambda k: [car(50)], 3, tracker)
    tracks = tracker.step(Instances.empty((60, 80)), 3 * STEP, None, report)
    assert len(tracks) == 0
    assert "image size changed" in report.warnings[0].text


def test_depth_of_another_size_is_not_looked_at() -> None:
    tracker = Tracker()
    play(lambda k: [car(100)], 5, tracker)
    wrong = Frame(stamp=0, depth=np.full((10, 10), BACKGROUND, np.float32))
    tracks = [tracker.step(Instances.empty(SIZE), k * STEP, wrong) for k in range(5, 8)]
    assert [len(t) for t in tracks] == [1, 1, 1]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_whatever_comes_in_what_goes_out_is_whole_and_repeatable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = [random_instances(rng, int(rng.integers(0, 7))) for _ in range(12)]
    steps = rng.choice([0, STEP, STEP, 5 * STEP], 12).cumsum().tolist()
    depth = rng.choice([0, 4, 12, 60], (90, 120)).astype(np.float32)
    one, two, ended, alive = Tracker(), Tracker(), set(), set()
    for instances, stamp in zip(inputs, steps, strict=True):
        frame = Frame(stamp, depth=depth)
        tracks, again = one.step(instances, stamp, frame), two.step(instances, stamp, frame)
        n = len(tracks)
        ids = set(tracks.ids.tolist())
        assert len(ids) == n
        assert not ids & ended
        ended |= alive - ids
        alive = ids
        assert (np.diff(tracks.ids) > 0).all()
        assert tracks.ids.tolist() == again.ids.tolist()
        assert tracks.amodal.rle().counts == again.amodal.rle().counts
        detected = [
            c for c, k in zip(tracks.amodal.rle().counts, tracks.coasted, strict=True) if not k
        ]
        assert not set(detected) - set(instances.amodal.rle().counts)
        assert len(tracks.amodal) == len(tracks.visible) == len(tracks.scores) == n
        assert tracks.amodal_boxes.shape == tracks.visible_boxes.shape == (n, 4)
        assert tracks.occluders.shape == (n, n)
        assert np.isfinite(tracks.amodal_boxes).all()
        coasted = tracks[np.flatnonzero(tracks.coasted)]
        assert (coasted.visible.rle() - coasted.amodal.rle()).areas().sum() == 0
        assert ((coasted.scores >= 0) & (coasted.scores <= 1)).all()


def test_a_doubtful_detection_in_the_first_frame_has_to_prove_itself() -> None:
    tracks = play(lambda k: [car(50, score=0.5), car(150, score=0.45)], 3)
    assert [len(t) for t in tracks] == [1, 1, 2]


def test_two_mediocre_pairs_do_not_break_up_a_good_one() -> None:
    # Two cars in a row; the left one comes out, and another one stands to its left.
    def scene(k: int) -> list[Thing]:
        if k < 10:
            return [car(100, name="left"), car(124, 21.0, "right")]
        return [car(76, 19.0, "new"), car(100, name="left")]

    tracks = play(scene, 12, with_depth=False)
    assert id_at(tracks[11], scene(11)[1]) == id_at(tracks[9], scene(9)[0])
