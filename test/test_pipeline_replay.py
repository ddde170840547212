"""Replays: what is written, that it is the same every time, and what it says of real driving."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import av
import numpy as np
import pytest
from box_scenes import StubModel, boxes_seen

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.images import read_depth
from amodal_core.bags.messages import instances_message, read_instances, read_tracks
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import (
    camera_info_message,
    image_message,
    points_message,
    stamp_of,
    transform_message,
)
from amodal_core.bags.writer import BagWriter
from amodal_core.datasets.kitti_to_bag import convert_raw
from amodal_core.drive.cameras import camera_names
from amodal_core.drive.settings import DriveSettings
from amodal_core.errors import InputError
from amodal_core.frame import RUNTIME, TIME_JUMP, Report, Tracks
from amodal_core.models.geometric import Geometric
from amodal_core.models.registry import create
from amodal_core.pipeline import Pipeline
from amodal_core.replay import ReplayOptions, replay, replay_cameras
from amodal_core.views.report.page import render
from amodal_core.views.report.record import Record, TrackRow

STILL = DriveSettings(motion="off")  # the fourth image has no scan
OUTPUTS = ["metrics.json", "overlay.mp4", "report.html", "tracks.mcap"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_replay_writes_tracks_numbers_video_and_report(mini_bag, out):
    done = []
    replay(mini_bag, out, Pipeline(StubModel()), progress=lambda k, n: done.append((k, n)))
    assert sorted(p.name for p in out.iterdir()) == OUTPUTS
    assert done[-1][0] == 5


def test_the_same_bag_gives_the_same_bytes(mini_bag, tmp_path):
    for name in "ab":
        replay(mini_bag, tmp_path / name, Pipeline(StubModel()), ReplayOptions(video=False))
    first, second = ((tmp_path / n / "tracks.mcap").read_bytes() for n in "ab")
    assert first == second


def test_the_bag_holds_the_nodes_topics_and_types(mini_bag, out):
    replay(
        mini_bag,
        out,
        Pipeline(StubModel()),
        ReplayOptions(video=False, depth=True, track_points=True, drive=STILL),
    )
    with BagReader(out / "tracks.mcap") as bag:
        topics = {t.name: (t.type, t.count) for t in bag.topics.values()}
        assert topics == {
            "/amodal/label_info": ("vision_msgs/msg/LabelInfo", 1),
            "/amodal/instances": ("amodal_msgs/msg/AmodalInstanceArray", 4),
            "/amodal/tracks": ("amodal_msgs/msg/AmodalInstanceArray", 4),
            "/amodal/detections": ("vision_msgs/msg/Detection2DArray", 4),
            "/amodal/detections_3d": ("vision_msgs/msg/Detection3DArray", 4),
            "/amodal/visible_labels": ("sensor_msgs/msg/Image", 4),
            "/amodal/tracks/points": ("sensor_msgs/msg/PointCloud2", 4),
            "/amodal/depth/image": ("sensor_msgs/msg/Image", 4),
        }
        assert bag.topics["/amodal/label_info"].latched
        messages = {name: [] for name in topics}
        for m in bag.messages():
            messages[m.topic].append(m)
    with BagReader(mini_bag) as bag:
        images = [m.message for m in bag.messages(["/kitti/camera_color_left/image_raw"])]
    stamps = [stamp_of(m.header) for k, m in enumerate(images) if k != 3]
    for k, item in enumerate(messages["/amodal/tracks"]):
        assert stamp_of(item.message.header) == item.stamp == stamps[k]
        assert item.message.header.frame_id == "camera_color_left"
        assert item.message.box3d_frame_id == "velo_link"
        assert read_tracks(item.message).ids.tolist() == [0, 1]
    expected = boxes_seen((48, 96), [(7, 10, 27, 30), (17, 5, 42, 25)], [10.0, 20.0])
    result = read_instances(messages["/amodal/instances"][2].message)
    assert result.visible.rle().counts == expected.visible.rle().counts
    assert result.occluders.tolist() == [[False, False], [True, False]]
    cloud = messages["/amodal/tracks/points"][0].message
    assert (cloud.header.frame_id, stamp_of(cloud.header)) == ("velo_link", stamps[0])
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb", "track_id"]
    depth = read_depth(messages["/amodal/depth/image"][0].message)
    assert set(np.unique(depth)) == {0, np.float32(9.75)}


def test_metrics_have_their_schema(mini_bag, out):
    replay(mini_bag, out, Pipeline(StubModel()), ReplayOptions(video=False, drive=STILL))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["frames"] == 4
    assert metrics["instances"] == 8
    assert metrics["tracks"] == 2
    assert metrics["fps"] > 0
    for stage in ("depth_projection", "segmentation", "tracking", "messages", "total"):
        p = metrics["stages"][stage]
        assert 0 <= p["p50_ms"] <= p["p95_ms"] <= p["p99_ms"]
    (warning,) = metrics["warnings"]
    assert (warning["kind"], warning["count"]) == ("dropped", 1)
    assert "dropped, no /kitti/velo/pointcloud" in warning["text"]
    assert metrics["accuracy"] is None


def test_the_video_is_what_browsers_play(mini_bag, out):
    replay(mini_bag, out, Pipeline(StubModel()))
    with av.open(str(out / "overlay.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(10.0)
        frames = [f.to_ndarray(format="rgb24") for f in video.decode(stream)]
    # The image, enlarged, and below it the panel of a fifth of its width, made even.
    assert [f.shape for f in frames] == [(4 * 48 + 78, 4 * 96, 3)] * 5
    head = (out / "overlay.mp4").read_bytes()
    # The index lies before the pictures, so that playing starts at once.
    assert head.index(b"moov") < head.index(b"mdat")


class _Page(HTMLParser):
    """Collects what a page loads and the text that it shows."""

    def __init__(self):
        super().__init__()
        self.loads, self.text, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loads += [values[k] for k in ("src", "href") if k in values]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_page_that_needs_nothing_else(mini_bag, out):
    replay(mini_bag, out, Pipeline(StubModel()), ReplayOptions(drive=STILL))
    page = _Page()
    text = (out / "report.html").read_text()
    page.feed(text)
    assert page.open == []
    pictures = [src for src in page.loads if src.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 4
    assert set(page.loads) - set(pictures) == {"overlay.mp4"}
    assert not re.search(r"https?://|@import|<script", text)
    words = " ".join(page.text)
    for expected in ("car 0", "car 1", "dropped, no /kitti/velo/pointcloud", "segmentation"):
        assert expected in words
    assert "prefers-color-scheme: dark" in text


def test_frames_can_be_limited_and_old_results_are_replaced(mini_bag, out):
    replay(mini_bag, out, Pipeline(StubModel()))
    record = replay(mini_bag, out, Pipeline(StubModel()), ReplayOptions(2, video=False))
    assert record.frames == 2
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "report.html", "tracks.mcap"]
    with BagReader(out / "tracks.mcap") as bag:
        assert bag.topics["/amodal/tracks"].count == 2


def test_a_bag_that_breaks_on_the_way_leaves_nothing_half_written(mini_kitti_raw, tmp_path, out):
    import sqlite3

    convert_raw(mini_kitti_raw, tmp_path / "broken", storage="sqlite3")
    database = sqlite3.connect(tmp_path / "broken" / "broken.db3")
    database.execute(
        "UPDATE messages SET data = substr(data, 1, 40) WHERE id = "
        "(SELECT id FROM messages WHERE length(data) > 10000 ORDER BY timestamp DESC LIMIT 1)"
    )
    database.commit()
    database.close()
    with pytest.raises(InputError, match="damaged after"):
        replay(tmp_path / "broken", out, Pipeline(StubModel()))
    assert not out.exists()


def test_a_replay_ends_with_what_became_of_the_objects():
    record = Record("drive", "fused", "cpu", ("car",))
    #    id, coasted, hidden share: in view; half hidden; carried and back; carried and lost
    for frame, rows in enumerate(
        [
            [(1, False, 0.0), (2, False, 0.5), (3, False, 0.0), (4, False, 0.0)],
            [(1, False, 0.0), (2, True, 1.0), (3, True, 0.0), (4, True, 0.0)],
            [(1, False, 0.0), (3, False, 0.0), (4, True, 0.0)],
        ]
    ):
        record.rows += [TrackRow(frame, i, 0, coasted, share, 9.0) for i, coasted, share in rows]
    assert record.summary == (
        "4 objects, 1 of them partly hidden, 1 carried on out of sight and seen again."
    )


def test_a_bag_whose_driver_does_not_stamp_says_what_the_nodes_say_and_one_cure(tmp_path, out):
    image = image_message(RosbagsFactory(), np.zeros((40, 60, 3), np.uint8), 0, "cam")
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/cam/image", "sensor_msgs/msg/Image")
        for k in range(3):
            bag.write("/cam/image", image, 1_000_000_000 + k)
    model = StubModel()
    model.inputs = frozenset({"image"})
    with pytest.raises(InputError) as refused:
        replay(tmp_path / "bag", out, Pipeline(model))
    assert str(refused.value) == (
        f"{tmp_path / 'bag'}: the bag gives no frame: 3 x /cam/image: the stamp is zero "
        "(fill in header.stamp in the driver)"
    )


def test_a_bag_without_a_frame_says_why(mini_kitti_raw, tmp_path, out):
    with pytest.raises(InputError, match="no such bag"):
        replay(tmp_path / "nowhere", out, Pipeline(StubModel()))
    _truth_bag(tmp_path / "apart", 0, lag=70_000_000)
    with pytest.raises(InputError, match=r"gives no frame: 1 x /cam/image: dropped, no /points \("):
        replay(tmp_path / "apart", out / "deep", Pipeline(StubModel()), ReplayOptions(1))
    assert not out.exists()
    out.mkdir()
    with pytest.raises(InputError, match="gives no frame"):
        replay(tmp_path / "apart", out, Pipeline(StubModel()), ReplayOptions(1))
    assert list(out.iterdir()) == []
    for scan in (mini_kitti_raw / "velodyne_points" / "data").iterdir():
        scan.unlink()
    convert_raw(mini_kitti_raw, tmp_path / "blind")
    with pytest.raises(InputError, match="no sensor_msgs/msg/PointCloud2"):
        replay(tmp_path / "blind", out, Pipeline(StubModel()))
    model = StubModel()
    model.inputs = frozenset({"image"})
    assert replay(tmp_path / "blind", out, Pipeline(model), ReplayOptions(video=False)).frames == 5


def _truth_bag(path, shift, lag=0, frames=6, loops=1, cameras=("cam",)):
    """A few frames in which the stub's boxes, moved by `shift` pixels, are the ground truth.

    Each camera has its image and its place; the truth is of the first.

    The scans lag `lag` nanoseconds behind their images, and there is but one image then. The bag
    may loop: its stamps begin again.
    """
    f = RosbagsFactory()
    place = np.linalg.inv([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    K = np.array([[30.0, 0, 30], [0, 30, 20], [0, 0, 1]])
    with BagWriter(path) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        for name in cameras:
            bag.add_topic(f"/{name}/image", "sensor_msgs/msg/Image")
            bag.add_topic(f"/{name}/camera_info", "sensor_msgs/msg/CameraInfo")
        bag.add_topic("/points", "sensor_msgs/msg/PointCloud2")
        bag.add_topic("/ground_truth", "amodal_msgs/msg/AmodalInstanceArray")
        links = [transform_message(f, "lidar", name, place, 0) for name in cameras]
        bag.write("/tf_static", f.create("tf2_msgs/msg/TFMessage", transforms=links), 0)
        for n in range(loops * frames):
            k, log = n % frames, 1_000_000_000 + n * 100_000_000
            at = 1_000_000_000 + k * 100_000_000
            pixels = np.full((40, 60, 3), 90, np.uint8)
            for c, name in enumerate(cameras):
                # The others' shutters open a little later, and they see something darker.
                image = image_message(f, pixels - 20 * c, at + c * 1_000_000, name)
                if k == 0 or not lag:
                    bag.write(f"/{name}/image", image, log)
                info = camera_info_message(f, K, 60, 40, at + c * 1_000_000, name)
                bag.write(f"/{name}/camera_info", info, log)
            cloud = points_message(f, np.ones((5, 4), np.float32), at + lag, "lidar")
            bag.write("/points", cloud, log + lag)
            boxes = [
                (5 + k + shift, 10, 25 + k + shift, 30),
                (15 + k + shift, 5, 40 + k + shift, 25),
            ]
            exact = boxes_seen((40, 60), boxes, [10.0, 20.0])
            exact.scores[:] = 1
            truth = Tracks(
                **vars(exact),
                ids=np.array([70, 71]),
                ages=np.full(2, k + 1),
                coasted=np.zeros(2, bool),
            )
            message = instances_message(
                f, truth, stamp=at, frame_id=cameras[0], classes=("passenger car",)
            )
            bag.write("/ground_truth", message, log)


def test_a_bag_that_loops_resets_the_model_and_begins_new_tracks(tmp_path, out):
    _truth_bag(tmp_path / "loop", 0, frames=8, loops=2)
    record = replay(tmp_path / "loop", out, Pipeline(StubModel()), ReplayOptions(video=False))
    with BagReader(out / "tracks.mcap") as bag:
        tracks = [read_tracks(m.message) for m in bag.messages(["/amodal/tracks"])]
    # A reader goes by stamps: each frame is followed by its like of the second time.
    first, second = tracks[::2], tracks[1::2]
    # The stub counts its frames: only a reset brings its boxes back to where they began.
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.amodal_boxes, b.amodal_boxes)
        assert not set(a.ids) & set(b.ids)
    assert {w.kind for w in record.warnings} == {TIME_JUMP}
    assert record.accuracy["amodal_AP"] == pytest.approx(1.0)


def test_accuracy_against_ground_truth_is_one_for_perfect_tracks_and_less_for_others(tmp_path, out):
    _truth_bag(tmp_path / "same", 0)
    best = replay(tmp_path / "same", out, Pipeline(StubModel()), ReplayOptions(video=False))
    assert best.accuracy["amodal_AP"] == pytest.approx(1.0)
    assert best.accuracy["visible_AP"] == pytest.approx(1.0)
    assert best.accuracy["HOTA"] == pytest.approx(1.0)
    _truth_bag(tmp_path / "moved", 4)
    worse = replay(tmp_path / "moved", out, Pipeline(StubModel()), ReplayOptions(video=False))
    assert worse.accuracy["amodal_AP"] < 0.5
    # Both pages say the same numbers, in percent, each with its definition.
    large = r"<b>([\d.]+)</b><span>((?:vAP|HOTA)[^<]*)</span><small>([^<]+)</small>"
    pages = [(out / name).read_text() for name in ("report.html", "evaluation/report.html")]
    numbers = [re.findall(large, page) for page in pages]
    assert [label for _, label, _ in numbers[0]] == ["vAP, amodal", "vAP, visible", "HOTA, amodal"]
    assert numbers[0] == numbers[1]
    assert "amodal_AP" in json.loads((out / "metrics.json").read_text())["accuracy"]
    assert "ground truth" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("counts", "value", "words"),
    [
        ((0, 0, 0), "-", "no object was wholly hidden and came back"),
        ((3, 0, 0), "-", "all 3 full occlusions were of objects not tracked before"),
        ((4, 4, 3), "3 of 4", "through full occlusion"),
        ((6, 4, 0), "0 of 4", "occlusion; 2 full occlusions were of objects not tracked before"),
    ],
)
def test_the_headline_of_identities_says_of_how_many_occlusions_it_is(counts, value, words):
    names = ("occlusions", "occlusions_of_tracks", "occlusions_survived")
    record = Record("drive", "stub", "cpu", ("car",))
    assert record.identities is None  # no ground truth
    record.accuracy = dict(zip(names, map(float, counts), strict=True))
    assert record.identities is not None
    assert record.identities[0] == value
    assert record.identities[1].endswith(words)
    page = render([record])
    assert f"<b>{value}</b><span>{record.identities[1]}</span>" in page


# Where two vehicles of the real drive are, by hand: frame -> (column, row) of the truck's striped
# bar and of the estate car's number plate, and their outlines (x0, y0, x1, y1).
_TRUCK = {0: (435, 212), 12: (345, 220), 24: (250, 236), 35: (140, 253)}
_CAR = {0: (628, 254), 12: (634, 261), 24: (645, 275), 35: (648, 291)}
_TRUCK_BOX = {0: (345, 150, 508, 265), 12: (262, 138, 486, 288), 24: (135, 125, 458, 320)}
_CAR_BOX = {0: (557, 183, 699, 308), 12: (556, 188, 713, 325), 24: (551, 185, 733, 355)}


def _iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return shared / (sum(areas) - shared)


def test_two_vehicles_of_a_real_drive_are_one_track_each(kitti_raw_drive, tmp_path, out):
    convert_raw(kitti_raw_drive, tmp_path / "drive")
    pipeline = Pipeline(create("geometric"))
    record = replay(tmp_path / "drive", out, pipeline, ReplayOptions(video=False))
    assert record.frames == 36
    assert not record.warnings
    with BagReader(out / "tracks.mcap") as bag:
        frames = [read_tracks(m.message) for m in bag.messages(["/amodal/tracks"])]
    for points, boxes in ((_TRUCK, _TRUCK_BOX), (_CAR, _CAR_BOX)):
        annotated = sorted(points)
        places = np.array([points[k] for k in annotated])
        ids = []
        for k, tracks in enumerate(frames):
            u, v = (round(float(np.interp(k, annotated, places[:, c]))) for c in (0, 1))
            here = np.flatnonzero(tracks.visible.rle().dense()[:, v, u])
            assert len(here) == 1, f"frame {k}: {len(here)} visible masks at ({u}, {v})"
            ids.append(int(tracks.ids[here[0]]))
            if k in boxes:
                overlap = _iou(tracks.amodal_boxes[here[0]], boxes[k])
                assert overlap > 0.6, f"frame {k}: box IoU {overlap:.2f}"
        assert len(set(ids)) == 1, f"ids over the frames: {ids}"


class Timed(StubModel):
    """The stub, whose boxes follow from the stamp; it notes which images it gets at once."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def infer(self, frames, report=None):
        self.batches.append([int(frame.image[0, 0, 0]) for frame in frames])
        results = []
        for frame in frames:
            self.frames = round((frame.stamp - 1_000_000_000) / 100_000_000)
            results += super().infer([frame], report)
        return results


