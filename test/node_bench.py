"""A node under test beside a peer that feeds it and listens to it, over DDS."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor

from amodal_core.bags.messages import read_tracks
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.drive.topics import Topic
from amodal_core.frame import Frame, Tracks
from amodal_core.warm_up import warm_up_frame
from amodal_ros.base_node import start as start_all
from amodal_ros.conversions import FACTORY, message_class
from amodal_ros.nodes.perception import make
from amodal_ros.qos import profile
from amodal_ros.running import executor_of

CAMERA, LIDAR = "camera", "lidar"
SECOND = 1_000_000_000
# Seconds for what must happen, however busy the machine is: only a failure takes so long.
PATIENCE = 240.0
BEGIN = 1_317_000_000 * SECOND  # a day in 2011


def until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Wait for a condition; fails the test where it does not come true."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout:g} s in vain for {what}")


@pytest.fixture
def start(domain: int) -> Iterator[Callable[..., Bench]]:
    """Starts a node and its peer; they end with the test."""
    benches: list[Bench] = []

    def make(node: Callable[..., Any], expects: list[str], **parameters: Any) -> Bench:
        benches.append(Bench(node, parameters, expects))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()
    # pytest keeps `make`, and a real rclpy's participant lives as long as its nodes.
    benches.clear()
    rclpy.try_shutdown()


class Bench:
    """Runs a node and a peer in this process; all that passes between them goes over DDS.

    Args:
        make: the node's class.
        parameters: its parameters; `params_file` is a file of some.
        expects: its inputs that must be connected before the test begins.
    """

    def __init__(self, make: Callable[..., Any], parameters: dict[str, Any], expects: list[str]):
        args = ["--ros-args"]
        # A busy machine may bring the messages of a frame seconds apart.
        usual = {"diagnostics_period": 0.1, "sync_timeout": 10.0}
        if file := parameters.pop("params_file", None):
            args += ["--params-file", str(file)]
        for name, value in {**usual, **parameters}.items():
            args += ["-p", f"{name}:={json.dumps(value)}"]
        rclpy.init(args=args)
        self.node = make()
        self.peer = rclpy.create_node("peer", use_global_arguments=False)
        self._closed = False
        self.received: dict[str, list[Any]] = defaultdict(list)
        self.statuses: list[Any] = []
        self._outputs: dict[str, Any] = {}
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 10)
        declaration = self.node.declaration
        for topic in declaration.publishes:
            self.peer.create_subscription(
                message_class(topic.type),
                topic.name,
                self.received[topic.name].append,
                profile(topic.qos, lossless=True),
            )
        for topic in declaration.subscribes:
            if topic.name != "/diagnostics":
                kind = "reliable" if topic.qos == "sensor" else topic.qos
                self._outputs[topic.name] = self.peer.create_publisher(
                    message_class(topic.type), topic.name, profile(kind, lossless=True)
                )
        assert self.node.autostart()
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.peer)
        self._thread = threading.Thread(target=executor_of(self.executor), daemon=True)
        self._thread.start()
        for name in expects:
            until(
                lambda name=name: self._outputs[name].get_subscription_count() > 0,
                f"{name} to be subscribed to",
            )
        for topic in declaration.publishes:
            until(
                lambda topic=topic: self.node.listeners(topic.name) > 0, f"{topic.name} to be heard"
            )

    def _diagnosed(self, message: Any) -> None:
        self.statuses.extend(s for s in message.status if s.name.endswith(self.node.get_name()))

    def send(self, topic: str, message: Any) -> None:
        """Publish to the node."""
        self._outputs[topic].publish(message)

    def outputs(self, topic: str, count: int) -> list[Any]:
        """The first messages on one of the node's outputs."""
        until(
            lambda: len(self.received[topic]) >= count,
            f"{count} messages on {topic}, of which {len(self.received[topic])} came",
        )
        return self.received[topic]

    def diagnosis(self, level: int, text: str) -> Any:
        """A status of that level whose line contains a text."""

        def match() -> Any:
            return next(
                (s for s in self.statuses if s.level == bytes([level]) and text in s.message), None
            )

        return until(match, f"a diagnosis of level {level} with '{text}'")

    def values(self) -> dict[str, str]:
        """Key values of the newest status."""
        before = len(self.statuses)
        until(lambda: len(self.statuses) > before, "a diagnosis")
        return {v.key: v.value for v in self.statuses[-1].values}

    def close(self) -> None:
        """End both nodes; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        rclpy.try_shutdown()
        self._thread.join(5)
        self.node.close()
        self.node.destroy_node()
        self.peer.destroy_node()


class Together:
    """Stages in one process, and a peer; between those two all goes over DDS.

    Args:
        stages: that run.
        heard: topics that the peer subscribes to.
        sent: topics that it publishes.
        arguments: what follows `--ros-args`.
        cameras: see `perception.make`.
    """

    def __init__(
        self,
        stages: list[str],
        heard: list[Topic],
        sent: list[Topic],
        *arguments: str,
        cameras: Sequence[dict[str, Any]] = (),
    ) -> None:
        rclpy.init(args=["--ros-args", *arguments])
        made = [make_node() for make_node in make(stages, cameras)]
        # Of several cameras each has its namespace.
        self.nodes = {
            node.get_fully_qualified_name() if cameras else node.get_name(): node for node in made
        }
        self.peer = rclpy.create_node("peer", use_global_arguments=False)
        self.received: dict[str, list[Any]] = defaultdict(list)
        self._closed = False
        for topic in heard:
            self.listen(topic)
        self.outputs = {
            topic.name: self.peer.create_publisher(
                message_class(topic.type),
                topic.name,
                profile("reliable" if topic.qos == "sensor" else topic.qos, lossless=True),
            )
            for topic in sent
        }
        assert start_all(list(self.nodes.values()))
        self.executor = SingleThreadedExecutor()
        for node in (*self.nodes.values(), self.peer):
            self.executor.add_node(node)
        self._thread = threading.Thread(target=executor_of(self.executor), daemon=True)
        self._thread.start()
        for name, output in self.outputs.items():
            until(lambda output=output: output.get_subscription_count(), f"{name} to be heard")
        for topic in heard:
            until(lambda name=topic.name: self.heard(name), f"{topic.name} to be heard")

    def heard(self, name: str) -> bool:
        """Whether a node publishes a topic and knows of who listens."""
        full = self.peer.resolve_topic_name(name)
        return any(
            node.topic_name(topic.name) == full and node.listeners(topic.name)
            for node in self.nodes.values()
            for topic in node.declaration.publishes
        )

    def listen(self, topic: Topic) -> Any:
        """Subscribe to a topic."""
        return self.peer.create_subscription(
            message_class(topic.type),
            topic.name,
            self.received[topic.name].append,
            profile(topic.qos, lossless=True),
        )

    def send(self, topic: str, message: Any) -> None:
        """Publish to the nodes."""
        self.outputs[topic].publish(message)

    def messages(self, topic: Topic, count: int) -> list[Any]:
        """The first messages of a topic."""
        received = self.received[topic.name]
        until(lambda: len(received) >= count, f"{count} messages on {topic.name}")
        return received

    def close(self) -> None:
        """End all nodes; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        rclpy.try_shutdown()
        self._thread.join(5)
        for node in self.nodes.values():
            node.close()
        for node in (*self.nodes.values(), self.peer):
            node.destroy_node()


