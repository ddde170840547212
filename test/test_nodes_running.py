"""What may be done to a running node: its lifecycle's services, its parameters, its QoS."""

from __future__ import annotations

import ast
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import node_bench as drive
import numpy as np
import pytest
import rclpy
import yaml
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from node_bench import Bench, start, until
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from tracking_scenes import Thing, view

from amodal_core.bags.messages import instances_message
from amodal_core.drive.topics import TRACKS
from amodal_core.frame import Tracks
from amodal_ros.conversions import FACTORY
from amodal_ros.declarations import COMMON
from amodal_ros.nodes import evaluation
from amodal_ros.nodes.depth_projection import DepthProjection
from amodal_ros.nodes.evaluation import Evaluation
from amodal_ros.nodes.overlay import Overlay
from amodal_ros.nodes.segmentation import Segmentation
from amodal_ros.nodes.tracking import Tracking
from amodal_ros.qos import LOSSLESS_DEPTH

__all__ = ["start"]
pytestmark = pytest.mark.dds
REPLAY = {"queue": 0, "reliability": "reliable"}


def ask(bench: Bench, kind: Any, name: str, **fields: Any) -> Any:
    """The response of one of the node's services, asked by the peer over DDS."""
    client = bench.peer.create_client(kind, f"{bench.node.get_fully_qualified_name()}/{name}")
    until(client.service_is_ready, f"the service {name}")
    request = kind.Request()
    for field, value in fields.items():
        setattr(request.transition, field, value)
    future = client.call_async(request)
    until(future.done, f"an answer of {name}")
    bench.peer.destroy_client(client)
    return future.result()


def test_a_lifecycle_manager_leads_a_node_by_its_services(start: Callable[..., Bench]) -> None:
    bench = start(DepthProjection, ["image", "camera_info", "points", "/tf_static"], **REPLAY)

    def state() -> str:
        return str(ask(bench, GetState, "get_state").current_state.label)

    def transitions() -> list[str]:
        kind = GetAvailableTransitions
        listed = ask(bench, kind, "get_available_transitions").available_transitions
        return sorted(t.transition.label for t in listed)

    def change(**transition: Any) -> bool:
        return bool(ask(bench, ChangeState, "change_state", **transition).success)

    states = {
        s.label for s in ask(bench, GetAvailableStates, "get_available_states").available_states
    }
    assert states >= {"unconfigured", "inactive", "active", "finalized"}
    assert (state(), transitions()) == ("active", ["deactivate", "shutdown"])
    assert change(label="deactivate")  # as `ros2 lifecycle set NODE deactivate`, or by number
    assert (state(), transitions()) == ("inactive", ["activate", "cleanup", "shutdown"])
    until(lambda: bench._outputs["points"].get_subscription_count() == 0, "the end")
    assert change(id=2)
    assert (state(), transitions()) == ("unconfigured", ["configure", "shutdown"])
    assert change(id=1)
    assert change(id=3)
    assert state() == "active"
    for name in ("image", "camera_info", "points", "/tf_static"):
        until(lambda name=name: bench._outputs[name].get_subscription_count(), f"{name} again")
    until(lambda: bench.node.listeners("depth/image"), "the output to be heard again")
    bench.send("/tf_static", drive.tf_static())
    bench.send("image", drive.image(0))
    bench.send("camera_info", drive.info(0))
    bench.send("points", drive.cloud(0))
    assert bench.outputs("depth/image", 1)[0].header.frame_id == drive.CAMERA
    assert change(id=7)
    assert (state(), transitions()) == ("finalized", [])


def change(bench: Bench, name: str, value: Any) -> str:
    """Set a parameter; why it was refused, or an empty text."""
    (result,) = bench.node.set_parameters([RosParameter(name, value=value)])
    assert result.successful != bool(result.reason)
    return str(result.reason)


def test_every_parameter_says_whether_it_may_change_and_refuses_where_not(
    start: Callable[..., Bench],
) -> None:
    bench = start(Segmentation, [], model="geometric")
    changeable = set()
    for parameter in (*COMMON, *Segmentation.declaration.parameters):
        described = bench.node.describe_parameter(parameter.name)
        assert described.read_only != parameter.dynamic
        if not parameter.dynamic:
            before = bench.node.value(parameter.name)
            reason = change(bench, parameter.name, parameter.default)
            assert "read-only" in reason
            assert parameter.name in reason
            assert bench.node.value(parameter.name) == before
        else:
            changeable.add(parameter.name)
    assert changeable == {"min_score", "stale_after", "lost_after"}
    for wrong in (-0.1, 1.5):
        assert "min_score" in change(bench, "min_score", wrong)
    assert change(bench, "min_score", "high") != ""
    assert bench.node.value("min_score") == 0.0


