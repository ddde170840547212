"""Tracks keep their identity through occlusion, gaps and look-alikes, and end when they should."""

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
    Scene,
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
from amodal_core.tracking.motion import measure
from amodal_core.tracking.track_store import TrackStore, unit_embeddings


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


@pytest.mark.parametrize(("speed", "hidden"), [(11.0, 10), (4.5, 26)])
@pytest.mark.parametrize("with_depth", [True, False])
def test_a_hidden_object_keeps_its_id_and_its_mask_moves_on(
    speed: float, hidden: int, with_depth: bool
) -> None:
    def scene(k: int) -> list[Thing]:
        return [lorry(140), car(20 + speed * k)]

    frames = int((310 - 20) / speed)
    tracks = play(scene, frames, with_depth=with_depth)
    unseen = [k for k in range(frames) if len(view(scene(k))[0]) == 1]
    assert len(unseen) >= hidden
    for k, at in enumerate(tracks):
        assert at.ids.tolist() == [0, 1]
        assert at.coasted.tolist() == [False, k in unseen]
        assert at.amodal.rle().iou(RleMasks.from_boxes(np.array([scene(k)[1].box]), SIZE))[1] > 0.6
        if k in unseen:
            assert at.visible.rle().areas()[1] == 0
            assert at.visible_boxes[1].tolist() == [0, 0, 0, 0]
            assert at.occlusion_rates[1] == 1.0
            assert at.occluders.tolist() == [[False, False], [True, False]]
            assert at.depths[1] == pytest.approx(20, abs=1.5)


def test_an_object_hidden_for_thirty_frames_returns_under_its_id() -> None:
    tracks = play(lambda k: [lorry(100, 196), car(20 + 5.6 * k)], 66)
    assert sum(t.coasted.any() for t in tracks) == 30
    assert all(t.ids.tolist() == [0, 1] for t in tracks)


def test_a_hidden_object_ends_after_the_time_limit() -> None:
    tracks = play(
        lambda k: [lorry(140), car(150, detected=False) if k >= 20 else car(60 + 4.5 * k)], 60
    )
    last = max(k for k, t in enumerate(tracks) if 1 in t.ids)
    gone = min(k for k, t in enumerate(tracks) if t.coasted.any())
    assert 28 <= last - gone + 1 <= 30


def test_what_a_model_draws_of_a_hidden_object_is_its_mask_but_no_sight_of_it() -> None:
    tracker = Tracker()
    for k in range(60):
        things = [car(150)] if k < 20 else [lorry(140), car(150)]
        # From the 21st frame on the car is hidden, and the model draws it all the same.
        _, instances, frame = view(things, k * STEP, most_hidden=2.0)
        tracks = tracker.step(instances, k * STEP, frame)
        if k >= 22:
            assert tracks.ids.tolist() == [0, 1]
            assert tracks.coasted.tolist() == [True, False]
            assert tracks.amodal.rle().counts[0] == instances.amodal.rle().counts[1]
    # When it draws it no longer, the last sight was long ago.
    tracks = tracker.step(instances[np.array([0])], 60 * STEP, frame)
    assert tracks.ids.tolist() == [1]


def test_free_space_reveals_that_a_hidden_object_is_gone() -> None:
    # The lorry drives away and there is nothing behind it.
    def scene(k: int) -> list[Thing]:
        things = [lorry(140 if k < 25 else 140 + 40 * (k - 25))] if k < 32 else []
        return things + ([car(100 + 5 * k)] if k < 15 else [])

    tracks = play(scene, 35)
    assert [1 in t.ids for t in tracks[:26]] == [True] * 26
    revealed = next(k for k in range(25, 35) if scene(k) == [] or scene(k)[0].x > 230)
    assert all(1 not in t.ids for t in tracks[revealed + 2 :])


def test_free_space_ends_an_overlooked_track_before_its_time_and_only_with_depth() -> None:
    def scene(k: int) -> list[Thing]:
        return [car(100)] if k < 10 else []

    assert [len(t) for t in play(scene, 20)] == [1] * 11 + [0] * 9
    assert [len(t) for t in play(scene, 20, with_depth=False)] == [1] * 15 + [0] * 5


def test_returns_at_its_own_range_keep_an_overlooked_track_for_half_a_second() -> None:
    tracks = play(lambda k: [car(100 + k, detected=k < 10)], 20)
    assert [len(t) for t in tracks] == [1] * 15 + [0] * 5
    assert tracks[12].coasted.tolist() == [True]
    assert tracks[12].occlusion_rates.tolist() == [0.0]
    assert tracks[12].scores[0] < tracks[9].scores[0]


def test_nearer_returns_that_no_detection_explains_hide_as_well() -> None:
    def scene(k: int) -> list[Thing]:
        wall = Thing("wall", 150, 10, 120, 100, 8.0, detected=False)
        return [wall, car(20 + 8 * k)]

    tracks = play(scene, 34)
    assert all(t.ids.tolist() == [0] for t in tracks)
    assert sum(t.coasted.any() for t in tracks) > 8
    assert tracks[20].occlusion_rates.tolist() == [1.0]


