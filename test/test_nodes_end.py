"""How a node ends: an interrupt lets it finish, and a second one does not cut that short."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import rclpy

from amodal_ros.base_node import BaseNode
from amodal_ros.declarations import Declaration
from amodal_ros.domains import own_domain
from amodal_ros.running import interrupted, run, spin

pytestmark = pytest.mark.dds


class Impatient(BaseNode):
    """Is interrupted while it runs, and again while it ends."""

    declaration = Declaration(name="impatient", purpose="Ends.")
    finished = False

    def on_activate(self, state):
        """Ask for the first interrupt."""
        self.create_timer(0.05, lambda: signal.raise_signal(signal.SIGINT))
        return super().on_activate(state)

    def finish(self) -> None:
        """The second interrupt comes before the work is done."""
        signal.raise_signal(signal.SIGINT)
        type(self).finished = True


@pytest.fixture
def usual():
    """SIGINT does what it does in a process that has just begun."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_second_interrupt_does_not_cut_the_end_short_and_leaves_nothing_behind(usual):
    for _ in range(2):
        Impatient.finished = False
        with own_domain():
            assert run(Impatient, []) == 0
        assert Impatient.finished
        assert signal.getsignal(signal.SIGINT) is usual
        # Nor is anything left that the next one to stop would put back.
        with own_domain():
            rclpy.init(args=[])
            rclpy.shutdown()
        assert signal.getsignal(signal.SIGINT) is usual


@pytest.mark.skipif("embedded_ros" not in rclpy.__file__, reason="ROS 2 has handlers of its own")
def test_a_handler_that_is_put_back_after_its_context_does_not_call_itself(usual):
    with own_domain():
        rclpy.init(args=[])
        ours = signal.getsignal(signal.SIGINT)
        rclpy.shutdown()
        signal.signal(signal.SIGINT, ours)
        rclpy.init(args=[])
        try:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        finally:
            rclpy.try_shutdown()


DEAF = """
import amodal_ros, time
from amodal_ros.base_node import BaseNode
from amodal_ros.running import run, spin
from amodal_ros.declarations import Declaration

class Deaf(BaseNode):
    declaration = Declaration(name="deaf", purpose="Loads for long.")
    def configure(self):
        try:
            print("loading", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(60)  # a compiler that swallows it

raise SystemExit(run(Deaf, []))
"""


def test_an_interrupt_ends_a_node_that_still_loads_though_the_loader_swallows_it():
    with own_domain() as domain:
        node = subprocess.Popen(
            [sys.executable, "-c", DEAF],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Under nohup and in the background of a script it would inherit that SIGINT is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert node.stdout is not None
            assert node.stdout.readline() == "loading\n"
            begin = time.monotonic()
            node.send_signal(signal.SIGINT)
            _, said = node.communicate(timeout=30)
        finally:
            node.kill()
    assert node.returncode == 0, said
    assert time.monotonic() - begin < 20
    assert "interrupted while it started" in said


def test_a_shutdown_just_before_the_executor_waits_is_an_end_like_any_other(domain):
    """rclpy's own words; an error of a callback of none of our nodes stays one."""
    text = "failed to initialize wait set: the given context is not valid, either rcl_init()"
    spin(SimpleNamespace(spin=Mock(side_effect=RuntimeError(text))))
    rclpy.init(args=[])
    try:
        failing = Mock(side_effect=RuntimeError("of a callback"))
        with pytest.raises(RuntimeError, match="of a callback"):
            spin(SimpleNamespace(spin=failing, get_nodes=list))
    finally:
        rclpy.try_shutdown()


def test_an_error_of_an_interrupt_is_told_by_the_shutdown_that_follows(domain):
    rclpy.init(args=[])
    try:
        assert not interrupted(0.05)
        threading.Timer(0.2, rclpy.shutdown).start()
        assert interrupted(10.0)
    finally:
        rclpy.try_shutdown()
