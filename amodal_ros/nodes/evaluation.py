"""Latency, drops and, where the bag has ground truth, accuracy of the running pipeline."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from amodal_core.bags.messages import read_tracks
from amodal_core.drive.topics import DIAGNOSTICS, GROUND_TRUTH, IMAGE, TRACKS, Topic
from amodal_core.errors import InputError
from amodal_core.evaluation.latency import LatencyMeter
from amodal_core.files import write_text
from amodal_core.frame import FrameWarning, Tracks, counted
from amodal_ros.declarations import Declaration, Parameter
from amodal_ros.frame_node import FrameNode
from amodal_ros.health import NodeState
from amodal_ros.running import run

# Numbers of the accuracy that the log has; the metrics file has all.
_HEADLINES = {"amodal_AP": "amodal AP", "visible_AP": "visible AP", "HOTA": "HOTA"}
_PERCENTILES = ("p50", "p95", "p99")
_RUNNING = 1.0  # seconds since the last frame for which the stream counts as running
_WAITING = 256  # frames of which truth or tracks may be outstanding
_REMEMBERED = 4096  # ids that are known again, and nodes that are listened to


class Evaluation(FrameNode):
    """Listens only; writes the metrics file when it ends."""

    declaration = Declaration(
        viewer=True,
        name="evaluation",
        purpose="Measures the running pipeline: latency from a frame's arrival to its tracks, "
        "frames lost and why, and accuracy where the bag holds ground truth. Writes a metrics "
        "file at the end.",
        subscribes=(
            TRACKS,
            IMAGE,
            GROUND_TRUTH,
            replace(DIAGNOSTICS, description="Drops of the nodes", required=False),
        ),
        parameters=(
            Parameter("metrics_file", "metrics.json", "Where the numbers go; empty: only the log."),
        ),
    )

    def configure(self) -> None:
        """Begin counting."""
        self._latency = LatencyMeter()
        self._heard = -_RUNNING
        self._nodes: dict[str, NodeState] = {}
        self._instances = 0
        self._ids: OrderedDict[int, None] = OrderedDict()  # those seen last
        self._tracks = 0
        self._coasted = 0
        self._waiting: dict[int, dict[str, Tracks]] = {}
        self._truth_expected = True  # until nobody publishes it
        self._accuracy: Any = None
        self._warnings: Counter[FrameWarning] = Counter()
        target = self.value("metrics_file")
        if target and not Path(target).resolve().parent.is_dir():
            raise InputError("there is no such folder", str(Path(target).parent), "make it first")

    def on_message(self, topic: Topic, stamp: int, message: Any) -> None:
        """Note the time at once; reading the tracks is the worker's part."""
        now = time.monotonic()
        if topic.name == DIAGNOSTICS.name:
            self._note_diagnostics(message)
        elif topic.name == IMAGE.name:
            self._heard = now
            self._latency.frame(stamp, now)
        else:
            if topic.name == TRACKS.name:
                self._latency.answer(stamp, now)
            else:
                self._truth_expected = True
            self.submit(stamp, (topic.name, message))

    def tick(self) -> None:
        """Whether tracks may wait for truth: asked now and then, not with every frame."""
        if hasattr(self, "_truth_expected"):
            name = self.topic_name(GROUND_TRUTH.name)
            self._truth_expected = self.count_publishers(name) > 0

    def process(self, stamp: int, item: tuple[str, Any]) -> None:
        """Read tracks or truth; compare them when both are there."""
        name, message = item
        tracks = read_tracks(message, self.topic_name(name))
        if name == TRACKS.name:
            self._instances += len(tracks)
            for track in map(int, tracks.ids):
                self._tracks += track not in self._ids
                self._ids[track] = None
                self._ids.move_to_end(track)
            while len(self._ids) > _REMEMBERED:
                self._ids.popitem(last=False)
            self._coasted += int(tracks.coasted.sum())
        if not self._truth_expected:
            return
        pair = self._waiting.setdefault(stamp, {})
        pair[name] = tracks
        if len(pair) == 2:
            if self._accuracy is None:
                # Metrics libraries are heavy, and most drives carry no truth.
                from amodal_core.evaluation.stream import StreamAccuracy

                self._accuracy = StreamAccuracy()
            self._accuracy.add(stamp, pair[GROUND_TRUTH.name], pair[TRACKS.name])
            del self._waiting[stamp]
        elif len(self._waiting) > _WAITING:
            del self._waiting[next(iter(self._waiting))]

    def finish(self) -> None:
        """Write the metrics file."""
        if not hasattr(self, "_latency"):
            return
        metrics = self.metrics()
        target = self.value("metrics_file")
        if target:
            path = Path(target)
            try:
                write_text(path, json.dumps(metrics, indent=2) + "\n")
            except OSError as error:
                raise InputError(
                    f"cannot write: {error.strerror}", str(path), "choose another metrics_file"
                ) from error
        latency = metrics["latency"]
        self.last_words(
            f"{latency['answered']} of {latency['frames']} frames answered, latency p50 "
            f"{latency.get('p50_ms', 0):.0f} ms, p95 {latency.get('p95_ms', 0):.0f} ms"
            + "".join(
                f", {words} {metrics['accuracy'][name]:.3f}"
                for name, words in _HEADLINES.items()
                if name in metrics.get("accuracy", ())
            )
            + (f"; written to {target}" if target else "")
        )

    def metrics(self) -> dict[str, Any]:
        """The numbers so far, in the words of an offline replay's metrics.json."""
        latency = self._latency.summary()
        metrics: dict[str, Any] = {
            "frames": latency["answered"],
            "fps": latency["fps"],
            "latency": latency,
            "stages": {
                node.rsplit("/", 1)[-1]: {
                    f"{name}_ms": state.milliseconds[name] for name in _PERCENTILES
                }
                for node, state in self._nodes.items()
                if state.milliseconds
            },
            "instances": self._instances,
            "tracks": self._tracks,
            "coasted": self._coasted,
            "drops": {node: state.drops for node, state in self._nodes.items() if state.drops},
        }
        if self._accuracy is not None:
            metrics["accuracy"] = self._accuracy.values()
            self._warnings.update(self._accuracy.warnings)
        return metrics | {"warnings": counted(self._warnings)}

    def _note_diagnostics(self, message: DiagnosticArray) -> None:
        own = self.get_fully_qualified_name()
        namespace = own.rpartition("/")[0]
        for status in message.status:
            state = NodeState.read({v.key: v.value for v in status.values})
            # Of several cameras each has an evaluation of its own.
            if state is None or status.name == own or status.name.rpartition("/")[0] != namespace:
                continue
            if status.name not in self._nodes and len(self._nodes) >= _REMEMBERED:
                continue  # of strangers; there are no more nodes than that
            self._nodes[status.name] = state
            # Before the first frame and after the last one, silence is no fault.
            if time.monotonic() - self._heard < _RUNNING:
                self._warnings.update(FrameWarning(k, f"{status.name}: {k}") for k in state.wrong)


def main() -> int:
    """Run the node."""
    return run(Evaluation)


if __name__ == "__main__":
    sys.exit(main())
