"""Points follow what they were put on, and hidden objects are where they really are."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_scenes import SIDE, SIZE, Scene, texture

from amodal_core.errors import InputError
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.carry import Carrier
from amodal_core.tracking.hidden_objects import HiddenObjects
from amodal_core.tracking.points import CoTracker, LucasKanade, Trajectories, point_tracker

SECOND = 1_000_000_000


def sliding(step, count=4):
    """Windows on one texture that slide by (x, y) a frame; the texture goes the other way."""
    whole = texture(200, 300, 7)
    x, y = step
    return [whole[60 + y * k : 160 + y * k, 60 + x * k : 220 + x * k].copy() for k in range(count)]


@pytest.mark.parametrize("step", [(3, 0), (-2, 5), (12, -7)])
def test_points_on_a_texture_move_as_it_does(step):
    points = np.array([[60.0, 40], [90.5, 55.25], [75, 60]])
    result = LucasKanade().track(sliding(step), points)
    wanted = points - np.arange(4)[:, None, None] * np.array(step)
    assert result.visible.all()
    np.testing.assert_allclose(result.places, wanted, atol=0.1)


def test_points_that_leave_that_are_covered_or_that_lie_on_nothing_are_not_seen():
    images = sliding((3, 0))
    covered = images[1].copy()
    covered[30:70, 60:110] = texture(40, 50, 9)
    flat = [np.full_like(i, 90) for i in images]
    assert not LucasKanade().track(images, [[4.0, 40]]).visible[-1, 0]
    assert not LucasKanade().track([images[0], covered], [[85.0, 50]]).visible[-1, 0]
    assert not LucasKanade().track(flat, [[60.0, 40]]).visible[-1, 0]
    # What is lost once stays lost, though it lies open again.
    again = LucasKanade().track([images[0], covered, images[0]], [[85.0, 50]])
    assert again.visible[:, 0].tolist() == [True, False, False]
    assert LucasKanade().track(images, np.zeros((0, 2))).places.shape == (4, 0, 2)


def walk(carrier, scene, count):
    """Error in pixels of the carried square in each frame that carries it, with its frame."""
    errors = {}
    for sample in scene.samples(count):
        truth = sample.truth
        carrier.advance(sample.frame.image, sample.frame.stamp)
        shows = truth.visible.areas() > 0
        ids, masks = carrier.settle(truth.ids[shows], truth.amodal[shows], truth.visible[shows])
        for k, box in zip(ids.tolist(), masks.boxes(), strict=True):
            assert k == 0
            errors[sample.index] = float(box[0] - scene.left(sample.index))
            assert box[3] - box[1] == SIDE
    return errors


def hidden(scene, count):
    return [s.index for s in scene.samples(count) if s.truth.visible.areas()[0] == 0]


def test_a_square_behind_a_wall_is_carried_to_where_it_is():
    scene = Scene()
    assert hidden(scene, 40) == [18, 19, 20, 21, 22]
    errors = walk(Carrier(LucasKanade()), scene, 40)
    assert list(errors) == hidden(scene, 40)
    assert np.abs(list(errors.values())).max() <= 1


def test_a_passing_occluder_does_not_drag_the_mask_along():
    """The square stands still; a wall comes from the left, covers it and goes on."""
    scene = Scene(object_speed=0, start=100, wall=(20, 90), wall_speed=4)
    frames = hidden(scene, 40)
    assert len(frames) > 8
    errors = walk(Carrier(LucasKanade()), scene, 40)
    assert list(errors) == frames
    assert np.abs(list(errors.values())).max() <= 1


def test_a_hidden_square_moves_with_what_is_around_it():
    """The camera stops turning while the square is hidden; no point of the square is seen."""
    scene = Scene(object_speed=6, ground_speed=3, stop=12)
    assert hidden(scene, 25) == [12, 13, 14, 15, 16, 17, 18]
    errors = walk(Carrier(LucasKanade()), scene, 25)
    assert list(errors) == hidden(scene, 25)
    assert np.abs(list(errors.values())).max() <= 2
    steady = Scene(object_speed=3, ground_speed=3, start=40, wall=(90, 140))
    errors = walk(Carrier(LucasKanade()), steady, 40)
    assert list(errors) == hidden(steady, 40)
    assert np.abs(list(errors.values())).max() <= 1


class Lost:
    """A tracker that loses every point."""

    history = 1

    def track(self, images, points):
        shape = (len(images), len(points))
        places = np.repeat(np.asarray(points, np.float32)[None], len(images), axis=0)
        return Trajectories(places, np.zeros(shape, bool))


class Overconfident(Lost):
    """A tracker that is sure of points that run away."""

    def track(self, images, points):
        result = super().track(images, points)
        result.places = result.places + np.arange(len(images))[:, None, None] * np.float32([25, 9])
        result.visible[:] = True
        return result


def test_without_any_point_a_hidden_square_goes_on_as_before():
    errors = walk(Carrier(Lost()), Scene(), 40)
    assert list(errors) == hidden(Scene(), 40)
    assert np.abs(list(errors.values())).max() <= 12


def test_the_displacement_is_limited_by_the_motion_of_the_visible_mask():
    """The square moves by 4 pixels a frame in x and by none in y, whatever a tracker claims."""
    carrier, scene = Carrier(Overconfident()), Scene()
    for sample in scene.samples(30):
        truth = sample.truth
        carrier.advance(sample.frame.image, sample.frame.stamp)
        shows = truth.ids == 1 if sample.index >= 10 else truth.ids >= 0
        ids, masks = carrier.settle(truth.ids[shows], truth.amodal[shows], truth.visible[shows])
        if len(ids):
            x0, y0, _, _ = masks.boxes()[0].tolist()
            assert y0 == 45
            assert abs(x0 - scene.left(9)) <= 4 * (sample.index - 9) + 1
    assert sample.index == 29


@pytest.mark.parametrize(("start", "carried"), [(195, 0), (185, 10), (5, 0), (25, 10)])
def test_what_was_last_seen_at_the_side_of_the_image_is_not_carried(start, carried):
    """Twenty pixels from the left or right border; of 240, less the square's 30, that is 190."""
    scene, result = Scene(object_speed=0, start=start, wall=(100, 150)), 0
    carrier = Carrier(LucasKanade())
    for sample in scene.samples(20):
        truth = sample.truth
        carrier.advance(sample.frame.image, sample.frame.stamp)
        shows = truth.ids == 1 if sample.index >= 10 else truth.ids >= 0
        result += len(
            carrier.settle(truth.ids[shows], truth.amodal[shows], truth.visible[shows])[0]
        )
    assert result == carried


