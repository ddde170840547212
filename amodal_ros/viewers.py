"""Viewers in the process of the stages: what goes wrong in them costs no stage a frame.

An overlay that cannot start, or fails with every frame, is started again a few times and then left
alone. A crash of C code below one still ends the process; `single_process:=false` keeps them apart.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from amodal_ros.base_node import BaseNode, start
from amodal_ros.restarts import LIMIT, Restarts

STUCK = 10  # exceptions without a frame between them after which a viewer is started anew
_CONDITION = "viewer"


class Viewers:
    """Starts viewers, and those that fail again.

    Args:
        nodes: viewers of this process.
        clock: seconds, monotonic.
    """

    def __init__(
        self, nodes: Sequence[BaseNode], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nodes = [node for node in nodes if node.value("autostart")]
        self._clock = clock
        self._restarts = {node: Restarts(clock) for node in self._nodes}
        self._due: dict[Any, float] = {}

    def start(self) -> None:
        """Start them; one that cannot is tried again later."""
        for node in self._nodes:
            self._start(node)

    def look(self) -> None:
        """Start again what has failed, when its time has come; to be called about every second."""
        for node in self._nodes:
            due = self._due.get(node)
            if due is None and node.failing >= STUCK:
                for step in (node.trigger_deactivate, node.trigger_cleanup):
                    # rclpy's error, in a state from which there is no such step.
                    with contextlib.suppress(Exception):
                        step()
                self._failed(node, f"{node.failing} exceptions in a row")
            elif due is not None and self._clock() >= due:
                self._start(node)

    def _start(self, node: BaseNode) -> None:
        self._due.pop(node, None)
        node.failing = 0
        if start([node]):
            node.health.condition(_CONDITION, "")
        else:
            self._failed(node, "it cannot start")

    def _failed(self, node: BaseNode, why: str) -> None:
        restarts = self._restarts[node]
        delay = restarts.delay()
        if delay is not None:
            self._due[node] = self._clock() + delay
            self._say(node, f"{why}: restart {restarts.count} of {LIMIT} in {delay:g} s")
            return
        self._due[node] = float("inf")
        self._say(node, f"{why}: given up after {LIMIT} restarts")
        # None of its callbacks, which may fail for ever, is called again.
        node.tell_health()
        if node.executor is not None:
            node.executor.remove_node(node)

    def _say(self, node: BaseNode, text: str) -> None:
        text = f"{text}; the other stages go on"
        node.health.condition(_CONDITION, text)
        node.get_logger().error(text)
