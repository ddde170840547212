"""The parts that nodes are made of, without DDS: worker, health, latency."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from amodal_core.evaluation.latency import LatencyMeter
from amodal_core.evaluation.stream import StreamAccuracy
from amodal_core.frame import RUNTIME, RUNTIME_FAULT, TIME_JUMP, FrameWarning, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.registry import create
from amodal_core.warm_up import warm_up_frame
from amodal_ros.base_node import BaseNode
from amodal_ros.frame_node import FrameNode
from amodal_ros.health import ERROR, OK, WARN, Health, NodeState
from amodal_ros.nodes.overlay import markers_message
from amodal_ros.worker import Worker


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


class TestWorker:
    def gated(self, size: int) -> tuple[Worker[int], threading.Event, list[int], list[int]]:
        gate, done, dropped = threading.Event(), list[int](), list[int]()

        def process(item: int) -> None:
            gate.wait(5)
            done.append(item)

        worker = Worker(process, dropped.append, lambda *_: None, size)
        return worker, gate, done, dropped

    def test_the_newest_replaces_what_waits(self) -> None:
        worker, gate, done, dropped = self.gated(1)
        worker.put(0)
        wait(lambda: not worker._items)
        for item in range(1, 6):
            worker.put(item)
        gate.set()
        assert worker.stop(finish=True)
        assert done == [0, 5]
        assert dropped == [1, 2, 3, 4]

    def test_so_many_may_wait(self) -> None:
        worker, gate, done, dropped = self.gated(3)
        worker.put(0)
        wait(lambda: not worker._items)
        for item in range(1, 6):
            worker.put(item)
        gate.set()
        worker.stop(finish=True)
        assert done == [0, 3, 4, 5]
        assert dropped == [1, 2]

    def test_without_a_limit_all_are_processed_in_order(self) -> None:
        worker, gate, done, dropped = self.gated(0)
        for item in range(100):
            worker.put(item)
        gate.set()
        worker.stop(finish=True)
        assert done == list(range(100))
        assert dropped == []

    def test_a_call_is_never_dropped_and_keeps_its_place(self) -> None:
        worker, gate, done, dropped = self.gated(1)
        worker.put(0)
        wait(lambda: not worker._items)
        worker.put(1)
        worker.call(lambda: done.append(-1))
        worker.put(2)
        gate.set()
        worker.stop(finish=True)
        assert done == [0, -1, 2]
        assert dropped == [1]

    def test_an_exception_goes_to_the_handler_and_the_next_item_follows(self) -> None:
        errors: list[tuple[int, str]] = []
        done: list[float] = []
        worker = Worker(
            lambda item: done.append(1 / item),
            lambda _: None,
            lambda item, error: errors.append((item, type(error).__name__)),
            0,
        )
        for item in (1, 0, 2):
            worker.put(item)
        worker.stop(finish=True)
        assert done == [1.0, 0.5]
        assert errors == [(0, "ZeroDivisionError")]

    def test_stopping_forgets_what_waits_unless_told_otherwise(self) -> None:
        worker, gate, done, _ = self.gated(0)
        worker.put(0)
        wait(lambda: not worker._items)
        worker.put(1)
        threading.Timer(0.05, gate.set).start()
        assert worker.stop()
        assert done == [0]


class TestHealth:
    def test_silence_grows_from_well_over_warning_to_error(self) -> None:
        now = [0.0]
        health = Health(lambda: now[0])
        health.expect("points", "/lidar", True)
        health.expect("truth", "/truth", False)
        now[0] = 0.5
        assert health.summary(1, 5)[0] == OK
        now[0] = 2.0
        assert health.summary(1, 5)[:2] == (WARN, "no message ever on /lidar for 2.0 s")
        health.received("points", 7)
        assert health.summary(1, 5)[0] == OK
        now[0] = 8.0
        level, line, values = health.summary(1, 5)
        assert (level, line) == (ERROR, "no message on /lidar for 6.0 s")
        state = NodeState.read(values)
        assert state is not None
        assert state.wrong == {"no message on /lidar": line}

    def test_drops_warn_once_and_stay_in_the_values(self) -> None:
        health = Health()
        health.dropped("overload")
        health.dropped("overload")
        level, line, values = health.summary(1, 5)
        assert (level, line) == (WARN, "2 dropped")
        state = NodeState.read(values)
        assert state is not None
        assert (state.drops, list(state.wrong)) == ({"overload": 2}, ["dropped"])
        assert NodeState.read({"status of": "another's node"}) is None
        assert health.summary(1, 5)[0] == OK

    @pytest.mark.parametrize("key", ["dropped: late", "processing ms, p50"])
    def test_a_strangers_words_that_are_like_ours_are_passed_over(self, key: str) -> None:
        assert NodeState.read({"frames": "base_link, map", key: "n/a"}) is None

    def test_a_condition_lasts_until_it_is_mended(self) -> None:
        health = Health()
        health.condition("transform", "no transform")
        assert health.summary(1, 5)[:2] == (ERROR, "no transform")
        assert health.summary(1, 5)[0] == ERROR
        health.condition("transform", "")
        assert health.summary(1, 5)[0] == OK

    def test_milliseconds_are_percentiles_of_the_last_frames(self) -> None:
        health = Health()
        for ms in range(1, 102):
            health.processed(ms, float(ms))
        values = health.summary(1, 5)[2]
        assert values["frames"] == "101"
        state = NodeState.read(values)
        assert state is not None
        assert state.milliseconds["last"] == 101.0
        assert state.milliseconds["p50"] == pytest.approx(51.5)


class TestLatency:
    def test_frames_and_answers_are_matched_by_stamp_in_any_order(self) -> None:
        meter = LatencyMeter()
        for k in range(100):
            meter.frame(k, k * 0.1)
        for k in range(99, -1, -1):
            if k != 50:
                meter.answer(k, k * 0.1 + 0.001 * (k + 1))
        summary = meter.summary()
        assert (summary["frames"], summary["answered"], summary["unanswered"]) == (100, 99, 1)
        exact = [k + 1 for k in range(100) if k != 50]
        assert summary["p50_ms"] == pytest.approx(np.percentile(exact, 50), abs=1e-3)
        assert summary["p99_ms"] == pytest.approx(np.percentile(exact, 99), abs=1e-3)
        assert summary["max_ms"] == pytest.approx(100.0)
        assert summary["fps"] == pytest.approx(99 / (99 * 0.1 + 0.1), abs=1e-3)

    def test_an_answer_may_be_seen_before_its_frame(self) -> None:
        meter = LatencyMeter()
        meter.answer(1, 5.0)
        meter.frame(1, 5.001)
        assert (meter.answered, meter.unanswered) == (1, 0)

    def test_nothing_is_nothing(self) -> None:
        assert LatencyMeter().summary() == {
            "frames": 0,
            "answered": 0,
            "unanswered": 0,
            "fps": 0.0,
        }


class TestStreamAccuracy:
    def tracks(self, shift: int, track: int, score: float = 1.0) -> Tracks:
        mask = np.zeros((1, 40, 60), bool)
        mask[0, 10:30, 10 + shift : 40 + shift] = True
        rle = RleMasks.from_dense(mask)
        empty = Tracks.empty((40, 60))
        return Tracks(
            size=empty.size,
            amodal_boxes=rle.boxes(),
            visible_boxes=rle.boxes(),
            scores=np.array([score], np.float32),
            class_ids=np.zeros(1, np.int64),
            amodal=rle,
            visible=rle,
            occlusion_rates=np.zeros(1, np.float32),
            depths=np.full(1, 10, np.float32),
            occluders=np.zeros((1, 1), bool),
            ids=np.array([track]),
            ages=np.ones(1, np.int64),
            coasted=np.zeros(1, bool),
        )

    def test_what_is_exact_scores_one_and_what_is_beside_it_less(self) -> None:
        exact, beside = StreamAccuracy(), StreamAccuracy()
        for k in range(5):
            exact.add(k, self.tracks(0, 3), self.tracks(0, 8, 0.9))
            beside.add(k, self.tracks(0, 3), self.tracks(6, 8, 0.9))
        right, wrong = exact.values(), beside.values()
        assert right["amodal_AP"] == pytest.approx(1.0)
        assert right["visible_AP"] == pytest.approx(1.0)
        # 24 of 36 columns overlap: 2/3 IoU, which four of COCO's ten thresholds accept.
        assert wrong["amodal_AP"] == pytest.approx(0.4, abs=1e-3)

    def test_without_truth_there_is_no_number(self) -> None:
        accuracy = StreamAccuracy()
        accuracy.add(0, Tracks.empty((40, 60)), self.tracks(0, 1))
        assert accuracy.values() == {}


def test_markers_of_ids_beyond_what_a_marker_holds_are_made_all_the_same() -> None:
    box = np.array([[10.0, 0, 0, 4, 2, 1.5, 0]], np.float32)
    tracks = replace(TestStreamAccuracy().tracks(0, 2**40 + 5), boxes3d=box)
    message = markers_message(tracks, ["car"], 0, "lidar")
    assert [marker.id for marker in message.markers] == [0, 5, 5]
    assert message.markers[2].text == f"{2**40 + 5} car"


def test_the_warm_up_frame_takes_the_model_through_its_classes() -> None:
    model = create("geometric")
    instances = model.infer([warm_up_frame()])[0]
    names = {model.classes[int(c)] for c in instances.class_ids}
    assert {"car", "truck"} <= names


def test_notes_are_information_and_warnings_are_warnings() -> None:
    class Node:
        """What `warn_all` asks of a node."""

        def __init__(self) -> None:
            self.said: list[tuple[str, str]] = []

        def get_logger(self) -> Node:
            return self

        def info(self, text: str) -> None:
            self.said.append(("info", text))

        def warn(self, kind: str, text: str) -> None:
            self.said.append((kind, text))

    node = Node()
    warnings = [
        FrameWarning(RUNTIME, "runs in torch"),
        FrameWarning(RUNTIME_FAULT, "not in openvino"),
        FrameWarning(TIME_JUMP, "back"),
    ]
    BaseNode.warn_all(node, warnings)  # type: ignore[arg-type]
    assert node.said == [("info", "runs in torch"), (RUNTIME_FAULT, "not in openvino")]


@pytest.mark.parametrize("missing", ["on_message", "process"])
def test_a_node_that_does_not_say_what_it_does_with_a_message_or_frame_is_never_made(missing):
    methods = {"on_message", "process"} - {missing}
    kind = type("Deaf", (FrameNode,), {name: lambda *_: None for name in methods})
    with pytest.raises(TypeError, match=f"abstract.*{missing}"):
        kind()
