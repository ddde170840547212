"""PointPillars against slow references, and on a scene that it can learn."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from model_scenes import truth

from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame
from amodal_core.geometry.boxes3d import corners, image_boxes
from amodal_core.models.layers.anchor_boxes import (
    anchor_grid,
    decode,
    encode,
    from_lidar_boxes,
    nearest_axis,
    to_lidar_boxes,
)
from amodal_core.models.layers.batch import make_batch, targets_of
from amodal_core.models.layers.box_silhouettes import silhouettes
from amodal_core.models.layers.pillars import Grid, PillarEncoder, PointFeatures, pillars_of
from amodal_core.models.layers.rotated import iou_bev, rotated_nms
from amodal_core.models.pointpillars import PointPillars, PointPillarsConfig

CALIBRATION = Calibration(
    np.array([[200.0, 0, 160], [0, 200.0, 60], [0, 0, 1]]),
    np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    320,
    120,
)
SMALL = Grid(low=(0.0, -10.24, -3.0), high=(20.48, 10.24, 1.0))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def cloud(n, grid=SMALL):
    low, high = torch.tensor(grid.low), torch.tensor(grid.high)
    xyz = low - 1 + torch.rand(n, 3) * (high - low + 2)
    return torch.cat([xyz, torch.rand(n, 1)], 1)


def slow_pillars(scan, grid, most):
    """One point after the other, in the order of the scan."""
    cells = {}
    for point in scan.tolist():
        if not all(a <= v < b for v, a, b in zip(point[:3], grid.low, grid.high, strict=True)):
            continue
        place = tuple(
            int((np.float32(v) - np.float32(a)) / np.float32(grid.cell))
            for v, a in zip(point[:2], grid.low[:2], strict=True)
        )
        if place not in cells:
            if len(cells) == most:
                continue
            cells[place] = []
        if len(cells[place]) < grid.most_points:
            cells[place].append(point)
    return cells


@pytest.mark.parametrize("most", [40, 4000])
def test_pillars_keep_the_first_points_and_the_first_pillars(most):
    grid = replace(SMALL, cell=2.56, most_points=3, most_pillars=most)
    scans = [cloud(400), torch.zeros(0, 4), cloud(50)]
    pillars = pillars_of(scans, grid, training=False)
    for number, scan in enumerate(scans):
        expected = slow_pillars(scan, grid, most)
        mine = pillars.scan == number
        assert mine.sum() == len(expected)
        for points, count, x, y in zip(
            pillars.points[mine], pillars.counts[mine], pillars.column[mine], pillars.row[mine],
            strict=True,
        ):  # fmt: skip
            wanted = torch.tensor(expected[int(x), int(y)])
            assert count == len(wanted)
            torch.testing.assert_close(points[:count], wanted)
            assert not points[count:].any()


def test_a_scan_is_cut_at_the_edges_of_the_volume_and_training_keeps_fewer_pillars():
    grid = Grid(most_pillars=3, most_pillars_train=2)
    low, high = torch.tensor(grid.low), torch.tensor(grid.high)
    last = torch.nextafter(high, low)  # by whose rounded place it lies in a row beyond the last
    on_edges = [torch.where(torch.arange(3) == axis, high, last) for axis in range(3)]
    xyz = torch.stack([*on_edges, low, last, torch.tensor([20.0, 0, 0]), torch.tensor([9.0, 0, 0])])
    scan = torch.cat([xyz, torch.rand(len(xyz), 1)], 1)
    pillars = pillars_of([scan], grid, training=False)
    columns, rows = grid.size
    places = list(zip(pillars.column.tolist(), pillars.row.tolist(), strict=True))
    assert places == [(0, 0), (columns - 1, rows - 1), (125, 248)]
    assert len(pillars_of([scan], grid, training=True).counts) == 2


@pytest.mark.parametrize(
    "form",
    [
        PointFeatures(),
        PointFeatures("legacy", "xyz", with_distance=True),
        PointFeatures("absolute", "xyz"),
        PointFeatures("absolute", "xy", with_distance=True),
        PointFeatures("none", "xyz"),
    ],
    ids=lambda form: f"{form.xyz}, {form.voxel_center}, {form.with_distance}",
)
def test_the_encoder_equals_the_features_written_out(form):
    grid = replace(SMALL, cell=2.56, most_points=4)
    scan = cloud(60)
    encoder = PillarEncoder(grid, form, channels=5).eval()
    encoder.bn.running_mean.normal_()
    image = encoder(pillars_of([scan], grid, training=False), 1)[0]
    assert image.shape == (5, 8, 8)
    weight = encoder.conv.weight[:, :, 0]
    for (x, y), points in slow_pillars(scan, grid, 9999).items():
        p = torch.tensor(points)
        centre = torch.tensor(grid.low) + (torch.tensor([x, y, 0]) + 0.5) * grid.cell
        centre[2] = -1.0  # in the middle of -3 to 1
        axes = len(form.voxel_center)
        off = (p[:, :3] - centre)[:, :axes]
        legacy = torch.cat([off, p[:, axes:3]], 1)
        own = {"legacy": legacy, "absolute": p[:, :3], "none": p[:, :0]}[form.xyz]
        features = [own, p[:, 3:], p[:, :3] - p[:, :3].mean(0), off]
        if form.with_distance:
            features.append((own**2).sum(1, keepdim=True).sqrt())
        empty = torch.zeros(grid.most_points - len(p), form.width)
        rows = torch.cat([torch.cat(features, 1), empty]) @ weight.T
        normed = (rows - encoder.bn.running_mean) / torch.sqrt(encoder.bn.running_var + 1e-3)
        torch.testing.assert_close(image[:, y, x], normed.relu().amax(0), atol=1e-4, rtol=1e-4)


def test_rotated_overlap_equals_opencv():
    a, b = torch.rand(40, 5), torch.rand(30, 5)
    for boxes in (a, b):
        boxes *= torch.tensor([10.0, 10, 4, 2, 6.28])
        boxes += torch.tensor([0.0, 0, 1, 1, -3.14])
    ours = iou_bev(a, b)
    for i, one in enumerate(a.tolist()):
        for j, two in enumerate(b.tolist()):
            rects = [((r[0], r[1]), (r[2], r[3]), math.degrees(r[4])) for r in (one, two)]
            kind, points = cv2.rotatedRectangleIntersection(*rects)
            shared = cv2.contourArea(cv2.convexHull(points)) if kind else 0.0
            union = one[2] * one[3] + two[2] * two[3] - shared
            assert ours[i, j] == pytest.approx(shared / union, abs=2e-4)
    torch.testing.assert_close(iou_bev(a, a).diagonal(), torch.ones(40))


def test_suppression_keeps_the_best_of_each_pile():
    boxes = torch.tensor([[0.0, 0, 4, 2, 0], [0.2, 0, 4, 2, 0.1], [9, 0, 4, 2, 1], [0, 0, 4, 2, 3]])
    scores = torch.tensor([0.5, 0.9, 0.3, 0.8])
    assert rotated_nms(boxes, scores, 0.1).tolist() == [1, 2]
    assert rotated_nms(boxes[:0], scores[:0], 0.1).tolist() == []


@pytest.mark.parametrize(
    ("align_center", "x", "y"),
    [(True, (1.0, 3.0, 5.0, 7.0), (-2.0, 2.0)), (False, (0.0, 8 / 3, 16 / 3, 8.0), (-4.0, 4.0))],
)
@pytest.mark.parametrize("heading", ["rotation_y", "yaw"])
def test_anchors_are_the_published_ones_of_each_class_in_both_directions(
    heading, align_center, x, y
):
    anchors = anchor_grid(("car", "cyclist"), (0.0, -4.0, 8.0, 4.0), (2, 4), heading, align_center)
    # Bottom, width, length and height, of KITTI's configurations in the published code.
    published = [(-1.78, 1.6, 3.9, 1.56), (-0.6, 0.6, 1.76, 1.73)]
    expected = [
        [at_x, at_y, bottom, *((w, length) if heading == "rotation_y" else (length, w)), h, angle]
        for at_y in y
        for at_x in x
        for bottom, w, length, h in published
        for angle in (0.0, 1.57)
    ]
    torch.testing.assert_close(anchors, torch.tensor(expected))


def test_a_box_is_turned_to_the_axis_that_it_is_nearest_to():
    angles = [0.0, 0.78, 0.79, math.pi / 2, 2.35, 2.36, math.pi, -0.78, -0.79, 7.0, 9.0]
    boxes = torch.tensor([[10.0, 5, 0, 4, 2, 1, angle] for angle in angles])
    turned = [abs(math.sin(angle)) > abs(math.cos(angle)) for angle in angles]
    halves = torch.tensor([(1.0, 2.0) if across else (2.0, 1.0) for across in turned])
    place = torch.tensor([10.0, 5])
    torch.testing.assert_close(nearest_axis(boxes), torch.cat([place - halves, place + halves], 1))


def test_deltas_and_headings_invert():
    boxes = torch.rand(50, 7) * 4 + 1
    anchors = torch.rand(50, 7) * 4 + 1
    torch.testing.assert_close(decode(anchors, encode(anchors, boxes)), boxes)
    ours = torch.cat([boxes[:, :6], torch.rand(50, 1) * 6 - 3], 1)
    torch.testing.assert_close(to_lidar_boxes(from_lidar_boxes(ours)), ours)


def test_a_kitti_rotation_of_minus_half_pi_drives_along_x():
    box = torch.tensor([[10.0, 2, -1.7, 1.6, 3.9, 1.5, -math.pi / 2]])
    ours = to_lidar_boxes(box)[0]
    assert ours.tolist() == pytest.approx([10, 2, -0.95, 3.9, 1.6, 1.5, 0], abs=1e-5)
    corner = corners(ours[None].numpy())[0]
    assert np.ptp(corner[:, 0]) == pytest.approx(3.9, abs=1e-4)
    flat = nearest_axis(box)[0]
    assert flat[2] - flat[0] == pytest.approx(3.9)


def test_silhouettes_are_the_projected_boxes_and_the_nearer_hides_the_farther():
    boxes = torch.tensor(
        [[20.0, 0, 0, 4, 2, 2, 0], [10, 0, 0, 4, 2, 2, 0], [-10, 0, 0, 4, 2, 2, 0]]
    )
    seen = silhouettes(boxes, CALIBRATION, torch.ones(2), (120, 320), 28)
    assert seen.rows.tolist() == [0, 1]
    np.testing.assert_allclose(seen.boxes, image_boxes(boxes.numpy(), CALIBRATION)[:2], atol=1e-3)
    assert (seen.amodal > 0).flatten(1).any(1).all()
    assert not (seen.visible[0] > 0).any()
    assert torch.equal(seen.visible[1], seen.amodal[1])
    assert seen.depths.tolist() == [20, 10]


def test_silhouettes_shrink_with_the_image():
    box = torch.tensor([[10.0, 1, 0, 4, 2, 2, 0.3]])
    whole = silhouettes(box, CALIBRATION, torch.ones(2), (120, 320), 28)
    half = silhouettes(box, CALIBRATION, torch.tensor([0.5, 0.25]), (60, 80), 28)
    wanted = whole.boxes * torch.tensor([0.25, 0.5, 0.25, 0.5])
    torch.testing.assert_close(half.boxes, wanted, atol=1e-3, rtol=0)


def test_two_guesses_at_one_object_do_not_hide_each_other():
    boxes = torch.tensor([[10.0, 0, 0, 4, 2, 2, 0], [9.7, 0.1, 0, 4, 2, 2, 0.1]])
    seen = silhouettes(boxes, CALIBRATION, torch.ones(2), (120, 320), 28)
    assert torch.equal(seen.visible, seen.amodal)


def scene():
    """A car of points on the ground, and its frame."""
    box = np.array([[8.0, 1.0, -0.9, 3.9, 1.6, 1.5, 0.3]], np.float32)
    unit = torch.rand(600, 3).numpy() - 0.5
    local = unit * box[0, 3:6]
    c, s = math.cos(0.3), math.sin(0.3)
    xyz = local @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + box[0, :3]
    ground = cloud(2000).numpy()
    ground[:, 2] = -1.7
    points = np.concatenate([np.c_[xyz, np.full(600, 0.5)], ground]).astype(np.float32)
    image = np.zeros((120, 320, 3), np.uint8)
    frame = Frame(1, image=image, points=points, calibration=CALIBRATION)
    x0, y0, x1, y1 = image_boxes(box, CALIBRATION)[0].astype(int)
    tracks = truth((120, 320), [(x0, y0, x1, y1)])
    tracks.boxes3d = box
    tracks.class_ids = np.array([2])
    return frame, targets_of(tracks), box[0]


def config(**changes):
    return PointPillarsConfig(**{"grid": SMALL, **changes})


@pytest.mark.slow
def test_it_learns_a_car_to_a_few_centimetres():
    frame, targets, box = scene()
    batch = make_batch([frame], [targets])
    model = PointPillars(config()).train()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(60):
        losses = model.losses(batch)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    # Norms follow slowly (momentum .01) what so few steps have changed.
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.losses(batch)
    (instances,) = model.infer([frame])
    assert model.classes[int(instances.class_ids[0])] == "car"
    with torch.inference_mode():
        found = model.eval().detect3d([torch.from_numpy(frame.points)])[0]
    assert found.scores[0] > 0.3
    np.testing.assert_allclose(found.boxes[0, :6], box[:6], atol=0.35)
    off = (float(found.boxes[0, 6]) - box[6] + math.pi / 2) % math.pi - math.pi / 2
    assert abs(off) < 0.2


def written_out_losses(outputs, anchors, boxes, classes, heading, dir_offset):
    """The published losses of one scan, anchor by anchor, and how many anchors learn an object.

    Args:
        outputs: logits, deltas and directions of the anchors.
        anchors: (A, 7) in the network's form.
        boxes: (N, 7) in ours.
        classes: (N,).
        heading: the network's form.
        dir_offset: its setting.
    """
    logits, deltas, directions = outputs
    limits = {0: (0.5, 0.35), 1: (0.5, 0.35), 2: (0.6, 0.45)}
    kinds = np.arange(len(anchors)) // 2 % 3

    def flat(box, angle):
        wide = abs(math.sin(angle)) > abs(math.cos(angle))
        dx, dy = (box[4], box[3]) if wide else (box[3], box[4])
        return box[0] - dx / 2, box[1] - dy / 2, box[0] + dx / 2, box[1] + dy / 2

    def iou(a, b):
        shared = np.prod([max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0) for k in (0, 1)])
        area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
        return shared / (area - shared)

    flats = [flat(box, box[6]) for box in anchors]
    solid = boxes.copy()
    if heading == "rotation_y":
        solid[:, 3:5] = boxes[:, [4, 3]]
        solid[:, 6] = -boxes[:, 6] - math.pi / 2
    overlaps = np.zeros((len(anchors), len(boxes)))
    for n, box in enumerate(solid):
        truth = flat(box, box[6])
        near = np.abs(anchors[:, :2] - box[:2]).max(1) < 8
        for k in np.flatnonzero(near & (kinds == classes[n])):
            overlaps[k, n] = iou(flats[k], truth)
    totals, positives = dict.fromkeys(("class", "box", "direction"), 0.0), 0
    for k, anchor in enumerate(anchors):
        best, n = overlaps[k].max(), int(overlaps[k].argmax())
        high, low = limits[int(kinds[k])]
        tops = [m for m in range(len(boxes)) if overlaps[k, m] == overlaps[:, m].max() >= low]
        if tops:
            n = tops[0]
        positive = best >= high or bool(tops)
        if not positive and best >= low:
            continue
        for c, x in enumerate(logits[k]):
            p = 1 / (1 + math.exp(-x))
            if positive and c == classes[n]:
                totals["class"] -= 0.25 * (1 - p) ** 2 * math.log(p)
            else:
                totals["class"] -= 0.75 * p**2 * math.log(1 - p)
        if not positive:
            continue
        positives += 1
        box = solid[n]
        diagonal = math.hypot(anchor[3], anchor[4])
        aim = [
            (box[0] - anchor[0]) / diagonal,
            (box[1] - anchor[1]) / diagonal,
            (box[2] - (anchor[2] + anchor[5] / 2)) / anchor[5],
            *np.log(box[3:6] / anchor[3:6]),
        ]
        errors = [*(deltas[k][:6] - aim), math.sin(deltas[k][6] - (box[6] - anchor[6]))]
        for e in map(abs, errors):
            totals["box"] += 2.0 * (e * e * 4.5 if e < 1 / 9 else e - 1 / 18)
        side = int((box[6] - dir_offset) % (2 * math.pi) >= math.pi)
        pair = directions[k]
        totals["direction"] -= 0.2 * (pair[side] - math.log(math.exp(pair[0]) + math.exp(pair[1])))
    return {name: value / positives for name, value in totals.items()}, positives


@pytest.mark.parametrize(("heading", "dir_offset"), [("rotation_y", 0.0), ("yaw", 0.78539)])
def test_losses_are_the_published_ones_written_out(heading, dir_offset, monkeypatch):
    grid = replace(SMALL, cell=0.32)
    model = PointPillars(config(heading=heading, dir_offset=dir_offset, grid=grid))
    anchors = model._anchors(32, 32, torch.device("cpu"))
    outputs = [torch.randn(1, len(anchors), width) for width in (3, 7, 2)]
    monkeypatch.setattr(model, "_forward", lambda scans: (*outputs, anchors))
    boxes = torch.tensor(
        [
            [8.3, 1.1, -0.9, 4.1, 1.7, 1.5, 0.2],
            [12.0, -4.3, -0.8, 3.7, 1.5, 1.4, 2.1],
            [5.64, 4.31, 0.2, 0.9, 0.7, 1.8, -1.4],  # no anchor fits well
            [14.3, 5.1, 0.3, 1.7, 0.5, 1.7, -2.9],
            [20.9, 0.3, -0.9, 4.1, 1.7, 1.5, 0.2],  # beyond the volume
            [3.0, -2.0, -0.9, 4.1, 1.7, 1.5, 0.2],  # not to be learnt
        ]
    )
    classes = torch.tensor([2, 2, 0, 1, 2, 2])
    _, targets, _ = scene()
    targets = targets.select(torch.zeros(6, dtype=torch.long))
    ignore = torch.tensor([False] * 5 + [True])
    targets = replace(targets, boxes3d=boxes, labels=classes, ignore=ignore)
    batch = replace(make_batch([scene()[0]]), targets=[targets])
    losses = model.losses(batch)
    wanted, positives = written_out_losses(
        [x[0].double().numpy() for x in outputs],
        anchors.double().numpy(),
        boxes[:4].double().numpy(),
        classes[:4].numpy(),
        heading,
        dir_offset,
    )
    assert positives >= 4
    for name, value in wanted.items():
        assert float(losses[name]) == pytest.approx(value, rel=2e-5), name


@pytest.mark.parametrize("heading", ["rotation_y", "yaw"])
def test_what_is_learnt_is_what_is_decoded(heading):
    """The best anchors' aims, taken for outputs, give back the objects with their headings."""
    model = PointPillars(config(heading=heading, dir_offset=0.4, min_score=0.5))
    boxes = torch.tensor([[5.0, y, -0.9, 3.9, 1.6, 1.5, yaw] for y, yaw in zip(
        (-8.0, -5.0, -2.0, 1.0, 4.0, 7.0), (-3.0, -1.7, -0.4, 0.6, 1.4, 2.9), strict=True
    )])  # fmt: skip
    anchors = model._anchors(64, 64, torch.device("cpu"))
    truth = from_lidar_boxes(boxes, heading)
    labels, _, matched = model.assign(anchors, truth, torch.full((6,), 2))
    positive = labels == 2
    logits = torch.full((len(anchors), 3), -9.0)
    deltas = torch.zeros(len(anchors), 7)
    side = ((truth[:, 6] - 0.4) % (2 * math.pi) >= math.pi).long()
    logits[positive, 2] = 2.0 + torch.rand(int(positive.sum()))
    deltas[positive] = encode(anchors[positive], truth[matched[positive]])
    directions = torch.nn.functional.one_hot(side[matched], 2).float()
    # Up to half a turn either way is the same for the box alone.
    deltas[positive, 6] += math.pi * torch.randint(-1, 2, (int(positive.sum()),))
    found = model._decode(logits, deltas, directions, anchors)
    order = found.boxes[:, 1].argsort()
    torch.testing.assert_close(found.boxes[order], boxes, atol=1e-4, rtol=0)
    assert set(found.labels.tolist()) == {2}


