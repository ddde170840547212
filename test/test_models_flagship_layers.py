"""The flagship's layers: assignment, suppression, dynamic masks, LiDAR cells and losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_frames import CLASSES
from model_scenes import truth
from torchvision.ops import nms

from amodal_core.models.flagship import occluder_masks
from amodal_core.models.layers.assignment import assign
from amodal_core.models.layers.batch import Targets, depth_channels, targets_of
from amodal_core.models.layers.dense_head import DenseHead, suppress
from amodal_core.models.layers.dense_losses import contrastive, mask_losses, quality_focal
from amodal_core.models.layers.dynamic_masks import draw_masks, kernel_size, sample_boxes
from amodal_core.models.layers.lidar_branch import sparse_cells

SIZE = (96, 160)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def targets(boxes, size=SIZE) -> Targets:
    one = targets_of(truth(size, boxes))
    # The truth's boxes share their memory.
    return replace(one, visible_boxes=one.boxes.clone(), labels=one.labels % len(CLASSES))


POINTS = torch.cartesian_prod(torch.arange(4.0, 160, 8), torch.arange(4.0, 96, 8))


def assigned(one: Targets, boxes=None, scores=None):
    scores = torch.full((1, len(POINTS), 2), 0.1) if scores is None else scores
    if boxes is None:
        boxes = torch.cat([POINTS - 12, POINTS + 12], 1)[None]
    return assign(scores, boxes, POINTS, [one])


def test_a_shared_tower_says_what_two_alike_say():
    one = DenseHead(8, 3, (6,), (8, 16), shared=True).eval()
    two = DenseHead(8, 3, (6,), (8, 16)).eval()
    weights = one.state_dict()
    towers = {k.replace("class_", "box_"): v for k, v in weights.items() if "class_tower" in k}
    two.load_state_dict(weights | towers)
    levels = [torch.rand(2, 8, 4, 6), torch.rand(2, 8, 2, 3)]
    shared, apart = one(levels), two(levels)
    for name in ("logits", "boxes", "visible_boxes"):
        torch.testing.assert_close(getattr(shared, name), getattr(apart, name), rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([shared.features] * 2, 2), apart.features)
    assert (one.channels, two.channels) == (6, 12)
    # Of two, one is the scores' and one the boxes'.
    torch.nn.init.ones_(two.box_tower[0].convs[0].weight)
    changed = two(levels)
    assert torch.equal(changed.logits, apart.logits)
    assert not torch.isclose(changed.boxes, apart.boxes).any()
    assert sum(p.numel() for p in one.parameters()) < sum(p.numel() for p in two.parameters())


def test_an_occluder_kernel_learns_what_is_seen_of_those_in_front():
    one = targets([(10, 10, 60, 50), (40, 10, 90, 50), (100, 10, 120, 50)])
    one.occluders[1, 0] = True
    masks = occluder_masks(one)
    assert torch.equal(masks[1], one.visible[0])
    assert not masks[0].any()
    assert not masks[2].any()


def test_locations_on_the_visible_part_learn_an_object_those_whose_boxes_fit_first():
    one = targets([(10, 10, 90, 50)])
    one.visible_boxes[0] = torch.tensor([10.0, 10, 40, 50])
    boxes = torch.cat([POINTS - 12, POINTS + 12], 1)[None]
    fitting = int(((torch.tensor([36.0, 28.0]) == POINTS).all(1)).nonzero())
    boxes[0, fitting] = torch.tensor([10.0, 10, 90, 50])
    given = assigned(one, boxes)
    chosen = given.objects[0] == 0
    assert 1 < chosen.sum() <= 10
    assert (POINTS[chosen, 0] < 40).all()
    assert given.ranks[0, fitting] == 0
    assert given.quality[0, fitting] == 1
    assert given.quality[0].argmax() == fitting
    assert (given.quality[0][~chosen] == 0).all()


def test_every_object_however_small_gets_a_location_and_a_wholly_hidden_one_too():
    one = targets([(13, 13, 14, 14), (60, 40, 62, 41), (90, 30, 130, 60)])
    one.visible_boxes[2] = 0
    assert set(assigned(one).objects[0].tolist()) == {-1, 0, 1, 2}


def test_background_on_ignored_objects_is_left_alone_objects_on_it_are_not():
    one = targets([(0, 0, 80, 96), (10, 10, 40, 40)])
    one.ignore[0] = True
    given = assigned(one)
    inside = POINTS[:, 0] < 80
    assert 0 not in given.objects[0].tolist()
    assert torch.equal(given.ignored[0], inside & (given.objects[0] < 0))
    assert (given.objects[0] == 1).any()


def test_suppression_of_fixed_size_is_greedy_suppression():
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(80, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 10 + torch.rand(80, 2, generator=generator) * 30], 1)
    scores = torch.rand(80, generator=generator).sort(descending=True).values
    labels = torch.zeros(1, 80, dtype=torch.long)
    left = suppress(scores[None], labels, boxes[None], boxes[None], 0.5)[0]
    expected = torch.zeros(80, dtype=torch.bool)
    expected[nms(boxes, scores, 0.5)] = True
    assert 10 < expected.sum() < 70
    assert torch.equal(left > 0, expected)


def test_a_car_that_hides_most_of_another_does_not_suppress_it():
    whole = torch.tensor([[[10.0, 10, 50, 40], [14, 10, 54, 40]]])
    seen = torch.tensor([[[10.0, 10, 50, 40], [50, 10, 54, 40]]])
    scores, labels = torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, dtype=torch.long)
    assert (suppress(scores, labels, whole, seen, 0.6) > 0).tolist() == [[True, True]]
    assert (suppress(scores, labels, whole, whole, 0.6) > 0).tolist() == [[True, False]]


def test_samples_lie_at_the_centres_of_a_boxes_cells():
    x = (torch.arange(40.0) + 0.5) * 4
    y = (torch.arange(24.0) + 0.5) * 4
    features = torch.stack([x.expand(24, 40), y[:, None].expand(24, 40)])[None]
    box = torch.tensor([[[20.0, 12, 100, 60]]])
    got = sample_boxes(features, box, 8, 4)[0, 0]
    torch.testing.assert_close(got[0, 3], torch.arange(25.0, 100, 10))
    torch.testing.assert_close(got[1, :, 5], torch.arange(15.0, 60, 6))


def test_a_kernel_is_a_network_of_three_layers_over_features_and_place():
    kernels = torch.randn(3, kernel_size(5, 4))
    samples = torch.randn(3, 5, 6, 6)
    got = draw_masks(samples, kernels, 4)
    place = (torch.arange(6) + 0.5) / 3 - 1
    for n, (r, c) in [(0, (1, 4)), (2, (5, 0))]:
        x = torch.cat([samples[n, :, r, c], place[c : c + 1], place[r : r + 1]])
        rest = kernels[n]
        for outer in (4, 4, 3):
            weight, rest = rest[: outer * len(x)].view(outer, -1), rest[outer * len(x) :]
            bias, rest = rest[:outer], rest[outer:]
            x = weight @ x + bias
            x = x.relu() if outer == 4 else x
        torch.testing.assert_close(got[n, :, r, c], x, rtol=1e-4, atol=1e-4)


def test_sparse_cells_tell_nearest_and_mean_depth_and_how_much_is_known():
    metres = torch.zeros(8, 8)
    metres[1, 1], metres[2, 3] = 8.0, 20.0
    near, mean, share, there = sparse_cells(depth_channels(metres)[None])[0]
    logs = torch.tensor([8.0, 20.0]).log() / np.log(80)
    torch.testing.assert_close(near[0, 0], logs[0])
    torch.testing.assert_close(mean[0, 0], logs.mean())
    assert share[0, 0] == 2 / 16
    assert there.tolist() == [[1, 0], [0, 0]]
    assert not near[1].any()
    assert not mean[1].any()


def test_losses_know_right_from_wrong():
    mask = torch.zeros(2, 8, 8)
    mask[0, 2:6, 2:6] = 1
    right = mask_losses((mask - 0.5) * 40, mask)
    wrong = mask_losses((0.5 - mask) * 40, mask)
    assert right.max() < 1e-4
    assert wrong.min() > 10
    quality = torch.tensor([[[0.7, 0.0], [0.0, 0.0]]])
    even = torch.logit(quality.clamp(1e-6))
    assert quality_focal(even, quality, torch.ones(1, 2)) < 1e-4
    assert quality_focal(-even, quality, torch.ones(1, 2)) > 1
    looks = torch.eye(4)[[0, 0, 1, 1]]
    ids = torch.tensor([5, 5, 9, 9])
    assert contrastive(looks, ids) < 1e-3
    assert contrastive(looks, ids[[0, 2, 1, 3]]) > 1
    for few in (looks[:0], looks[:1], looks[:2]):
        assert contrastive(few, ids[: len(few)]) == 0
