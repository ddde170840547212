"""Two witnesses: what both see is one object, what one sees alone counts for less."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame, Instances
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_rates
from amodal_core.models import registry
from amodal_core.models.fused import Fused, FusedConfig
from amodal_core.models.witnesses import (
    BOTH,
    FEATURES,
    NETWORK,
    SCAN,
    WEIGHTS,
    Evidence,
    log_odds,
    measured_evidence,
)

SIZE = (60, 100)
CLASSES = ("car", "van", "truck", "pedestrian")
FOUND_BY_SCANS = ("car", "truck", "pedestrian", "other")
BOX3D = [20.0, 1.0, -1.0, 4.2, 1.8, 1.5, 0.1]


def area(*window):
    x0, y0, x1, y1 = window
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def objects(*rows, classes, boxed):
    """Instances of rows (class, score, depth, amodal window, visible window)."""
    n = len(rows)
    amodal = RleMasks.from_dense(np.array([area(*r[3]) for r in rows]).reshape(n, *SIZE))
    visible = RleMasks.from_dense(np.array([area(*r[4]) for r in rows]).reshape(n, *SIZE))
    return Instances(
        size=SIZE,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.array([r[1] for r in rows], np.float32),
        class_ids=np.array([classes.index(r[0]) for r in rows], np.int64),
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible),
        depths=np.array([r[2] for r in rows], np.float32),
        occluders=np.zeros((n, n), bool),
        boxes3d=np.array([BOX3D] * n, np.float32).reshape(n, 7) if boxed else None,
    )


# A pinhole in which the car of the scenes below, 20 pixels high at 20 m, is 1.5 m high.
CAMERA = Calibration(
    np.array([[800 / 3, 0, 50], [0, 800 / 3, 20], [0, 0, 1.0]]), np.eye(4), SIZE[1], SIZE[0]
)


def witnesses(learned, geometric, **settings):
    """The model of a network and a geometry that find this in every frame."""
    return Fused(
        FusedConfig(**({"far_focal": 0} | settings)),
        SimpleNamespace(classes=CLASSES, infer=lambda frames, report: [learned for _ in frames]),
        SimpleNamespace(
            classes=FOUND_BY_SCANS, infer=lambda frames, report: [geometric for _ in frames]
        ),
    )


def fused(network=(), scan=(), points=True, embeddings=None, probabilities=None, **settings):
    """What the two witnesses come to in one frame."""
    learned = objects(*network, classes=CLASSES, boxed=False)
    if embeddings is not None:
        learned.embeddings = np.array(embeddings, np.float32)
    if probabilities is not None:
        learned.class_probabilities = np.array(probabilities, np.float32)
    geometric = objects(*scan, classes=FOUND_BY_SCANS, boxed=True)
    model = witnesses(learned, geometric, **settings)
    frame = Frame(
        0,
        image=np.zeros((*SIZE, 3), np.uint8),
        points=np.zeros((1, 4), np.float32) if points else None,
        calibration=CAMERA if points else None,
    )
    (result,) = model.infer([frame])
    return learned, result


def test_the_networks_appearance_goes_with_its_objects():
    seen = ("van", 0.6, 20.5, (12, 20, 52, 40), (12, 20, 40, 40))
    scanned = ("car", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    far = ("car", 0.9, 60.0, (70, 20, 90, 30), (70, 20, 90, 30))
    alone = ("pedestrian", 0.95, 10.0, (60, 40, 66, 58), (60, 40, 66, 58))
    _, result = fused([seen, far], [alone, scanned], embeddings=[[0, 2], [3, 4]])
    given = {int(depth): row for depth, row in zip(result.depths, result.embeddings, strict=True)}
    assert {k: v.tolist() for k, v in given.items()} == {20: [0, 2], 60: [3, 4], 10: [0, 0]}


def test_what_both_see_is_one_object_with_the_networks_masks_and_class():
    seen = ("van", 0.6, 20.5, (12, 20, 52, 40), (12, 20, 40, 40))
    scanned = ("car", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 40, 40))
    _, result = fused([seen], [scanned])
    assert len(result) == 1
    assert CLASSES[result.class_ids[0]] == "van"
    assert result.depths.tolist() == [20.0]
    assert result.boxes3d[0].tolist() == pytest.approx(BOX3D)
    np.testing.assert_array_equal(result.amodal.dense()[0], area(12, 20, 52, 40))
    np.testing.assert_array_equal(result.visible.dense()[0], area(12, 20, 40, 40))
    assert result.occlusion_rates.tolist() == pytest.approx([1 - 28 / 40])


def test_who_rides_for_one_witness_and_walks_for_the_other_is_one_person():
    person = (0.6, 20.0, (10, 18, 19, 40), (10, 18, 19, 40))
    model = witnesses(
        objects(("pedestrian", *person), classes=CLASSES, boxed=False),
        objects(("cyclist", *person), classes=("car", "cyclist"), boxed=True),
    )
    model.classes, model.geometric.classes = (*CLASSES, "cyclist"), ("car", "cyclist")
    image = np.zeros((*SIZE, 3), np.uint8)
    frame = Frame(0, image=image, points=np.zeros((1, 4), np.float32), calibration=CAMERA)
    (result,) = model.infer([frame])
    assert [CLASSES[c] for c in result.class_ids] == ["pedestrian"]


@pytest.mark.parametrize(
    ("named", "height", "expected"),
    [("van", 3.3, "truck"), ("car", 3.3, "truck"), ("van", 2.7, "van"), ("truck", 2.0, "truck")],
)
def test_no_car_or_van_is_as_high_as_a_truck(named, height, expected, monkeypatch):
    monkeypatch.setitem(globals(), "BOX3D", [20.0, 1.0, -1.0, 8.0, 2.4, height, 0.1])
    thing = (0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    _, result = fused([(named, *thing)], [("truck", *thing)])
    assert [CLASSES[c] for c in result.class_ids] == [expected]


def test_what_is_too_high_for_its_class_is_the_likeliest_that_is_as_high(monkeypatch):
    monkeypatch.setitem(globals(), "BOX3D", [20.0, 1.0, -1.0, 11.0, 2.5, 3.2, 0.1])
    monkeypatch.setitem(globals(), "CLASSES", ("car", "van", "truck", "bus", "pedestrian"))
    thing = (0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    likely = [[0.1, 0.5, 0.1, 0.2, 0.1]]
    _, result = fused([("van", *thing)], [("truck", *thing)], probabilities=likely)
    assert CLASSES[result.class_ids[0]] == "bus"
    (after,) = result.class_probabilities
    assert after[[0, 1, 4]].tolist() == [0, 0, 0]
    assert after[[2, 3]] == pytest.approx([1 / 3, 2 / 3], abs=2e-3)
    assert after.sum() == pytest.approx(1)


def test_the_networks_probabilities_go_with_its_objects_and_the_scan_is_sure_of_its_own():
    seen = ("van", 0.6, 20.5, (12, 20, 52, 40), (12, 20, 40, 40))
    scanned = ("car", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    far = ("car", 0.9, 60.0, (70, 20, 90, 30), (70, 20, 90, 30))
    alone = ("pedestrian", 0.95, 10.0, (60, 40, 66, 58), (60, 40, 66, 58))
    likely = [[0.3, 0.6, 0.1, 0], [0.8, 0.1, 0.1, 0]]
    _, result = fused([seen, far], [alone, scanned], probabilities=likely)
    found = zip(result.depths, result.class_probabilities, strict=True)
    given = {int(depth): row for depth, row in found}
    assert given[20] == pytest.approx(likely[0])
    assert given[60] == pytest.approx(likely[1])
    assert given[10].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "scanned",
    [
        ("pedestrian", 0.5, 20.0, (10, 20, 34, 40), (10, 20, 34, 40)),
        ("car", 0.5, 30.0, (10, 20, 50, 40), (10, 20, 50, 40)),
        ("car", 0.5, 20.0, (60, 20, 90, 40), (60, 20, 90, 40)),
    ],
    ids=["of another kind", "at another depth", "at another place"],
)
def test_what_one_sees_alone_counts_for_less(scanned):
    seen = ("car", 0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    _, result = fused([seen], [scanned])
    boxed = np.isfinite(result.boxes3d).all(axis=1)
    assert sorted(boxed) == [False, True]
    assert result.boxes3d[boxed][0].tolist() == pytest.approx(BOX3D)
    _, confirmed = fused([seen], [("car", 0.5, 20.0, *seen[3:])])
    assert result.scores.max() < confirmed.scores[0]


@pytest.mark.parametrize(
    ("depth", "amodal", "together"),
    [
        (22.9, (10, 20, 50, 40), True),  # within 15 % of 20 m
        (23.1, (10, 20, 50, 40), False),
        (0.0, (10, 20, 50, 40), True),  # the network does not know
        (20.0, (10, 2, 50, 58), True),  # what shows is alike
    ],
)
def test_one_object_is_alike_in_what_shows_or_as_a_whole_and_about_as_far(depth, amodal, together):
    seen = ("car", 0.6, depth, amodal, (10, 20, 50, 40))
    _, result = fused([seen], [("car", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))])
    assert len(result) == 2 - together


def test_instances_come_best_first_with_who_hides_whom():
    behind = ("car", 0.6, 30.0, (10, 20, 50, 40), (10, 20, 30, 40))
    before = ("car", 0.95, 10.0, (30, 20, 70, 40), (30, 20, 70, 40))
    _, result = fused([behind, before], [])
    assert result.depths.tolist() == [10, 30]
    assert (np.diff(result.scores) < 0).all()
    assert result.occluders.tolist() == [[False, False], [True, False]]


def test_each_object_is_confirmed_once_by_the_witness_that_fits_best():
    seen = ("car", 0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    near = ("car", 0.5, 20.0, (14, 20, 54, 40), (14, 20, 54, 40))
    best = ("car", 0.3, 20.0, (11, 20, 51, 40), (11, 20, 51, 40))
    _, result = fused([seen], [near, best])
    assert len(result) == 2
    np.testing.assert_array_equal(result.amodal.dense()[0], area(10, 20, 50, 40))
    np.testing.assert_array_equal(result.amodal.dense()[1], area(14, 20, 54, 40))


def test_what_shows_where_something_nearer_stands_is_a_piece_of_that():
    scanned = ("truck", 0.5, 20.0, (10, 5, 60, 50), (10, 5, 60, 50))
    behind = ("car", 0.4, 25.0, (15, 30, 40, 45), (15, 30, 40, 45))
    (piece, unweighed) = (fused([behind], [scanned], outweighed=p)[1] for p in (0.3, 1.0))
    (car,) = np.flatnonzero(np.isnan(piece.boxes3d[:, 0]))
    (other,) = np.flatnonzero(np.isnan(unweighed.boxes3d[:, 0]))
    assert piece.scores[car] == pytest.approx(0.3 * unweighed.scores[other])
    before = ("car", 0.4, 8.0, (15, 30, 40, 45), (15, 30, 40, 45))
    (weighed, as_it_is) = (fused([before], [scanned], outweighed=p)[1] for p in (0.3, 1.0))
    assert weighed.scores.tolist() == as_it_is.scores.tolist()


@pytest.mark.parametrize(
    ("car", "outweighs"),
    [
        (("car", 0.6, 20.5, (15, 30, 40, 50), (15, 30, 40, 50)), "the scan's"),
        (("car", 0.4, 20.5, (15, 30, 40, 50), (15, 30, 40, 50)), "the network's"),
        (("car", 0.6, 20.5, (15, 40, 40, 50), (15, 40, 40, 50)), "the network's"),
        (("car", 0.6, 24.0, (15, 30, 40, 47), (15, 30, 40, 47)), "none"),
        (("car", 0.6, 20.5, (70, 30, 95, 50), (70, 30, 95, 50)), "none"),
        (("pedestrian", 0.9, 20.5, (15, 28, 24, 50), (15, 28, 24, 50)), "the network's"),
    ],
    ids=["as high as a car", "doubtful", "half as high", "farther away", "elsewhere", "person"],
)
def test_a_car_that_convinces_outweighs_the_cluster_of_it_and_the_tree_over_it(car, outweighs):
    cluster = ("truck", 0.5, 20.0, (10, 5, 60, 50), (10, 5, 60, 50))
    (weighed, plain) = (fused([car], [cluster], outweighed=p)[1] for p in (0.3, 1.0))
    factors = {}
    for who, boxed in (("the scan's", True), ("the network's", False)):
        of = [np.isfinite(r.boxes3d[:, 0]) == boxed for r in (weighed, plain)]
        factors[who] = float(weighed.scores[of[0]][0] / plain.scores[of[1]][0])
    assert factors == {w: pytest.approx(0.3 if w == outweighs else 1.0) for w in factors}


def test_a_scan_without_a_depth_image_is_projected_for_the_network():
    received = []
    model = Fused(
        FusedConfig(far_focal=0),
        SimpleNamespace(
            classes=CLASSES,
            infer=lambda frames, report: (
                received.extend(frames) or [objects(classes=CLASSES, boxed=False) for _ in frames]
            ),
        ),
        SimpleNamespace(
            classes=FOUND_BY_SCANS,
            infer=lambda frames, report: [objects(classes=FOUND_BY_SCANS, boxed=True)],
        ),
    )
    scan = np.array([[0.75, 0.0, 20.0, 0.5]], np.float32)  # 10 columns right of the middle
    model.infer([Frame(0, np.zeros((*SIZE, 3), np.uint8), points=scan, calibration=CAMERA)])
    expected = np.zeros(SIZE, np.float32)
    expected[20, 60] = 20.0
    np.testing.assert_array_equal(received[0].depth, expected)


def test_what_the_network_has_no_class_for_is_left_out_and_nothing_is_no_error():
    other = ("other", 0.9, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    assert len(fused([], [other])[1]) == 0
    assert len(fused([], [])[1]) == 0


def scored(network=(), scan=()):
    """The score of the first object."""
    return fused(network, scan)[1].scores[0]


def test_objects_that_witnesses_alone_see_are_weighed_by_what_else_speaks_for_them():
    car = ("car", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    # A thing as tall as a house is no car, whoever says so.
    tall = ("car", 0.5, 20.0, (10, 2, 50, 58), (10, 2, 50, 58))
    assert scored(scan=[tall]) < 0.2 < scored(scan=[car])
    assert scored(network=[tall]) < scored(network=[car])
    # The scan knows no more of a person than its size, and its walls are as large as trucks.
    person = ("pedestrian", 0.5, 20.0, (10, 18, 19, 40), (10, 18, 19, 40))
    truck = ("truck", 0.5, 20.0, (10, 1, 50, 44), (10, 1, 50, 44))
    assert scored(scan=[person]) < scored(scan=[car])
    assert scored(scan=[truck]) < scored(scan=[car])


def test_evidence_is_what_masks_and_sizes_say():
    van = ("van", 0.5, 20.0, (10, 20, 50, 40), (10, 20, 30, 40))
    cut = ("pedestrian", 0.5, 8.0, (60, 30, 70, 60), (60, 30, 70, 60))
    truck = ("truck", 0.5, 10.0, (80, 0, 90, 30), (80, 0, 90, 30))  # the image ends it above
    misc = ("misc", 0.5, 10.0, (92, 10, 96, 12), (92, 10, 96, 12))  # as high as whatever it is
    classes = (*CLASSES, "misc")
    every = objects(van, cut, truck, misc, classes=classes, boxed=False)
    evidence = measured_evidence(every, classes, CAMERA)
    expected = {
        "area": [np.log(800), np.log(300), np.log(300), np.log(8)],
        "height": [np.log(2.1 / 1.5), 0, 0, 0],  # 20 pixels at 20 m; the image ends the other two
        "hidden": [0.5, 0, 0, 0],
        "person": [0, 1, 0, 0],
        "large": [0, 0, 1, 0],
    }
    assert {k: v.tolist() for k, v in evidence.items()} == {
        k: pytest.approx(v) for k, v in expected.items()
    }


def test_each_witness_speaks_with_its_score_and_for_what_it_overlaps():
    seen = ("car", 0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    alone = ("car", 0.8, 40.0, (60, 20, 90, 40), (60, 20, 90, 40))
    scanned = ("car", 0.4, 20.0, (12, 20, 52, 40), (12, 20, 52, 40))
    aside = ("car", 0.7, 42.0, (80, 20, 97, 40), (80, 20, 97, 40))
    learned = objects(alone, seen, classes=CLASSES, boxed=False)
    geometric = objects(aside, scanned, classes=FOUND_BY_SCANS, boxed=True)
    frame = Frame(0, points=np.zeros((1, 4), np.float32), depth=np.zeros(SIZE, np.float32))
    frame.calibration = CAMERA
    heard, evidence = witnesses(learned, geometric).heard(learned, geometric, frame)
    assert heard.depths.tolist() == [20, 42, 40]
    assert evidence.kinds.tolist() == [BOTH, SCAN, NETWORK]
    both, half = 38 / 42, 10 / 37  # overlaps
    assert dict(zip(FEATURES[:3], evidence.values.T[:3], strict=True)) == {
        "network": pytest.approx([np.log(1.5), 0, np.log(4)]),
        "scan": pytest.approx([np.log(2 / 3), np.log(7 / 3), 0]),
        "overlap": pytest.approx([both, 0, half]),
    }
    # A witness that has no doubt is believed as one in a thousand.
    assert log_odds(np.array([0.0, 1.0])).tolist() == pytest.approx([-np.log(999), np.log(999)])


def test_scores_are_logistic_in_the_evidence_and_shifted_for_real_streets():
    rng = np.random.default_rng(1)
    kinds = np.array([BOTH, SCAN, SCAN, NETWORK])
    values = rng.normal(0, 0.3, (4, len(FEATURES)))
    values[:, FEATURES.index("person")] = [0, 0, 1, 1]
    for kind, row, shift, score in zip(
        kinds, values, (0, 1, -1, -1.5), Evidence(kinds, values, kinds < 0).scores(), strict=True
    ):
        odds = WEIGHTS[kind, 0] + sum(w * v for w, v in zip(WEIGHTS[kind, 1:], row, strict=True))
        assert score == pytest.approx((1 / (1 + np.exp(-odds - shift))) ** (2 / 3))


def test_without_a_scan_it_is_the_network():
    seen = ("car", 0.6, 20.0, (10, 20, 50, 40), (10, 20, 50, 40))
    learned, result = fused([seen], [seen], points=False)
    assert result is learned


def test_settings_reach_the_model_that_has_them():
    model = registry.create("fused", outweighed=0.5, min_score=0.2)
    assert (model.config.outweighed, model.learned.config.min_score) == (0.5, 0.2)
    with pytest.raises(InputError, match="outweigh"):
        registry.create("fused", outweigh=0.5)
    with pytest.raises(InputError, match="has nothing to train"):
        registry.learned("fused")


def test_reports_name_the_device_of_the_network():
    model = witnesses([], [])
    assert model.device == "cpu"
    model.learned.device = "cuda:1"
    assert model.device == "cuda:1"