def test_boxes_of_other_classes_are_suppressed_where_asked():
    """Two anchors at one place, each with two classes; and a third beside."""
    boxes = torch.tensor([[5.0, 0, -0.9, 3.9, 1.6, 1.5, 0], [5.1, 0, -0.9, 3.9, 1.6, 1.5, 0],
                          [15.0, 5, -0.9, 3.9, 1.6, 1.5, 0]])  # fmt: skip
    anchors = from_lidar_boxes(boxes)
    logits = torch.tensor([[1.0, -9, 2], [3, -9, 1.5], [-9, 1, -9]])
    found = {}
    for each in (True, False):
        model = PointPillars(config(multi_classes_nms=each))
        found[each] = model._decode(logits, torch.zeros(3, 7), torch.eye(2)[[0, 0, 0]], anchors)
    assert found[True].labels.tolist() == [0, 2, 1]
    assert found[True].scores.logit().tolist() == pytest.approx([3, 2, 1], abs=1e-4)
    assert found[False].labels.tolist() == [0, 1]
    assert found[False].scores.logit().tolist() == pytest.approx([3, 1], abs=1e-4)


def test_hundreds_of_boxes_are_suppressed_as_few_are():
    boxes = torch.rand(600, 5) * torch.tensor([70.0, 80, 4, 2, 6]) + torch.tensor([0, 0, 1, 1, 0])
    scores = torch.rand(600)
    order = scores.argsort(descending=True)
    kept = []
    overlaps = iou_bev(boxes[order], boxes[order]) > 0.05
    for n in range(600):
        if not overlaps[n, kept].any():
            kept.append(n)
    assert rotated_nms(boxes, scores, 0.05).tolist() == order[kept].tolist()
    assert 100 < len(kept) < 560