def _messages(path, prefix=""):
    with BagReader(path) as bag:
        store = bag.raw_messages([n for n in bag.topics if n.startswith(f"/amodal{prefix}/")])
        return [(m.topic.removeprefix(f"/amodal{prefix}"), m.stamp, bytes(m.data)) for m in store]


def test_several_cameras_are_replayed_at_once_each_as_if_it_were_alone(tmp_path, out):
    bag = tmp_path / "two"
    _truth_bag(bag, 0, cameras=("front", "left"))
    topics = ("/front/image", "/left/image")
    alone = {}
    for topic in topics:
        options = ReplayOptions(video=False, image_topic=topic)
        alone[topic] = replay(bag, tmp_path / topic[1:6], Pipeline(Timed()), options)
    model = Timed()
    pipelines = {topic: Pipeline(model) for topic in topics}
    records = replay_cameras(bag, out, pipelines, ReplayOptions())
    assert [r.camera for r in records] == ["front", "left"]
    # After the frames that warm up, both cameras' frames of a time go through the model at once.
    assert model.batches[2:] == [[90, 70]] * 6
    for topic, name in zip(topics, ("front", "left"), strict=True):
        single = _messages(tmp_path / topic[1:6] / "tracks.mcap")
        assert len(single) > 20
        assert _messages(out / "tracks.mcap", f"/{name}") == single
    metrics = json.loads((out / "metrics.json").read_text())["cameras"]
    assert [metrics[n]["frames"] for n in ("front", "left")] == [6, 6]
    # The truth is the front camera's.
    assert metrics["front"]["accuracy"]["HOTA"] == alone["/front/image"].accuracy["HOTA"] == 1
    assert metrics["left"]["accuracy"] is None
    text = (out / "report.html").read_text()
    for part in ("two: front", "two: left", "overlay_left.mp4", "evaluation_front/report.html"):
        assert part in text
    names = ["evaluation_front", "metrics.json", "overlay_front.mp4", "overlay_left.mp4"]
    assert sorted(p.name for p in out.iterdir()) == [*names, "report.html", "tracks.mcap"]
    replay(bag, out, Pipeline(Timed()), ReplayOptions(image_topic="/left/image"))
    assert sorted(p.name for p in out.iterdir()) == OUTPUTS