def test_after_three_seconds_a_hidden_square_is_forgotten():
    scene = Scene(object_speed=0, start=110, wall=(60, 98), wall_speed=0)
    carrier, carried = Carrier(LucasKanade(), seconds=3.0), []
    for sample in scene.samples(60):
        truth = sample.truth
        carrier.advance(sample.frame.image, sample.frame.stamp)
        shows = truth.ids == 1 if sample.index >= 10 else truth.ids >= 0
        ids, _ = carrier.settle(truth.ids[shows], truth.amodal[shows], truth.visible[shows])
        carried += [sample.index] * len(ids)
    assert carried == list(range(10, 40))
    assert carrier.ids == [1]


@pytest.mark.parametrize(
    ("image", "stamp"),
    [(np.zeros((60, 80, 3), np.uint8), 6 * SECOND // 10), (None, 1), (None, 60 * SECOND)],
)
def test_another_size_time_that_goes_back_and_a_long_gap_begin_a_new_stream(image, stamp):
    carrier = Carrier(LucasKanade())
    for sample in Scene().samples(5):
        carrier.advance(sample.frame.image, (sample.index + 1) * SECOND // 10)
        truth = sample.truth
        carrier.settle(truth.ids, truth.amodal, truth.visible)
    assert carrier.ids == [0, 1]
    carrier.advance(sample.frame.image if image is None else image, stamp)
    assert carrier.ids == []


def test_one_pixel_masks_and_empty_frames_are_carried_without_harm():
    carrier = Carrier(LucasKanade())
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 60, 100] = True
    item, none = RleMasks.from_dense(mask), RleMasks.empty(SIZE)
    for k, sample in enumerate(Scene(ground_speed=2).samples(8)):
        carrier.advance(sample.frame.image, sample.frame.stamp)
        shown = (np.array([5]), item, item) if k < 3 else (np.zeros(0, np.int64), none, none)
        ids, masks = carrier.settle(*shown)
        assert ids.tolist() == ([] if k < 3 else [5])
        assert (masks.areas() == 1).all()


def memory_of(carrier):
    """Bytes that a carrier holds, roughly."""
    kept = sum(i.nbytes for i in carrier._images) + carrier._grid.nbytes
    for item in carrier._objects.values():
        kept += (
            sum(t.nbytes for t in item.trail) + sys.getsizeof(item.speeds) + 8 * len(item.speeds)
        )
    return kept, len(carrier._objects)


def test_memory_is_flat_however_long_the_stream_is():
    hidden_objects, held = HiddenObjects(LucasKanade()), []
    scene = Scene()
    base = [scene.sample(k) for k in range(40)]
    for k in range(200):
        sample = base[k % 40]
        frame = replace(sample.frame, stamp=sample.frame.stamp + (k - k % 40) * SECOND // 10)
        truth = sample.truth[sample.truth.visible.areas() > 0]
        # Ever new identities, as in a long drive.
        hidden_objects.add_to_tracks(frame, replace(truth, ids=truth.ids + 2 * (k // 10)))
        held.append((*memory_of(hidden_objects._carrier), len(hidden_objects._last)))
    half = np.array(held)
    assert (half[100:].max(0) <= 1.05 * half[:100].max(0)).all()
    hidden_objects.reset()
    assert hidden_objects._carrier.ids == []
    assert not hidden_objects._last


def test_followed_tracks_come_back_with_the_hidden_ones_coasted():
    hidden_objects, scene = HiddenObjects(LucasKanade()), Scene()
    for sample in scene.samples(25):
        visible = sample.truth[sample.truth.visible.areas() > 0]
        tracks = hidden_objects.add_to_tracks(sample.frame, visible)
        assert isinstance(tracks, Tracks)
        assert sorted(tracks.ids.tolist()) == [0, 1]
        if sample.index in hidden(scene, 25):
            assert tracks.ids.tolist() == [1, 0]
            assert tracks.coasted.tolist() == [False, True]
            assert tracks.visible.areas()[1] == 0
            assert tracks.occlusion_rates.tolist() == [0, 1]
            assert tracks.occluders.tolist() == [[False, False], [True, False]]
            assert tracks.amodal.iou(sample.truth.amodal)[1, 0] > 0.8


def test_live_objects_without_identities_are_remembered_only_behind_others():
    hidden_objects, scene, counts = HiddenObjects(LucasKanade()), Scene(), []
    for sample in scene.samples(30):
        truth = sample.truth
        visible = truth[truth.visible.areas() > 0]
        if sample.index == 8:  # overlooked in the open: not given out, nor forgotten
            visible = visible[visible.ids == 1]
        counts.append(len(hidden_objects.add_to_detections(sample.frame, visible)))
    assert counts == [2] * 8 + [1] + [2] * 21
    assert hidden_objects._next == 2


class Shift(torch.nn.Module):
    """A point tracker for TorchScript: everything moves by (4, 0) a frame; odd ones are hidden."""

    def forward(self, video: torch.Tensor, queries: torch.Tensor):
        count = video.shape[1]
        step = torch.arange(count)[None, :, None, None] * torch.tensor([4.0, 0.0])
        places = queries[:, None, :, 1:] + step
        visible = torch.arange(queries.shape[1])[None, None].expand(1, count, -1) % 2 == 0
        return places, visible


@pytest.fixture
def script(tmp_path):
    torch.jit.script(Shift()).save(str(tmp_path / "cotracker.pt"))
    return tmp_path / "cotracker.pt"


def test_a_cotracker_comes_from_a_torchscript_file_of_the_user(script):
    result = point_tracker(str(script)).track(sliding((0, 0)), [[10.0, 20], [30, 40]])
    assert result.places[3].tolist() == [[22, 20], [42, 40]]
    assert result.visible[3].tolist() == [True, False]


def test_a_cotracker_comes_from_a_copy_of_its_repository(tmp_path):
    (tmp_path / "hubconf.py").write_text(
        "import sys\nsys.path.insert(0, 'test')\n"
        "def cotracker2(pretrained=True):\n"
        "    from test_tracking_points import Shift\n    return Shift()\n"
    )
    result = CoTracker(tmp_path).track(sliding((0, 0)), [[10.0, 20]])
    assert result.places[:, 0, 0].tolist() == [10, 14, 18, 22]


def test_a_tracker_with_a_long_view_is_asked_from_the_last_sight_on(script):
    errors = walk(Carrier(CoTracker(script)), Scene(), 40)
    assert list(errors) == hidden(Scene(), 40)
    assert np.abs(list(errors.values())).max() <= 1


def test_what_is_no_cotracker_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no CoTracker"):
        point_tracker(str(tmp_path / "none"))
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="no CoTracker: "):
        point_tracker(str(tmp_path / "broken.pt"))
    (tmp_path / "hubconf.py").write_text("def raft():\n    pass\n")
    with pytest.raises(InputError, match="offers none of cotracker3_offline"):
        point_tracker(str(tmp_path))


def test_weights_choose_the_network_of_the_repository_that_they_fit(tmp_path):
    """Version 1 has one shape for three windows, which the file's name tells apart."""
    (tmp_path / "hubconf.py").write_text(
        "import torch\n"
        "class Predictor(torch.nn.Module):\n"
        "    def __init__(self, window, width):\n"
        "        super().__init__()\n"
        "        self.window, self.model = window, torch.nn.Linear(width, 1)\n"
        "def cotracker2(pretrained=True):\n    return Predictor(2, 3)\n"
        "def cotracker_w8(pretrained=True):\n    return Predictor(8, 2)\n"
        "def cotracker_w12(pretrained=True):\n    return Predictor(12, 2)\n"
    )
    for name, width, window in (("cotracker_stride_4_wind_12.pth", 2, 12), ("v1.pth", 2, 8),
                                ("cotracker2.pth", 3, 2)):  # fmt: skip
        state = torch.nn.Linear(width, 1).state_dict()
        torch.save({"model": state}, tmp_path / name)
        predictor = point_tracker(str(tmp_path), weights=str(tmp_path / name))._model
        assert predictor.window == window
        assert torch.equal(predictor.model.weight, state["weight"])
    torch.save(torch.nn.Linear(9, 1).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: weights of 2 tensors, which fit none of"):
        CoTracker(tmp_path, weights=str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match="no such weights"):
        CoTracker(tmp_path, weights=str(tmp_path / "none.pth"))
