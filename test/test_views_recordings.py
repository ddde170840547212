"""What viewers are given: Rerun's recording, and tracks.mcap complete for Foxglove."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from box_scenes import BOX, CALIBRATION, PAIR, BoxedModel, tracks_seen

from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import read_transform, stamp_of
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.errors import InputError
from amodal_core.frame import Tracks
from amodal_core.pipeline import Pipeline
from amodal_core.replay import ReplayOptions, replay
from amodal_core.views import rerun_file
from amodal_core.views.labels import track_labels
from amodal_core.views.palette import track_colour

ROOT = Path(__file__).resolve().parents[1]


def test_labels_say_who_hides_what():
    assert track_labels(PAIR, ("car",)) == ["3 car 8 m", "65540 car 16 m, 50 % hidden by 3"]
    carried = tracks_seen(
        (40, 60), [(10, 10, 30, 30), (10, 10, 30, 30)], [8.0, 16.0], [3, 4], coasted=[1]
    )
    assert track_labels(carried, ()) == ["3 0 8 m", "4 0 16 m, unseen behind 3"]


def test_label_images_show_the_hider_and_the_hidden():
    images = rerun_file.label_images(PAIR)
    near, far = rerun_file.label_of(3), rerun_file.label_of(65_540)
    assert (near, far) == (4, 6)
    visible, amodal = images["visible"], images["amodal"]
    assert (visible[10:30, 10:30] == near).all()
    assert (visible[10:30, 30:40] == far).all()
    assert (amodal[10:30, 10:20] == near).all()
    assert (amodal[10:30, 20:40] == far).all()
    for image in (visible, amodal):
        assert image.dtype == np.uint16
        assert (image > 0).sum() == 20 * 30


def test_overlaps_are_those_of_true_objects_that_count():
    truth = tracks_seen(
        (40, 60), [(10, 10, 30, 30), (20, 10, 40, 30), (50, 0, 60, 9)], [8.0, 16.0, 4.0], range(3)
    )
    truth.ignore = np.array([False, False, True])
    assert rerun_file.overlaps(truth, PAIR) == {"amodal": 100.0, "visible": 100.0}
    assert rerun_file.overlaps(truth, PAIR[[0]])["visible"] == pytest.approx(50.0)
    assert rerun_file.overlaps(Tracks.empty((40, 60)), PAIR) == {}


def test_frames_of_bags_know_where_the_lidar_stands_in_the_world(moving_bag):
    with BagDrive(moving_bag) as drive:
        poses = [item.world_from_lidar for item in drive]
    assert [pose[:3, 3].tolist() for pose in poses] == [[k, 0, 0] for k in range(4)]


def test_without_motion_there_is_no_pose(mini_bag):
    with BagDrive(mini_bag, settings=DriveSettings(motion="off")) as drive:
        assert {item.world_from_lidar is None for item in drive} == {True}


@pytest.fixture
def moving_bag(tmp_path):
    from amodal_core.bags.writer import BagWriter
    from amodal_core.drive.topics import LIDAR_FRAME, TF, TF_STATIC
    from amodal_core.drive.writer import SENSOR_TOPICS, DriveWriter, camera_link
    from amodal_core.frame import Frame

    rng = np.random.default_rng(1)
    with BagWriter(tmp_path / "moving") as bag:
        drive = DriveWriter(bag, (*SENSOR_TOPICS, TF))
        for k in range(4):
            stamp = 10**18 + k * 10**8
            points = rng.uniform((2, -4, -1, 0), (30, 4, 1, 1), (50, 4)).astype(np.float32)
            image = np.full((200, 400, 3), 90, np.uint8)
            frame = Frame(stamp, image, points, calibration=CALIBRATION)
            if k == 0:
                drive.transforms(TF_STATIC, [camera_link(frame)], stamp)
            pose = np.eye(4)
            pose[0, 3] = float(k)
            drive.transforms(TF, [("odom", LIDAR_FRAME, pose)], stamp)
            drive.frame(frame)
    return tmp_path / "moving"


# Foxglove.


@pytest.fixture
def copied(mini_bag, tmp_path):
    out = tmp_path / "out"
    replay(mini_bag, out, Pipeline(BoxedModel()), ReplayOptions(video=False, copy=True))
    return out / "tracks.mcap"


def value_at(message, path):
    """What a Foxglove message path leads to; raises where it leads nowhere."""
    for step in path:
        message = len(message) if step == "@length" else getattr(message, step)
    return message


def test_the_layout_shows_topics_and_fields_that_are_written(copied):
    layout = json.loads((ROOT / "config" / "foxglove.json").read_text())
    placed = set(re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"])))
    assert placed == set(layout["configById"])
    with BagReader(copied) as bag:
        types = {t.name: t.type for t in bag.topics.values() if t.count}
        messages = {m.topic: m.message for m in bag.messages()}
    image, scene = layout["configById"]["Image!amodal"], layout["configById"]["3D!amodal"]
    mode = image["imageMode"]
    assert types[mode["imageTopic"]] == "sensor_msgs/msg/CompressedImage"
    assert types[mode["calibrationTopic"]] == "sensor_msgs/msg/CameraInfo"
    assert [types[t] for t in mode["annotations"]] == ["foxglove_msgs/msg/ImageAnnotations"]
    shown = set(image["topics"]) | set(scene["topics"])
    kinds = {types[t].rpartition("/")[2] for t in shown}
    assert kinds == {"PointCloud2", "SceneUpdate", "CameraInfo"}
    colour = scene["topics"]["/amodal/tracks/points"]["colorField"]
    assert colour in [f.name for f in messages["/amodal/tracks/points"].fields]
    frames = {f for t in messages["/tf_static"].transforms for f in read_transform(t)[:2]}
    for frame in (scene["followTf"], scene["layers"]["grid"]["frameId"]):
        assert frame in frames
    for plotted in layout["configById"]["Plot!objects"]["paths"]:
        topic, *path = plotted["value"].split(".")
        assert isinstance(value_at(messages[topic], path), int)
    assert layout["configById"]["RawMessages!tracks"]["topicPath"] in types


def test_image_annotations_scene_and_sensors_are_of_the_same_moment_and_frames(copied, mini_bag):
    with BagReader(copied) as bag:
        messages = {}
        for m in bag.messages():
            messages.setdefault(m.topic, []).append((m.stamp, m.message))
    stamps = [stamp_of(m.header) for _, m in messages["/amodal/tracks"]]
    for name in ("image/compressed", "camera_info", "points", "annotations", "scene"):
        assert [s for s, _ in messages[f"/amodal/{name}"]] == stamps, name
    _, image = messages["/amodal/image/compressed"][0]
    _, info = messages["/amodal/camera_info"][0]
    with BagDrive(mini_bag) as drive:
        frame = next(iter(drive)).frame
    assert bytes(image.data[:2]) == b"\xff\xd8"
    assert image.header.frame_id == info.header.frame_id == "camera_color_left"
    np.testing.assert_allclose(info.k.reshape(3, 3), frame.calibration.K)
    _, drawn = messages["/amodal/annotations"][0]
    texts = [t.text for t in drawn.texts]
    assert texts == ["1 car 20 m, 30 % hidden by 0", "0 car 10 m"]
    # The near object's outline, from the middle of its first pixel to that of its last.
    (near,) = [p for p in drawn.points if p.metadata[0].value == "0"]
    corners = {(p.x, p.y) for p in near.points}
    assert corners == {(5.5, 10.5), (24.5, 10.5), (24.5, 29.5), (5.5, 29.5)}
    assert near.fill_color.a > 0
    assert near.outline_color.r == track_colour(0)[0] / 255
    far = [p for p in drawn.points if p.metadata[0].value == "1"]
    assert [p.type for p in far] == [2, 4], "a solid line around what is seen, dashes around all"
    _, scene = messages["/amodal/scene"][0]
    assert [d.type for d in scene.deletions] == [1]
    (entity,) = [e for e in scene.entities if e.id == "0"]
    assert entity.frame_id == "velo_link"
    (cube,) = entity.cubes
    assert (cube.size.x, cube.size.y, cube.size.z) == BOX[3:6]
    assert cube.pose.position.x == BOX[0]
    assert 2 * np.arctan2(cube.pose.orientation.z, cube.pose.orientation.w) == pytest.approx(0.5)


def test_a_copy_can_be_replayed_itself(copied, tmp_path):
    options = ReplayOptions(video=False, points_topic="/amodal/points")
    record = replay(copied, tmp_path / "again", Pipeline(BoxedModel()), options)
    assert record.frames == 5


def test_transforms_that_move_are_copied_with_their_stamps(moving_bag, tmp_path):
    replay(moving_bag, tmp_path / "out", Pipeline(BoxedModel()), ReplayOptions(3, False, copy=True))
    with BagReader(tmp_path / "out" / "tracks.mcap") as bag:
        moving = [(m.stamp, m.message.transforms[0]) for m in bag.messages(["/tf"])]
    assert [read_transform(t)[2][0, 3] for _, t in moving] == [0, 1, 2]
    assert [s for s, _ in moving] == [10**18 + k * 10**8 for k in range(3)]


def test_extrinsics_from_elsewhere_become_a_transform(mini_bag, tmp_path):
    with BagDrive(mini_bag) as drive:
        expected = next(iter(drive)).frame.calibration.camera_from_lidar
    from amodal_core.bags.writer import BagWriter

    with BagReader(mini_bag) as source, BagWriter(tmp_path / "bare") as bare:
        for topic in source.topics.values():
            if topic.name != "/tf_static":
                bare.add_topic(topic.name, topic.type)
        for m in source.messages([t for t in source.topics if t != "/tf_static"]):
            bare.write(m.topic, m.message, m.stamp)
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(expected[:3, :3]).as_quat()
    extrinsics = tuple(float(v) for v in (*expected[:3, 3], *turn))
    options = ReplayOptions(video=False, copy=True, drive=DriveSettings(extrinsics=extrinsics))
    replay(tmp_path / "bare", tmp_path / "out", Pipeline(BoxedModel()), options)
    with BagReader(tmp_path / "out" / "tracks.mcap") as bag:
        (message,) = [m.message for m in bag.messages(["/tf_static"])]
    parent, child, matrix = read_transform(message.transforms[0])
    assert {parent, child} == {"velo_link", "camera_color_left"}
    made = matrix if parent == "velo_link" else np.linalg.inv(matrix)
    np.testing.assert_allclose(np.linalg.inv(made), expected, atol=1e-6)


def test_readers_that_are_not_ours_decode_every_message(copied):
    decoder = pytest.importorskip("mcap_ros2.decoder", reason="pip install mcap-ros2-support")
    from mcap.reader import make_reader

    with copied.open("rb") as file:
        reader = make_reader(file, decoder_factories=[decoder.DecoderFactory()])
        decoded = {m.channel.topic: m.decoded_message for m in reader.iter_decoded_messages()}
        topics = {c.topic for c in reader.get_summary().channels.values()}
    assert set(decoded) == topics
    assert decoded["/amodal/annotations"].texts[0].text.startswith("1 car")
    assert decoded["/amodal/scene"].entities[0].cubes[0].size.x == BOX[3]


# Rerun.


def test_a_viewer_without_a_display_is_one_line(monkeypatch):
    pytest.importorskip("rerun", reason="pip install 'amodal_ros[views]'")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rerun_file.sys, "platform", "linux")
    with pytest.raises(InputError, match="no display for a window"):
        rerun_file.check_viewer()


def test_a_recording_holds_what_was_handed_to_it(mini_bag, tmp_path):
    chunks = pytest.importorskip("rerun.chunk", reason="pip install 'amodal_ros[views]'")
    path = tmp_path / "views" / "mini.rrd"
    options = ReplayOptions(video=False, rerun=path)
    replay(mini_bag, tmp_path / "out", Pipeline(BoxedModel()), options)
    assert [p.name for p in path.parent.iterdir()] == ["mini.rrd"]
    held = {}
    for chunk in chunks.RrdReader(str(path)).stream():
        batch = chunk.to_record_batch()
        columns = held.setdefault(str(chunk.entity_path), {})
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if not str(column.type).startswith("timestamp"):  # nanoseconds, which need pandas
                columns.setdefault(name, []).extend(column.to_pylist())
    boxes = held["/world/lidar/tracks/camera/boxes"]
    assert len(boxes["frame"]) == 5
    assert boxes["Boxes3D:labels"][0][0] == "0 car"
    np.testing.assert_allclose(boxes["Boxes3D:half_sizes"][0][0], np.array(BOX[3:6]) / 2)
    assert held["/world/lidar/camera/boxes"]["Boxes2D:labels"][0] == ["0", "1"]
    with BagDrive(mini_bag) as drive:
        frame = next(iter(drive)).frame
    place = held["/world/lidar/camera"]
    K = np.array(place["Pinhole:image_from_camera"][0][0]).reshape(3, 3).T
    np.testing.assert_allclose(K, frame.calibration.K + rerun_file._HALF_PIXEL, rtol=1e-6)
    inverse = np.linalg.inv(frame.calibration.camera_from_lidar)
    moved = place["Transform3D:translation"][0][0]
    np.testing.assert_allclose(moved, inverse[:3, 3], atol=1e-6)
    for image in ("image", "visible", "amodal"):
        assert len(held[f"/world/lidar/camera/{image}"]["frame"]) == 5
    assert [v for (v,) in held["/numbers/camera/objects/tracks"]["Scalars:scalars"] if v] == [2] * 5
    names = {f"/tracks/camera/hidden/{k}" for k in (0, 1)}
    assert names <= set(held)
    events = [t for (t,) in held["/events/camera"]["TextLog:text"]]
    assert events[:2] == ["0 car 10 m: new", "1 car 20 m, 30 % hidden by 0: new"]
    assert "/summary" in held


def test_a_replay_that_fails_leaves_no_recording(mini_bag, tmp_path):
    pytest.importorskip("rerun", reason="pip install 'amodal_ros[views]'")

    class Broken(BoxedModel):
        def infer(self, frames, report=None):
            if self.frames == 3:
                raise RuntimeError("amid the drive")
            return super().infer(frames, report)

    path = tmp_path / "views" / "mini.rrd"
    with pytest.raises(RuntimeError):
        replay(mini_bag, tmp_path / "out", Pipeline(Broken()), ReplayOptions(rerun=path))
    assert not list(path.parent.iterdir())