def test_the_score_threshold_holds_from_the_next_frame_on(start: Callable[..., Bench]) -> None:
    expected = ["image", "camera_info", "points", "/tf_static"]
    bench = start(Segmentation, expected, model="geometric", **REPLAY)
    bench.send("/tf_static", drive.tf_static())

    def scores(index: int) -> list[float]:
        bench.send("image", drive.image(index))
        bench.send("camera_info", drive.info(index))
        bench.send("points", drive.cloud(index))
        return sorted(i.score for i in bench.outputs("instances", index + 1)[index].instances)

    every = scores(0)
    assert every[0] < every[-1]
    assert change(bench, "min_score", (every[0] + every[-1]) / 2) == ""
    assert scores(1) == [s for s in every if s >= (every[0] + every[-1]) / 2]
    assert change(bench, "min_score", 0.0) == ""
    assert scores(2) == every


def test_tracker_settings_are_checked_and_hold_from_the_next_frame_on(
    start: Callable[..., Bench],
) -> None:
    bench = start(Tracking, ["instances"], use_depth=False, tracker_settings="min_hits=1", **REPLAY)
    _, instances, _ = view([Thing("car", 100, 50, 40, 30, 20.0)])

    def track(index: int) -> list[bool]:
        at = drive.stamp(index)
        message = instances_message(
            drive.FACTORY, instances, stamp=at, frame_id=drive.CAMERA, classes=("car",)
        )
        bench.send("instances", message)
        return [i.coasted for i in bench.outputs("tracks", index + 1)[index].instances]

    assert track(0) == track(1) == [False]
    for wrong, words in (
        ("coast_secnds=1", "coast_seconds"),
        ("coast_seconds=-1", "coast_seconds"),
        ("coast_seconds", "setting=value"),
    ):
        assert words in change(bench, "tracker_settings", wrong)
    assert bench.node.value("tracker_settings") == "min_hits=1"
    # Detections of 0.9 count no longer: the track coasts, with its identity.
    assert change(bench, "tracker_settings", "low_score=0.95,high_score=0.95") == ""
    assert track(2) == [True]
    assert change(bench, "tracker_settings", "") == ""
    assert track(3) == [False]
    assert {i.track_id for m in bench.received["tracks"] for i in m.instances} == {0}


def test_the_overlays_labels_can_be_switched_off(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bool] = []

    def draw(image: np.ndarray, tracks: Any, classes: Any, style: Any) -> np.ndarray:
        drawn.append(style.labels)
        return image

    monkeypatch.setattr("amodal_ros.nodes.overlay.draw_overlay", draw)
    bench = start(Overlay, ["tracks", "image"], **REPLAY)
    for index, labels in enumerate((True, False)):
        assert change(bench, "labels", labels) == ""
        message = instances_message(
            drive.FACTORY,
            Tracks.empty(drive.FRAME.size),
            stamp=drive.stamp(index),
            frame_id=drive.CAMERA,
            classes=(),
        )
        bench.send("image", drive.image(index))
        bench.send("tracks", message)
        bench.outputs("overlay", index + 1)
    assert drawn == [True, False]


def test_parameters_override_the_qos_of_topics(start: Callable[..., Bench], tmp_path: Path) -> None:
    subscription = {"reliability": "best_effort", "history": "keep_last", "depth": 3}
    publisher = {"durability": "transient_local", "depth": 4}
    overrides = {
        "/points": {"subscription": subscription},
        "/depth/image": {"publisher": publisher},
    }
    file = tmp_path / "qos.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"qos_overrides": overrides}}}))
    node = start(DepthProjection, ["points"], params_file=file, **REPLAY).node
    made = node._outputs["depth/image"].qos_profile
    assert (made.durability, made.depth) == (QoSDurabilityPolicy.TRANSIENT_LOCAL, 4)
    assert made.reliability == QoSReliabilityPolicy.RELIABLE
    sources = {key[0]: source.qos for key, source in node._exchange._sources.items()}
    points, info = sources["/points"], sources["/camera_info"]
    assert (points.reliability, points.depth) == (QoSReliabilityPolicy.BEST_EFFORT, 3)
    assert (info.reliability, info.depth) == (QoSReliabilityPolicy.RELIABLE, LOSSLESS_DEPTH)
    name = "qos_overrides./camera_info.subscription.reliability"
    assert node.get_parameter(name).value == "reliable"
    assert node.describe_parameter(name).read_only


