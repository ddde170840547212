"""The running nodes: CPU a frame of each, what of it is (de)serialising, latency, highest rate.

    PYTHONPATH=. python benchmarks/live.py BAG [--model geometric] [--highest 30]

One process (`single_process:=true`) and one a stage, turn by turn; medians of turns. The share of
(de)serialising is that of the messages which a node takes and gives, each coded alone on this
middleware; results are counted though nobody may listen. `--highest` also searches the highest
sustained rate up to that many frames a second, as `amodal eval live` does; it takes minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.bags.reader import BagReader
from amodal_core.drive.topics import (
    DEPTH,
    DETECTIONS,
    DETECTIONS_3D,
    INSTANCES,
    TRACKS,
    VISIBLE_LABELS,
    find_topics,
)
from amodal_core.evaluation.throughput import RunResult, Search, measure
from amodal_core.models import registry
from amodal_core.pipeline import Pipeline
from amodal_core.replay import TRACKS_BAG, ReplayOptions, replay
from amodal_ros.conversions import message_class
from amodal_ros.live_bench import LiveBench

_FRAMES = 12  # whose messages are coded
_PATIENCE = 300.0  # seconds until the nodes must be ready, on a busy machine


def codec() -> tuple[Callable[[Any], Any], Callable[[bytes, type], Any]]:
    """The middleware's own: of a message to bytes, of bytes to a message of a class."""
    try:
        from rclpy.serialization import deserialize_message, serialize_message

        return serialize_message, deserialize_message
    except ModuleNotFoundError:
        from embedded_ros import interfaces

        return interfaces.serialize, interfaces.deserialize


def coding(bag: Path, model: str) -> dict[str, float]:
    """CPU milliseconds a frame of what each node takes and gives, by its name."""
    serialize, deserialize = codec()
    with BagReader(bag) as reader:
        names = find_topics(reader)
    made = registry.create(model)
    with tempfile.TemporaryDirectory() as folder:
        options = ReplayOptions(_FRAMES, video=False, depth=True)
        replay(bag, folder, Pipeline(made), options)
        costs: dict[str, tuple[float, float]] = {}
        for path in (bag, Path(folder) / TRACKS_BAG):
            with BagReader(path) as reader:
                for name, topic in reader.topics.items():
                    raw = [m.data for m in reader.raw_messages([name])][:_FRAMES]
                    try:
                        kind = message_class(topic.type)
                        parsed = [deserialize(bytes(data), kind) for data in raw]
                    except Exception:  # nobody's here, or an earlier layout of truth
                        continue
                    begin = time.process_time()
                    for data in raw:
                        deserialize(bytes(data), kind)
                    middle = time.process_time()
                    for message in parsed:
                        serialize(message)
                    end = time.process_time()
                    each = 1e3 / max(len(raw), 1)
                    costs[name] = (middle - begin) * each, (end - middle) * each
    parts = {
        "image": names.image,
        "points": names.points,
        "calibration": names.camera_info,
        "depth": DEPTH.bag_name,
    }
    wanted = [parts[name] for name in sorted(made.inputs)]
    results = [t.bag_name for t in (TRACKS, DETECTIONS, DETECTIONS_3D, VISIBLE_LABELS)]
    nodes = {
        "depth_projection": (
            [names.points, names.camera_info, names.image],
            [DEPTH.bag_name],
        ),
        "segmentation": ([names.image, *wanted], [INSTANCES.bag_name]),
        "tracking": ([INSTANCES.bag_name, DEPTH.bag_name], results),
        "perception": (
            [names.points, names.camera_info, names.image],
            [DEPTH.bag_name, INSTANCES.bag_name, *results],
        ),
    }
    return {
        node: sum(costs[t][0] for t in dict.fromkeys(taken)) + sum(costs[t][1] for t in given)
        for node, (taken, given) in nodes.items()
    }


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--model", default="geometric")
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--highest", type=float, default=0.0)
    given = parser.parse_args()
    coded = coding(given.bag, given.model)
    runs: dict[str, list[RunResult]] = {"true": [], "false": []}
    highest: dict[str, float] = {}
    for turn in range(given.turns):
        for single, results in runs.items():
            arguments = [f"model:={given.model}", f"single_process:={single}"]
            with (
                tempfile.TemporaryDirectory() as folder,
                LiveBench(given.bag, arguments, Path(folder) / "nodes.log", _PATIENCE) as bench,
            ):
                bench.run(given.rate, 2.0)
                results.append(bench.run(given.rate, given.seconds))
                if given.highest and not turn:
                    highest[single] = measure(bench.run, Search(highest=given.highest)).rate
    print(f"{given.model}, {given.rate:g} Hz, {given.turns} turns\n")
    print(
        "| processes | node | CPU ms a frame | of that (de)serialising | p50 ms | p95 ms ", end=""
    )
    print("| memory MB | missed | highest Hz |\n|---|---|---|---|---|---|---|---|---|")
    for single, results in runs.items():
        rows = [r.numbers() for r in results]
        kind = "one" if single == "true" else "one a stage"
        whole = ("p50_ms", "p95_ms", "memory_mb", "missed_share")
        p50, p95, memory, missed = (float(np.median([r[name] for r in rows])) for name in whole)
        rate = f"{highest[single]:.1f}" if single in highest else ""
        tail = f"{p50:.0f} | {p95:.0f} | {memory:.0f} | {missed:.1%} | {rate}"
        nodes = sorted({node for r in results for node in r.cpu})
        for node in nodes:
            each = [r.cpu.get(node, 0) * 1e3 / r.numbers()["answered_hz"] for r in results]
            cpu = float(np.median(each))
            name = node.rsplit("/", 1)[-1]
            share = f"{coded[name] / cpu:.0%}" if name in coded and cpu else ""
            print(f"| {kind} | {name} | {cpu:.1f} | {share} | | | | | |")
        total = float(np.median([r["cpu_cores"] * 1e3 / r["answered_hz"] for r in rows]))
        print(f"| {kind} | all | {total:.1f} | | {tail} |")


if __name__ == "__main__":
    main()
