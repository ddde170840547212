"""What launch arguments mean, and the one line that a malformed one gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from typer.testing import CliRunner

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.sensors import header_message
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS
from amodal_core.errors import InputError
from amodal_ros.cli.launch import launch_file
from amodal_ros.cli.main import app
from amodal_ros.launching import cameras

SIDES = {"image": "/{camera}/image_raw", "points": "/lidar"}


def test_one_camera_has_no_name_and_the_topics_of_the_arguments() -> None:
    (camera,) = cameras({"image": "/cam/image", "points_offset": "auto", "extrinsics": ""})
    assert camera.name == ""
    assert camera.topics["image"] == "/cam/image"
    assert camera.topics["camera_info"] == "/cam/camera_info"
    assert camera.topics["points"] == POINTS.bag_name
    assert camera.drive == {"auto_points_offset": True}
    assert (camera.namespace("amodal"), camera.topic("tracks")) == ("amodal", "tracks")


@pytest.fixture
def bag_of_others(tmp_path: Path) -> str:
    """A bag with one camera and one LiDAR under names of its own."""
    path = tmp_path / "others.mcap"
    topics = (IMAGE, "/front/image"), (CAMERA_INFO, "/front/camera_info"), (POINTS, "/top/points")
    with BagWriter(path) as bag:
        for topic, name in topics:
            bag.add_topic(name, topic.type)
            header = header_message(RosbagsFactory(), 1, "frame")
            bag.write(name, RosbagsFactory().create(topic.type, header=header), 1)
    return str(path)


def test_topics_that_are_not_given_are_those_of_the_bag(bag_of_others: str) -> None:
    sensors = [IMAGE.name, CAMERA_INFO.name, POINTS.name]
    (camera,) = cameras({"bag": bag_of_others})
    found = ["/front/image", "/front/camera_info", "/top/points"]
    assert [camera.topics[name] for name in sensors] == found
    (camera,) = cameras({"bag": bag_of_others, "points": "none", "camera_info": "/mine"})
    assert [camera.topics[name] for name in sensors] == ["/front/image", "/mine", "none"]
    with pytest.raises(InputError, match=r"on '/fron/image' \(did you mean"):
        cameras({"bag": bag_of_others, "image": "/fron/image"})


def test_names_of_cameras_stand_in_for_their_place_in_topics() -> None:
    front, left = cameras({"cameras": "front, left", "minimum_range": "2", **SIDES})
    assert front.topics | {"ground_truth": ""} == {
        "image": "/front/image_raw",
        "camera_info": "/front/camera_info",
        "points": "/lidar",
        "ground_truth": "",
    }
    assert left.drive == {"minimum_range": 2.0}
    assert (left.namespace("/amodal"), left.topic("tracks")) == ("/amodal/left", "left/tracks")


def test_a_file_of_cameras_gives_each_what_is_its_own(tmp_path: Path) -> None:
    calibration = tmp_path / "left.yaml"
    calibration.write_text("")
    file = tmp_path / "cameras.yaml"
    file.write_text(
        "- {name: front, image: /f/image_rect, camera_info: /f/info, rectify: never}\n"
        f"- {{name: left, image: /l/image/compressed, points: none, calibration: {calibration},\n"
        "   extrinsics: [1, 2, 3, 0, 0, 0, 1]}\n"
    )
    front, left = cameras({"cameras": str(file), "points": "/lidar", "rectify": "auto"})
    assert front.topics["camera_info"] == "/f/info"
    assert front.topics["points"] == "/lidar"
    assert front.drive == {"rectify": "never"}
    assert left.camera_only
    assert left.topics["camera_info"] == "/l/camera_info"
    assert left.topics["image"] == "/l/image/compressed"
    assert left.drive["extrinsics"] == [1, 2, 3, 0, 0, 0, 1]
    assert left.drive["calibration"] == str(calibration)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("extrinsics:=here", "argument extrinsics: 'here' is not valid (x,y,z,qx,qy,qz,qw"),
        ("extrinsics:=1,2,3,0,0,0,one", "argument extrinsics: '1,2,3,0,0,0,one' is not valid"),
        ("extrinsics:=1,2,3,0,0,0,2", "a quaternion of length 1"),
        ("rate:=fast", "argument rate: 'fast' is not valid (a number from 0.01 to 100"),
        ("rate:=0", "argument rate: '0' is not valid (a number from 0.01 to 100"),
        ("minimum_range:=near", "argument minimum_range: 'near' is not valid (metres"),
        ("minimum_range:=99", "minimum_range: input should be less than or equal to 50"),
        ("points_offset:=3ms", "argument points_offset: '3ms' is not valid (seconds"),
        ("calibration:=nowhere.yaml", "argument calibration: nowhere.yaml: there is no such file"),
        ("rectify:=maybe", "argument rectify: 'maybe' is not valid (auto, always, never)"),
        ("loop:=maybe", "argument loop: 'maybe' is not valid (true, false)"),
        ("bag:=nowhere", "argument bag: nowhere: this is no bag"),
        ("params_file:=nowhere.yaml", "argument params_file: nowhere.yaml: there is no such file"),
        ("tracker_settings:=coast", "argument tracker_settings: 'coast' is not setting=value"),
        ("cameras:=front,left", "is the image of several cameras (give the place of the name"),
        ("cameras:=front,front", "two cameras are 'front'"),
        ("cameras:=front,7", "'7' is no name of a camera"),
        ("cameras:=nowhere.yaml", "argument cameras: nowhere.yaml: cannot be read"),
    ],
)
def test_a_malformed_argument_is_one_line_and_nothing_is_made(
    argument: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["launch", "pipeline", "evaluation:=true", "out:=here", argument]
    with pytest.raises(InputError, match=re.escape(line)) as refused:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("front: /image", "no list of cameras"),
        ("- {image: /image}", "a camera without a name"),
        ("- {name: front, imge: /image}", "camera front has 'imge'"),
        ("- {name: front, extrinsics: [1, 2]}", "camera front: extrinsics: '[1, 2]' is not valid"),
        ("- {name: front", "cannot be read"),
    ],
)
def test_a_malformed_file_of_cameras_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(line)):
        cameras({"cameras": str(file)})


def started(**arguments: str) -> dict[str, Any]:
    """What a launch starts: executables with their commands, by namespace and name."""
    launch = pytest.importorskip("launch")
    description = run_path(str(launch_file("pipeline")))["generate_launch_description"]()
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments)
    commands = {}
    entities = list(description.entities)
    while entities:
        entity = entities.pop(0)
        if hasattr(entity, "command"):
            command = entity.command(context)
            namespace = next((a for a in command if a.startswith("__ns:=")), "")
            commands[f"{namespace.removeprefix('__ns:=')}/{entity.executable}"] = command
        elif not hasattr(entity, "event_handler"):
            entities += entity.visit(context) or ()
    context.close()
    return commands


@pytest.mark.skipif(
    not hasattr(pytest.importorskip("launch").LaunchContext, "scratch"),
    reason="ROS 2's launch keeps its commands to itself",
)
class TestSeveralCameras:
    def test_in_one_process_each_has_stages_topics_and_what_is_its_own(self) -> None:
        asked = {"cameras": "front,left", "extrinsics": "1,2,3,0,0,0,1", "overlay": "true", **SIDES}
        commands = started(**asked)
        (command,) = commands.values()
        told = json.loads(command[command.index("--cameras") + 1])
        assert [camera["namespace"] for camera in told] == ["/amodal/front", "/amodal/left"]
        assert told[1]["stages"] == [
            "depth_projection",
            "segmentation",
            "tracking",
            "overlay",
            "track_points",
        ]
        assert told[1]["topics"]["image"] == "/left/image_raw"
        assert told[1]["topics"]["camera_info"] == "/left/camera_info"
        assert told[1]["parameters"] == {"extrinsics": [1, 2, 3, 0, 0, 0, 1], "use_points": True}

    def test_with_a_process_for_each_node_each_camera_has_its_own(self) -> None:
        commands = started(cameras="front,left", single_process="false", **SIDES)
        stages = ("depth_projection", "segmentation", "tracking")
        assert set(commands) == {f"/amodal/{c}/{s}" for c in ("front", "left") for s in stages}
        assert "image:=/left/image_raw" in commands["/amodal/left/segmentation"]
