"""Messages, overlay, and everything but the model."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.bags.clouds import read_points
from amodal_core.bags.factory import RosbagsFactory, typestore
from amodal_core.bags.messages import (
    detections_message,
    instances_message,
    read_tracks,
    visible_labels,
)
from amodal_core.bags.sensors import points_message
from amodal_core.frame import Calibration, Frame, Report, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_rates, visible_from_order
from amodal_core.pipeline import Pipeline
from amodal_core.views.overlay import draw_overlay

SIZE = (375, 1242)
CLASSES = ("car", "truck")
STAMP = 1_317_042_145_000_000_000


@pytest.fixture(scope="module")
def tracks() -> Tracks:
    """Thirty ellipses of the sizes of traffic, the nearer the larger."""
    rng = np.random.default_rng(0)
    n = 30
    depths = np.sort(rng.uniform(5, 60, n)).astype(np.float32)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = np.zeros((n, *SIZE), bool)
    for mask, depth, x in zip(masks, depths, rng.uniform(50, 1190, n), strict=True):
        across, up = 721 * 1.2 / depth, 721 * 0.8 / depth
        mask[:] = ((columns - x) / across) ** 2 + ((rows - 175 - 600 / depth) / up) ** 2 < 1
    amodal = RleMasks.from_dense(masks)
    visible = visible_from_order(amodal, depths)
    return Tracks(
        size=SIZE,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.full(n, 0.9, np.float32),
        class_ids=np.arange(n) % 2,
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible).astype(np.float32),
        depths=depths,
        occluders=(amodal.iou(amodal) > 0) & (depths[None] < depths[:, None]),
        ids=np.arange(n),
        ages=np.ones(n, np.int64),
        coasted=np.zeros(n, bool),
    )


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (*SIZE, 3), np.uint8)


@pytest.mark.benchmark(group="30 tracks to messages (budget 5 ms)")
def test_messages_of_30_tracks(benchmark, tracks):
    """What the tracking node publishes: tracks, detections, labels; serialised."""
    factory, store = RosbagsFactory(), typestore()

    def publish():
        named = {"stamp": STAMP, "frame_id": "camera", "classes": CLASSES}
        whole = instances_message(factory, tracks, **named)
        boxes = detections_message(factory, tracks, **named)
        store.serialize_cdr(whole, whole.__msgtype__)
        store.serialize_cdr(boxes, boxes.__msgtype__)
        return visible_labels(tracks)

    benchmark(publish)


@pytest.mark.benchmark(group="30 tracks from messages")
def test_reading_30_tracks(benchmark, tracks):
    factory, store = RosbagsFactory(), typestore()
    made = instances_message(factory, tracks, stamp=STAMP, frame_id="camera", classes=CLASSES)
    data, kind = store.serialize_cdr(made, made.__msgtype__), made.__msgtype__
    benchmark(lambda: read_tracks(store.deserialize_cdr(data, kind)))


@pytest.mark.benchmark(group="overlay of 30 tracks")
def test_overlay_of_30_tracks(benchmark, image, tracks):
    benchmark(draw_overlay, image, tracks, CLASSES)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    rng = np.random.default_rng(2)
    cloud = rng.normal((15, 0, 0, 0.5), (12, 10, 1.0, 0.1), (120_000, 4))
    return cloud.astype(np.float32)


@pytest.mark.benchmark(group="PointCloud2 of 120k points")
def test_reading_a_scan_of_120k_points(benchmark, points):
    message = points_message(RosbagsFactory(), points, STAMP, "velo_link")
    benchmark(read_points, message)


@pytest.mark.benchmark(group="a frame, everything but the model (budget 10 ms)")
def test_everything_but_the_model(benchmark, image, points, tracks):
    """Reading the scan, projection, tracking of 30 objects, messages; the budget is 10 ms."""
    calibration = Calibration(
        np.array([[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1]]),
        np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
        SIZE[1],
        SIZE[0],
    )

    class Known:
        name, classes, inputs = "known", CLASSES, frozenset({"points", "calibration"})

        def infer(self, frames, report=None):
            return [tracks]

        def reset(self):
            pass

    pipeline, factory, store = Pipeline(Known()), RosbagsFactory(), typestore()
    message = points_message(factory, points, STAMP, "velo_link")
    clock = iter(range(STAMP, STAMP + 10**15, 100_000_000))

    def step():
        stamp = next(clock)
        frame = Frame(stamp, image, read_points(message), calibration=calibration)
        frame = pipeline.project(frame, Report())
        found = pipeline.track(pipeline.segment(frame, Report()), frame, Report())
        named = {"stamp": stamp, "frame_id": "camera", "classes": CLASSES}
        whole = instances_message(factory, found, **named)
        return store.serialize_cdr(whole, whole.__msgtype__)

    benchmark(step)
