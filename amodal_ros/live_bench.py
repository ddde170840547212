"""A pipeline of real nodes fed with a bag's frames at any rate, and what comes back of them."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import rclpy
from rclpy.executors import SingleThreadedExecutor

from amodal_core.bags.reader import BagReader, RawMessage
from amodal_core.bags.sensors import stamp_of
from amodal_core.drive.topics import (
    DIAGNOSTICS,
    TRACKS,
    DriveTopics,
    Topic,
    find_topics,
)
from amodal_core.errors import InputError
from amodal_core.evaluation.throughput import RunResult
from amodal_ros import lifeline
from amodal_ros.cli.launch import launch_file
from amodal_ros.conversions import message_class
from amodal_ros.domains import own_domain
from amodal_ros.health import NodeState
from amodal_ros.middleware import applied
from amodal_ros.qos import profile
from amodal_ros.running import executor_of

_MOST_FRAMES = 200  # frames of the bag kept in memory; longer runs play them again
_START = 120.0  # seconds that the nodes may take to come up
_STAGES = {"depth_projection", "segmentation", "tracking"}
_SILENCE = 2.0  # seconds without an answer after which the rest counts as missed
_SETTLE = 1.3  # seconds for the nodes' next diagnostics, which come every second
_SAMPLE = 0.1  # seconds between two looks at the memory


class _Frame(NamedTuple):
    """Serialised messages of one image: its scan, calibration and pixels."""

    stamp: int
    messages: tuple[RawMessage, ...]


class LiveBench:
    """Launches the nodes, publishes stamped frames, listens to tracks; use it in a `with` block.

    Frames carry the time at which they are published, so that nothing jumps back when the bag
    begins again.

    Args:
        bag: with a camera, its camera_info and a LiDAR.
        arguments: launch arguments of pipeline.launch.py, NAME:=VALUE.
        log: where the nodes' output goes.
        patience: seconds until the nodes must be ready.

    Raises:
        InputError: no such bag, or the nodes do not come up.
    """

    def __init__(
        self, bag: Path, arguments: Sequence[str], log: Path, patience: float = _START
    ) -> None:
        with BagReader(bag) as reader:
            self._topics = find_topics(reader)
            self._types = {name: t.type for name, t in reader.topics.items()}
            self._frames, self._static = _load(reader, self._topics)
        if not self._frames:
            raise InputError("no image with a scan", str(bag), "check its topics")
        self._arguments, self._log, self._patience = list(arguments), log, patience
        self._sent: dict[int, float] = {}
        self._answers: dict[int, float] = {}
        self._states: dict[str, NodeState] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> LiveBench:
        with contextlib.ExitStack() as ending:
            # Other graphs on this machine neither hear nor disturb this one.
            ending.enter_context(own_domain())
            # What publishes the scans needs the settings, too, not only the nodes.
            ending.enter_context(applied(launch_file("pipeline").parents[1] / "config"))
            self._start(ending)
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def _start(self, ending: contextlib.ExitStack) -> None:
        """Bring up this node and those under test; what ends them goes on the stack."""
        rclpy.init()
        self._node = rclpy.create_node("live_bench")
        self._outputs: dict[str, Any] = {}
        topics = self._topics
        for name in (topics.points, topics.camera_info, topics.image):
            self._outputs[name] = self._node.create_publisher(
                message_class(self._types[name]), name, profile("reliable", lossless=True)
            )
        for raw in self._static:
            self._outputs[raw.topic] = self._node.create_publisher(
                message_class(self._types[raw.topic]), raw.topic, profile("latched_tf")
            )
        self._tracks = self._node.create_subscription(
            message_class(TRACKS.type), TRACKS.bag_name, self._answered, profile(TRACKS.qos)
        )
        self._node.create_subscription(
            message_class(DIAGNOSTICS.type),
            DIAGNOSTICS.name,
            self._diagnosed,
            profile(DIAGNOSTICS.qos),
        )
        executor = SingleThreadedExecutor()
        executor.add_node(self._node)
        self._thread = threading.Thread(target=executor_of(executor), daemon=True)
        self._thread.start()
        ending.callback(self._leave)
        remaps = {
            "image": topics.image,
            "camera_info": topics.camera_info,
            "points": topics.points,
        }
        start = "from amodal_ros.cli.main import main; main()"
        command = [sys.executable, "-c", start, "launch", "pipeline"]
        command += [*(f"{k}:={v}" for k, v in remaps.items()), "use_sim_time:=false"]
        self._process = subprocess.Popen(
            [*command, *self._arguments],
            stdout=ending.enter_context(self._log.open("w")),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Where this process is killed, the launch ends, and its nodes with it.
            env={**os.environ, lifeline.LAUNCH: lifeline.mark()},
        )
        ending.callback(self._end_nodes)
        self._wait()
        for raw in self._static:
            self._outputs[raw.topic].publish(bytes(raw.data))

    def _end_nodes(self) -> None:
        """Interrupt the launch; kill what has not ended 20 s later, or outlives it."""
        nodes = self._nodes()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        for node in nodes:
            with contextlib.suppress(psutil.NoSuchProcess):
                node.kill()
        self._process.kill()
        self._process.wait()

    def _leave(self) -> None:
        rclpy.try_shutdown()
        self._thread.join(2.0)
        self._node.destroy_node()

    def run(self, rate: float, seconds: float) -> RunResult:
        """Publish frames at a rate for so many seconds, and wait for the last answers."""
        count = max(2, round(rate * seconds))
        with self._lock:
            self._sent.clear()
            self._answers.clear()
            before = {node: Counter(state.drops) for node, state in self._states.items()}
        usage = _Usage(self._nodes())
        begin = time.monotonic()
        last = begin
        for k in range(count):
            due = begin + k / rate
            time.sleep(max(0.0, due - time.monotonic()))
            last = self._publish(self._frames[k % len(self._frames)])
        self._drain()
        cpu, memory = usage.stop()
        time.sleep(_SETTLE)
        if self._process.poll() is not None:
            raise InputError(
                f"the nodes ended with code {self._process.returncode}", str(self._log), "see there"
            )
        with self._lock:
            took = [
                (at - self._sent[s]) * 1e3 for s, at in self._answers.items() if s in self._sent
            ]
            times = sorted(at for s, at in self._answers.items() if s in self._sent)
            drops = {
                f"{node.rsplit('/', 1)[-1]}: {reason}": n
                for node, state in self._states.items()
                for reason, n in (Counter(state.drops) - before.get(node, Counter())).items()
            }
        return RunResult(
            rate=rate,
            sent=count,
            answered=len(took),
            published_hz=_hz(count, last - begin),
            answered_hz=_hz(len(times), times[-1] - times[0]) if len(times) > 1 else 0.0,
            latencies_ms=np.array(took),
            drops=drops,
            cpu=cpu,
            memory_mb=memory,
        )

    def memory(self) -> dict[str, Counter[str]]:
        """Kilobytes of each node's process now, by node: /proc/PID/smaps_rollup."""
        sizes: dict[str, Counter[str]] = {}
        for process in self._nodes():
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                lines = (line.split() for line in text.splitlines()[1:])
                own = sizes.setdefault(_name(process), Counter())
                own.update({words[0].rstrip(":"): int(words[1]) for words in lines})
        return sizes

    def processes(self) -> dict[str, psutil.Process]:
        """The processes of the launch by their nodes' names; several nodes: by the executable."""
        named: dict[str, psutil.Process] = {}
        for process in self._nodes():
            with contextlib.suppress(psutil.NoSuchProcess):
                named[_name(process)] = process
        return named

    def states(self) -> dict[str, NodeState]:
        """What the nodes last said of themselves, by their full names."""
        with self._lock:
            return dict(self._states)

    def kill(self) -> None:
        """End the launch as a full memory would; what becomes of its nodes is their affair."""
        self._process.kill()
        self._process.wait()

    def listen(self, topic: Topic) -> None:
        """Subscribe to what is made only while somebody listens; the messages are dropped."""
        kind = message_class(topic.type)
        self._node.create_subscription(kind, topic.bag_name, lambda _: None, profile(topic.qos))

    def _publish(self, frame: _Frame) -> float:
        """Publish a frame with the present time as its stamp; when that was."""
        stamp, at = time.time_ns(), time.monotonic()
        with self._lock:
            self._sent[stamp] = at
        for raw in frame.messages:
            shift = stamp - frame.stamp
            self._outputs[raw.topic].publish(_restamped(raw, shift))
        return at

    def _drain(self) -> None:
        """Wait until all frames are answered, or no answer comes any more."""
        before, since = -1, time.monotonic()
        while True:
            with self._lock:
                answered, complete = len(self._answers), len(self._answers) >= len(self._sent)
            if complete or time.monotonic() - since > _SILENCE:
                return
            if answered != before:
                before, since = answered, time.monotonic()
            time.sleep(0.02)

    def _wait(self) -> None:
        """Wait until the stages are active and what they subscribe to is connected."""
        deadline = time.monotonic() + self._patience
        while not self._connected():
            if self._process.poll() is not None:
                raise InputError(
                    f"the nodes ended with code {self._process.returncode}",
                    str(self._log),
                    "see there, or try `amodal launch pipeline`",
                )
            if time.monotonic() > deadline:
                raise InputError(
                    f"the nodes are not ready after {self._patience:g} s",
                    str(self._log),
                    "see there",
                )
            time.sleep(0.05)

    def _connected(self) -> bool:
        """Whether all stages are active and matched: in a process a topic is subscribed to once."""
        with self._lock:
            states = dict(self._states)
        active = {name.rsplit("/", 1)[-1] for name, state in states.items() if state.inputs}
        if not active >= _STAGES or not self._tracks.get_publisher_count():
            return False
        for name in (self._topics.image, self._topics.camera_info, self._topics.points):
            names = {name, name.removesuffix("/compressed")}
            processes = {s.process for s in states.values() if names.intersection(s.inputs)}
            if self._outputs[name].get_subscription_count() < len(processes):
                return False
        return True

    def _answered(self, message: Any) -> None:
        now = time.monotonic()
        with self._lock:
            self._answers.setdefault(stamp_of(message.header), now)

    def _diagnosed(self, message: Any) -> None:
        with self._lock:
            for status in message.status:
                state = NodeState.read({v.key: v.value for v in status.values})
                if state is not None:
                    self._states[status.name] = state

    def _nodes(self) -> list[psutil.Process]:
        try:
            return list(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []


class _Usage:
    """CPU and memory of processes from its making until `stop`."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._begin = time.monotonic()
        self._cpu: dict[psutil.Process, float] = {}
        self._peak: dict[psutil.Process, float] = {}
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._cpu[process] = sum(process.cpu_times()[:2])
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[dict[str, float], dict[str, float]]:
        """Share of a core, and largest resident megabytes, by node."""
        self._done.set()
        self._thread.join()
        took = time.monotonic() - self._begin
        cpu: dict[str, float] = defaultdict(float)
        memory: dict[str, float] = defaultdict(float)
        for process, before in self._cpu.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                name = _name(process)
                cpu[name] += (sum(process.cpu_times()[:2]) - before) / took
                memory[name] += self._peak.get(process, 0.0)
        return dict(cpu), dict(memory)

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE):
            for process in self._cpu:
                with contextlib.suppress(psutil.NoSuchProcess):
                    used = process.memory_info().rss / 2**20
                    self._peak[process] = max(self._peak.get(process, 0.0), used)


def _name(process: psutil.Process) -> str:
    """The node's name from its command line, or that of the executable of several."""
    command = process.cmdline()
    for argument in command:
        if argument.startswith("__node:="):
            return argument.removeprefix("__node:=")
        if argument.endswith("perception"):
            return "perception"
    return str(process.name())


def _load(reader: BagReader, topics: DriveTopics) -> tuple[list[_Frame], list[RawMessage]]:
    """The bag's frames, each image with the scan nearest in time, and its static transforms."""
    wanted = [topics.image, topics.camera_info, topics.points]
    static = [t.name for t in reader.topics.values() if t.latched and "TFMessage" in t.type]
    sensors: dict[str, list[RawMessage]] = {name: [] for name in wanted}
    transforms = []
    limit = _MOST_FRAMES * len(wanted) + 50
    for raw in islice(reader.raw_messages([*wanted, *static]), limit):
        if raw.topic in sensors:
            sensors[raw.topic].append(raw)
        else:
            transforms.append(raw)
    infos = {_stamp(raw): raw for raw in sensors[topics.camera_info]}
    newest = next(reversed(infos.values()), None)
    scans = np.array([_stamp(raw) for raw in sensors[topics.points]], np.int64)
    frames = []
    for raw in sensors[topics.image][:_MOST_FRAMES]:
        stamp = _stamp(raw)
        info = infos.get(stamp, newest)
        if info is not None and len(scans):
            scan = sensors[topics.points][int(np.abs(scans - stamp).argmin())]
            frames.append(_Frame(stamp, (scan, info, raw)))
    return frames, transforms


def _header(raw: RawMessage) -> struct.Struct:
    """Layout of the stamp of the std_msgs/Header that a message begins with, at byte 4."""
    return struct.Struct("<iI" if raw.data[1] & 1 else ">iI")


def _stamp(raw: RawMessage) -> int:
    sec, nanosec = _header(raw).unpack_from(raw.data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def _restamped(raw: RawMessage, shift: int) -> bytes:
    """The message with its stamp moved by nanoseconds."""
    data = bytearray(raw.data)
    _header(raw).pack_into(data, 4, *divmod(_stamp(raw) + shift, 1_000_000_000))
    return bytes(data)


def _hz(count: int, seconds: float) -> float:
    return (count - 1) / seconds if seconds > 0 else 0.0
