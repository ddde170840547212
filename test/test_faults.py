"""The fault table of the architecture for the nodes: each fault, and the answer that it gets."""

from __future__ import annotations

import ast
import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import node_bench as drive
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from node_bench import SECOND, Bench, stamp, start, until

from amodal_core.bags.factory import RosbagsFactory
from amodal_core.bags.images import read_depth
from amodal_core.bags.messages import instances_message
from amodal_core.bags.sensors import header_message
from amodal_core.bags.writer import BagWriter
from amodal_core.drive.topics import DIAGNOSTICS, IMAGE
from amodal_core.frame import Instances
from amodal_core.geometry.projection import depth_image
from amodal_core.masks.mask_set import RleMasks
from amodal_ros.conversions import FACTORY
from amodal_ros.health import Health
from amodal_ros.nodes.depth_projection import DepthProjection
from amodal_ros.nodes.evaluation import Evaluation
from amodal_ros.nodes.player import Player
from amodal_ros.nodes.player import main as play
from amodal_ros.nodes.segmentation import Segmentation
from amodal_ros.nodes.tracking import Tracking
from amodal_ros.restarts import REFUSED
from amodal_ros.running import run

pytestmark = pytest.mark.dds

__all__ = ["start"]
WARN, ERROR = 1, 2
REPLAY = {"queue": 0, "reliability": "reliable"}
Start = Callable[..., Bench]


def projection(start: Start, **parameters: Any) -> Bench:
    expects = ["image", "camera_info", "points", "/tf_static"]
    return start(DepthProjection, expects, **REPLAY | parameters)


def segmentation(start: Start) -> Bench:
    expects = ["image", "camera_info", "points", "/tf_static"]
    return start(Segmentation, expects, model="geometric", **REPLAY)


def tracking(start: Start, **parameters: Any) -> Bench:
    return start(Tracking, ["instances", "depth/image"], **REPLAY | parameters)


def send_frame(bench: Bench, index: int) -> None:
    bench.send("image", drive.image(index))
    bench.send("camera_info", drive.info(index))
    bench.send("points", drive.cloud(index))


