"""The bench that measures running nodes: what is sent, answered, dropped and used."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import node_bench as drive
import numpy as np
import pytest
from node_bench import SECOND, stamp

from amodal_core.bags.reader import BagReader, RawMessage
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS, TF_STATIC
from amodal_core.drive.writer import SENSOR_TOPICS, DriveWriter, camera_link
from amodal_core.errors import InputError
from amodal_ros.live_bench import LiveBench, _restamped

LAG = 3_000_000  # nanoseconds by which a scan is later than its image


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames towards three standing objects."""
    path = tmp_path_factory.mktemp("bags") / "five.mcap"
    frame = drive.FRAME
    with BagWriter(path) as bag:
        writer = DriveWriter(bag, SENSOR_TOPICS)
        writer.transforms(TF_STATIC, [camera_link(frame)], stamp(0))
        for k in range(5):
            points = frame.points - np.array([0.1 * k, 0, 0, 0], np.float32)
            at = stamp(k)
            writer.frame(replace(frame, stamp=at, points=points, points_stamp=at + LAG))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_stamp_of_a_message_is_changed_in_either_byte_order(order):
    kind = b"\x00\x01\x00\x00" if order == "<" else b"\x00\x00\x00\x00"
    data = kind + struct.pack(order + "iI", 7, 999_999_999) + b"frame and pixels"
    moved = _restamped(RawMessage("/image", "sensor_msgs/msg/Image", 0, data), 2 * SECOND + 1)
    assert struct.unpack_from(order + "iI", moved, 4) == (10, 0)
    assert moved[:4] + moved[12:] == data[:4] + data[12:]


def test_every_image_is_sent_with_its_calibration_and_the_nearest_scan(bag, tmp_path):
    bench = LiveBench(bag, [], tmp_path / "log")
    assert len(bench._frames) == 5
    for frame in bench._frames:
        assert [raw.topic for raw in frame.messages] == [
            POINTS.bag_name,
            CAMERA_INFO.bag_name,
            IMAGE.bag_name,
        ]
    assert [raw.topic for raw in bench._static] == ["/tf_static"]


def test_a_camera_info_that_is_recorded_once_goes_with_every_image(bag, tmp_path):
    path, told = tmp_path / "once.mcap", False
    with BagReader(bag) as source, BagWriter(path) as bag_of_one:
        for topic in source.topics.values():
            bag_of_one.add_topic(topic.name, topic.type, latched=topic.latched)
        for topic, at, message in source.messages():
            if topic != CAMERA_INFO.bag_name or not told:
                bag_of_one.write(topic, message, at)
            told |= topic == CAMERA_INFO.bag_name
    assert len(LiveBench(path, [], tmp_path / "log")._frames) == 5


def test_a_bag_without_what_the_nodes_need_is_refused(tmp_path):
    with BagWriter(tmp_path / "empty.mcap"):
        pass
    with pytest.raises(InputError), BagReader(tmp_path / "empty.mcap"):
        LiveBench(tmp_path / "empty.mcap", [], tmp_path / "log")


@pytest.fixture
def patient(monkeypatch):
    """A busy machine is no fault of the bench."""
    monkeypatch.setattr("amodal_ros.live_bench._START", 240.0)
    monkeypatch.setattr("amodal_ros.live_bench._SILENCE", 30.0)


@pytest.mark.dds
@pytest.mark.usefixtures("patient")
def test_running_nodes_answer_every_frame_of_a_slow_stream(bag, tmp_path):
    """Seven frames at 2 Hz, the bag's five and two again: all answered, none dropped."""
    before = os.environ.get("ROS_DOMAIN_ID")
    # Every frame waits for its turn.
    lossless = tmp_path / "lossless.yaml"
    lossless.write_text("/**:\n  ros__parameters: {queue: 0, sync_timeout: 10.0}\n")
    arguments = ["model:=geometric", f"params_file:={lossless}"]
    with LiveBench(bag, arguments, tmp_path / "nodes.log") as bench:
        bench.run(2.0, 2.0)
        result = bench.run(2.0, 3.5)
    assert (result.sent, result.answered, result.drops) == (7, 7, {})
    assert result.published_hz == pytest.approx(2.0, rel=0.5)
    assert 0.5 < result.answered_hz < 8.0
    assert (result.latencies_ms > 1).all()
    assert set(result.cpu) == {"perception"}
    assert all(0 < share < 2 for share in result.cpu.values())
    assert all(50 < megabytes < 4000 for megabytes in result.memory_mb.values())
    assert os.environ.get("ROS_DOMAIN_ID") == before


@pytest.mark.dds
@pytest.mark.usefixtures("patient")
def test_nodes_that_do_not_come_up_are_an_error_that_names_the_log(bag, tmp_path):
    bench = LiveBench(bag, ["model:=no_such_model"], tmp_path / "nodes.log")
    with pytest.raises(InputError, match="nodes ended"), bench:
        pass
    assert "no_such_model" in (tmp_path / "nodes.log").read_text()