@pytest.fixture
def together(domain: int) -> Iterator[Callable[..., Together]]:
    """Starts stages in this process and their peer; they end with the test."""
    running: list[Together] = []

    def start_them(*args: Any, **options: Any) -> Together:
        running.append(Together(*args, **options))
        return running[-1]

    yield start_them
    for each in running:
        each.close()
    running.clear()
    rclpy.try_shutdown()


# Messages of a small made-up drive.

FRAME: Frame = warm_up_frame(120, 400)


def stamp(index: int) -> int:
    """The stamp of a frame of a 10 Hz drive."""
    return BEGIN + index * SECOND // 10


def info(index: int) -> Any:
    """camera_info of a frame."""
    calibration = FRAME.calibration
    assert calibration is not None
    return camera_info_message(
        FACTORY, calibration.K, calibration.width, calibration.height, stamp(index), CAMERA
    )


def cloud(index: int, shift: float = 0.0) -> Any:
    """A scan, 3 ms after the image; `shift` moves it forward, in metres."""
    assert FRAME.points is not None
    moved = FRAME.points + np.array([shift, 0, 0, 0], np.float32)
    return points_message(FACTORY, moved, stamp(index) + 3_000_000, LIDAR)


def image(index: int) -> Any:
    """An image."""
    assert FRAME.image is not None
    return image_message(FACTORY, FRAME.image, stamp(index), CAMERA)


def depth(index: int) -> Any:
    """An empty depth image."""
    return image_message(FACTORY, np.zeros(FRAME.size, np.float32), stamp(index), CAMERA)


def tf_static() -> Any:
    """Where the LiDAR stands."""
    assert FRAME.calibration is not None
    placed = transform_message(
        FACTORY, CAMERA, LIDAR, FRAME.calibration.camera_from_lidar, stamp(0)
    )
    return FACTORY.create("tf2_msgs/msg/TFMessage", transforms=[placed])


AMODAL = [sys.executable, "-c", "from amodal_ros.cli.main import main; main()"]


def amodal_launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`amodal launch ...` to its end."""
    return subprocess.run(
        [*AMODAL, "launch", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def assert_same(
    messages: Sequence[Any], expected: Sequence[Tracks] | Mapping[int, Tracks], rtol: float = 0.0
) -> None:
    """What was published is what an offline run gave: objects, masks, boxes, ids and motion.

    Args:
        messages: AmodalInstanceArrays in the order in which they came.
        expected: in the same order, or by stamp.
        rtol: of a network's numbers, whose sums may end otherwise in the last digit.
    """
    if isinstance(expected, Mapping):
        stamps = [m.header.stamp.sec * SECOND + m.header.stamp.nanosec for m in messages]
        assert stamps == sorted(expected)
        expected = [expected[at] for at in stamps]
    for message, exact in zip(messages, expected, strict=True):
        tracks = read_tracks(message)
        for name in ("ids", "ages", "coasted", "class_ids", "occluders"):
            np.testing.assert_array_equal(getattr(tracks, name), getattr(exact, name))
        assert tracks.amodal.rle().counts == exact.amodal.rle().counts
        assert tracks.visible.rle().counts == exact.visible.rle().counts
        for name in ("amodal_boxes", "visible_boxes", "scores", "occlusion_rates", "depths"):
            np.testing.assert_allclose(getattr(tracks, name), getattr(exact, name), rtol=rtol)
        for name in ("boxes3d", "velocities", "image_velocities"):
            live_rows, rows = getattr(tracks, name), getattr(exact, name)
            # A message without a number of that kind says that all are unknown.
            unknown = live_rows is None and (rows is None or np.isnan(rows).all())
            if not unknown:
                np.testing.assert_array_equal(live_rows, rows)