def detections(
    index: int, *boxes: tuple[int, int, int, int], embeddings: np.ndarray | None = None
) -> Any:
    """Instances that fill their boxes, in an image of the bench's size, all 10 m away."""
    n, size = len(boxes), drive.FRAME.size
    masks = np.zeros((n, *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    xyxy = np.array(boxes, np.float32).reshape(n, 4)
    rle = RleMasks.from_dense(masks)
    instances = Instances(
        size,
        xyxy,
        xyxy,
        np.full(n, 0.9, np.float32),
        np.zeros(n, np.int64),
        rle,
        rle,
        np.zeros(n, np.float32),
        np.full(n, 10, np.float32),
        np.zeros((n, n), bool),
        embeddings,
    )
    return instances_message(
        FACTORY, instances, stamp=stamp(index), frame_id="camera", classes=["car"]
    )


def send_tracked(bench: Bench, index: int, *boxes: tuple[int, int, int, int]) -> None:
    bench.send("instances", detections(index, *boxes))
    bench.send("depth/image", drive.depth(index))


def stamps(messages: list[Any]) -> list[int]:
    return [m.header.stamp.sec * SECOND + m.header.stamp.nanosec for m in messages]


class TestTimeJumpsBack:
    def test_a_bag_that_loops_is_answered_frame_by_frame_again(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bench = projection(start)
        bench.send("/tf_static", drive.tf_static())
        for turn in range(3):
            for index in range(8):
                send_frame(bench, index)
            answered = stamps(bench.outputs("depth/image", 8 * (turn + 1)))
        assert answered == [stamp(i) for i in range(8)] * 3
        assert bench.node.health.drops == {}
        assert capfd.readouterr().err.count("time jumped back") == 2

    def test_tracks_begin_anew_with_ids_that_were_not_used(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bench = tracking(start)
        for turn in range(2):
            for index in range(8):
                send_tracked(bench, index, (100, 40, 160, 80))
            arrays = bench.outputs("tracks", 8 * (turn + 1))
        first, second = arrays[7].instances[0], arrays[8].instances[0]
        assert (first.age, second.age) == (8, 1)
        assert second.track_id != first.track_id
        assert capfd.readouterr().err.count("time jumped back") == 1

    def test_a_model_with_memory_forgets_the_stream(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = segmentation(start)
        calls: list[str] = []
        monkeypatch.setattr(bench.node.model, "reset", lambda: calls.append("reset"))
        monkeypatch.setattr(
            bench.node.model,
            "infer",
            lambda frames, report: (
                calls.append(str(frames[0].stamp)),
                [Instances.empty(frames[0].size)],
            )[1],
        )
        bench.send("/tf_static", drive.tf_static())
        for turn in range(2):
            for index in range(8):
                send_frame(bench, index)
            bench.outputs("instances", 8 * (turn + 1))
        once = [str(stamp(i)) for i in range(8)]
        assert calls == [*once, "reset", *once]


class TestInputIsMissing:
    def test_silence_is_a_warning_then_an_error_that_name_the_topic(self, start: Start) -> None:
        bench = projection(start, stale_after=0.3, lost_after=1.0)
        warning = bench.diagnosis(WARN, "no message ever on /points")
        error = bench.diagnosis(ERROR, "no message ever on /points")
        assert bench.statuses.index(warning) < bench.statuses.index(error)
        frames = itertools.count()

        def answered() -> bool:
            send_frame(bench, next(frames))
            return "no message" not in bench.statuses[-1].message

        until(answered, "the silence to be over")

    def test_a_frame_without_scan_is_skipped_and_counted(self, start: Start) -> None:
        bench = projection(start)
        bench.send("/tf_static", drive.tf_static())
        bench.send("camera_info", drive.info(0))
        for index in range(6):
            bench.send("image", drive.image(index))
            if index != 2:
                bench.send("points", drive.cloud(index))
        answered = stamps(bench.outputs("depth/image", 5))
        assert answered == [stamp(i) for i in (0, 1, 3, 4, 5)]
        assert bench.node.health.drops == {"no points": 1}

    @pytest.mark.parametrize("given", ["no stamp", "another stamp"])
    def test_a_camera_info_holds_for_every_image_whatever_its_stamp(
        self, start: Start, given: str
    ) -> None:
        bench = projection(start)
        bench.send("/tf_static", drive.tf_static())
        info = drive.info(7)
        if given == "no stamp":
            info.header.stamp = type(info.header.stamp)()
        bench.send("camera_info", info)
        for index in range(3):
            bench.send("image", drive.image(index))
            bench.send("points", drive.cloud(index))
        assert stamps(bench.outputs("depth/image", 3)) == [stamp(i) for i in range(3)]
        assert bench.node.health.drops == {}

    def test_the_last_frame_is_given_up_after_the_timeout(self, start: Start) -> None:
        bench = projection(start, sync_timeout=0.3)
        bench.send("image", drive.image(0))
        until(lambda: bench.node.health.drops == {"no points in time": 1}, "the timeout")

    def test_a_missing_transform_is_never_identity(self, start: Start) -> None:
        bench = projection(start, transform_timeout=0.2)
        send_frame(bench, 0)
        bench.diagnosis(ERROR, "no transform from 'lidar' to 'camera'")
        assert not bench.received["depth/image"]
        bench.send("/tf_static", drive.tf_static())
        send_frame(bench, 1)
        message = bench.outputs("depth/image", 1)[0]
        assert stamps([message]) == [stamp(1)]
        assert drive.FRAME.points is not None
        assert drive.FRAME.calibration is not None
        exact = depth_image(drive.FRAME.points, drive.FRAME.calibration)
        assert np.array_equal(read_depth(message), exact)
        assert (exact > 0).sum() > 1000


def without_x(cloud: Any) -> Any:
    cloud.fields = [f for f in cloud.fields if f.name != "x"]
    return cloud


def cut_off(cloud: Any) -> Any:
    cloud.data = cloud.data[:-160]
    return cloud


def double_step(cloud: Any) -> Any:
    cloud.point_step *= 2
    return cloud


class TestBadMessages:
    @pytest.mark.parametrize(
        ("spoil", "expected"),
        [
            (without_x, "no field x"),
            (cut_off, "do not hold"),
            (double_step, "do not hold"),
        ],
    )
    def test_a_scan_of_wrong_layout_is_refused_in_one_line(
        self,
        start: Start,
        capfd: pytest.CaptureFixture[str],
        spoil: Callable[[Any], Any],
        expected: str,
    ) -> None:
        bench = projection(start)
        bench.send("/tf_static", drive.tf_static())
        bench.send("camera_info", drive.info(0))
        for index in range(5):
            bench.send("image", drive.image(index))
            scan = drive.cloud(index)
            bench.send("points", spoil(scan) if index < 4 else scan)
        assert stamps(bench.outputs("depth/image", 1)) == [stamp(4)]
        assert bench.node.health.drops == {"refused /points": 4}
        lines = [line for line in capfd.readouterr().err.splitlines() if "refused" in line]
        assert len(lines) == 1
        assert expected in lines[0]

    def test_a_scan_of_the_other_endianness_is_read(self, start: Start) -> None:
        bench = projection(start)
        bench.send("/tf_static", drive.tf_static())
        send_frame(bench, 0)
        scan = drive.cloud(1)
        swapped = np.frombuffer(scan.data, "<f4").byteswap().view(np.uint8)
        scan.data = FACTORY.create("sensor_msgs/msg/PointCloud2", data=swapped).data
        scan.is_bigendian = True
        bench.send("image", drive.image(1))
        bench.send("points", scan)
        plain, big = bench.outputs("depth/image", 2)
        assert np.array_equal(read_depth(plain), read_depth(big))

    def test_a_camera_info_with_nan_is_refused(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bench = projection(start)
        bench.send("/tf_static", drive.tf_static())
        broken = drive.info(0)
        broken.p[0] = np.nan
        bench.send("camera_info", broken)
        bench.send("image", drive.image(0))
        bench.send("points", drive.cloud(0))
        send_frame(bench, 1)
        assert stamps(bench.outputs("depth/image", 1)) == [stamp(1)]
        assert "/camera_info" in capfd.readouterr().err

    def test_a_stamp_that_was_not_filled_in_is_refused(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bench = projection(start)
        scan = drive.cloud(0)
        scan.header.stamp.sec = scan.header.stamp.nanosec = 0
        bench.send("points", scan)
        until(lambda: bench.node.health.drops == {"refused points": 1}, "the refusal")
        assert "the stamp is zero" in capfd.readouterr().err

    def test_a_depth_image_of_wrong_encoding_is_refused(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bench = tracking(start)
        bench.send("instances", detections(0, (100, 40, 160, 80)))
        wrong = drive.depth(0)
        wrong.encoding = "rgb8"
        bench.send("depth/image", wrong)
        send_tracked(bench, 1, (100, 40, 160, 80))
        assert stamps(bench.outputs("tracks", 1)) == [stamp(1)]
        line = next(li for li in capfd.readouterr().err.splitlines() if "refused" in li)
        assert "encoding 'rgb8' where one of 32FC1, 16UC1 is expected" in line


class TestExceptions:
    def test_an_exception_costs_its_frame_only(
        self, start: Start, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = tracking(start)
        step = bench.node._tracker.step

        def fails_once(instances: Any, at: int, *rest: Any) -> Any:
            if at == stamp(3):
                raise ZeroDivisionError("of all things")
            return step(instances, at, *rest)

        monkeypatch.setattr(bench.node._tracker, "step", fails_once)
        for index in range(8):
            send_tracked(bench, index, (100, 40, 160, 80))
        answered = stamps(bench.outputs("tracks", 7))
        assert answered == [stamp(i) for i in range(8) if i != 3]
        assert bench.node.health.errors == 1
        error = capfd.readouterr().err
        at = f"{stamp(3) // SECOND}.{stamp(3) % SECOND:09d}"
        assert f"frame {at}: ZeroDivisionError: of all things" in error
        assert "fails_once" in error
        bench.diagnosis(ERROR, "ZeroDivisionError")

    def test_looks_are_followed_and_detections_without_any_cost_their_frame_only(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bench = tracking(start, tracker="quasi_dense")
        left, right, embeddings = (
            (100, 40, 140, 80),
            (160, 40, 200, 80),
            np.eye(2, dtype=np.float32),
        )
        for index in range(6):
            here = (left, right) if index < 4 else (right, left)  # each where the other was
            given = None if index == 2 else 6 * embeddings
            bench.send("instances", detections(index, *here, embeddings=given))
            bench.send("depth/image", drive.depth(index))
        arrays = bench.outputs("tracks", 5)
        assert stamps(arrays) == [stamp(i) for i in range(6) if i != 2]
        # The same looks are the same ids, wherever they stand.
        for array in arrays:
            assert {int(i.embedding[1]): i.track_id for i in array.instances} == {0: 0, 6: 1}
        assert "quasi-dense tracking without embeddings" in capfd.readouterr().err


class TestOverload:
    def gated(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[Callable[[int], None], list[int], threading.Event]:
        """What sends a frame and sees it queued, the frames done, and a gate that holds them."""
        queued: list[int] = []
        begun: list[int] = []
        done: list[int] = []
        gate, submit = threading.Event(), bench.node.submit

        def queue(at: int, item: Any) -> None:
            submit(at, item)
            queued.append(at)

        def process(at: int, item: Any) -> None:
            begun.append(at)
            assert gate.wait(60)
            done.append(at)

        def send(index: int) -> None:
            send_tracked(bench, index)
            until(lambda: queued[-1:] == [stamp(index)] and begun, f"frame {index} in the queue")

        monkeypatch.setattr(bench.node, "submit", queue)
        monkeypatch.setattr(bench.node, "process", process)
        return send, done, gate

    def test_live_the_newest_frame_wins_and_every_drop_is_counted(
        self,
        start: Start,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        bench = tracking(start, queue=1)
        send, done, gate = self.gated(bench, monkeypatch)
        for index in range(20):
            send(index)
        assert bench.node.health.drops == {"overload": 18}
        gate.set()
        until(lambda: len(done) == 2, "the newest frame")
        assert done == [stamp(0), stamp(19)]
        bench.diagnosis(WARN, "dropped")
        until(lambda: bench.node.health.frames == 2, "the newest frame to be counted")
        bench.close()
        said = capfd.readouterr().err
        assert "gives way to a newer one (1 so far)" in said
        assert "2 frames processed, dropped: 18 overload" in said

    def test_in_a_replay_nothing_is_dropped(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = tracking(start, queue=0)
        send, done, gate = self.gated(bench, monkeypatch)
        for index in range(20):
            send(index)
        gate.set()
        until(lambda: len(done) == 20, "all frames")
        assert done == [stamp(i) for i in range(20)]
        assert bench.node.health.drops == {}


class TestNoDetections:
    def test_an_empty_scan_gives_an_empty_array(self, start: Start) -> None:
        bench = segmentation(start)
        bench.send("/tf_static", drive.tf_static())
        scan = drive.cloud(0)
        scan.width = scan.row_step = 0
        scan.data = FACTORY.create("sensor_msgs/msg/PointCloud2", data=np.zeros(0, np.uint8)).data
        bench.send("camera_info", drive.info(0))
        bench.send("image", drive.image(0))
        bench.send("points", scan)
        array = bench.outputs("instances", 1)[0]
        assert (array.height, array.width) == drive.FRAME.size
        assert list(array.instances) == []

    def test_the_tracker_steps_and_a_hidden_object_goes_on(self, start: Start) -> None:
        bench = tracking(start)
        for index in range(6):
            send_tracked(bench, index, (100, 40, 160, 80))
        for index in range(6, 8):
            send_tracked(bench, index)
        arrays = bench.outputs("tracks", 8)
        last = arrays[5].instances[0]
        for array in arrays[6:8]:
            assert [(i.track_id, i.coasted) for i in array.instances] == [(last.track_id, True)]
        for index in range(8, 60):
            send_tracked(bench, index)
        assert list(bench.outputs("tracks", 60)[-1].instances) == []


class TestBrokenFiles:
    def test_a_broken_bag_is_named_and_the_player_fails(
        self, start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        bag = tmp_path / "broken.mcap"
        bag.write_bytes(b"\x89MCAP0\r\n" + b"nonsense" * 20)
        assert play(["player", "--ros-args", "-p", f"bag:={bag}"]) == 1
        error = capfd.readouterr().err
        assert str(bag) in error
        assert "Traceback" not in error

    def test_images_are_counted_as_frames_compressed_ones_too(
        self, start: Start, tmp_path: Path
    ) -> None:
        with BagWriter(tmp_path / "bag.mcap") as bag:
            bag.add_topic("/cam/image/compressed", "sensor_msgs/msg/CompressedImage")
            for index in range(3):
                header = header_message(RosbagsFactory(), stamp(index), drive.CAMERA)
                kind = "sensor_msgs/msg/CompressedImage"
                image = RosbagsFactory().create(kind, header=header, format="jpeg")
                bag.write("/cam/image/compressed", image, stamp(index))
        asked = {"frame_topic": "/cam/image", "drain_timeout": 0.1}
        bench = start(Player, ["tracks"], bag=str(tmp_path / "bag.mcap"), **asked)
        assert bench.node.play() == 1
        assert bench.node._frames == 3

    def test_a_bag_of_which_no_frame_is_answered_fails_the_player(
        self, start: Start, mini_bag: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        asked = {"bag": str(mini_bag), "frame_topic": IMAGE.bag_name, "drain_timeout": 0.1}
        bench = start(Player, ["tracks"], **asked)
        # Every message of a node that lacks its transform, and of one that drops what follows.
        lacking, dropping = Health(), Health()
        lacking.condition("calibration", "no transform from 'lidar' to 'camera'")
        dropping.dropped("no depth")
        for name, health in (("/depth_projection", lacking), ("/segmentation", dropping)):
            values = health.summary(1.0, 5.0)[2].items()
            pairs = [KeyValue(key=key, value=value) for key, value in values]
            array = DiagnosticArray(status=[DiagnosticStatus(name=name, values=pairs)])
            bench.node.on_message(DIAGNOSTICS, 0, array)
        assert bench.node.play() == 1
        expected = "none of the 5 frames was answered: /depth_projection: no transform from 'lidar'"
        assert expected in capfd.readouterr().err

    @pytest.mark.parametrize("checkpoint", ["/nowhere/a.safetensors", ""])
    def test_a_missing_checkpoint_gives_way_to_the_model_without_weights(
        self, start: Start, capfd: pytest.CaptureFixture[str], checkpoint: str
    ) -> None:
        bench = start(Segmentation, ["camera_info"], model="aisformer", checkpoint=checkpoint)
        assert bench.node.model.name == "geometric"
        error = capfd.readouterr().err
        assert checkpoint in error
        assert "'geometric' runs in its place" in error

    def test_a_broken_checkpoint_is_named_and_the_node_fails(
        self, start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "broken.safetensors"
        file.write_bytes(b"no weights")
        args = ["x", "--ros-args", "-p", "model:=aisformer", "-p", f"checkpoint:={file}"]
        assert run(Segmentation, args) == REFUSED
        error = capfd.readouterr().err
        assert str(file) in error
        assert "Traceback" not in error

    @pytest.mark.timeout(60)  # a node that takes it runs on
    @pytest.mark.parametrize("model", ["geometric", "aisformer"])
    def test_a_device_that_is_none_is_named_and_the_node_fails_with_any_model(
        self, start: Start, capfd: pytest.CaptureFixture[str], model: str
    ) -> None:
        """Of `aisformer` no weights are there, and `geometric` would run in its place."""
        args = ["x", "--ros-args", "-p", f"model:={model}", "-p", "device:=gpu"]
        assert run(Segmentation, args) == REFUSED
        error = capfd.readouterr().err
        assert "device gpu: there is no device of that name (take cpu, or cuda:0" in error
        assert "Traceback" not in error

    def test_an_unknown_model_is_an_error_that_lists_the_known(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(Segmentation, ["segmentation", "--ros-args", "-p", "model:=nonesuch"]) == REFUSED
        error = capfd.readouterr().err
        assert "there is no model 'nonesuch'" in error
        assert "geometric" in error

    def test_a_metrics_file_that_cannot_be_written_is_refused_at_the_start(
        self, start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        target = tmp_path / "absent" / "metrics.json"
        args = ["evaluation", "--ros-args", "-p", f"metrics_file:={target}"]
        assert run(Evaluation, args) == REFUSED
        assert str(target.parent) in capfd.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_extrinsics_that_are_no_transform_are_refused(
        self, start: Start, capfd: pytest.CaptureFixture[str]
    ) -> None:
        args = ["x", "--ros-args", "-p", "extrinsics:=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]"]
        assert run(DepthProjection, args) == REFUSED
        assert "quaternion of length 1" in capfd.readouterr().err


class TestUntrustedFiles:
    def test_a_parameter_file_cannot_run_code(
        self, start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        witness = tmp_path / "witness"
        file = tmp_path / "evil.yaml"
        file.write_text(
            "/**:\n  ros__parameters:\n    model: "
            f"!!python/object/apply:os.system ['touch {witness}']\n"
        )
        args = ["segmentation", "--ros-args", "--params-file", str(file)]
        try:
            code = run(Segmentation, args)
        except Exception:
            code = 1
        assert code == 1
        assert not witness.exists()

    def test_no_source_evaluates_text_or_loads_pickles(self, project_root: Path) -> None:
        forbidden = re.compile(
            r"^(eval|exec|pickle\.loads?|yaml\.(load|unsafe_load|full_load)|marshal\.loads?)$"
        )
        calls = []
        for folder in ("amodal_ros", "embedded_ros", "launch"):
            for file in (project_root / folder).rglob("*.py"):
                calls += [
                    f"{file}:{node.lineno}"
                    for node in ast.walk(ast.parse(file.read_text()))
                    if isinstance(node, ast.Call) and forbidden.match(ast.unparse(node.func))
                ]
        assert calls == []