def test_a_camera_without_a_frame_ends_the_replay_of_all(tmp_path, out):
    _truth_bag(tmp_path / "two", 0, cameras=("front", "left"))
    pipelines = {topic: Pipeline(StubModel()) for topic in ("/front/image", "/right/image")}
    with pytest.raises(InputError, match="no sensor_msgs/msg/Image on '/right/image'"):
        replay_cameras(tmp_path / "two", out, pipelines)
    assert not out.exists()


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        (["/a/image_raw"], [""]),
        (["/front/image_raw", "/left/image_raw"], ["front", "left"]),
        (["/sensing/front/rgb/image/compressed", "/sensing/rear/rgb/image"], ["front", "rear"]),
        (["/front-left/image", "/front_right/image"], ["front_left", "front_right"]),
        (["/cam/left", "/cam/right"], ["left", "right"]),
        (["/cam/left/image_raw", "/cam/image_raw"], ["left_image_raw", "image_raw"]),
    ],
)
def test_cameras_are_named_by_what_tells_their_topics_apart(topics, names):
    assert camera_names(topics) == names


def test_what_was_decided_is_a_note_of_the_report_and_no_warning():
    record = Record("drive", "geometric", "cpu", ("car",))
    report = Report()
    report.warn("motion", "scans are moved")
    report.warn("drop", "a frame was dropped")
    record.warnings.update(report.warnings)
    assert [w.text for w in record.notes] == ["scans are moved"]
    assert [w.text for w in record.faults] == ["a frame was dropped"]


class Decides(Geometric):
    """Says on its first frame what it has decided, and never again."""

    told = False

    def infer(self, frames, report=None):
        if not self.told and report is not None:
            report.warn(RUNTIME, "the network runs in torch")
        self.told = True
        return super().infer(frames, report)


def test_what_the_warm_up_decided_is_in_the_report(mini_bag, tmp_path):
    record = replay(mini_bag, tmp_path / "out", Pipeline(Decides()), ReplayOptions(2, video=False))
    assert [w.text for w in record.notes if w.kind == RUNTIME] == ["the network runs in torch"]
