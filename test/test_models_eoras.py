"""EoRaS: crops, the view from above, slots over time, and a stream whose objects are remembered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from eoras_scenes import SMALL, count_crops, small_model
from training_scenes import CAMERA, CLASSES, SIZE, Drives, K

from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Calibration, Report
from amodal_core.masks.mask_set import BoxMasks, RleMasks
from amodal_core.models.eoras import Eoras
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.layers.bev import LAYERS, BirdsEyeView, crop_places, grid_points
from amodal_core.models.layers.clip_tracks import filled, tracks_of_clips
from amodal_core.models.layers.crop_windows import cut, cut_masks, enlarged, whole_pixels
from amodal_core.models.layers.object_slots import MaskDecoder, ObjectSlots, sine_positions


@pytest.fixture(scope="module")
def model():
    return small_model()


def clip_batch(samples, clip=None):
    batch = make_batch([s.frame for s in samples], [targets_of(s.truth) for s in samples])
    return replace(batch, clip=clip or len(samples))


# Windows ------------------------------------------------------------------------------------------


def test_a_window_is_twice_its_box_and_cut_by_the_image():
    boxes = torch.tensor([[40.0, 20, 60, 30], [0, 0, 10, 10], [90, 60, 96, 64]])
    found = enlarged(boxes, torch.tensor([96.0, 64.0]), 2.0)
    assert found.tolist() == [[30, 15, 70, 35], [0, 0, 15, 15], [87, 58, 96, 64]]


def test_boxes_of_a_pixel_of_nothing_and_beyond_the_image_have_windows_in_it():
    boxes = torch.tensor([[5.0, 5, 6, 6], [0, 0, 0, 0], [200, 200, 220, 210], [-9, -9, -5, -5]])
    found = enlarged(boxes, torch.tensor([96.0, 64.0]), 2.0)
    sides = found[:, 2:] - found[:, :2]
    assert (sides >= 1).all()
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= torch.tensor([96.0, 64.0])).all()


def test_published_windows_are_of_whole_pixels_and_one_wider_to_the_right(rng):
    low = rng.integers(0, 90, (50, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 60, (50, 2))], 1)
    windows = whole_pixels(torch.from_numpy(boxes).float(), torch.tensor([150.0, 140]), 2.0)
    for (x0, y0, x1, y1), window in zip(boxes.tolist(), windows.tolist(), strict=True):
        x, y = (x0 + x1) // 2, (y0 + y1) // 2
        half = int((x1 - x0) * 2.0) // 2, int((y1 - y0) * 2.0) // 2
        last = min(150, x + half[0]), min(140, y + half[1])  # that may lie beyond the image
        assert window == [max(0, x - half[0]), max(0, y - half[1]), last[0] + 1, last[1] + 1]


def test_published_masks_are_drawn_from_corner_pixel_to_corner_pixel(rng):
    published = Eoras.from_config(SMALL | {"classes": list(CLASSES), "published": "movi"})
    box = RleMasks.from_boxes(np.array([[9.0, 9, 20, 20]]), SIZE)
    shares = torch.from_numpy(rng.uniform(0.1, 0.9, (1, 1, 9, 9)).astype(np.float32))
    for x0, y0, x1, y1 in ((5, 3, 42, 26), (20, 30, 29, 37)):  # larger and smaller than the grid
        drawn = published._drawn(
            make_truth(box, box, [0], [1]),
            shares[0].logit(),
            torch.tensor([[x0, y0, x1, y1]]).float(),
            Report(),
        )
        resized = F.interpolate(shares, (y1 - y0, x1 - x0), mode="bilinear", align_corners=True)
        wanted = np.zeros(SIZE, bool)
        wanted[y0:y1, x0:x1] = resized[0, 0].numpy() > 0.5
        assert (drawn.amodal.dense()[0] == wanted).all()


def test_a_crop_of_as_many_cells_as_pixels_is_the_image_and_of_half_is_the_mean_of_four(rng):
    image = torch.from_numpy(rng.random((2, 3, 40, 50), dtype=np.float32))
    window = torch.tensor([[10.0, 4, 42, 36]])
    crop = cut(image, torch.tensor([1]), window, 32)
    torch.testing.assert_close(crop[0], image[1, :, 4:36, 10:42])
    half = cut(image, torch.tensor([1]), window, 16)
    want = image[1, :, 4:36, 10:42].reshape(3, 16, 2, 16, 2).mean((2, 4))
    torch.testing.assert_close(half[0], want)
    mask = image[:1, 0] > 0.5
    assert torch.equal(cut_masks(mask, window, 32)[0], mask[0, 4:36, 10:42].float())


def test_where_an_object_shows_nothing_its_box_is_guessed_from_the_sights_around():
    boxes = np.array([[0, 0, 0, 0], [10, 10, 20, 30], [0, 0, 0, 0], [30, 10, 32, 30]], np.float32)
    found = filled(boxes, np.array([False, True, False, True]))
    # Centres (15, 20) and (31, 20): (23, 20) between; the largest size that was seen is 10 x 20.
    assert found.tolist() == [
        [10, 10, 20, 30],
        [10, 10, 20, 30],
        [18, 10, 28, 30],
        boxes[3].tolist(),
    ]


def test_objects_are_followed_within_their_clip_by_their_identity():
    one, nothing = [1.0, 1, 3, 3], [0.0, 0, 0, 0]
    ids = [[7, 5], [5], [5, 7], [7, 9]]
    boxes = [[one, one], [nothing], [one, one], [one, nothing]]
    found = tracks_of_clips(
        [np.array(k) for k in ids], [np.array(b, np.float32) for b in boxes], [[0, 1], [2, 3, 3]]
    )
    assert found.clips.tolist() == [0, 0, 1, 1]  # 5 and 7 in each; 9 shows nothing
    assert found.rows.tolist() == [[1, 0, -1], [0, -1, -1], [0, -1, -1], [1, 0, 0]]
    assert found.frames[3].tolist() == [2, 3, 3]


# The view from above ------------------------------------------------------------------------------


def project(point, calibration):
    """Slow and separate: the pixel (integer centres) of a point in the optical frame."""
    u, v, w = calibration.K @ np.asarray(point, float)
    return u / w, v / w


def test_a_point_of_space_falls_into_the_cell_of_the_crop_that_shows_it(rng):
    """The original projected with K alone: pixels where -1 to 1 was meant, so that nearly all
    samples fell outside of the crop and read zeros."""
    calibration = Calibration(np.array([[721.5, 0, 609.5], [0, 721.5, 172.8], [0, 0, 1]]), CAMERA,
                              1242, 375)  # fmt: skip
    points = np.column_stack(
        [rng.uniform(-4, 4, 50), rng.uniform(-1, 1, 50), rng.uniform(5, 20, 50)]
    )
    scale = np.array([0.5, 0.75])  # y, x of the batch
    for point in points:
        u, v = project(point, calibration)
        # A window of 16 x 16 cells of 4 x 3 pixels of the batch, in which cell (5, 9) shows the
        # middle of the pixel.
        left, top = (u + 0.5) * scale[1] - 9.5 * 4, (v + 0.5) * scale[0] - 5.5 * 3
        window = torch.tensor([[left, top, left + 64, top + 48]], dtype=torch.float32)
        place = crop_places(
            torch.tensor(point[None], dtype=torch.float32),
            torch.tensor(calibration.K[None], dtype=torch.float32),
            torch.tensor(scale[None], dtype=torch.float32),
            window,
        )[0, 0]
        x, y = ((place.numpy() + 1) / 2 * 16 - 0.5).tolist()
        assert (x, y) == pytest.approx((9, 5), abs=1e-2)


def test_what_is_behind_the_camera_is_in_no_crop():
    points = torch.tensor([[0.0, 0, -5], [0, 0, 0], [0, 0, 5]])
    places = crop_places(
        points, torch.tensor(K)[None].float(), torch.ones(1, 2), torch.tensor([[0.0, 0, 96, 64]])
    )
    assert (places[0, :2] == -2).all()
    assert places[0, 2].abs().max() < 0.1


def test_each_cell_of_the_grid_reads_the_feature_where_it_is_seen(rng):
    view = BirdsEyeView(3, 8)
    features = torch.from_numpy(rng.random((1, 3, 16, 16), dtype=np.float32))
    window = torch.tensor([[20.0, 12, 84, 44]])
    found = view.lift(
        features,
        torch.tensor(K)[None].float(),
        torch.tensor([[64.0, 96]]),
        torch.ones(1, 2),
        window,
    )
    assert found.shape == (1, 3 * LAYERS, 8, 8)
    read = 0
    for j in range(LAYERS):
        for row in range(8):
            for column in range(8):
                point = (-10 + 2.5 * (column + 0.5), -3.5 + j + 0.5, 2.5 * (row + 0.5))
                u, v = project(point, Calibration(K, CAMERA, 96, 64))
                x, y = (u + 0.5 - 20) / 64 * 16 - 0.5, (v + 0.5 - 12) / 32 * 16 - 0.5
                want = np.zeros(3)
                for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    i, k = int(np.floor(y)) + a, int(np.floor(x)) + b
                    weight = (1 - abs(y - i)) * (1 - abs(x - k))
                    if 0 <= i < 16 and 0 <= k < 16:
                        want += weight * features[0, :, i, k].numpy()
                got = found[0].unflatten(0, (3, LAYERS))[:, j, row, column].numpy()
                assert got == pytest.approx(want, abs=1e-3)
                read += want.any()
    assert read > 30


def test_the_grid_stays_level_under_a_camera_that_looks_down():
    level, turned = grid_points(8, 0.0).double(), grid_points(8, 0.3).double()
    assert level[..., 2].min() == 1.25
    assert (level[0, 0, 0] - torch.tensor([-8.75, -3.0, 1.25])).abs().max() < 1e-6
    # The camera's axes in the level frame, for a turn of 0.3 down.
    down = torch.tensor([0, np.cos(0.3), -np.sin(0.3)])
    ahead = torch.tensor([0, np.sin(0.3), np.cos(0.3)])
    torch.testing.assert_close(turned[..., 1], level @ down, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[..., 2], level @ ahead, atol=1e-5, rtol=0)


def test_the_published_shapes():
    view = BirdsEyeView(256, 64)
    with torch.no_grad():
        lifted = view.lift(
            torch.zeros(1, 256, 16, 16), torch.tensor(K)[None].float(),
            torch.tensor([[64.0, 96]]), torch.ones(1, 2), torch.tensor([[0.0, 0, 96, 64]]),
        )  # fmt: skip
        assert lifted.shape == (1, 1280, 64, 64)
        assert view.layers[0](lifted[..., :8, :8]).shape == (1, 640, 4, 4)
        assert MaskDecoder(1024, 16)(torch.zeros(1, 256, 1024)).shape == (1, 121, 121)
    with torch.device("meta"):
        published = Eoras.from_config({"classes": ["car"], "detector": ""})
    assert published.slots.slots.shape == (8, 512)
    assert published.slots.above_position.shape == published.slots.front_position.shape
    assert published.slots.front_position.shape == (256, 512)
    norms = [m for m in published.encoder.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(norms) == 52
    assert {m.num_groups for m in norms} == {16}


# Slots --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slots():
    torch.manual_seed(0)
    return ObjectSlots(
        3, 16, layers=2, heads=2, hidden=32, dropout=0.1, front=4, above=9
    ).eval()  # fmt: skip


@pytest.mark.parametrize("above", [True, False])
@torch.no_grad()
def test_a_stream_gives_what_the_forward_half_of_a_clip_does(slots, above):
    torch.manual_seed(2)
    front = torch.randn(2, 5, 4, 16)
    lifted = torch.randn(2, 5, 9, 16) if above else None
    whole = slots(front, lifted, torch.ones(2, 5, dtype=torch.bool))
    state = slots.begin(2)
    for t in range(5):
        state, known = slots.step(state, front[:, t], None if lifted is None else lifted[:, t])
        torch.testing.assert_close(known[..., :16], whole[:, t, :, :16], atol=1e-5, rtol=0)
    # At its end a clip has no future either.
    torch.testing.assert_close(known, whole[:, 4], atol=1e-5, rtol=0)
    assert not torch.allclose(whole[:, 0, :, 16:], slots.step(slots.begin(2), front[:, 0],
                              None if lifted is None else lifted[:, 0])[1][..., 16:])  # fmt: skip


@torch.no_grad()
def test_both_directions_see_the_whole_clip_and_moments_without_the_object_change_nothing(slots):
    torch.manual_seed(3)
    front, lifted = torch.randn(1, 4, 4, 16), torch.randn(1, 4, 9, 16)
    there = torch.tensor([[True, False, True, True]])
    known = slots(front, lifted, there)
    back = slots(front.flip(1), lifted.flip(1), there.flip(1)).flip(1)
    torch.testing.assert_close(known[:, there[0]], back[:, there[0]].roll(16, -1))
    short = slots(front[:, there[0]], lifted[:, there[0]], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(known[:, there[0]], short, atol=1e-5, rtol=0)


def test_positions_tell_all_places_apart():
    places = sine_positions(256, 512)
    apart = torch.cdist(places, places) + torch.eye(256) * 9
    assert apart.min() > 0.5


# Clips --------------------------------------------------------------------------------------------


def test_losses_reach_every_weight_and_are_finite_without_objects():
    samples = Drives((3,)).samples
    learner = Eoras.from_config(SMALL | {"classes": list(CLASSES), "dropout": 0.0})
    sum(learner.losses(clip_batch(samples)).values()).backward()
    untouched = [n for n, p in learner.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []
    empty = replace(samples[0], truth=samples[0].truth[:0])
    losses = learner.losses(clip_batch([empty, empty]))
    sum(losses.values()).backward()
    assert all(v == 0 for v in losses.values())


def test_only_frames_whose_whole_mask_is_known_are_learnt(model):
    samples = Drives((3,)).samples
    batch = clip_batch(samples)
    before = model.losses(batch)
    batch.targets[1].ignore[:] = True
    batch.targets[1].amodal[:] = True  # what is ignored may be anything
    some = model.losses(batch)
    batch.targets[1].amodal[:] = False
    for name, value in model.losses(batch).items():
        assert value == some[name]
        assert value != before[name]
    for targets in batch.targets:
        targets.ignore[:] = True
    assert all(v == 0 for v in model.losses(batch).values())


@pytest.mark.parametrize("decoder", ["fm", "fm+vm+occ"])
def test_each_decoder_learns_its_mask_and_positions_are_learnt_where_asked(decoder):
    names = ["amodal", "visible", "hidden"][: len(decoder.split("+"))]
    settings = {"decoder": decoder, "positions": "random", "dropout": 0.0}
    learner = Eoras.from_config(SMALL | {"classes": list(CLASSES)} | settings)
    batch = clip_batch(Drives((3,)).samples)
    losses = learner.losses(batch)
    assert list(losses) == names
    sum(losses.values()).backward()
    untouched = [n for n, p in learner.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []
    with torch.no_grad():
        learner.eval()
        detections, before = learner.detect(batch), learner.losses(batch)
        for targets in batch.targets:
            targets.visible[:] = targets.amodal  # nothing is hidden
        after = learner.losses(batch)
    assert all(torch.equal(d.visible, d.amodal) for d in detections) == (decoder == "fm")
    assert [name for name in names if after[name] != before[name]] == names[1:]


def test_published_visible_masks_are_learnt_where_the_whole_one_is_unknown():
    settings = SMALL | {"classes": list(CLASSES), "dropout": 0.0, "published": "kitti"}
    learner = Eoras.from_config(settings).eval()
    batch = clip_batch(Drives((3,)).samples)
    batch.targets[1].ignore[:] = True
    before = learner.losses(batch)
    batch.targets[1].visible[:] = False
    batch.targets[1].amodal[:] = False
    after = learner.losses(batch)
    assert after["amodal"] == before["amodal"]
    assert after["visible"] != before["visible"]


def test_a_step_looks_at_as_many_objects_of_a_clip_as_asked(monkeypatch):
    learner = Eoras.from_config(SMALL | {"classes": list(CLASSES), "objects": 2})
    counts = count_crops(learner, monkeypatch)
    batch = clip_batch(Drives((3, 3)).samples, 3)
    learner.losses(batch)
    assert counts == [2 * 2 * 3]


def test_masks_of_a_batch_of_clips_are_those_of_each_clip(model):
    samples = Drives((3, 3)).samples
    with torch.no_grad():
        together = model.detect(clip_batch(samples, 3))
        apart = model.detect(clip_batch(samples[:3])) + model.detect(clip_batch(samples[3:]))
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a.boxes, b.boxes)
        torch.testing.assert_close(a.amodal, b.amodal, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        single = model.detect(clip_batch(samples, 1))
    assert not torch.allclose(single[2].amodal, together[2].amodal, atol=1e-3)


def test_given_visible_masks_are_completed_over_the_clip(model, monkeypatch):
    samples = Drives((4,)).samples
    frames, truths = [s.frame for s in samples], [s.truth for s in samples]
    counts = count_crops(model, monkeypatch)
    found = model.complete(frames, truths)
    assert sum(counts) == sum(len(t) for t in truths)
    with torch.no_grad():
        masks = model.detect(clip_batch(samples))
    for one, truth, mask in zip(found, truths, masks, strict=True):
        shown = np.isin(truth.ids, one.ids)
        assert one.ids.tolist() == truth.ids[shown].tolist()
        assert one.class_ids.tolist() == truth.class_ids[shown].tolist()
        assert (one.visible - truth.visible[shown]).areas().sum() == 0
        assert (one.visible - one.amodal).areas().sum() == 0
        pasted = BoxMasks(SIZE, mask.amodal, mask.boxes).rle()
        drawn = pasted.areas() > 0
        assert drawn.any()
        assert (np.diag(one.amodal.iou(pasted))[drawn] > 0.99).all()
        assert (one.amodal_boxes == one.amodal.boxes()).all()


def test_whole_masks_that_are_given_are_not_looked_at(model, monkeypatch):
    samples = Drives((3,)).samples
    frames, truths = [s.frame for s in samples], [s.truth for s in samples]
    found = model.complete(frames, truths)
    blind = [replace(t, amodal=t.visible, amodal_boxes=t.visible_boxes) for t in truths]
    for a, b in zip(found, model.complete(frames, blind), strict=True):
        assert a.amodal.counts == b.amodal.counts
    # Of what is not drawn at all the visible mask is left.
    blank = lambda tokens: torch.full((len(tokens), 9, 9), -1.0)  # noqa: E731
    monkeypatch.setattr(model.decoders["amodal"], "forward", blank)
    report = Report()
    for one, truth in zip(model.complete(frames, truths, report), truths, strict=True):
        shown = truth.visible[np.isin(truth.ids, one.ids)]
        assert one.amodal.counts == shown.counts
    assert any("nothing was drawn" in w.text for w in report.warnings)


def test_long_clips_are_completed_in_parts_with_the_same_result(model, monkeypatch):
    samples = Drives((4,)).samples
    frames, truths = [s.frame for s in samples], [s.truth for s in samples]
    whole = model.complete(frames, truths)
    monkeypatch.setattr("amodal_core.models.eoras._ENCODED", 3)
    monkeypatch.setattr("amodal_core.models.layers.clip_tracks._KEPT", 5)
    parts = model.complete(frames, truths)
    for a, b in zip(whole, parts, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert (np.diag(a.amodal.iou(b.amodal)) > 0.99).all()


def test_one_pixel_empty_frames_and_no_objects_are_finite(model):
    sample = Drives((1,)).samples[0]
    dot = np.zeros((1, *SIZE), bool)
    dot[0, 63, 95] = True
    masks = RleMasks.from_dense(dot)
    truth = make_truth(masks, masks, [0], [3])
    frames = [sample.frame] * 3
    found = model.complete(frames, [truth, truth[:0], truth])
    assert [len(f) for f in found] == [1, 0, 1]
    assert np.isfinite(found[0].amodal_boxes).all()
    assert [len(f) for f in model.complete(frames[:1], [truth[:0]])] == [0]
    learner = Eoras.from_config(SMALL | {"classes": list(CLASSES)})
    batch = make_batch(frames, [targets_of(truth), targets_of(truth[:0]), targets_of(truth)])
    losses = learner.losses(replace(batch, clip=3))
    assert all(torch.isfinite(v) for v in losses.values())
