"""The launch files from end to end: nodes as processes over DDS, a bag in, tracks out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import node_bench as drive
import numpy as np
import pytest
import rclpy
import torch
from node_bench import AMODAL, amodal_launch, assert_same, stamp, until
from rclpy.executors import SingleThreadedExecutor
from typer.testing import CliRunner

from amodal_core.bags.reader import BagReader
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.kitti_to_bag import convert_raw
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.topics import CAMERA_INFO, GROUND_TRUTH, IMAGE, POINTS, TF_STATIC, TRACKS
from amodal_core.drive.writer import SENSOR_TOPICS, DriveWriter, camera_link
from amodal_core.errors import InputError
from amodal_core.frame import Tracks
from amodal_core.models.registry import DEFAULT, create
from amodal_core.pipeline import Pipeline
from amodal_ros import lifeline
from amodal_ros.cli import launch as launch_command
from amodal_ros.cli.main import app
from amodal_ros.conversions import message_class
from amodal_ros.qos import profile
from amodal_ros.running import executor_of

pytestmark = [pytest.mark.dds, pytest.mark.usefixtures("logs")]

FRAMES = 15


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Log files of launches go to the test's own folder."""
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))


@pytest.fixture(scope="module")
def small_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up drive towards three standing objects, with an image and a scan each 0.1 s.

    Its ground truth is what the model without weights gives for the first frame.
    """
    path = tmp_path_factory.mktemp("bags") / "small.mcap"
    frame = drive.FRAME
    assert frame.points is not None
    pipeline = Pipeline(create("geometric"))
    truth = pipeline.step(frame)[0].numpy()
    with BagWriter(path) as bag:
        writer = DriveWriter(bag, (*SENSOR_TOPICS, GROUND_TRUTH))
        writer.transforms(TF_STATIC, [camera_link(frame)], stamp(0))
        for index in range(FRAMES):
            at = stamp(index)
            nearer = frame.points - np.array([0.15 * index, 0, 0, 0], np.float32)
            moved = replace(frame, stamp=at, points=nearer, points_stamp=at + 3_000_000)
            writer.frame(moved, truth, pipeline.model.classes)
    return path


def offline(bag: Path, model: str) -> dict[int, Tracks]:
    """The tracks of an offline run, by stamp."""
    pipeline = Pipeline(create(model))
    with BagDrive(bag) as frames:
        return {f.frame.stamp: pipeline.step(f.frame)[0].numpy() for f in frames}


class Listener:
    """Collects the messages of a topic from the other processes."""

    def __init__(self, topic: str, type_name: str) -> None:
        rclpy.init(args=[])
        self.messages: list[Any] = []
        self._node = rclpy.create_node("listener")
        self._node.create_subscription(
            message_class(type_name),
            topic,
            self.messages.append,
            profile("reliable", lossless=True),
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=executor_of(self._executor), daemon=True)
        self._thread.start()

    def close(self) -> None:
        rclpy.try_shutdown()
        self._thread.join(5)
        self._node.destroy_node()


@pytest.fixture
def listen(domain: int) -> Iterator[Callable[..., Listener]]:
    """Starts listeners and ends them."""
    listeners: list[Listener] = []

    def make(topic: str, type_name: str) -> Listener:
        listeners.append(Listener(topic, type_name))
        return listeners[-1]

    yield make
    for listener in listeners:
        listener.close()
    listeners.clear()  # pytest keeps `make`


@pytest.mark.parametrize("single_process", ["true", "false"])
def test_the_running_pipeline_gives_the_tracks_of_an_offline_replay(
    small_bag: Path, listen: Callable[..., Listener], tmp_path: Path, single_process: str
) -> None:
    model = "geometric"  # finds objects in scans before a grey image
    tracks = listen(TRACKS.bag_name, TRACKS.type)
    asked = (f"bag:={small_bag}", f"out:={tmp_path}/out", "rate:=2.0", f"model:={model}")
    asked = (*asked, f"single_process:={single_process}")
    ended = amodal_launch("replay", *asked)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    expected = offline(small_bag, model)
    assert len(expected) == FRAMES
    assert max(len(t) for t in expected.values()) >= 2
    assert_same(tracks.messages, expected, rtol=1e-6)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["latency"]["frames"] == metrics["latency"]["answered"] == FRAMES
    assert metrics["drops"] == {}
    assert 0 < metrics["accuracy"]["amodal_AP"] <= 1
    logged = f"amodal AP {metrics['accuracy']['amodal_AP']:.3f}, visible AP"
    assert logged in ended.stdout + ended.stderr
    assert metrics["tracks"] == len({int(i) for t in expected.values() for i in t.ids})
    assert set(metrics["stages"]) >= {"depth_projection", "segmentation", "tracking"}
    assert f"played {FRAMES} frames, {FRAMES} answered" in ended.stdout + ended.stderr


@pytest.mark.parametrize("model", ["geometric", DEFAULT])
def test_a_real_drive_loses_no_frame_at_ten_hertz(
    kitti_raw_drive: Path,
    listen: Callable[..., Listener],
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A network's sums are rounded otherwise by another number of threads.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    bag = tmp_path / "drive"
    convert_raw(kitti_raw_drive, bag)
    tracks = listen(TRACKS.bag_name, TRACKS.type)
    asked = (f"bag:={bag}", "rate:=1.0", "overlay:=true", f"model:={model}")
    ended = amodal_launch("pipeline", *asked)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "played 36 frames, 36 answered" in ended.stdout + ended.stderr
    assert_same(tracks.messages, offline(bag, model), rtol=1e-6)


def test_a_node_that_fails_ends_the_launch_with_an_error(small_bag: Path, domain: int) -> None:
    ended = amodal_launch("pipeline", f"bag:={small_bag}", "model:=nonesuch")
    assert ended.returncode == 1
    assert "there is no model 'nonesuch'" in ended.stdout + ended.stderr
    assert "died with exit code 2" in ended.stdout + ended.stderr


class Launch:
    """`amodal launch` as a process, whose lines are read as they come."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*AMODAL, "launch", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def said(self, words: str, count: int = 1) -> list[str]:
        """The lines with these words, when there are so many."""

        def matching() -> list[str]:
            return [line for line in self.lines if words in line]

        until(lambda: len(matching()) >= count, f"'{words}' in {''.join(self.lines)}")
        return matching()

    def pids(self, name: str, count: int = 1) -> list[int]:
        """Numbers of the processes of an executable, in the order in which they began."""
        lines = self.said(f"[INFO] [{name}-", count)
        return [int(x.split("[")[-1].rstrip("]\n")) for x in lines if "started with pid" in x]


