"""Arguments of the launch files: how they read, and what they start."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts launch in place

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import node_bench as drive
import pytest
from launched import commands
from typer.testing import CliRunner

import launch
from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import header_message
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.topics import ARRAY_TYPE
from amodal_ros.cli.launch import listed
from amodal_ros.cli.main import app

embedded = pytest.mark.skipif(
    "embedded_ros" not in Path(str(launch.__file__)).parts, reason="ROS 2's own launch is installed"
)
PIPELINE = Path(__file__).parents[1] / "launch" / "pipeline.launch.py"


def evaluation(lines: list[list[str]]) -> list[str]:
    """The command line of the evaluation node, empty where it is not started."""
    return next((line for line in lines if "amodal_ros.nodes.evaluation" in line), [])


def test_every_argument_is_in_a_group_and_described_in_a_line() -> None:
    for name, default, text, choices in run_path(str(PIPELINE))["ARGUMENTS"]:
        group, _, description = text.partition("] ")
        assert group.startswith("["), name
        assert 0 < len(description) <= 80, name
        assert default in (choices or (default,)), name


@pytest.mark.parametrize("name", ["pipeline", "replay"])
def test_show_args_lists_them_by_groups_with_defaults_and_choices(name: str) -> None:
    printed = CliRunner().invoke(app, ["launch", name, "--show-args"]).stdout
    groups = [line for line in printed.splitlines()[1:] if line and not line.startswith(" ")]
    assert sorted(groups) == sorted(run_path(str(PIPELINE))["GROUPS"])
    assert max(map(len, printed.splitlines())) <= 100
    assert "  rectify:=auto\n" in printed
    assert "(auto, always,\n        never)" in printed
    assert ("  bag:=VALUE, required\n" if name == "replay" else "  bag:=\n") in printed


def test_the_choices_that_ros_2_puts_into_descriptions_are_not_said_twice() -> None:
    argument = SimpleNamespace(
        name="loop",
        description="[Bag] again and again Valid choices are: ['true', 'false']",
        choices=["true", "false"],
        default_value=[SimpleNamespace(describe=lambda: "'false'")],
    )
    lines = listed([argument]).splitlines()
    assert lines[2:] == ["Bag", "  loop:=false", "        again and again (true, false)"]


@embedded
def test_a_bag_with_truth_is_evaluated_without_being_asked(
    project_root: Path, mini_bag: Path, tmp_path: Path
) -> None:
    sample = str(project_root / "data" / "sample_drive")
    line = evaluation(commands(project_root, bag=sample))
    assert "ground_truth:=/ground_truth" in line
    assert not evaluation(commands(project_root, bag=sample, evaluation="false"))
    assert not evaluation(commands(project_root, bag=sample, loop="true"))
    assert not evaluation(commands(project_root, bag=str(mini_bag)))
    assert not evaluation(commands(project_root))
    assert not evaluation(commands(project_root, bag="/no/such/bag"))
    assert "ground_truth:=/ground_truth" in evaluation(commands(project_root, evaluation="true"))
    factory = RosbagsFactory()
    with BagWriter(tmp_path / "named.mcap") as bag:
        bag.add_topic("/labels/ground_truth", ARRAY_TYPE)
        header = header_message(factory, drive.stamp(0), drive.CAMERA)
        message = factory.create(ARRAY_TYPE, header=header, height=2, width=3)
        bag.write("/labels/ground_truth", message, drive.stamp(0))
    sensors = {"image": "/image", "camera_info": "/info", "points": "/points"}
    line = evaluation(commands(project_root, bag=str(tmp_path / "named.mcap"), **sensors))
    assert "ground_truth:=/labels/ground_truth" in line