def test_crossing_look_alikes_keep_their_ids() -> None:
    def scene(k: int) -> list[Thing]:
        return [car(20 + 6 * k, 20.0, "east"), car(320 - 6 * k, 21.0, "west")]

    tracks = play(scene, 50)
    for k in (0, 10, 18, 33, 49):
        assert [id_at(tracks[k], t) for t in scene(k)] == [0, 1], k
    assert {i for t in tracks for i in t.ids.tolist()} == {0, 1}


def test_a_look_alike_at_the_exit_does_not_take_the_hidden_ones_id() -> None:
    # While the first is behind the lorry another one drives on before it, just past the exit.
    def scene(k: int) -> list[Thing]:
        things = [lorry(140), car(10 + 6 * k, name="first")]
        if k >= 22:
            things.append(car(292 + 2.0 * (k - 22), name="second"))
        return things

    tracks = play(scene, 46)
    first = id_at(tracks[10], scene(10)[1])
    second = id_at(tracks[30], scene(30)[2])
    assert len({first, second, 0}) == 3
    assert tracks[24].coasted.any()
    assert id_at(tracks[-1], scene(45)[1]) == first
    assert id_at(tracks[-1], scene(45)[2]) == second


def test_embeddings_tell_look_alikes_apart_that_changed_places_unseen() -> None:
    east, west = (1.0, 0.1, 0.0), (0.0, 0.1, 1.0)

    def scene(k: int) -> list[Thing]:
        if 10 <= k < 13:
            return []
        a, b = (100, 122) if k < 10 else (122, 100)
        return [car(a, 20.0, "east", embedding=east), car(b, 20.0, "west", embedding=west)]

    def ids(scene: Scene) -> list[list[int]]:
        tracks = play(scene, 16, with_depth=False)
        return [[id_at(tracks[k], t) for t in scene(k)] for k in (9, 15)]

    before, after = ids(scene)
    assert before == after
    blind, swapped = ids(lambda k: [Thing(t.name, *t.box[:2], t.w, t.h, t.depth) for t in scene(k)])
    assert blind == swapped[::-1]


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


def test_a_hidden_object_ends_when_most_of_it_has_left_the_image() -> None:
    tracks = play(lambda k: [lorry(280, 120), car(120 + 6 * k)], 70)
    assert any(t.coasted.any() for t in tracks)
    last = max(k for k, t in enumerate(tracks) if 1 in t.ids)
    assert last in (43, 44)  # 30 % of its 40 pixels are left at x = 388, none at 400 in frame 46


def test_faint_sights_do_not_confirm_a_track() -> None:
    tracks = play(lambda k: [lorry(200), car(50, score=0.9 if k == 5 else 0.2)], 20)
    assert {i for t in tracks for i in t.ids.tolist()} == {0}


def test_a_false_detection_in_the_first_frame_is_gone_after_the_second() -> None:
    tracks = play(lambda k: [lorry(200)] + [car(50)] * (k == 0), 6, with_depth=False)
    assert [t.ids.tolist() for t in tracks] == [[0, 1], [0, 1], [0], [0], [0], [0]]


def test_a_track_that_was_hardly_seen_is_not_carried_for_long() -> None:
    # Two sights, 0.2 s: six times that, not the three seconds of a well known object.
    tracks = play(lambda k: [lorry(140), car(110 + 15 * k if k < 2 else 200)], 30, with_depth=False)
    assert [k for k, t in enumerate(tracks) if t.coasted.any()] == list(range(2, 14))


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


def test_the_visible_mask_of_an_overlooked_track_leaves_out_what_others_show() -> None:
    tracks = play(lambda k: [lorry(140), car(112, detected=k < 10)], 12)
    at = tracks[11]
    assert at.coasted.tolist() == [False, True]
    hidden = 12 * 30  # twelve columns behind the lorry
    assert at.visible.rle().areas()[1] == pytest.approx(40 * 30 - hidden, abs=45)
    assert at.occlusion_rates[1] == pytest.approx(0.3, abs=0.04)
    assert at.occluders.tolist() == [[False, False], [True, False]]


def test_a_single_look_at_free_space_between_sights_ends_nothing() -> None:
    tracks = play(lambda k: [car(100)] if k not in (10, 12, 14) else [], 18)
    assert [t.ids.tolist() for t in tracks] == [[0]] * 18


def test_occluders_among_seen_tracks_are_the_models_even_while_another_coasts() -> None:
    tracker = Tracker()
    for k in range(12):
        things = [lorry(140), car(112), car(300, name="gone", detected=k < 9)]
        _, instances, frame = view(things, k * STEP)
        instances.occluders[1, 0] = False
        instances.occluders[0, 1] = True  # not what depth says
        tracks = tracker.step(instances, k * STEP, frame)
    assert tracks.coasted.tolist() == [False, False, True]
    assert np.argwhere(tracks.occluders).tolist() == [[0, 1]]


