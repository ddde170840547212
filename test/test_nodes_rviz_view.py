"""The rviz view shows what the launch with the same arguments publishes, in the LiDAR's frame."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import json
import os
import subprocess
import sys
from pathlib import Path

import node_bench as drive
import pytest
import rclpy
import yaml
from launched import commands
from typer.testing import CliRunner

import launch
from amodal_core.drive.topics import POINTS
from amodal_ros.cli.main import app
from amodal_ros.conversions import message_class
from amodal_ros.nodes.describe import declarations
from amodal_ros.qos import profile
from amodal_ros.rviz import shown_topics, view

TEMPLATE = Path(__file__).parents[1] / "rviz" / "amodal.rviz"
embedded = "embedded_ros" in Path(str(launch.__file__)).parts
# The README's own.
VEHICLE = {
    "image": "/camera/image_rect",
    "camera_info": "/camera/camera_info",
    "points": "/lidar/points",
}


def displays(config: str) -> dict[str, str]:
    """Topics of the displays by their names."""
    listed = yaml.safe_load(config)["Visualization Manager"]["Displays"]
    return {d["Name"]: d["Topic"]["Value"] for d in listed if "Topic" in d}


def published(lines: list[list[str]]) -> set[str]:
    """The names of what these nodes publish."""
    topics = {d.name: d.publishes for d in declarations()}
    names = set()
    for line in lines:
        ours, rest = line[: line.index("--ros-args")], line[line.index("--ros-args") :]
        space = next((r.removeprefix("__ns:=") for r in rest if r.startswith("__ns:=")), "")
        for word in ours:
            names |= {f"{space}/{t.name}" for t in topics.get(word.rsplit(".", 1)[-1], ())}
    return names


@pytest.mark.skipif(not embedded, reason="ROS 2's own launch is installed")
@pytest.mark.parametrize(
    ("arguments", "shown", "missing"),
    [
        ({}, {"LiDAR": "/kitti/velo/pointcloud", "Overlay": "/amodal/overlay"}, set()),
        (VEHICLE, {"LiDAR": "/lidar/points", "Image": "/camera/image_rect"}, set()),
        (
            VEHICLE | {"namespace": "robot/head"},
            {"Objects": "/robot/head/markers", "Depth": "/robot/head/depth/image"},
            set(),
        ),
        ({"namespace": "/", "points": "scan"}, {"LiDAR": "/scan", "Overlay": "/overlay"}, set()),
        (VEHICLE | {"points": "none"}, {"Overlay": "/amodal/overlay"}, {"LiDAR", "Depth"}),
    ],
)
def test_every_topic_of_the_view_is_published_under_the_same_arguments(
    project_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, str],
    shown: dict[str, str],
    missing: set[str],
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    lines = commands(project_root, rviz="true", **arguments)
    (rviz,) = (line for line in lines if any("rviz_view" in word for word in line))
    template, topics = rviz[rviz.index("--ros-args") - 2 : rviz.index("--ros-args")]
    config = view(Path(template).read_text(), json.loads(topics), "os_sensor")
    by_name = displays(config)
    assert by_name.items() >= shown.items()
    assert not missing & by_name.keys()
    # The sensors' own names are relative to the nodes' namespace, as remapped ones are.
    base = f"/{arguments.get('namespace', 'amodal').strip('/')}".rstrip("/")
    given = [arguments[name] for name in ("image", "points") if name in arguments]
    sensors = {name if name.startswith("/") else f"{base}/{name}" for name in given}
    sensors |= {"/kitti/velo/pointcloud", "/kitti/camera_color_left/image_raw"}
    assert set(by_name.values()) <= published(lines) | sensors


def test_the_view_is_in_the_frame_of_the_scans() -> None:
    text = TEMPLATE.read_text()
    config = yaml.safe_load(view(text, shown_topics("amodal", "/image", "/points"), "os_sensor"))
    manager = config["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "os_sensor"
    assert manager["Views"]["Current"]["Target Frame"] == "os_sensor"
    grid = next(d for d in manager["Displays"] if d["Name"] == "Ground")
    assert grid["Reference Frame"] == "os_sensor"
    assert "velo_link" not in yaml.safe_dump(config)
    # With the topics and the frame that are in the file, the view is the file.
    own = view(text, {t: t for t in displays(text).values()}, "velo_link")
    assert yaml.safe_load(own) == yaml.safe_load(text)


@pytest.mark.dds
def test_rviz_starts_with_the_frame_that_the_scans_name(domain: int, tmp_path: Path) -> None:
    (tmp_path / "rviz2").write_text('#!/bin/sh\ncat "$2"\necho "# $3 $4 $5"\n')
    (tmp_path / "rviz2").chmod(0o755)
    topics = shown_topics("amodal", "/image", "/points")
    command = [sys.executable, "-m", "amodal_ros.nodes.rviz_view", str(TEMPLATE)]
    rclpy.init(args=[])
    node = rclpy.create_node("lidar")
    try:
        output = node.create_publisher(
            message_class(POINTS.type), "/points", profile("reliable", lossless=True)
        )
        with subprocess.Popen(
            [*command, json.dumps(topics), "--ros-args", "-p", "use_sim_time:=true"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        ) as process:
            message = drive.cloud(0)
            message.header.frame_id = "/os_sensor"

            def ended() -> bool:
                output.publish(message)  # as a LiDAR does, again and again
                return process.poll() is not None

            drive.until(ended, "rviz2 to start", 60)
            assert process.stdout is not None
            printed = process.stdout.read()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    assert process.returncode == 0
    assert "Fixed Frame: os_sensor" in printed
    assert printed.splitlines()[-1] == "# --ros-args -p use_sim_time:=true"


@pytest.mark.skipif(not embedded, reason="ROS 2's own launch is installed")
def test_without_rviz_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: None)
    ended = CliRunner().invoke(app, ["launch", "pipeline", "rviz:=true"])
    assert ended.exit_code == 1
    lines = [line for line in ended.output.splitlines() if "ERROR" in line]
    assert len(lines) == 1
    assert "rviz:=true needs rviz2, which is not installed" in lines[0]
