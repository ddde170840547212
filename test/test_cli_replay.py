"""`amodal convert`, `replay` and `demo` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amodal_core.bags.reader import BagReader
from amodal_core.errors import InputError
from amodal_ros.cli import demo
from amodal_ros.cli.main import app

runner = CliRunner()


def _run(*words: object):
    """The result of `amodal WORDS`; InputErrors come through, as `main` sees them."""
    result = runner.invoke(app, [str(w) for w in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _amodal(*words: object) -> subprocess.CompletedProcess:
    """`amodal WORDS` in a process of its own."""
    code = "from amodal_ros.cli.main import main; main()"
    command = [sys.executable, "-c", code, *(str(w) for w in words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_convert_writes_a_bag_and_lists_its_topics(mini_kitti_raw, tmp_path, storage):
    out = tmp_path / "bag"
    result = _run("convert", "kitti-raw", mini_kitti_raw, out, "--storage", storage, "--compress")
    assert result.exit_code == 0
    lines = dict(reversed(line.split()[:2]) for line in result.stdout.splitlines() if "/" in line)
    assert lines["/kitti/velo/pointcloud"] == "4"
    with BagReader(out) as bag:
        assert bag.topics["/kitti/camera_color_left/image_raw"].count == 5


def test_convert_can_stop_early(mini_kitti_raw, tmp_path):
    _run("convert", "kitti-raw", mini_kitti_raw, tmp_path / "bag", "--max-frames", 2)
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics["/kitti/camera_color_left/image_raw"].count == 2


def test_convert_object_and_tracking_name_what_they_miss(tmp_path):
    with pytest.raises(InputError, match=r"training.image_2 \(give the folder that holds"):
        _run("convert", "kitti-object", tmp_path, tmp_path / "bag")
    with pytest.raises(InputError, match=r"no images in training.image_02.0003"):
        _run("convert", "kitti-tracking", tmp_path, tmp_path / "bag", "--sequence", 3)
    assert not (tmp_path / "bag").exists()


def test_replay_prints_where_the_results_lie(mini_bag, tmp_path):
    out = tmp_path / "out"
    result = _run("replay", mini_bag, "--out", out, "--no-video", "--max-frames", 3)
    assert result.exit_code == 0
    names = {Path(line).name for line in result.stdout.splitlines() if line.startswith(str(out))}
    assert names == {"report.html", "tracks.mcap", "metrics.json"}
    assert json.loads((out / "metrics.json").read_text())["frames"] == 3


def test_replay_has_the_drives_settings_as_options(mini_bag, tmp_path):
    words = ("replay", mini_bag, "--no-video", "--model", "geometric", "--motion", "off", "--out")
    # Its scans are stamped 0.3 ms after their images.
    with pytest.raises(InputError, match=r"gives no frame: .*no /kitti/velo/pointcloud"):
        _run(*words, tmp_path / "a", "--sync-slop", 0.0001)
    shifted = ("--sync-slop", 0.0001, "--points-offset", 0.000333333)
    assert _run(*words, tmp_path / "b", *shifted).exit_code == 0
    assert _run(*words, tmp_path / "c", "--extrinsics", "0,0,0,0.5,-0.5,0.5,0.5").exit_code == 0
    with pytest.raises(InputError, match=r"extrinsics: .*quaternion of length 1"):
        _run(*words, tmp_path / "d", "--extrinsics", "0,0,0,0,0,0,2")
    with pytest.raises(InputError, match=r"--extrinsics: 'here' is not numbers"):
        _run(*words, tmp_path / "d", "--extrinsics", "here")
    assert _run(*words, tmp_path / "d", "--sync-slop", 2).exit_code == 2


def test_replay_takes_cameras_by_name_or_all(mini_bag, tmp_path):
    words = ("replay", mini_bag, "--no-video", "--model", "geometric", "--max-frames", 1)
    camera = "/kitti/camera_color_left/image_raw"
    for n, given in enumerate((("--image", camera), ("--image-topic", "all"))):
        assert _run(*words, "--out", tmp_path / str(n), *given).exit_code == 0
    with pytest.raises(InputError, match=r"a camera is named twice"):
        _run(*words, "--out", tmp_path / "x", "--image", f"{camera},{camera}")
    with pytest.raises(InputError, match=r"did you mean /kitti"):
        _run(*words, "--out", tmp_path / "x", "--image", camera, "--image", camera[:-1])
    assert not (tmp_path / "x").exists()


def test_replay_refuses_models_and_checkpoints_that_are_not_there(mini_bag, tmp_path):
    with pytest.raises(InputError, match="there is no model 'yolo'"):
        _run("replay", mini_bag, "--out", tmp_path / "out", "--model", "yolo")
    with pytest.raises(InputError, match="there is no such checkpoint"):
        _run("replay", mini_bag, "--out", tmp_path / "out", "--checkpoint", tmp_path / "w")
    (tmp_path / "w").write_bytes(b"")
    words = ("--model", "geometric", "--checkpoint", tmp_path / "w")
    with pytest.raises(InputError, match="'geometric' takes no checkpoint"):
        _run("replay", mini_bag, "--out", tmp_path / "out", *words)


@pytest.mark.parametrize("option", [("--rerun", "all.rrd"), ("--view",)])
def test_a_recording_for_rerun_is_of_one_bag(option, mini_bag, tmp_path):
    with pytest.raises(InputError, match="a recording is of one bag"):
        _run("replay", mini_bag, mini_bag, "--out", tmp_path / "out", *option)
    assert not (tmp_path / "out").exists()


def test_replay_refuses_trackers_that_are_not_there(mini_bag, tmp_path):
    with pytest.raises(InputError, match="there are: motion, quasi_dense, quasi_dense_sailvos"):
        _run("replay", mini_bag, "--out", tmp_path / "out", "--tracker", "looks")


def test_demo_takes_any_bag_and_says_where_to_look(mini_bag, tmp_path):
    out = tmp_path / "demo"
    result = _run("demo", mini_bag, "--out", out)
    assert result.exit_code == 0
    assert (out / "overlay.mp4").exists()
    assert (out / "report.html").exists()
    assert str(out / "overlay.mp4") in result.output


def test_demo_uses_the_sample_drive_where_there_is_one(mini_bag, tmp_path, monkeypatch):
    place = tmp_path / "share" / "amodal_ros"
    place.mkdir(parents=True)
    mini_bag.rename(place / "sample_drive")
    monkeypatch.setattr(demo.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "a" / "b" / "c" / "demo.py"))
    assert demo.sample_drive() == place / "sample_drive"
    (place / "sample_drive" / "metadata.yaml").unlink()
    assert demo.sample_drive().suffix == ".mcap"


def test_errors_are_one_line_on_stderr_with_exit_code_two(tmp_path):
    result = _amodal("replay", tmp_path / "nothing", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"error {tmp_path / 'nothing'}: there is no such bag (check the path)"
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "kitti-raw"),
        ("convert", "kitti-object"),
        ("convert", "kitti-tracking"),
        ("replay",),
        ("demo",),
    ],
)
def test_help_shows_examples(words):
    result = runner.invoke(app, [*words, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    # The usage line names the program as it was called, the examples as it is installed.
    assert f"amodal {' '.join(words)}" in result.output
