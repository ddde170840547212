"""Stages in one process: each thing is read once and made once, and tracks stay the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import node_bench as drive
import pytest
import rclpy
from node_bench import Together, assert_same, stamp, together, until
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from amodal_core.bags.clouds import read_points
from amodal_core.bags.images import read_depth, read_image
from amodal_core.drive import assembler, scans
from amodal_core.drive.topics import (
    CAMERA_INFO,
    DEPTH,
    IMAGE,
    INSTANCES,
    OVERLAY,
    POINTS,
    TF_STATIC,
    TRACKS,
)
from amodal_core.frame import Frame, Tracks
from amodal_core.models.registry import create
from amodal_core.pipeline import Pipeline
from amodal_ros import synced_node
from amodal_ros.exchange import Exchange
from amodal_ros.nodes import perception, segmentation
from amodal_ros.restarts import REFUSED

pytestmark = pytest.mark.dds

__all__ = ["together"]
STAGES = list(perception.USUAL)
SENSORS = [IMAGE, CAMERA_INFO, POINTS, TF_STATIC]
REPLAY = ("-p", "queue:=0", "-p", "reliability:=reliable", "-p", "sync_timeout:=10.0")
GEOMETRIC = (*REPLAY, "-p", "model:=geometric")
Start = Callable[..., Together]


def send_frame(nodes: Together, index: int) -> None:
    nodes.send("image", drive.image(index))
    nodes.send("camera_info", drive.info(index))
    nodes.send("points", drive.cloud(index, -0.15 * index))


def offline(*turns: int) -> list[Tracks]:
    """The tracks of an offline run over the same frames, in turns of so many frames."""
    pipeline = Pipeline(create("geometric"))
    calibration = drive.FRAME.calibration
    tracks = []
    for frames in turns:
        for k in range(frames):
            points = read_points(drive.cloud(k, -0.15 * k), minimum_range=0.5)
            image = read_image(drive.image(k))
            tracks.append(
                pipeline.step(Frame(stamp(k), image, points, calibration=calibration))[0].numpy()
            )
    return tracks


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, *names: str) -> Counter[str]:
    """How often functions of a module are called from now on."""
    calls: Counter[str] = Counter()

    def watch(name: str) -> None:
        original = getattr(module, name)

        def function(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, function)

    for name in names:
        watch(name)
    return calls


def test_the_tracks_are_those_of_an_offline_run_after_a_jump_back_too(
    together: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = together(STAGES, [TRACKS], SENSORS, *GEOMETRIC)
    nodes.send("/tf_static", drive.tf_static())
    for turn in (1, 2):
        for index in range(8):
            send_frame(nodes, index)
        live = nodes.messages(TRACKS, 8 * turn)
    expected = offline(8, 8)
    assert max(len(t) for t in expected) >= 2
    assert_same(live, expected)
    assert [node.health.drops for node in nodes.nodes.values()] == [{}, {}, {}]
    assert capfd.readouterr().err.count("time jumped back") == 3


def test_messages_are_received_and_read_once_and_none_is_made_that_nobody_hears(
    together: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four nodes read images and scans, between them instances, depth and tracks are passed on."""
    pictures = counted(monkeypatch, synced_node, "read_image")
    read = counted(monkeypatch, assembler, "read_depth", "read_tracks")
    scanned = counted(monkeypatch, scans, "read_scan")
    made = counted(monkeypatch, segmentation, "instances_output")
    nodes = together([*STAGES, "overlay"], [OVERLAY], SENSORS, *GEOMETRIC)
    for name in ("image", "camera_info", "points"):
        assert nodes.outputs[name].get_subscription_count() == 1
        assert nodes.peer.count_subscribers(name) == 1
    for topic in (DEPTH, INSTANCES, TRACKS):
        assert nodes.peer.count_publishers(topic.name) == 1
        assert nodes.peer.count_subscribers(topic.name) == 0
    nodes.send("/tf_static", drive.tf_static())
    for index in range(4):
        send_frame(nodes, index)
    assert len(nodes.messages(OVERLAY, 4)) == 4
    assert pictures == {"read_image": 4}
    assert read == {}
    assert scanned == {"read_scan": 4}
    assert made == {}


def test_who_comes_later_hears_what_the_stages_pass_on(together: Start) -> None:
    nodes = together(STAGES, [TRACKS], SENSORS, *GEOMETRIC)
    nodes.send("/tf_static", drive.tf_static())
    send_frame(nodes, 0)
    nodes.messages(TRACKS, 1)
    for topic in (DEPTH, INSTANCES):
        nodes.listen(topic)
        until(lambda t=topic: nodes.heard(t.name), f"{topic.name} to be heard")
    send_frame(nodes, 1)
    depth, instances = nodes.messages(DEPTH, 1)[0], nodes.messages(INSTANCES, 1)[0]
    for message in (depth, instances):
        assert assembler.stamp_of(message.header) == stamp(1)
        assert message.header.frame_id == drive.CAMERA
    assert (read_depth(depth) > 0).sum() > 1000
    assert {i.class_name for i in instances.instances} >= {"car"}


def test_a_node_that_is_deactivated_leaves_the_others_what_it_had_subscribed_to(
    together: Start,
) -> None:
    """Depth projection came last and found the subscriptions made; segmentation made them."""
    nodes = together(STAGES, [DEPTH], SENSORS, *GEOMETRIC)
    nodes.send("/tf_static", drive.tf_static())
    send_frame(nodes, 0)
    nodes.messages(DEPTH, 1)
    nodes.nodes["segmentation"].trigger_deactivate()
    points = nodes.outputs["points"]
    until(lambda: points.get_subscription_count() == 1, "depth projection to subscribe by itself")
    send_frame(nodes, 1)
    assert len(nodes.messages(DEPTH, 2)) == 2
    assert nodes.nodes["segmentation"].health.frames == 1
    nodes.nodes["segmentation"].trigger_activate()
    nodes.nodes["depth_projection"].trigger_deactivate()
    send_frame(nodes, 2)
    until(lambda: nodes.nodes["segmentation"].health.frames == 2, "segmentation to go on")


def test_nodes_that_share_a_topic_end_one_after_the_other_after_a_shutdown(
    domain: int,
) -> None:
    context = rclpy.context.Context()
    rclpy.init(context=context, domain_id=domain)
    nodes = [rclpy.create_node(name, context=context) for name in ("first", "second")]
    exchange = Exchange()
    for node in nodes:
        exchange.subscribe(node, Image, "image", QoSProfile(depth=1), print, shared=False)
    context.shutdown()
    for node in nodes:
        exchange.unsubscribe(node)
    for node in nodes:
        node.destroy_node()


def test_parameters_of_a_file_reach_the_node_that_they_name(
    together: Start, tmp_path: Path
) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "/**:\n  ros__parameters: {queue: 3, model: geometric}\n"
        "/**/tracking:\n  ros__parameters: {tracker_settings: min_hits=4, queue: 7}\n"
    )
    nodes = together(["segmentation", "tracking"], [], [], "--params-file", str(file)).nodes
    assert nodes["tracking"]._tracker.config.min_hits == 4
    assert {name: node.value("queue") for name, node in nodes.items()} == {
        "segmentation": 3,
        "tracking": 7,
    }


def test_a_stage_that_cannot_start_ends_them_all_and_is_named(
    domain: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert perception.main(["perception", "--ros-args", "-p", "model:=nonesuch"]) == REFUSED
    assert "there is no model 'nonesuch'" in capfd.readouterr().err
    assert perception.main(["perception", "trakcing", "--ros-args"]) == REFUSED
    assert "there is no stage 'trakcing'" in capfd.readouterr().err
