"""Several cameras in one process and one launch: each gives the tracks that it gives alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import node_bench as drive
import numpy as np
import pytest
from node_bench import Together, amodal_launch, assert_same, stamp, together
from scipy.spatial.transform import Rotation

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS, TF_STATIC, TRACKS, Topic
from amodal_core.frame import Tracks
from amodal_core.models.registry import create
from amodal_core.pipeline import Pipeline

pytestmark = pytest.mark.dds

__all__ = ["together"]
CAMERAS = {"front": 0.0, "left": 12.0}  # degrees that a camera looks to the left
FRAMES = 8
REPLAY = ("-p", "queue:=0", "-p", "reliability:=reliable", "-p", "sync_timeout:=10.0")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive towards standing objects, with a LiDAR and two cameras of their own extrinsics."""
    path = tmp_path_factory.mktemp("bags") / "two.mcap"
    factory, frame = RosbagsFactory(), drive.FRAME
    assert frame.image is not None
    assert frame.points is not None
    assert frame.calibration is not None
    calibration = frame.calibration
    links = []
    for name, degrees in CAMERAS.items():
        turned = np.eye(4)
        turned[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
        camera_from_lidar = turned @ calibration.camera_from_lidar
        lidar_from_camera = np.linalg.inv(camera_from_lidar)
        links.append(transform_message(factory, "lidar", name, lidar_from_camera, stamp(0)))
    with BagWriter(path) as written:
        written.add_topic("/tf_static", TF_STATIC.type, latched=True)
        written.add_topic("/lidar/points", POINTS.type)
        for name in CAMERAS:
            written.add_topic(f"/{name}/image_raw", IMAGE.type)
            written.add_topic(f"/{name}/camera_info", CAMERA_INFO.type)
        message = factory.create(TF_STATIC.type, transforms=links)
        written.write("/tf_static", message, stamp(0))
        for k in range(FRAMES):
            at = stamp(k)
            for name in CAMERAS:
                size = calibration.width, calibration.height
                info = camera_info_message(factory, calibration.K, *size, at, name)
                image = image_message(factory, frame.image, at, name)
                written.write(f"/{name}/image_raw", image, at)
                written.write(f"/{name}/camera_info", info, at)
            nearer = frame.points - np.array([0.15 * k, 0, 0, 0], np.float32)
            scan = points_message(factory, nearer, at + 3_000_000, "lidar")
            written.write("/lidar/points", scan, at + 3_000_000)
    return path


def offline(bag: Path, camera: str) -> dict[int, Tracks]:
    """The tracks of a replay of one camera, by stamp."""
    pipeline = Pipeline(create("geometric"))
    with BagDrive(bag, image=f"/{camera}/image_raw") as frames:
        return {f.frame.stamp: pipeline.step(f.frame)[0].numpy() for f in frames}


def named(topic: Topic, name: str) -> Topic:
    return Topic(name, topic.type, topic.qos, topic.description)


def test_each_camera_has_its_own_tracks_and_all_share_scans_and_network(
    together: Callable[..., Together], bag: Path
) -> None:
    cameras = [
        {
            "namespace": f"/robot/{name}",
            "stages": ["depth_projection", "segmentation", "tracking"],
            "topics": {
                "image": f"/{name}/image_raw",
                "camera_info": f"/{name}/camera_info",
                "points": "/lidar/points",
            },
            "parameters": {},
        }
        for name in CAMERAS
    ]
    with BagReader(bag) as reader:
        recorded = list(reader.raw_messages())
    types = {t.type: t for t in (IMAGE, CAMERA_INFO, POINTS, TF_STATIC)}
    with BagReader(bag) as reader:
        sent = [named(types[t.type], name) for name, t in reader.topics.items()]
    heard = [named(TRACKS, f"/robot/{name}/tracks") for name in CAMERAS]
    arguments = (*REPLAY, "-p", "model:=geometric", "-p", "batch:=1")
    nodes = together([], heard, sent, *arguments, cameras=cameras)
    assert set(nodes.nodes) == {
        f"/robot/{name}/{stage}"
        for name in CAMERAS
        for stage in ("depth_projection", "segmentation", "tracking")
    }
    assert nodes.outputs["/lidar/points"].get_subscription_count() == 1
    networks = {id(nodes.nodes[f"/robot/{name}/segmentation"].model) for name in CAMERAS}
    assert len(networks) == 1
    for raw in recorded:
        nodes.outputs[raw.topic].publish(bytes(raw.data))
    expected = {name: offline(bag, name) for name in CAMERAS}
    for name, topic in zip(CAMERAS, heard, strict=True):
        assert_same(nodes.messages(topic, FRAMES), expected[name])
    ours = [[t.amodal_boxes.tolist() for t in tracks.values()] for tracks in expected.values()]
    assert ours[0] != ours[1]
    assert all(max(len(t) for t in tracks.values()) >= 2 for tracks in expected.values())


def test_a_launch_of_two_cameras_answers_every_frame_of_each(
    bag: Path, domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    asked = ["cameras:=front,left", "image:=/{camera}/image_raw", "points:=/lidar/points"]
    asked += [f"bag:={bag}", f"out:={tmp_path}/out", "rate:=4.0", "model:=geometric"]
    # A busy machine may bring the messages of a frame seconds apart.
    patient = tmp_path / "patient.yaml"
    patient.write_text("/**:\n  ros__parameters: {sync_timeout: 60.0, drain_timeout: 120.0}\n")
    ended = amodal_launch("replay", *asked, f"params_file:={patient}")
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert f"played {2 * FRAMES} frames, {2 * FRAMES} answered" in said
    for name in CAMERAS:
        metrics = json.loads((tmp_path / "out" / name / "metrics.json").read_text())
        assert metrics["latency"]["answered"] == metrics["latency"]["frames"] == FRAMES
        expected = offline(bag, name)
        assert metrics["instances"] == sum(len(t) for t in expected.values())
        assert metrics["tracks"] == len({int(i) for t in expected.values() for i in t.ids})
        assert set(metrics["stages"]) >= {"depth_projection", "segmentation", "tracking"}