def test_the_class_is_what_most_of_the_tracks_life_says() -> None:
    tracks = play(lambda k: [car(50 + k, kind=3 if k in (4, 7, 8) else 2)], 12)
    assert {int(t.class_ids[0]) for t in tracks} == {2}
    assert not any(t.coasted.any() for t in tracks)
    assert {i for t in tracks for i in t.ids.tolist()} == {0}


def test_occluders_follow_the_tracks_whatever_the_order_of_detections() -> None:
    things = [car(180), lorry(200), car(330, name="far"), car(60, 9.0, "near")]
    tracker = Tracker()
    for k in range(6):
        _, instances, frame = view(things if k % 2 else things[::-1], k * STEP)
        tracks = tracker.step(instances, k * STEP, frame)
        index = [tracks.ids.tolist().index(id_at(tracks, t)) for t in things]
        hides = np.argwhere(tracks.occluders[np.ix_(index, index)]).tolist()
        assert hides == [[0, 1], [2, 1]]


def test_3d_boxes_of_coasting_tracks_move_on() -> None:
    tracker = Tracker()
    for k in range(20):
        things = [lorry(140), car(60 + 6 * k)]
        names, instances, frame = view(things, k * STEP)
        instances.boxes3d = np.array(
            [
                [10, 0, 0, 6, 2, 3, 0] if n == "lorry" else [20, 5 - 0.2 * k, 0, 4, 2, 1.5, 0.1]
                for n in names
            ],
            np.float32,
        ).reshape(-1, 7)
        tracks = tracker.step(instances, k * STEP, frame)
    assert tracks.coasted.tolist() == [False, True]
    assert tracks.boxes3d is not None
    np.testing.assert_allclose(tracks.boxes3d[1], [20, 5 - 0.2 * 19, 0, 4, 2, 1.5, 0.1], atol=0.3)


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


def test_a_camera_that_turns_takes_hidden_objects_with_it() -> None:
    def scene(k: int) -> list[Thing]:
        turn = 4.0 * max(k - 15, 0)  # from the 15th frame on everything moves to the right
        beside = [car(x + turn, 25.0, f"{x}") for x in (5, 215, 265, 315)]
        return [*(replace(t, y=85) for t in beside), lorry(60 + turn, 140), car(100 + turn)]

    tracks = play(lambda k: scene(k)[:4] + scene(k)[5:] if k < 12 else scene(k), 24)
    hidden = RleMasks.from_boxes(np.array([scene(23)[5].box]), SIZE)
    at = np.flatnonzero(tracks[-1].ids == id_at(tracks[10], scene(10)[5]))
    assert tracks[-1].coasted[at].tolist() == [True]
    assert tracks[-1].amodal.rle()[at].iou(hidden)[0, 0] > 0.7


def returning(after: Thing) -> tuple[int, int]:
    """Ids of a car before it stops behind a lorry, and of what comes out of there, 14 frames later.

    The car was about to cross; where it should be when something comes out is 45 pixels farther.
    """

    def scene(k: int) -> list[Thing]:
        things = [lorry(100, 120 if k < 26 else 60)]
        if k < 12:
            things.append(car(20 + 5 * k))
        elif k >= 26:
            things.append(after)
        return things

    tracks = play(scene, 32, with_depth=False)
    return id_at(tracks[10], scene(10)[1]), id_at(tracks[-1], after)


def test_what_comes_out_elsewhere_than_predicted_is_the_hidden_object_again() -> None:
    before, after = returning(car(205))
    assert before == after == 1


@pytest.mark.parametrize(
    "other",
    [
        car(330),  # too far from where it can be
        replace(car(205), h=12, y=68),  # half as tall
        car(205, depth=60.0),  # far behind
    ],
    ids=["elsewhere", "smaller", "farther"],
)
def test_what_cannot_be_the_hidden_object_gets_an_id_of_its_own(other: Thing) -> None:
    before, after = returning(other)
    assert before == 1
    assert after > 1


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


def test_a_score_is_smoothed_and_a_hidden_view_has_less_of_a_vote() -> None:
    _, detections, _ = view([car(50, score=0.5)])
    store = TrackStore.started(detections, unit_embeddings(detections), 0, 1)
    _, again, _ = view([car(50, score=1.0, kind=2)])
    again.occlusion_rates[:] = 1.0
    measured = measure(np.asarray(again.amodal_boxes), np.asarray(again.depths), None)
    store.update(np.array([0]), again, np.zeros((1, 0)), measured, STEP, 2, 0.1)
    assert store.scores[0] == pytest.approx(0.65)
    assert store.class_ids.tolist() == [0], "0.3 of a sure vote against one of 0.5"
