"""Ours beside what a user would take instead: CPU milliseconds of one thread, turn by turn.

    pip install hotcoco faster-coco-eval supervision trackers
    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 PYTHONPATH=. python benchmarks/peers.py [--images 2000]

Each row is a step, the peer with its version, both times (medians of turns, interleaved) and how
many times as long the peer takes. A peer that is not installed is left out, and named at the end.
`message_filters` is that of a ROS 2 in the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

for folder in (".", "../test"):
    sys.path.insert(0, str((Path(__file__).parent / folder).resolve()))

from evaluation_scale import drive  # noqa: E402
from test_bench_geometry import CAMERA, numpy_depth_image  # noqa: E402
from test_bench_sync import FRAMES, MS, TOPICS, messages  # noqa: E402
from test_bench_tracking import STEP, crowd  # noqa: E402

import embedded_ros  # noqa: E402
from amodal_core.bags.clouds import read_points  # noqa: E402
from amodal_core.bags.factory import RosbagsFactory  # noqa: E402
from amodal_core.bags.sensors import points_message  # noqa: E402
from amodal_core.drive.sync import SyncConfig, Synchronizer  # noqa: E402
from amodal_core.evaluation import image_level  # noqa: E402
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS  # noqa: E402
from amodal_core.frame import Tracks  # noqa: E402
from amodal_core.geometry.projection import depth_image  # noqa: E402
from amodal_core.masks.mask_set import RleMasks  # noqa: E402
from amodal_core.tracking import make_tracker  # noqa: E402
from amodal_core.views.overlay import draw_overlay  # noqa: E402

SIZE = (375, 1242)
# (peer, its distribution, what it runs); ours comes first, with "" for its peer.
Run = tuple[str, str, Callable[[], object]]
absent: set[str] = set()


def peer(module: str) -> Any:
    """A peer's module, None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        absent.add(module)
        return None


def cloud() -> np.ndarray:
    """(120000, 4) points around the sensor."""
    rng = np.random.default_rng(1)
    around, up = rng.uniform(-np.pi, np.pi, 120_000), np.radians(rng.uniform(-24, 2, 120_000))
    rays = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], 1)
    reach = rng.uniform(3, 80, (120_000, 1))
    return np.column_stack([rays * reach, rng.random(120_000)]).astype(np.float32)


def geometry() -> Iterator[tuple[str, list[Run]]]:
    """Projection and point clouds."""
    points = cloud()
    yield (
        "120,000 points into 1242x375, z-buffer",
        [
            ("", "", lambda: depth_image(points, CAMERA)),
            ("NumPy, sorted by depth", "numpy", lambda: numpy_depth_image(points)),
        ],
    )
    message = points_message(RosbagsFactory(), points, 0, "lidar")
    kinds = np.dtype([(f.name, "<f4") for f in message.fields])
    from numpy.lib.recfunctions import structured_to_unstructured

    def usual() -> np.ndarray:
        rows = structured_to_unstructured(np.frombuffer(message.data, kinds))
        return rows[np.isfinite(rows).all(1)]

    yield (
        "PointCloud2 of 120,000 points to an array without NaN",
        [
            ("", "", lambda: read_points(message)),
            ("NumPy, as sensor_msgs_py's read_points_numpy", "numpy", usual),
        ],
    )


def masks() -> Iterator[tuple[str, list[Run]]]:
    """RLE of 30 objects of traffic's sizes."""
    from pycocotools import mask as coco

    hot = peer("hotcoco")
    tracks = crowd(0, 30)
    amodal = tracks.amodal.rle()
    dense, counts, dicts = amodal.dense(), amodal.counts, amodal.coco()

    def stacked() -> np.ndarray:
        return np.asfortranarray(dense.astype(np.uint8).transpose(1, 2, 0))

    no_crowd = [False] * len(dicts)
    encode: list[Run] = [("", "", lambda: RleMasks.from_dense(dense).counts)]
    decode: list[Run] = [("", "", lambda: RleMasks(SIZE, counts).dense())]
    iou: list[Run] = [("", "", lambda: RleMasks(SIZE, counts).iou(RleMasks(SIZE, counts)))]
    for name, module in (("pycocotools", coco), ("hotcoco", hot and hot.mask)):
        if module is not None:
            encode.append((name, name, lambda m=module: m.encode(stacked())))  # type: ignore[misc]
            decode.append((name, name, lambda m=module: m.decode(dicts)))  # type: ignore[misc]
            iou.append((name, name, lambda m=module: m.iou(dicts, dicts, no_crowd)))  # type: ignore[misc]
    yield "30 masks (N, 375, 1242) bool to RLE", encode
    yield "30 RLE to masks", decode
    yield "30 x 30 IoU of masks", iou


