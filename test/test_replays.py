"""Many bags at once: the results of single replays, failures alone, resumable, one report."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from parallel_jobs import half
from typer.testing import CliRunner

from amodal_core import parallel, replays
from amodal_core.errors import InputError
from amodal_core.replay import ReplayOptions
from amodal_core.tracking import Tracker
from amodal_ros.cli.main import app


def _model():
    from amodal_core.models import registry

    return registry.create("geometric")


PLAN = replays.ReplayPlan(_model, Tracker, options=ReplayOptions(video=False, max_frames=2))


def test_a_job_that_fails_or_ends_its_process_stops_no_other():
    results = dict(parallel.outcomes(half, [8.0, 0.0, -1.0, 6.0, 5.0], 2))
    assert [results[k] for k in (0, 3, 4)] == [4, 3, 2.5]
    assert isinstance(results[1], ValueError)
    assert isinstance(results[2], parallel.ProcessEndedError)


def test_ray_gives_the_same_outcomes(monkeypatch):
    pytest.importorskip("ray")
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))  # of its workers
    results = dict(parallel.outcomes(half, [8.0, 0.0, 6.0], 2, "local"))
    assert (results[0], results[2]) == (4, 3)
    assert isinstance(results[1], ValueError)
    with pytest.raises(InputError, match="no Ray cluster"):
        dict(parallel.outcomes(half, [8.0], 1, "auto"))


def test_without_ray_its_extra_is_named():
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(InputError, match=r"amodal_ros\[ray\]"):
            dict(parallel.outcomes(half, [8.0], 1, "local"))


def test_folders_are_named_by_what_tells_their_bags_apart(tmp_path):
    for name in ("a/one/metadata.yaml", "a/two/metadata.yaml", "b/one/metadata.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "c.mcap").touch()
    (tmp_path / "c.db3").touch()
    named = replays.bag_folders([tmp_path / "a", tmp_path / "b/one"])
    assert list(named) == ["a_one", "two", "b_one"]
    assert named["a_one"] == tmp_path / "a/one"
    named = replays.bag_folders([tmp_path / "c.mcap", tmp_path / "c.db3"])
    assert len(named) == len(set(named)) == 2
    with pytest.raises(InputError, match="named twice"):
        replays.bag_folders([tmp_path / "a", tmp_path / "a/one"])
    with pytest.raises(InputError, match="no bag is named"):
        replays.bag_folders([])


@pytest.fixture
def bags(mini_bag: Path, tmp_path: Path) -> list[Path]:
    """Two that can be replayed and one that is broken between them."""
    paths = [tmp_path / f"{name}.mcap" for name in ("first", "broken", "last")]
    for path in paths:
        shutil.copy(next(mini_bag.glob("*.mcap")), path)
    paths[1].write_bytes(b"\x89MCAP0\r\n" + b"spoilt" * 20)
    return paths


def test_each_bag_has_the_results_of_its_own_replay_and_a_broken_one_stops_no_other(bags, tmp_path):
    out = tmp_path / "out"
    moves: list[tuple[int, int]] = []
    result = replays.replay_bags(bags, out, PLAN, 1, progress=lambda *at: moves.append(at))
    assert moves == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert list(result.metrics) == ["first", "last"]
    assert list(result.failed) == ["broken"]
    assert str(bags[1]) in result.failed["broken"]
    replays.replay_bag(PLAN, bags[0], tmp_path / "alone")
    alone = (tmp_path / "alone/tracks.mcap").read_bytes()
    assert (out / "first/tracks.mcap").read_bytes() == alone
    assert not (out / "first/overlay.mp4").exists()
    whole = json.loads((out / "metrics.json").read_text())
    assert whole["bags"]["last"]["frames"] == 2
    assert whole["totals"]["frames"] == 4
    page = (out / "report.html").read_text()
    assert 'href="first/report.html"' in page
    assert whole["failed"]["broken"].split(" (")[0] in page


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs run in this process; names of those that did."""
    names: list[str] = []

    def here(function, jobs, *_):
        for n, job in enumerate(jobs):
            names.append(job[2].name)
            yield n, function(job)

    monkeypatch.setattr(replays, "outcomes", here)
    return names


def test_what_is_done_is_not_done_again_unless_bag_or_settings_are_others(bags, tmp_path, done):
    out = tmp_path / "out"
    replays.replay_bags(bags, out, PLAN)
    assert done == ["first", "broken", "last"]
    done.clear()
    again = replays.replay_bags(bags, out, PLAN)
    assert done == ["broken"]
    assert list(again.metrics) == ["first", "last"]
    shutil.copy(bags[0], bags[1])
    os.utime(bags[2], (0, 0))
    done.clear()
    assert not replays.replay_bags(bags, out, PLAN).failed
    assert done == ["broken", "last"]
    done.clear()
    replays.replay_bags(bags[:1], out, replays.ReplayPlan(_model, Tracker, decides={"tracker": 1}))
    assert done == ["first"]


def test_totals_weigh_accuracies_by_frames_and_add_counts():
    def drive(frames: int, accuracy: dict[str, float] | None) -> dict[str, object]:
        sums = dict.fromkeys(("seconds", "instances", "tracks", "coasted"), 1)
        return {"frames": frames, "accuracy": accuracy, **sums}

    several = {
        "cameras": {"left": drive(30, {"HOTA": 0.5, "occlusions": 2}), "right": drive(5, None)}
    }
    result = replays.Replays({"a": drive(10, {"HOTA": 0.1, "occlusions": 3}), "b": several}, {})
    totals = replays._totals(result)
    assert totals["frames"] == 45
    assert totals["accuracy"] == {"HOTA": 0.4, "occlusions": 5}


def test_the_command_replays_several_bags_and_says_which_failed(bags, tmp_path, done):
    words = ["replay", *map(str, bags), "--out", str(tmp_path / "out"), "--model", "geometric"]
    result = CliRunner().invoke(app, [*words, "--max-frames", "2"])
    assert done == ["first", "broken", "last"]
    assert result.exit_code == 1
    assert [Path(line).name for line in result.stdout.splitlines()] == [
        "report.html",
        "metrics.json",
    ]
    assert "broken failed" in result.stderr
    assert "2 of 3 bags" in result.stderr
    assert not (tmp_path / "out/last/overlay.mp4").exists()


def test_where_every_bag_fails_the_report_says_why_of_each(bags, tmp_path, done):
    out = tmp_path / "new/out"
    named = [str(bags[1]), str(tmp_path / "none.mcap")]
    words = ["replay", *named, "--out", str(out), "--model", "geometric"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, result.exception
    assert "0 of 2 bags" in result.stderr
    assert list(json.loads((out / "metrics.json").read_text())["failed"]) == ["broken", "none"]
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "report.html"]
