"""Configurations and sources: classes by name, errors that say what to mend, modality dropout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_scenes import CLASSES, Streets, run_config, write_streets

from amodal_core.classes import check_renames
from amodal_core.datasets import kins
from amodal_core.datasets.frames import Frames
from amodal_core.datasets.registry import formats
from amodal_core.errors import InputError
from amodal_core.models import registry
from training import config
from training.clips import clip_for
from training.config import Augment, Optimiser, PartConfig, Schedule, Source
from training.data import Augmented
from training.judge import check_metric
from training.schedules import Pull, factor, make_optimizer, set_rate
from training.sources import Samples, open_sources, unpacked_bag
from training.train import main


def quiet(*_):
    return None


def sources(data):
    return [(data, range(len(data)))]


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    return Frames(write_streets(tmp_path_factory.mktemp("s") / "streets", 4))


def test_unpacked_frames_are_the_frames(streets):
    for k, sample in enumerate(Streets(4).samples):
        found = streets[k]
        assert np.array_equal(found.frame.image, sample.frame.image)
        assert np.array_equal(found.frame.points, sample.frame.points)
        assert np.array_equal(found.frame.calibration.K, sample.frame.calibration.K)
        assert found.truth.amodal.counts == sample.truth.amodal.counts
        assert found.truth.visible.counts == sample.truth.visible.counts
        assert np.array_equal(found.truth.boxes3d, sample.truth.boxes3d)
        assert np.array_equal(found.truth.occluders, sample.truth.occluders)
        assert (found.name, found.video, found.index) == (sample.name, sample.video, sample.index)


def test_a_bag_is_unpacked_once_and_read_at_random(project_root, tmp_path):
    bag = project_root / "data" / "sample_drive"
    told = []
    data = unpacked_bag(bag, tmp_path, lambda *step: told.append(step))
    assert told[-1][1:] == (40, 40)
    again = unpacked_bag(bag, tmp_path, lambda *_: pytest.fail("unpacked twice"))
    assert again[39].frame.stamp > again[0].frame.stamp
    assert len(data[20].truth) > 0


def test_classes_are_mapped_by_name_by_synonym_and_by_the_map():
    data = Streets(1, classes=("Person", "tram", "car"))
    samples = Samples(sources(data), ("car", "pedestrian"), {"tram": None})
    truth = samples[0].truth
    theirs = data.samples[0].truth.class_ids
    expected = {0: (1, False), 1: (0, True), 2: (0, False)}
    assert list(zip(truth.class_ids.tolist(), truth.ignore.tolist(), strict=True)) == [
        expected[k] for k in theirs.tolist()
    ]
    chosen = Samples(sources(data), ("car", "pedestrian"), {"tram": "car"})[0].truth
    assert not chosen.ignore.any()


def test_classes_that_fit_nothing_are_named():
    data = Streets(1, classes=("car", "unicycle", "pedestrian"))
    with pytest.raises(InputError, match="no class for unicycle"):
        Samples(sources(data), ("car", "pedestrian"), {})
    with pytest.raises(InputError, match=r"the data has no class bus.*there are: car"):
        check_renames({"unicycle": "car", "bus": "car"}, data.classes, "the data", "class_map")
    with pytest.raises(InputError, match=r"class unicicle \(did you mean unicycle"):
        check_renames({"unicicle": "car"}, data.classes, "the data", "class_map")


def test_entries_of_the_map_fit_in_any_case():
    data = Streets(1, classes=("Car", "UniCycle", "pedestrian"))
    check_renames({"unicycle": "CAR"}, data.classes, "the data", "class_map")
    samples = Samples(sources(data), ("car", "pedestrian"), {"unicycle": "CAR"})
    expected = {0: 0, 1: 0, 2: 1}
    theirs = data.samples[0].truth.class_ids.tolist()
    assert samples[0].truth.class_ids.tolist() == [expected[k] for k in theirs]


def test_what_is_converted_to_kins_trains_as_it_is(tmp_path):
    """KINS lists classes that no object has: they need no word in a configuration."""
    list(kins.write(tmp_path / "kins", Streets(3).samples, CLASSES))
    source = Source(path=str(tmp_path / "kins"), format="kins")
    (data, chosen), *_ = open_sources([source], tmp_path, quiet)
    assert {"misc", "rider"} <= set(data.classes)
    samples = Samples([(data, chosen)], CLASSES, {})
    for index, expected in enumerate(Streets(3).samples):
        assert samples[index].truth.class_ids.tolist() == expected.truth.class_ids.tolist()
        assert samples[index].truth.ignore.tolist() == [False] * len(expected.truth)
    with pytest.raises(InputError, match="no class for cyclist"):
        Samples([(data, chosen)], CLASSES[:2], {})


def test_classes_that_do_not_fit_are_found_before_anything_is_rendered(tmp_path, monkeypatch):
    from training import setup
    from training.train import train

    monkeypatch.setattr(setup, "render_sources", lambda *_: pytest.fail("rendered"))
    config = run_config(
        tmp_path / "run", tmp_path, model="mask_rcnn", classes=["car", "pedestrian"],
        train=[{"synthetic": {"frames": 2, "size": [64, 48]}}],
    )  # fmt: skip
    with pytest.raises(InputError, match="no class for van, truck, bus, tram, cyclist"):
        train(config)


def test_images_that_lie_elsewhere_are_named_in_the_configuration(tmp_path):
    list(kins.write(tmp_path / "kins", Streets(1).samples, CLASSES))
    (tmp_path / "kins" / "training").rename(tmp_path / "elsewhere")
    source = {"path": str(tmp_path / "kins"), "images": str(tmp_path / "elsewhere" / "image_2")}
    (data, _), *_ = open_sources([Source(**source)], tmp_path, quiet)
    assert data.frame(0).image is not None
    assert data.frame(0).points is not None
    write_streets(tmp_path / "streets", 1)
    with pytest.raises(InputError, match="'frames' takes no folder of images"):
        open_sources([Source(path=str(tmp_path / "streets"), images="x")], tmp_path, quiet)


def test_small_objects_are_ignored_not_lost():
    data = Streets(1)
    areas = data.samples[0].truth.amodal.rle().areas()
    limit = int(np.sort(areas)[1])
    truth = Samples(sources(data), CLASSES, {}, smallest=limit)[0].truth
    assert truth.ignore.tolist() == (areas < limit).tolist()


def test_what_an_image_does_not_show_is_background_in_training_and_not_counted_in_judging():
    data = Streets(1)
    seen = data.samples[0].truth.visible.rle().areas()
    limit = int(seen.max())
    assert (seen < limit).any()
    samples = Samples(sources(data), CLASSES, {}, least_visible=limit)
    assert samples[0].truth.ignore.tolist() == (seen < limit).tolist()
    item = Augmented(samples, Augment(flip=0.0), 0, depth=False, points=False)[0, 0][0]
    assert item.targets.visible.flatten(1).sum(1).tolist() == seen[seen >= limit].tolist()
    assert not item.targets.ignore.any()


def test_masks_and_calibrations_of_other_sizes_are_refused():
    data = Streets(1)
    sample = data.samples[0]
    sample.frame.image = sample.frame.image[:-1]
    with pytest.raises(InputError, match="masks of 96x64, image of 96x63"):
        Samples(sources(data), CLASSES, {})[0]
    data = Streets(1)
    data.samples[0].truth = None
    data.samples[0].frame.image = data.samples[0].frame.image[:, :-1]
    with pytest.raises(InputError, match="calibration for 96x64"):
        Samples(sources(data), CLASSES, {})[0]


def test_start_and_stop_reach_over_several_parts(tmp_path):
    for name, first in (("a", 0), ("b", 10)):
        write_streets(tmp_path / name, 3, first=first)
    found = open_sources(
        [Source(path=str(tmp_path / "*"), start=2, stop=5)], tmp_path / "cache", quiet
    )
    samples = Samples(found, CLASSES, {})
    assert [samples[k].name for k in range(len(samples))] == [
        "street/0002", "street/0010", "street/0011",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"path": "no/such/folder"}, "no such file or folder"),
        ({"path": "no/such/*"}, "nothing fits this pattern"),
        ({"path": "STREETS", "start": 4}, "no sample from 4"),
        (
            {"path": "STREETS", "format": "kins", "options": {"colour": 1}},
            "takes no option 'colour'",
        ),
    ],
)
def test_sources_that_are_not_there_are_named(source, says, streets, tmp_path):
    source["path"] = source["path"].replace("STREETS", str(streets.path))
    with pytest.raises(InputError, match=says):
        open_sources([Source(**source)], tmp_path, quiet)


def test_a_missing_image_stops_training_and_is_named(tmp_path):
    list(kins.write(tmp_path / "kins", [Streets(1).samples[0]] * 3, CLASSES))
    for image in (tmp_path / "kins/training/image_2").iterdir():
        image.unlink()
    (data, chosen), *_ = open_sources([Source(path=str(tmp_path / "kins"))], tmp_path, quiet)
    samples = Samples([(data, chosen)], data.classes, {})
    item = Augmented(samples, Augment(), 0, depth=False, points=False)[0, 1]
    assert isinstance(item, InputError)
    assert "000001.png" in str(item)


def test_depth_is_dropped_as_often_as_asked_and_is_unknown_then(streets):
    samples = Samples(sources(streets), CLASSES, {})
    data = Augmented(samples, Augment(depth_dropout=0.5), 7, depth=True, points=False)
    known = [bool(data[epoch, k][0].frame.depth.any()) for epoch in range(20) for k in range(4)]
    assert 0.3 < np.mean(known) < 0.7
    assert all(len(set(known[k::4])) == 2 for k in range(4))  # epochs differ
    # The same sample of the same epoch is always the same.
    assert known[:4] == [bool(data[0, k][0].frame.depth.any()) for k in range(4)]


def test_a_sample_without_depth_has_no_points_either(streets):
    samples = Samples(sources(streets), CLASSES, {})
    for share, some in ((1.0, False), (0.0, True)):
        data = Augmented(samples, Augment(depth_dropout=share), 7, depth=True, points=True)
        assert bool(len(data[0, 0][0].frame.points)) == some
    # PointPillars, which takes no depth image, has nothing else to see.
    data = Augmented(samples, Augment(depth_dropout=1.0), 7, depth=False, points=True)
    assert len(data[0, 0][0].frame.points)


def test_frames_without_annotation_are_passed_over():
    data = Streets(3)
    data.samples[1].truth = None
    samples = Samples(sources(data), CLASSES, {})
    read = Augmented(samples, Augment(flip=0), 0, depth=False, points=False)
    assert read[0, 1][0].name == "street/0002"
    for sample in data.samples:
        sample.truth = None
    assert "have no annotation" in str(read[0, 0])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"optimizer": {}}, "no setting 'optimizer'.*did you mean optimiser"),
        ({"optimiser": {"rte": 1}}, "no setting 'optimiser.rte'.*did you mean rate"),
        ({"steps": "many"}, "steps: .*valid integer"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"precision": "int8"}, "precision: "),
        ({"train": [{}]}, "either a path or synthetic"),
        ({"train": []}, "train: "),
    ],
)
def test_settings_that_do_not_exist_or_fit_are_named(values, says):
    with pytest.raises(InputError, match=says):
        config.parse({"model": "mask_rcnn", "train": [{"path": "x"}]} | values)


def test_overrides_reach_into_groups_and_lists(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: mask_rcnn\ntrain:\n  - {path: a}\n")
    rules = ["optimiser.rate=1e-4", "train.0.path=b", "settings.norm=group", "class_map.van=null"]
    read = config.read(path, rules)
    assert (read.optimiser.rate, read.train[0].path) == (1e-4, "b")
    assert (read.settings, read.class_map) == ({"norm": "group"}, {"van": None})
    later = config.read(path, ["train=[{path: d}, {path: e}]", "train.1.stop=5"])
    assert [(source.path, source.stop) for source in later.train] == [("d", None), ("e", 5)]
    with pytest.raises(InputError, match="not setting=value"):
        config.read(path, ["rate"])
    with pytest.raises(InputError, match=r"no place 'train\.x'"):
        config.read(path, ["train.x.path=1"])
    with pytest.raises(InputError, match="no such configuration"):
        config.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "geometric"}, "'geometric' has nothing to train"),
        ({"model": "yolo"}, "'yolo' is no model"),
        ({"settings": {"bakbone": "x"}, "model": "mask_rcnn"}, "no setting 'bakbone'"),
        ({"device": "cuda:77"}, "device cuda:77"),
        ({"batch_size": 3, "accumulate": 2, "model": "mask_rcnn"}, "a batch of 3"),
    ],
)
def test_runs_that_cannot_begin_say_why(values, says, streets, tmp_path):
    from training.train import train

    small = {"backbone": "resnet18", "norm": "group"}
    values = {"settings": small} | values
    with pytest.raises(InputError, match=says):
        train(run_config(tmp_path / "run", streets.path, **values))
    assert not (tmp_path / "run").exists()


def test_the_command_line_ends_with_one_line_and_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "no such configuration" in " ".join(capsys.readouterr().err.split())


def test_rates_warm_up_step_down_and_follow_cosines():
    step = Schedule(kind="step", warm_up=4, warm_up_from=0.0, milestones=(10, 20), gamma=0.1)
    found = [factor(step, s, 30) for s in (0, 2, 4, 9, 10, 20)]
    assert found == pytest.approx([0, 0.5, 1, 1, 0.1, 0.01])
    cosine = Schedule(kind="cosine", warm_up=10, floor=0.2)
    assert [factor(cosine, s, 110) for s in (10, 60, 110)] == pytest.approx([1, 0.6, 0.2])
    cycle = [factor(Schedule(kind="one_cycle"), s, 100) for s in (0, 40, 100)]
    assert cycle == pytest.approx([0.1, 1, 1e-4])


def test_biases_and_norms_do_not_decay_and_frozen_weights_do_not_move():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GroupNorm(2, 4))
    module[0].weight.requires_grad_(False)
    frozen = torch.nn.Sequential(module, torch.nn.Conv2d(4, 2, 1))
    groups = make_optimizer(frozen, Optimiser(name="sgd", weight_decay=0.1)).param_groups
    shapes = {g["weight_decay"]: [tuple(p.shape) for p in g["params"]] for g in groups}
    assert shapes == {0.1: [(2, 4, 1, 1)], 0.0: [(4,), (4,), (4,), (2,)]}


def test_each_part_of_a_model_moves_at_its_own_rate_and_is_pulled_to_where_it_began():
    body = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module = torch.nn.ModuleDict({"body": body, "head": torch.nn.Linear(2, 1)})
    parts = {"body": PartConfig(rate=0.1, pull=2.0), "body.0": PartConfig(rate=0)}
    optimizer = make_optimizer(module, Optimiser(name="sgd", momentum=0.0, parts=parts))
    pull = Pull(optimizer)
    set_rate(optimizer, 0.5)
    before = {k: v.detach().clone() for k, v in module.named_parameters()}
    module["head"](body(torch.ones(1, 2))).sum().backward()
    optimizer.step()
    pull.step()
    slopes = {k: v.grad for k, v in module.named_parameters()}
    assert slopes["body.0.weight"] is None
    assert torch.equal(body[0].weight, before["body.0.weight"])
    moved = {k: before[k] - v for k, v in module.named_parameters()}
    # rate 0.5, decay 1e-4 of the weights of the head
    expected = 0.5 * (slopes["head.weight"] + 1e-4 * before["head.weight"])
    torch.testing.assert_close(moved["head.weight"], expected)
    # a tenth of it, then 0.05 * 2 of the way back
    torch.testing.assert_close(moved["body.1.weight"], 0.9 * 0.05 * slopes["body.1.weight"])
    with pytest.raises(InputError, match="no weight is in bady"):
        make_optimizer(module, Optimiser(parts={"bady": PartConfig()}))


def test_a_configuration_changes_its_base_key_by_key(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "first.yaml").write_text(
        "model: tiny\nsteps: 7\ntrain: [{path: a}, {path: b}]\n"
        "optimiser: {name: sgd, rate: 0.5}\nclass_map: {van: car, tram: null}\n"
    )
    (tmp_path / "shared" / "second.yaml").write_text("base: first.yaml\nsteps: 8\n")
    path = tmp_path / "run.yaml"
    path.write_text(
        "base: shared/second.yaml\ntrain: [{path: c}]\noptimiser: {rate: 0.1}\nclip: null\n"
    )
    run = config.read(path, ["optimiser.clip=2", "train.0.stop=5", "class_map.tram=bus"])
    assert (run.model, run.steps, run.clip) == ("tiny", 8, None)
    assert run.train == (config.Source(path="c", stop=5),)  # lists are replaced
    assert run.optimiser == config.Optimiser(name="sgd", rate=0.1, clip=2.0)
    assert run.class_map == {"van": "car", "tram": "bus"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: other.yaml\n", r"base of each other: run.yaml -> other.yaml -> run.yaml"),
        ("base: none.yaml\n", r"base of .*run.yaml: there is no .*none.yaml"),
        ("base: [a.yaml, b.yaml]\n", r"run.yaml: base: \['a.yaml', 'b.yaml'\] is no file"),
    ],
    ids=["a ring", "missing", "a list"],
)
def test_a_base_that_is_none_is_named(tmp_path, text, says):
    (tmp_path / "other.yaml").write_text("base: run.yaml\n")
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        config.read(tmp_path / "run.yaml")


CONFIGS = sorted((Path(__file__).parents[1] / "training/configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_configuration_fits_its_model(path):
    read = config.read(path)
    kind = registry.learned(read.model)
    check_metric(read.metric, completes=registry.completes(read.model))
    assert set(read.settings) <= set(kind.Config.__dataclass_fields__)
    clip_for(kind, read.clip)
    assert read.schedule.warm_up < read.steps
    assert all(m < read.steps for m in read.schedule.milestones)
    assert read.held_out
    for source in (*read.train, *read.held_out):
        assert source.format in ("", *formats())
