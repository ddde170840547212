"""What fails while a vehicle drives is started again, and takes nothing else along."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from node_bench import until

import amodal_ros
from amodal_core.drive.topics import Topic
from amodal_ros import lifeline, restarts, running
from amodal_ros.base_node import BaseNode
from amodal_ros.declarations import Declaration
from amodal_ros.doubles import Doubles
from amodal_ros.frame_node import FrameNode
from amodal_ros.health import HOST
from amodal_ros.restarts import LIMIT, WINDOW, Restarts
from amodal_ros.running import run_together
from amodal_ros.viewers import STUCK, Viewers

ROOT = Path(amodal_ros.__file__).resolve().parents[1]


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_fails_again_and_again_is_waited_for_longer_and_then_given_up() -> None:
    clock = Clock()
    failing = Restarts(clock)
    assert [failing.delay() for _ in range(LIMIT + 2)] == [1, 2, 4, 8, 16, None, None]
    clock.now += WINDOW + 1
    assert (failing.delay(), failing.count) == (1, 1)


class Stage(BaseNode):
    """Works, ten times a tenth of a second."""

    declaration = Declaration(name="stage", purpose="Works.")
    ticks = 0
    raises = False

    def on_activate(self, state: Any) -> Any:
        self.create_timer(0.01, self.work)
        return super().on_activate(state)

    def work(self) -> None:
        """A turn of it."""
        self.ticks += 1
        if self.raises:
            raise ZeroDivisionError("the stage's own")


class View(FrameNode):
    """Cannot start, or fails in a timer or with its frames, as a test says."""

    declaration = Declaration(name="view", purpose="Looks on.", viewer=True)
    configured = 0
    fails: str = ""

    def configure(self) -> None:
        """Is called at each start."""
        self.configured += 1
        if self.fails == "start":
            raise RuntimeError("no screen")
        if self.configured == 1 and self.fails == "timer":
            self.create_timer(0.01, self.draw)

    def draw(self) -> None:
        """A timer's callback, which lifecycle steps do not end."""
        raise ZeroDivisionError("of the viewer")

    def on_message(self, topic: Topic, stamp: int, message: Any) -> None:
        """Never called: the view subscribes to nothing."""

    def process(self, stamp: int, item: Any) -> None:
        """A frame."""
        raise ZeroDivisionError(f"of frame {stamp}")


class Running:
    """`run_together` in a thread, as a process's main would run it."""

    def __init__(self, *nodes: type[BaseNode]) -> None:
        self.nodes: list[Any] = []
        self.codes: list[int] = []
        self.error: type[BaseException] | None = None  # its traceback would keep the nodes
        self._kinds = nodes
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: len(self.nodes) == len(nodes), "the nodes")

    def _run(self) -> None:
        try:
            self.codes.append(run_together(self._make, []))
        except BaseException as error:
            self.error = type(error)

    def _make(self) -> Iterator[BaseNode]:
        for kind in self._kinds:
            self.nodes.append(kind())
            yield self.nodes[-1]

    def close(self) -> list[int]:
        """End them; the exit code."""
        rclpy.try_shutdown()
        self._thread.join(20)
        return self.codes