def test_an_override_that_is_no_policy_is_one_line(
    domain: int, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    overrides = {"/depth/image": {"publisher": {"reliability": "perhaps"}}}
    file = tmp_path / "qos.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"qos_overrides": overrides}}}))
    rclpy.init(args=["--ros-args", "--params-file", str(file)])
    node = DepthProjection()
    try:
        assert not node.autostart()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    printed = capfd.readouterr().err
    assert (
        "cannot configure: parameter qos_overrides./depth/image: Unexpected QoS override" in printed
    )
    assert "Traceback" not in printed


def test_a_node_that_cannot_be_activated_is_inactive_and_takes_nothing(
    domain: int, tmp_path: Path
) -> None:
    overrides = {"/points": {"subscription": {"history": "perhaps"}}}
    file = tmp_path / "qos.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"qos_overrides": overrides}}}))
    rclpy.init(args=["--ros-args", "--params-file", str(file)])
    node = DepthProjection()
    try:
        assert not node.autostart()
        # camera_info had been subscribed to before the scans were refused.
        assert not node._exchange._sources
        assert node._worker is None
        assert not node._outputs["depth/image"].is_activated
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def tracks_message(index: int) -> Any:
    """A frame's tracks, of which there are none."""
    return instances_message(
        FACTORY,
        Tracks.empty(drive.FRAME.size),
        stamp=drive.stamp(index),
        frame_id="camera",
        classes=["car"],
    )


def test_truth_that_nobody_publishes_is_asked_for_now_and_then_and_not_with_every_frame(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = start(Evaluation, ["tracks"], metrics_file="", diagnostics_period=60.0, **REPLAY)
    asked: list[str] = []

    def count(node: Any, name: str) -> int:
        if "image" not in name:  # a compressed one is looked for until one comes
            asked.append(name)
        return 0

    monkeypatch.setattr(type(bench.node), "count_publishers", count)
    for index in range(20):
        bench.send("tracks", tracks_message(index))
    until(lambda: bench.node.health.frames == 20, "twenty frames")
    assert asked == []
    assert len(bench.node._waiting) == 20  # it may come yet
    bench.node.tick()
    assert asked == ["/ground_truth"]
    bench.send("tracks", tracks_message(20))
    until(lambda: bench.node.health.frames == 21, "a frame more")
    assert len(bench.node._waiting) == 20
    # It comes all the same: from then on tracks wait for it again.
    for index in range(21, 24):
        bench.send("ground_truth", tracks_message(index))
    until(lambda: bench.node.health.frames == 24, "truth")
    for index in range(21, 24):
        bench.send("tracks", tracks_message(index))
    until(lambda: bench.node.health.frames == 27, "its tracks")
    assert len(bench.node._waiting) == 20
    assert asked == ["/ground_truth"]


def test_a_day_of_new_ids_is_counted_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_REMEMBERED", 10)
    monkeypatch.setattr(evaluation, "read_tracks", lambda message, where: message)
    node: Any = SimpleNamespace(_instances=0, _coasted=0, _tracks=0, _truth_expected=False)
    node._ids, node.topic_name = OrderedDict(), str
    for frame in range(500):
        tracks = MagicMock(ids=np.array([1, 2, frame // 5 + 3]), coasted=np.zeros(3, bool))
        Evaluation.process(node, frame, (TRACKS.name, tracks))
    assert node._tracks == 2 + 100
    assert len(node._ids) == 10


def test_the_graph_is_asked_by_timers_and_while_starting_alone(project_root: Path) -> None:
    """Each question is a call into the middleware, and was 4 ms and 7 kB of one that is none."""
    queries = {"count_publishers", "count_subscribers"}
    asking = set()
    for file in (project_root / "amodal_ros").rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                name = getattr(getattr(call, "func", None), "attr", "")
                if name in queries or name.endswith(("_names_and_types", "_info_by_topic")):
                    asking.add(f"{file.name}: {function.name}")
    assert asking == {
        "base_node.py: _follow_compressed",
        "evaluation.py: tick",
        "player.py: _wait_for_pipeline",
    }


def test_a_parameter_of_no_type_costs_its_request_alone(start: Callable[..., Bench]) -> None:
    """rclpy raises in its own callback, which would end the executor and so the process."""
    bench = start(Overlay, [], **REPLAY)
    name = f"{bench.node.get_fully_qualified_name()}/set_parameters"
    client = bench.peer.create_client(SetParameters, name)
    until(client.service_is_ready, "the parameters' service")

    def set_to(value: Any) -> Any:
        wanted = ParameterMessage(name="labels", value=value)
        return client.call_async(SetParameters.Request(parameters=[wanted]))

    nonsense = set_to(ParameterValue(type=99))
    right = set_to(ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False))
    until(right.done, "the answer to the right one")
    assert right.result().results[0].successful
    assert bench.node.value("labels") is False
    refused = nonsense.done() and not nonsense.result().results[0].successful
    assert refused or bench.node.health.errors == 1