def accuracy(images: int) -> Iterator[tuple[str, list[Run]]]:
    """AP of masks as COCO defines it; files are read before the clock runs."""
    truth, predictions = drive(images)
    folder = Path(tempfile.mkdtemp())
    with contextlib.ExitStack() as ending:
        ending.callback(lambda: [p.unlink() for p in folder.iterdir()] and folder.rmdir())
        names = []
        for part, scored in ((truth, False), (predictions, True)):
            whole = _coco(part, scored)
            names.append(str(folder / f"{scored}.json"))
            Path(names[-1]).write_text(json.dumps(whole["annotations"] if scored else whole))

        def ours() -> float:
            truth.release()
            predictions.release()
            kept = image_level.evaluate(truth, predictions, "amodal", IMAGE_PROTOCOLS["coco"])
            return kept.values["AP"]

        runs: list[Run] = [("", "", ours)]
        from pycocotools import coco, cocoeval

        kinds = [("pycocotools", coco.COCO, cocoeval.COCOeval)]
        if fast := peer("faster_coco_eval"):
            kinds.append(("faster-coco-eval", fast.COCO, fast.COCOeval_faster))
        if hot := peer("hotcoco"):
            kinds.append(("hotcoco", hot.COCO, hot.COCOeval))
        for name, data, evaluator in kinds:
            with contextlib.redirect_stdout(io.StringIO()):
                gt = data(names[0])
                dt = gt.loadRes(names[1])

            def run(gt: Any = gt, dt: Any = dt, evaluator: Any = evaluator) -> None:
                with contextlib.redirect_stdout(io.StringIO()):
                    e = evaluator(gt, dt, "segm")
                    e.evaluate()
                    e.accumulate()
                    e.summarize()

            runs.append((name, name, run))
        objects = len(truth) + len(predictions)
        yield f"AP of masks, {objects:,} objects, RLE read too (hotcoco has read its own)", runs


def _coco(part: Any, scored: bool) -> dict[str, Any]:
    entries = []
    for n, (mask, area) in enumerate(zip(part.rle("amodal"), part.areas("amodal"), strict=True)):
        entry = {
            "id": n + 1,
            "image_id": int(part.image_ids[n]),
            "category_id": int(part.class_ids[n]) + 1,
            "area": float(area),
            "iscrowd": 0,
            "bbox": [0, 0, 1, 1],
            "segmentation": {"size": list(mask["size"]), "counts": mask["counts"].decode()},
        }
        entries.append(entry | ({"score": float(part.scores[n])} if scored else {}))
    return {
        "images": [{"id": i.id, "height": i.height, "width": i.width} for i in part.images],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(part.classes)],
        "annotations": entries,
    }


def views() -> Iterator[tuple[str, list[Run]]]:
    """The overlay; supervision draws visible masks, outlines and labels, and nothing hidden."""
    found = crowd(0, 30)
    n = len(found)
    ages = np.ones(n, np.int64)
    tracks = Tracks(**vars(found), ids=np.arange(n), ages=ages, coasted=np.zeros(n, bool))
    image = cv2.resize(
        np.random.default_rng(1).integers(0, 255, (47, 156, 3), np.uint8), SIZE[::-1]
    )
    runs: list[Run] = [("", "", lambda: draw_overlay(image, tracks, ("car",)))]
    if sv := peer("supervision"):
        fill, edge, label = sv.MaskAnnotator(), sv.PolygonAnnotator(), sv.LabelAnnotator()
        visible, ids = tracks.visible.rle(), np.arange(n)

        def drawn() -> np.ndarray:
            detections = sv.Detections(
                visible.boxes(), visible.dense(), class_id=np.zeros(n, int), tracker_id=ids
            )
            out = edge.annotate(fill.annotate(image.copy(), detections), detections)
            return label.annotate(out, detections, [f"{k} car" for k in range(n)])

        runs.append(("supervision, mask + polygon + label", "supervision", drawn))
    yield "overlay of 30 tracks, 1242x375", runs


