"""The commands of `amodal data` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from datasets_scenes import CLASSES, drive, same_masks, sample
from typer.testing import CliRunner

from amodal_core.datasets import coco, kins, labelme, sailvos
from amodal_core.datasets.registry import open_dataset
from amodal_core.datasets.statistics import Statistics, count
from amodal_core.errors import InputError
from amodal_core.frame import Sample
from amodal_core.views import contact_sheets
from amodal_core.views.overlay import draw_overlay, in_window
from amodal_ros.cli.data import app

run = CliRunner()


@pytest.fixture
def video(rng: np.random.Generator, tmp_path: Path) -> tuple[Path, list[Sample]]:
    samples = drive(rng, 8)
    list(coco.write(tmp_path / "coco", samples, CLASSES))
    return tmp_path / "coco", samples


def _harm(root: Path) -> None:
    path = root / coco.NAME
    content = json.loads(path.read_text())
    content["annotations"][3]["category_id"] = 99
    path.write_text(json.dumps(content))
    (root / "images" / "000002.png").unlink()


def test_check_is_silent_and_exits_with_0_where_all_is_well(
    video: tuple[Path, list[Sample]],
) -> None:
    result = run.invoke(app, ["check", str(video[0])])
    assert result.exit_code == 0
    assert "nothing found" in result.stdout


def test_check_names_file_and_id_and_exits_with_1(video: tuple[Path, list[Sample]]) -> None:
    _harm(video[0])
    result = run.invoke(app, ["check", str(video[0])], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "2 findings" in result.stdout
    assert "missing-image" in result.stdout
    assert "000002.png" in result.stdout
    assert "unknown-category" in result.stdout
    limited = run.invoke(app, ["check", str(video[0]), "--limit", "1"])
    assert "1 more" in limited.stdout


def test_fix_writes_a_copy_that_has_no_findings_and_leaves_the_original(
    video: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    _harm(video[0])
    before = (video[0] / coco.NAME).read_bytes()
    clean = tmp_path / "clean"
    assert run.invoke(app, ["check", str(video[0]), "--fix", str(clean)]).exit_code == 1
    assert (video[0] / coco.NAME).read_bytes() == before
    assert run.invoke(app, ["check", str(clean)]).exit_code == 0
    assert len(open_dataset(clean)) == 7
    again = run.invoke(app, ["check", str(video[0]), "--fix", str(clean)])
    assert isinstance(again.exception, InputError)


def test_stats_count_what_is_there(video: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    root, samples = video
    out = tmp_path / "stats"
    result = run.invoke(app, ["stats", str(root), "--out", str(out)], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    data, s = open_dataset(root), Statistics()
    assert len(list(count(data, s))) == 8
    rates = np.concatenate([x.truth.occlusion_rates for x in samples])
    assert s.objects == len(rates)
    assert s.over == (int((rates > 0.25).sum()), int((rates > 0.5).sum()))
    assert s.occlusion.sum() == s.areas.sum() == len(rates)
    # The car is hidden wholly behind the truck once and comes out again.
    assert s.hidden == int((rates == 1).sum())
    assert (s.tracks, s.returns) == (3, 1)
    assert f"{s.objects} (" in result.stdout
    plot = cv2.imread(str(out / "statistics.png"))
    assert plot.shape[0] > 500
    assert plot.std() > 10


def test_stats_go_on_past_what_is_broken(video: tuple[Path, list[Sample]]) -> None:
    path = video[0] / coco.NAME
    text = path.read_text().replace('"track_id":11', '"track_id":nonsense', 1)
    path.write_text(text)
    s = Statistics()
    list(count(open_dataset(video[0]), s))
    assert s.samples == 8
    assert len(s.broken) == 1


def test_sheets_show_the_truth_as_the_overlay_does(
    video: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    s = video[1][2]  # the car is half behind the truck
    width = 2 * s.frame.image.shape[1]
    picture = contact_sheets.draw(s, CLASSES, width)
    height, half = s.frame.image.shape[:2]
    image = cv2.resize(s.frame.image, (width, 2 * height), interpolation=cv2.INTER_AREA)
    truth = in_window(s.truth, (0, 0, half, height), (width, 2 * height))
    expected = draw_overlay(image, truth, CLASSES)
    assert (expected != image).any()
    np.testing.assert_array_equal(picture[: len(image)], expected)
    assert (picture[len(image) :] == 0).any(), "the caption"

    result = run.invoke(app, ["show", str(video[0]), "--out", str(tmp_path / "s")])
    assert result.exit_code == 0
    sheet = cv2.imread(str(tmp_path / "s" / "sheet_000.png"))
    assert sheet.shape[1] == 2 * (800 + 6)


def test_own_labelme_annotations_become_kins(rng: np.random.Generator, tmp_path: Path) -> None:
    samples = [sample(rng) for _ in range(3)]
    list(labelme.write(tmp_path / "mine", samples, CLASSES))
    target = tmp_path / "kins"
    result = run.invoke(app, ["convert", str(tmp_path / "mine"), str(target), "--to", "kins"])
    assert result.exit_code == 0
    data = open_dataset(target)
    assert isinstance(data, kins.Kins)
    for before, after in zip(samples, data, strict=True):
        same_masks(before.truth, after.truth)


def test_a_class_without_a_counterpart_asks_for_one(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    list(coco.write(tmp_path / "coco", [sample(rng)], ("zebra", "car", "truck")))
    arguments = ["convert", str(tmp_path / "coco"), str(tmp_path / "kins"), "--to", "kins"]
    result = run.invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith("--class: ")
    assert "--class zebra=" in str(result.exception)
    result = run.invoke(app, [*arguments, "--class", "zebra=misc"])
    assert result.exit_code == 0
    assert "misc" in [open_dataset(tmp_path / "kins").classes[c]
                      for c in open_dataset(tmp_path / "kins").truth(0).class_ids]  # fmt: skip


@pytest.mark.parametrize(("to", "shown"), [("coco", True), ("cvat", False), ("fiftyone", False)])
def test_the_next_command_is_one_that_can_be_given(
    video: tuple[Path, list[Sample]], tmp_path: Path, to: str, shown: bool
) -> None:
    target = tmp_path / "my [1] labels"
    result = run.invoke(app, ["convert", str(video[0]), str(target), "--to", to])
    assert (f"next: amodal data show '{target}'" in result.output) == shown
    if not shown:
        with pytest.raises(InputError):
            open_dataset(target)


@pytest.mark.parametrize("to", ["cocovid", "asd", "labelme", "kins2019", "coco"])
def test_every_target_is_written_from_the_command_line(
    video: tuple[Path, list[Sample]], tmp_path: Path, to: str
) -> None:
    target = tmp_path / "out"
    result = run.invoke(app, ["convert", str(video[0]), str(target), "--to", to])
    assert result.exit_code == 0
    for before, after in zip(video[1], open_dataset(target), strict=True):
        same_masks(before.truth, after.truth)


def test_a_limit_holds_for_every_target_or_is_refused(
    video: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    for to in ("labelme", "asd"):
        target = tmp_path / to
        arguments = ["convert", str(video[0]), str(target), "--to", to, "--limit", "3"]
        assert run.invoke(app, arguments).exit_code == 0
        assert len(open_dataset(target)) == 3
    target = tmp_path / "truth.json"
    arguments = ["convert", str(video[0]), str(target), "--to", "video-truth", "--limit", "3"]
    assert isinstance(run.invoke(app, arguments).exception, InputError)


def test_broken_frames_are_listed_and_the_rest_is_converted(
    video: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    (video[0] / "images" / "000002.png").write_bytes(b"broken")
    result = run.invoke(app, ["convert", str(video[0]), str(tmp_path / "out"), "--to", "coco"])
    assert result.exit_code == 1
    assert "000002.png" in result.output.replace("\n", "")
    assert len(open_dataset(tmp_path / "out")) == 7


def test_per_video_truth_and_the_cut_are_targets_too(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    list(sailvos.write(tmp_path / "vos", drive(rng, 12, "v"), CLASSES))
    source = str(tmp_path / "vos")
    truth = tmp_path / "truth.json"
    assert run.invoke(app, ["convert", source, str(truth), "--to", "video-truth"]).exit_code == 0
    assert len(json.loads(truth.read_text())["annotations"]) == 3
    cut = tmp_path / "cut"
    assert run.invoke(app, ["convert", source, str(cut), "--to", "sailvos-cut"]).exit_code == 0
    assert open_dataset(cut / "joint.json").videos == ("v__11",)