def test_empty_scans_and_scans_without_objects_are_fine():
    frame, targets, _ = scene()
    nothing = replace(frame, points=np.zeros((0, 4), np.float32))
    model = PointPillars(config()).train()
    empty = targets.select(torch.zeros(1, dtype=torch.bool))
    losses = model.losses(make_batch([nothing, frame], [empty, empty]))
    assert all(torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    assert [len(r) for r in model.infer([nothing])] == [0]


def test_public_weights_load_by_their_names_and_others_are_refused(tmp_path):
    model = PointPillars(config())
    names = set(model.state_dict())
    assert {
        "pillar_encoder.conv.weight",
        "pillar_encoder.bn.running_mean",
        "backbone.multi_blocks.2.15.weight",
        "neck.decoder_blocks.1.0.weight",
        "head.conv_dir_cls.bias",
    } <= names
    torch.save(model.state_dict(), tmp_path / "epoch.pth")
    other = PointPillars(config())
    other.load_public_weights(tmp_path / "epoch.pth")
    assert torch.equal(other.head.conv_cls.weight, model.head.conv_cls.weight)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="do not fit"):
        other.load_public_weights(tmp_path / "other.pth")


def test_classes_without_anchors_are_an_error():
    with pytest.raises(InputError, match="tram"):
        PointPillars.from_config({"classes": ("car", "tram")})