def test_live_a_crash_restarts_what_crashed_and_kill_9_of_the_launch_leaves_no_node(
    domain: int,
) -> None:
    """kill -9 of evaluation, a viewer, and of perception, the stages; then of the launch."""
    launch = Launch("pipeline", "model:=geometric", "evaluation:=true")
    try:
        (perception,) = launch.pids("perception")
        (evaluation,) = launch.pids("evaluation")
        os.kill(evaluation, signal.SIGKILL)
        launch.said("evaluation-2 has ended with exit code -9: restart 1 of 5 in 1 s")
        launch.said("[evaluation-3]: process started")
        os.kill(perception, 0)
        os.kill(perception, signal.SIGKILL)
        launch.said("perception-1 has ended with exit code -9: restart 1 of 5 in 1 s")
        launch.said("[perception-4]: process started")
        nodes = [launch.pids("perception", 2)[-1], launch.pids("evaluation", 2)[-1]]
        launch.process.kill()
        until(lambda: not any(lifeline._began(pid) for pid in nodes), "the nodes to end", 120.0)
    finally:
        launch.process.kill()
        launch.process.wait()


def test_ctrl_c_ends_all_processes_and_is_no_error(small_bag: Path, domain: int) -> None:
    with subprocess.Popen(
        [*AMODAL, "launch", "pipeline", f"bag:={small_bag}", "loop:=true"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as launch:
        assert launch.stdout is not None
        lines, pids = [], []
        for line in launch.stdout:
            lines.append(line)
            if "process started with pid" in line:
                pids.append(int(line.split("[")[-1].rstrip("]\n")))
            if "playing" in line:
                break
        time.sleep(1.0)
        launch.send_signal(signal.SIGINT)
        rest = launch.stdout.read()
        assert launch.wait(30) == 0, "".join(lines) + rest
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("ros2", [False, True])
def test_unknown_and_missing_arguments_are_named(
    ros2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_command, "has_ros2", lambda: ros2)
    with pytest.raises(InputError, match=r"no launch argument 'bagg' \(did you mean 'bag'\?\)"):
        CliRunner().invoke(app, ["launch", "pipeline", "bagg:=x"], catch_exceptions=False)
    with pytest.raises(InputError, match="bag:=VALUE is required"):
        CliRunner().invoke(app, ["launch", "replay"], catch_exceptions=False)
    with pytest.raises(InputError, match="did you mean 'pipeline'"):
        CliRunner().invoke(app, ["launch", "pipelin"], catch_exceptions=False)
    with pytest.raises(InputError, match="'rate=2' is not NAME:=VALUE"):
        CliRunner().invoke(app, ["launch", "pipeline", "rate=2"], catch_exceptions=False)


def test_all_arguments_are_listed_with_their_defaults() -> None:
    listed = CliRunner().invoke(app, ["launch", "pipeline", "--show-args"])
    assert listed.exit_code == 0
    for name in ("model", "checkpoint", "device", "image", "camera_info", "points", "bag", "rate"):
        assert f"\n  {name}:=" in listed.stdout
    for topic in (IMAGE, CAMERA_INFO, POINTS):
        assert f"\n  {topic.name}:={topic.bag_name}\n" in listed.stdout


def test_the_default_topics_are_those_of_bags_that_are_written_here(project_root: Path) -> None:
    with BagReader(project_root / "data" / "sample_drive") as bag:
        names = set(bag.topics)
    assert names >= {t.bag_name for t in (IMAGE, CAMERA_INFO, POINTS, GROUND_TRUTH)}


def test_the_doctor_finds_what_it_needs_here(domain: int) -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.stdout
    assert "two processes hear each other" in " ".join(result.stdout.split())


def test_the_models_are_listed() -> None:
    assert "geometric" in CliRunner().invoke(app, ["models"]).stdout
