"""Other processes with nodes of their own, for the tests of embedded_ros."""

from __future__ import annotations

import amodal_ros  # isort: skip - where ROS 2 is not installed, it puts rclpy in place

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import rclpy
from node_bench import PATIENCE

ROOT = Path(amodal_ros.__file__).resolve().parents[1]
PREAMBLE = """
import json, sys
import amodal_ros, rclpy
from rclpy.executors import ExternalShutdownException
def say(value): print(json.dumps(value), flush=True)
"""
if "embedded_ros" not in rclpy.__file__:
    pytest.skip("ROS 2 is installed; embedded_ros stands back", allow_module_level=True)


class Peer:
    """A process that runs Python code and prints JSON lines with say()."""

    preamble = PREAMBLE

    def __init__(self, domain: int, code: str, *args: str) -> None:
        self.process = subprocess.Popen(
            self.command(self.preamble + textwrap.dedent(code), *args),
            env=self.environment(domain),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: queue.Queue = queue.Queue()
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=self._keep_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def environment(self, domain: int) -> dict[str, str]:
        """Its environment variables."""
        return {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": str(ROOT)}

    def command(self, code: str, *args: str) -> list[str]:
        """The command line that runs the code."""
        return [sys.executable, "-c", code, *args]

    def silent(self) -> bool:
        """Whether it has said nothing new."""
        return self._said.empty()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self._said.put(json.loads(line))

    def _keep_errors(self) -> None:
        self.errors.extend(self.process.stderr)

    def hear(self, timeout: float = PATIENCE):
        """The next thing that it says."""
        try:
            return self._said.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(
                f"silent for {timeout} s; stderr: {''.join(self.errors)}"
            ) from None

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def ros(domain):
    """A domain of its own, joined by this process until the test ends; gives the domain id."""
    rclpy.init(args=[])
    yield domain
    rclpy.get_default_context().leave()


def spin_until(node, condition, timeout: float = PATIENCE) -> bool:
    """Run the node's callbacks until the condition holds."""
    clock = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
    end = clock.now().nanoseconds + int(timeout * 1e9)
    while not condition():
        if clock.now().nanoseconds > end:
            return False
        rclpy.spin_once(node, timeout_sec=0.05)
    return True


# Publishes strings; takes its reliability and its durability as numbers.
TALKER = """
from rclpy.qos import QoSProfile
from std_msgs.msg import String
rclpy.init(args=[])
node = rclpy.create_node("talker")
qos = QoSProfile(depth=1000, reliability=int(sys.argv[1]), durability=int(sys.argv[2]))
publisher = node.create_publisher(String, "chat", qos)
for i in range(3):
    publisher.publish(String(data=f"before {i}"))
say("ready")
count = 0
def tick():
    global count
    publisher.publish(String(data=f"then {count}"))
    count += 1
node.create_timer(0.02, tick)
rclpy.spin(node)
"""
