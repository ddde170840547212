"""Faults of whole processes: a launch whose nodes are stopped, killed, doubled or left alone."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from amodal_core.drive.topics import DIAGNOSTICS
from amodal_core.evaluation.throughput import RunResult
from amodal_ros.health import HOST, PROCESS
from amodal_ros.live_bench import LiveBench
from amodal_ros.qos import profile

ARGUMENTS = ["single_process:=false", "model:=geometric", "overlay:=true", "evaluation:=true"]
RATE = 1.0  # frames a second: what is lost is to be the fault's, not the machine's
STOPPED = 2.0  # seconds that a node stands still
OVERLOAD = "overload"  # a reason of drops
_LATE = 5.0  # seconds by which diagnostics may be late
_BACK = 300.0  # seconds until every frame is answered again; a loaded machine starts slowly
_ENDED = 60.0  # seconds that the nodes of a killed launch may take to end, loaded as it may be


@dataclass(frozen=True)
class ProcessFault:
    """A row of docs/reliability.md.

    Attributes:
        name: what is wrong.
        promise: what the stack answers.
        during: a block around the frames that it is injected into.
        lost: whether frames may be lost while it lasts.
        condition: of a node's diagnostics that must be said, "" for none.
    """

    name: str
    promise: str
    during: Callable[[LiveBench], Any]
    lost: bool = True
    condition: str = ""


@dataclass
class Seen:
    """What became of the frames, and how long the next ones had to wait.

    Attributes:
        sent: frames while the fault lasted.
        lost: those of them without an answer.
        back: seconds until every frame of a second was answered again; None for never.
        said: whether the condition was.
    """

    sent: int
    lost: int
    back: float | None
    said: bool = True


def _stopped(node: str) -> Callable[[LiveBench], Any]:
    """SIGSTOP, and SIGCONT later."""

    @contextmanager
    def during(bench: LiveBench) -> Iterator[None]:
        process = bench.processes()[node]
        process.suspend()
        resume = threading.Timer(STOPPED, process.resume)
        resume.start()
        try:
            yield
        finally:
            resume.join()

    return during


def _killed(node: str) -> Callable[[LiveBench], Any]:
    """kill -9."""

    @contextmanager
    def during(bench: LiveBench) -> Iterator[None]:
        bench.processes()[node].kill()
        yield

    return during


@contextmanager
def _doubled(bench: LiveBench) -> Iterator[None]:
    """Another process's node of a name of ours, which says so in its diagnostics."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node(
        "tracking", namespace="/amodal", context=context, use_global_arguments=False
    )
    try:
        voice = node.create_publisher(DiagnosticArray, DIAGNOSTICS.name, profile(DIAGNOSTICS.qos))
        own = [KeyValue(key=PROCESS, value=str(os.getpid()))]
        status = DiagnosticStatus(name="/amodal/tracking", hardware_id=HOST, values=own)
        end = time.monotonic() + 45
        while not _says(bench, "two nodes of one name") and time.monotonic() < end:
            voice.publish(DiagnosticArray(status=[status]))
            time.sleep(0.5)
        yield
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@contextmanager
def _nameless(bench: LiveBench) -> Iterator[None]:
    """A participant whose node has a name that is no text; none where Cyclone DDS is missing."""
    if importlib.util.find_spec("cyclonedds") is None:
        yield
        return
    from embedded_ros import dds, interfaces
    from embedded_ros.rclpy.qos import QoSProfile, to_dds

    participant = dds.create_participant(int(os.environ.get("ROS_DOMAIN_ID", "0")))
    kind = "rmw_dds_common/msg/ParticipantEntitiesInfo"
    info = interfaces.message("rmw_dds_common/msg/NodeEntitiesInfo")
    gid = interfaces.message("rmw_dds_common/msg/Gid")(data=list(participant.guid.bytes))
    made = interfaces.message(kind)(
        gid=gid, node_entities_info_seq=[info(node_namespace="/", node_name="???")]
    )
    writer = dds.Writer(
        participant, "ros_discovery_info", kind, to_dds(QoSProfile(depth=1, durability=1), "")
    )
    try:
        writer.write(bytes(interfaces.serialize(made)).replace(b"???", b"\xff\xfe\xfd"))
        yield
    finally:
        dds.delete(participant._ref)


def _says(bench: LiveBench, condition: str) -> bool:
    return any(condition in state.wrong for state in bench.states().values())


STAGES = ("depth_projection", "segmentation", "tracking")
PROCESS_FAULTS = [
    *(
        ProcessFault(
            f"{node} is stopped for {STOPPED:g} s (SIGSTOP, SIGCONT)",
            "it goes on where it was; the next frames are answered",
            _stopped(node),
        )
        for node in STAGES
    ),
    *(
        ProcessFault(
            f"{node} is killed (kill -9)",
            "started again; the next frames are answered",
            _killed(node),
        )
        for node in STAGES
    ),
    *(
        ProcessFault(
            f"{node} is killed (kill -9)", "started again; no frame is lost", _killed(node), False
        )
        for node in ("overlay", "track_points", "evaluation")
    ),
    ProcessFault(
        "a second node of a name of ours",
        "said in the diagnostics, with process and host; no frame is lost",
        _doubled,
        False,
        "two nodes of one name",
    ),
    ProcessFault(
        "a participant whose node's name is no text",
        "passed over; no frame is lost",
        _nameless,
        False,
    ),
]
LAUNCH_KILLED = "the launch is killed (kill -9)", "its nodes end themselves"


def play(bench: LiveBench, fault: ProcessFault, seconds: float = 6.0) -> Seen:
    """Frames while the fault lasts; then more, until all of a second are answered."""
    with fault.during(bench):
        run, lost = _run(bench, seconds)
        said = not fault.condition or _says(bench, fault.condition)
    begin, back = time.monotonic(), None
    while back is None and time.monotonic() - begin < _BACK:
        at = time.monotonic()
        if not _run(bench, 1.0)[1]:
            back = at - begin
    return Seen(run.sent, lost, back, said)


def _run(bench: LiveBench, seconds: float) -> tuple[RunResult, int]:
    """A run, and its frames without an answer but for those that were given up for newer ones.

    A loaded machine gives up frames, and says so late.
    """
    before = {name: state.drops.get(OVERLOAD, 0) for name, state in bench.states().items()}
    run = bench.run(RATE, seconds)
    end = time.monotonic() + _LATE
    while True:
        drops = {name: state.drops.get(OVERLOAD, 0) for name, state in bench.states().items()}
        given_up = sum(max(0, n - before.get(name, 0)) for name, n in drops.items())
        lost = max(0, run.sent - run.answered - given_up)
        if not lost or time.monotonic() > end:
            return run, lost
        time.sleep(0.2)


def judge(fault: ProcessFault, seen: Seen) -> str:
    """What of the promise was not kept, "" where all was."""
    wrong = []
    if seen.lost and not fault.lost:
        wrong.append(f"{seen.lost} of {seen.sent} frames lost")
    if seen.back is None:
        wrong.append("frames were not answered any more")
    if not seen.said:
        wrong.append(f"not said: {fault.condition}")
    return "; ".join(wrong)


def kill_launch(bench: LiveBench) -> tuple[float, list[str]]:
    """Kill the launch; seconds until its nodes had ended, and which did not."""
    nodes = bench.processes()
    bench.kill()
    begin = time.monotonic()
    left = dict(nodes)
    while left and time.monotonic() - begin < _ENDED:
        left = {n: p for n, p in left.items() if p.is_running() and p.status() != "zombie"}
        time.sleep(0.1)
    for process in left.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    return time.monotonic() - begin, sorted(left)
