"""What the nodes declare is what they offer, and what their README says."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import cv2
import node_bench as drive
import numpy as np
import pytest
from node_bench import Bench, start, until
from rclpy.parameter import Parameter as RosParameter

from amodal_core.bags.images import read_depth, read_image
from amodal_core.drive.topics import COMPRESSED
from amodal_core.geometry.camera import read_camera
from amodal_core.geometry.projection import depth_image
from amodal_ros.conversions import message_class
from amodal_ros.declarations import COMMON, Declaration, Parameter
from amodal_ros.nodes import describe
from amodal_ros.nodes.depth_projection import DepthProjection
from amodal_ros.nodes.overlay import Overlay
from amodal_ros.nodes.segmentation import Segmentation
from amodal_ros.nodes.tracking import Tracking
from amodal_ros.qos import PROFILES, profile

DECLARATIONS = describe.declarations()
by_name = pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda d: d.name)
__all__ = ["start"]
REPLAY = {"queue": 0, "reliability": "reliable"}


def test_the_readme_holds_the_declared_topics_and_parameters() -> None:
    assert describe.README.read_text() == describe.text(), "run python -m amodal_ros.nodes.describe"


def test_all_six_nodes_are_declared() -> None:
    names = {d.name for d in DECLARATIONS}
    assert names == {*describe.MODULES}


@by_name
def test_every_parameter_has_a_description_a_valid_default_and_a_limit(
    declaration: Declaration,
) -> None:
    for parameter in (*COMMON, *declaration.parameters):
        assert len(parameter.description) > 15
        assert parameter.description.endswith(".")
        assert parameter.refusal(parameter.default) == ""
        if not isinstance(parameter.default, (bool, str)):
            assert parameter.constraint, parameter.name


@by_name
def test_every_topic_names_a_known_profile(declaration: Declaration) -> None:
    for topic in (*declaration.subscribes, *declaration.publishes):
        assert topic.qos in PROFILES
        assert profile(topic.qos).depth >= 1


@pytest.mark.parametrize(
    ("parameter", "bad"),
    [
        (Parameter("x", 1.0, "A number.", low=0.0, high=2.0), 2.5),
        (Parameter("x", 1.0, "A number.", low=0.0, high=2.0), float("nan")),
        (Parameter("x", "a", "A choice.", choices=("a", "b")), "c"),
        (Parameter("x", [0.0], "A list.", lengths=(1, 3)), [0.0, 0.0]),
    ],
)
def test_values_beyond_a_limit_are_refused_in_words(parameter: Parameter, bad: Any) -> None:
    assert parameter.constraint in parameter.refusal(bad)


@pytest.mark.dds
def test_parameters_change_within_their_range_and_only_where_declared(
    start: Callable[..., Bench],
) -> None:
    node = start(Tracking, []).node

    def change(name: str, value: Any) -> bool:
        return bool(node.set_parameters([RosParameter(name, value=value)])[0].successful)

    assert change("stale_after", 2.5)
    assert node.value("stale_after") == 2.5
    assert not change("stale_after", -1.0)
    assert not change("sync_timeout", 1.0)
    assert node.value("stale_after") == 2.5
    described = node.describe_parameter("sync_timeout")
    assert described.read_only
    assert "seconds" in described.description.lower()
    assert described.floating_point_range[0].to_value == 60.0


@pytest.mark.dds
def test_a_lifecycle_manager_can_stop_and_start_a_node(start: Callable[..., Bench]) -> None:
    bench = start(DepthProjection, ["image", "camera_info", "points", "/tf_static"], **REPLAY)
    bench.send("/tf_static", drive.tf_static())

    def send(index: int) -> None:
        bench.send("image", drive.image(index))
        bench.send("camera_info", drive.info(index))
        bench.send("points", drive.cloud(index))

    send(0)
    bench.outputs("depth/image", 1)
    bench.node.trigger_deactivate()
    until(lambda: bench._outputs["points"].get_subscription_count() == 0, "the end")
    send(1)
    bench.node.trigger_activate()
    until(lambda: bench._outputs["points"].get_subscription_count() == 1, "the start")
    until(lambda: bench._outputs["image"].get_subscription_count() == 1, "the start")
    send(2)
    messages = bench.outputs("depth/image", 2)
    assert [m.header.stamp.nanosec for m in messages] == [0, 200_000_000]
    bench.node.trigger_deactivate()
    bench.node.trigger_cleanup()
    until(lambda: bench.node.listeners("depth/image") == 0, "the output to be gone")


@pytest.mark.dds
def test_extrinsics_by_parameter_replace_the_transform_tree(start: Callable[..., Bench]) -> None:
    # The bench's camera looks along x: the axes of REP 103's body and optical frames.
    values = [0.0, 0.0, 0.0, 0.5, -0.5, 0.5, 0.5]
    inputs = ["image", "camera_info", "points"]
    bench = start(DepthProjection, inputs, extrinsics=values, **REPLAY)
    bench.send("image", drive.image(0))
    bench.send("camera_info", drive.info(0))
    bench.send("points", drive.cloud(0))
    message = bench.outputs("depth/image", 1)[0]
    assert drive.FRAME.points is not None
    assert drive.FRAME.calibration is not None
    exact = depth_image(drive.FRAME.points, drive.FRAME.calibration)
    assert (np.abs(read_depth(message) - exact) < 1e-3).mean() > 0.99
    assert message.header.frame_id == drive.CAMERA


@pytest.mark.dds
def test_a_model_gets_the_inputs_that_it_names_and_no_more(start: Callable[..., Bench]) -> None:
    options = {"model": "geometric", "optional_inputs": False, **REPLAY}
    bench = start(Segmentation, ["camera_info", "points"], **options)
    assert bench._outputs["image"].get_subscription_count() == 0
    assert bench._outputs["depth/image"].get_subscription_count() == 0
    bench.send("/tf_static", drive.tf_static())
    bench.send("camera_info", drive.info(0))
    bench.send("points", drive.cloud(0))
    result = bench.outputs("instances", 1)[0]
    assert sorted({i.class_name for i in result.instances}) >= ["car"]
    assert {i.track_id for i in result.instances} == {-1}
    assert (result.header.frame_id, result.box3d_frame_id) == (drive.CAMERA, drive.LIDAR)


@pytest.mark.dds
def test_tracks_come_with_detections_labels_and_their_names(start: Callable[..., Bench]) -> None:
    expected = ["image", "camera_info", "points", "/tf_static"]
    bench = start(Segmentation, expected, model="geometric", **REPLAY)
    bench.send("/tf_static", drive.tf_static())
    bench.send("image", drive.image(0))
    bench.send("camera_info", drive.info(0))
    bench.send("points", drive.cloud(0))
    instances = bench.outputs("instances", 1)[0]
    bench.close()
    tracker = start(
        Tracking,
        ["instances", "depth/image"],
        **REPLAY,
        tracker_settings="coast_seconds=2, min_hits=4",
    )
    config = tracker.node._tracker.config
    assert (config.coast_seconds, config.min_hits) == (2.0, 4)
    tracker.send("instances", instances)
    tracker.send("depth/image", drive.depth(0))
    tracks = tracker.outputs("tracks", 1)[0]
    detections = tracker.outputs("detections", 1)[0]
    boxes = tracker.outputs("detections_3d", 1)[0]
    labels = tracker.outputs("visible_labels", 1)[0]
    info = tracker.outputs("label_info", 1)[0]
    assert len(tracks.instances) == len(detections.detections) > 0
    assert {d.id for d in detections.detections} == {str(i.track_id) for i in tracks.instances}
    assert tracks.box3d_frame_id == boxes.header.frame_id == drive.LIDAR
    assert len(boxes.detections) == sum(len(i.box3d) == 7 for i in tracks.instances) > 0
    names = {c.class_id: c.class_name for c in info.class_map}
    assert labels.encoding == "mono16"
    pixels = np.frombuffer(bytes(labels.data), "<u2")
    assert {names[int(v)] for v in np.unique(pixels)} <= {"background", *names.values()}
    assert {names[int(v)] for v in np.unique(pixels)} > {"background"}


@pytest.mark.dds
def test_nothing_is_drawn_while_nobody_listens(
    start: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = start(Overlay, ["tracks", "image"], **REPLAY)
    empty = drive.FACTORY.create(
        "amodal_msgs/msg/AmodalInstanceArray",
        header=drive.image(0).header,
        height=drive.FRAME.size[0],
        width=drive.FRAME.size[1],
    )
    bench.send("image", drive.image(0))
    bench.send("tracks", empty)
    drawn = bench.outputs("overlay", 1)[0]
    assert (drawn.encoding, drawn.width) == ("rgb8", drive.FRAME.size[1])
    assert bench.outputs("markers", 1)
    monkeypatch.setattr(bench.node, "listeners", lambda topic: 0)
    monkeypatch.setattr("amodal_ros.nodes.overlay.draw_overlay", lambda *_: pytest.fail("drawn"))
    empty.header = drive.image(1).header
    bench.send("image", drive.image(1))
    bench.send("tracks", empty)
    until(lambda: bench.node.health.frames == 2, "the second frame")
    assert bench.node.health.errors == 0
    assert len(bench.received["overlay"]) == 1


@pytest.mark.dds
def test_a_compressed_raw_image_is_found_and_rectified_as_offline(
    start: Callable[..., Bench],
) -> None:
    """Nobody publishes `image`, but `image/compressed`, of a camera that distorts."""
    # Long before the next diagnostics.
    bench = start(Overlay, ["tracks", "camera_info"], diagnostics_period=60.0, **REPLAY)
    bench.peer.destroy_publisher(bench._outputs.pop("image"))
    compressed = bench.peer.create_publisher(
        message_class(COMPRESSED.type), COMPRESSED.name, profile("reliable", lossless=True)
    )
    heard = compressed.get_subscription_count
    until(heard, "the compressed image to be subscribed to", timeout=40.0)
    info = drive.info(0)
    info.d = array("d", [-0.3, 0.1, 0.0, 0.0, 0.0])
    bench.send("camera_info", info)
    height, width = drive.FRAME.size
    stripes = np.arange(width) % 40 // 20 * 200
    pixels = np.repeat(np.tile(stripes.astype(np.uint8), (height, 1))[..., None], 3, axis=2)
    png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    header = drive.image(0).header
    compressed.publish(
        drive.FACTORY.create(COMPRESSED.type, header=header, format="png", data=array("B", png))
    )
    array_type = "amodal_msgs/msg/AmodalInstanceArray"
    bench.send(
        "tracks", drive.FACTORY.create(array_type, header=header, height=height, width=width)
    )
    drawn = read_image(bench.outputs("overlay", 1)[0])
    expected = read_camera(info).rectify(pixels)
    assert np.abs(expected.astype(int) - pixels).max() > 20
    np.testing.assert_array_equal(drawn, expected)