@pytest.fixture
def running_nodes(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Starts nodes, whose viewers are looked at and restarted in hundredths of a second."""
    monkeypatch.setattr(running, "_LOOK_AT_VIEWERS", 0.02)
    monkeypatch.setattr(restarts, "_FIRST", 0.01)
    started: list[Running] = []

    def start(*nodes: type[BaseNode]) -> Running:
        started.append(Running(*nodes))
        return started[-1]

    yield start
    for each in started:
        each.close()
        each.nodes.clear()


@pytest.mark.dds
class TestViewersInTheProcessOfTheStages:
    @pytest.mark.parametrize(
        ("fails", "why"),
        [("start", "it cannot start"), ("timer", "exceptions in a row")],
    )
    def test_a_viewer_that_fails_for_ever_is_given_up_and_the_stage_goes_on(
        self,
        running_nodes: Callable[..., Running],
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        fails: str,
        why: str,
    ) -> None:
        monkeypatch.setattr(View, "fails", fails)
        both = running_nodes(Stage, View)
        stage, view = both.nodes
        said = view.health._conditions.get
        until(lambda: "given up" in said("viewer", ""), "the end of its restarts")
        assert view.configured == 1 + LIMIT
        ticks = stage.ticks
        until(lambda: stage.ticks > ticks + 20, "the stage to go on")
        errors = view.health.errors
        assert errors == 0 if fails == "start" else errors >= STUCK * (LIMIT + 1)
        until(lambda: stage.ticks > ticks + 40, "the stage to go on")
        assert view.health.errors == errors
        assert stage.health.errors == 0
        assert both.close() == [0]
        log = capfd.readouterr().err
        assert log.count("given up after 5 restarts; the other stages go on") == 1
        assert log.count("restart 3 of 5 in 0.04 s") == 1
        assert why in log

    def test_frames_that_fail_restart_the_viewer_and_one_that_goes_well_counts_anew(
        self, running_nodes: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = running_nodes(Stage, View)
        stage, view = both.nodes
        until(lambda: stage.ticks and view._worker is not None, "both")
        for stamp in range(STUCK - 1):
            view._caught((stamp, None), ZeroDivisionError())
        assert view.failing == STUCK - 1
        monkeypatch.setattr(View, "process", lambda self, stamp, item: None)
        view.submit(1, None)
        until(lambda: view.failing == 0, "a frame that goes well")
        assert view.configured == 1
        for stamp in range(STUCK):
            view._caught((stamp, None), ZeroDivisionError())
        until(lambda: view.configured == 2 and view._worker is not None, "the restart")
        until(lambda: "viewer" not in view.health._conditions, "that it is well again")
        assert both.close() == [0]

    def test_a_stage_whose_callback_fails_goes_on_and_one_that_fails_for_ever_ends_the_process(
        self,
        running_nodes: Callable[..., Running],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        alone = running_nodes(Stage)
        (stage,) = alone.nodes
        until(lambda: stage.ticks > 5, "work")
        stage.raises = True
        until(lambda: stage.health.errors >= 2, "exceptions")
        stage.raises = False
        ticks = stage.ticks
        until(lambda: stage.ticks > ticks + 20, "the stage to go on")
        assert "a callback: ZeroDivisionError: the stage's own" in capfd.readouterr().err
        stage.raises = True
        until(lambda: alone.error is not None, "the end")
        assert alone.error is ZeroDivisionError


def test_a_viewer_that_a_lifecycle_manager_leads_is_left_to_it() -> None:
    class Led:
        def value(self, name: str) -> bool:
            return {"autostart": False}[name]

    viewers = Viewers([Led()])  # type: ignore[list-item]
    viewers.start()
    viewers.look()


FOLLOWER = """
import amodal_ros, sys
from pathlib import Path
from amodal_ros.base_node import BaseNode
from amodal_ros.declarations import Declaration
from amodal_ros.frame_node import FrameNode
from amodal_ros.running import run

class Follower(BaseNode):
    declaration = Declaration(name="follower", purpose="Ends with its launch.")
    def on_activate(self, state):
        result = super().on_activate(state)
        Path(sys.argv[1], "runs").write_text("")
        return result
    def finish(self):
        print("nobody reads this", flush=True)
        Path(sys.argv[1], "finished").write_text("")

raise SystemExit(run(Follower, ["follower"]))
"""
LAUNCHER = """
import os, subprocess, sys, time
from amodal_ros import lifeline
os.environ[lifeline.LAUNCH] = lifeline.mark()
# A shell between the two, as `prefix` of a launch puts one there: the node is no child of it.
node = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-c", sys.argv[1], sys.argv[2]]
child = subprocess.Popen(node, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for has, too."""
    return not lifeline._began(pid)


@pytest.mark.dds
def test_a_node_finishes_and_ends_when_its_launch_is_killed(domain: int, tmp_path: Path) -> None:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(ROOT)}
    launch = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, FOLLOWER, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert launch.stdout is not None
        child = int(launch.stdout.readline())
        until((tmp_path / "runs").exists, "the node")
        assert not gone(child)
        launch.kill()
        until(lambda: gone(child), "the node to end", timeout=14.0)
        assert (tmp_path / "finished").exists()
    finally:
        launch.kill()
        launch.wait()
    # One that comes after its launch has gone says so and does not begin.
    late = subprocess.run(
        [sys.executable, "-c", FOLLOWER, str(tmp_path)],
        env={**environment, lifeline.LAUNCH: f"{launch.pid}:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert late.returncode == 1
    assert "the launch that started this node has gone" in late.stderr


def test_a_process_that_no_launch_started_follows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    for value in ("", "nonsense", "1", f"{os.getpid()}:"):
        monkeypatch.setenv(lifeline.LAUNCH, value)
        lifeline.follow()
    assert threading.active_count() == before
    # Another process of that number, which the kernel has given again, is not the launch.
    monkeypatch.setenv(lifeline.LAUNCH, f"{os.getpid()}:1")
    with pytest.raises(SystemExit, match="has gone"):
        lifeline.follow()


@pytest.mark.dds
class TestTwoGraphsOnTheSameNames:
    def test_the_other_is_named_once_with_its_process_and_host_and_forgotten_when_it_ends(
        self, domain: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        rclpy.init(args=[])
        elsewhere = rclpy.Context()
        rclpy.init(args=[], context=elsewhere)
        node = Stage()
        twin = rclpy.create_node("stage", context=elsewhere, use_global_arguments=False)
        voice = twin.create_publisher(DiagnosticArray, "/diagnostics", 10)
        clock = Clock()
        doubles = Doubles([node], "123", clock)

        def look() -> dict[str, str]:
            doubles.look()
            if doubles._listening is not None:
                voice.publish(diagnosis(HOST, "123"))
                voice.publish(diagnosis("elsewhere", "7"))
            rclpy.spin_once(node, timeout_sec=0.02)
            return node.health._conditions

        try:
            until(lambda: "two nodes of one name" in look(), "the other", timeout=60.0)
            text = node.health._conditions["two nodes of one name"]
            assert text == "/stage runs in process 7 on elsewhere, too"
            for _ in range(5):
                look()
            lines = [x for x in capfd.readouterr().err.splitlines() if "on the network twice" in x]
            assert len(lines) == 1
            assert "process 7 on elsewhere" in lines[0]
            assert "namespace:=" in lines[0]
            twin.destroy_node()
            until(lambda: "two nodes of one name" not in look(), "its end", timeout=60.0)
            assert doubles._listening is None
        finally:
            twin.destroy_node()
            node.destroy_node()
            rclpy.shutdown(context=elsewhere)
            rclpy.try_shutdown()

    def test_a_name_that_stays_for_a_while_after_a_crash_is_no_double(self, domain: int) -> None:
        """What was killed stays on the network for up to 20 s, and says nothing."""
        clock = Clock()

        class Asked:
            get_fully_qualified_name = staticmethod(lambda: "/amodal/stage")
            create_subscription = staticmethod(lambda *args: "subscription")
            destroy_subscription = staticmethod(lambda subscription: None)

        said: list[str] = []
        lines: list[str] = []
        names = [("stage", "/amodal"), ("stage", "/amodal"), ("stage", "/other")]
        asked: Any = Asked()
        asked.get_node_names_and_namespaces = lambda: names
        asked.health = SimpleNamespace(condition=lambda key, text: said.append(text))
        asked.get_logger = lambda: SimpleNamespace(error=lines.append)
        doubles = Doubles([asked], "1", clock)
        for clock.now in (0.0, 10.0, 20.0):
            doubles.look()
        assert (set(said), lines) == ({""}, [])
        clock.now = 31.0
        doubles.look()
        assert said[-1] == "/amodal/stage runs in another process, too"
        assert len(lines) == 1
        del names[0]
        doubles.look()
        assert said[-1] == ""


def diagnosis(host: str, process: str) -> Any:
    """What a node says of itself."""
    status = DiagnosticStatus(
        name="/stage",
        hardware_id=host,
        values=[KeyValue(key="process", value=process)],
    )
    return DiagnosticArray(status=[status])