def trackers() -> Iterator[tuple[str, list[Run]]]:
    """100 detections to 100 tracks; ours matches masks, the peers boxes."""
    frames = [crowd(k, 100) for k in range(12)]
    order = [*range(12), *range(10, 0, -1)]

    def again(step: Callable[[Any, int], object], what: list[Any]) -> Callable[[], object]:
        turn = iter(range(10**9))

        def run() -> object:
            k = next(turn)
            return step(what[order[k % len(order)]], k * STEP)

        return run

    ours = make_tracker("motion")
    runs: list[Run] = [("", "", again(lambda f, at: ours.step(f[:], at), frames))]
    sv, other = peer("supervision"), peer("trackers")
    if sv and other:
        boxes = [
            sv.Detections(f.amodal_boxes, confidence=f.scores, class_id=f.class_ids) for f in frames
        ]
        for name in ("ByteTrackTracker", "OCSORTTracker"):
            tracker = getattr(other, name)(frame_rate=10)
            runs.append(
                (
                    f"trackers, {name}, boxes only",
                    "trackers",
                    again(lambda d, _, t=tracker: t.update(d), boxes),
                )  # type: ignore[misc]
            )
    yield "tracker, 100 detections x 100 tracks", runs


def synchroniser() -> Iterator[tuple[str, list[Run]]]:
    """1000 messages on four topics."""
    events = messages()

    def ours() -> int:
        sync = Synchronizer(SyncConfig(TOPICS, 5 * MS))
        return sum(len(sync.push(topic, stamp, None).sets) for topic, stamp in events)

    runs: list[Run] = [("", "", ours)]
    embedded_ros.activate()
    filters = peer("message_filters")
    if filters is not None and "embedded_ros" not in str(filters.__file__):
        from rclpy.time import Time

        class Message:
            """What a filter looks at."""

            def __init__(self, stamp: int) -> None:
                self.header = self
                self.stamp = Time(nanoseconds=stamp).to_msg()

        stamped = [(topic, Message(stamp)) for topic, stamp in events]

        def theirs() -> int:
            sources = {t: filters.SimpleFilter() for t in TOPICS}
            sync = filters.ApproximateTimeSynchronizer(list(sources.values()), 10, 0.005)
            sets: list[object] = []
            sync.registerCallback(lambda *s: sets.append(s))
            for topic, message in stamped:
                sources[topic].signalMessage(message)
            return len(sets)

        if (answered := theirs()) != FRAMES:
            print(f"message_filters gives {answered} of {FRAMES} sets", file=sys.stderr)
        runs.append(("message_filters, ApproximateTime", "message_filters", theirs))
    else:
        absent.add("message_filters")
    yield "synchroniser, 1000 messages of 4 topics", runs


def measured(runs: list[Run], seconds: float) -> list[float]:
    """CPU milliseconds of each, the median of turns that go round."""
    times: list[list[float]] = [[] for _ in runs]
    for _, _, run in runs:
        run()
    end = time.process_time() + seconds * len(runs)
    while time.process_time() < end or len(times[0]) < 3:
        for row, (_, _, run) in zip(times, runs, strict=True):
            begin = time.process_time()
            run()
            row.append((time.process_time() - begin) * 1e3)
    return [float(np.median(row)) for row in times]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="of the AP's drive")
    parser.add_argument("--only", nargs="+", default=[], help="parts, such as masks synchroniser")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("| step | ours, ms | peer | its ms | ratio |\n|---|---|---|---|---|")
    parts = [geometry, masks, lambda: accuracy(given.images), views, trackers, synchroniser]
    names = ("geometry", "masks", "accuracy", "views", "trackers", "synchroniser")
    for name, part in zip(names, parts, strict=True):
        for step, runs in part() if not given.only or name in given.only else ():
            ours, *others = measured(runs, given.seconds)
            for (label, distribution, _), ms in zip(runs[1:], others, strict=True):
                known = f"{label} ({_version(distribution)})"
                print(f"| {step} | {ours:.3g} | {known} | {ms:.3g} | {ms / ours:.2g} |", flush=True)
    if absent:
        print(f"not installed: {', '.join(sorted(absent))}", file=sys.stderr)


if __name__ == "__main__":
    main()
