"""Tracks that nobody sees: they move on, end at free space, and come back under their ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tracking_scenes import SIZE, STEP, Scene, Thing, car, id_at, lorry, play, view

from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking import Tracker
from amodal_core.tracking.motion import measure
from amodal_core.tracking.track_store import TrackStore, unit_embeddings


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


def test_a_hidden_object_ends_when_most_of_it_has_left_the_image() -> None:
    tracks = play(lambda k: [lorry(280, 120), car(120 + 6 * k)], 70)
    assert any(t.coasted.any() for t in tracks)
    last = max(k for k, t in enumerate(tracks) if 1 in t.ids)
    assert last in (43, 44)  # 30 % of its 40 pixels are left at x = 388, none at 400 in frame 46


def test_a_track_that_was_hardly_seen_is_not_carried_for_long() -> None:
    # Two sights, 0.2 s: six times that, not the three seconds of a well known object.
    tracks = play(lambda k: [lorry(140), car(110 + 15 * k if k < 2 else 200)], 30, with_depth=False)
    assert [k for k, t in enumerate(tracks) if t.coasted.any()] == list(range(2, 14))


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


def test_a_score_is_smoothed_and_a_hidden_view_has_less_of_a_vote() -> None:
    _, detections, _ = view([car(50, score=0.5)])
    store = TrackStore.started(detections, unit_embeddings(detections), 0, 1)
    _, again, _ = view([car(50, score=1.0, kind=2)])
    again.occlusion_rates[:] = 1.0
    measured = measure(np.asarray(again.amodal_boxes), np.asarray(again.depths), None)
    one = np.array([0])
    store.update(one, again, one, np.zeros((1, 0)), measured, STEP, 2, 0.1)
    assert store.scores[0] == pytest.approx(0.65)
    assert store.class_ids.tolist() == [0], "0.3 of a sure vote against one of 0.5"
