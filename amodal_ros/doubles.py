"""Two graphs on the same names: noticed and said, since both answer every frame."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray

from amodal_core.drive.topics import DIAGNOSTICS
from amodal_ros.base_node import BaseNode
from amodal_ros.health import HOST, PROCESS
from amodal_ros.qos import profile

# Seconds after which another node of the name is there for certain, though it says nothing: one
# that was killed stays on the network until its lease has run out, 10 to 20 s.
_CERTAIN = 30.0
_CONDITION = "two nodes of one name"
_CURE = "end one of the launches, or give it a namespace:= or a ROS_DOMAIN_ID of its own"


class Doubles:
    """Looks for other nodes of the names of this process's; see `look`.

    Args:
        nodes: of this process.
        process: its number, as its diagnostics give it.
        clock: seconds, monotonic.
    """

    def __init__(
        self, nodes: Sequence[BaseNode], process: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nodes = {node.get_fully_qualified_name(): node for node in nodes}
        self._asks = nodes[0]
        self._own = HOST, process
        self._clock = clock
        self._since: dict[str, float] = {}
        self._others: dict[str, set[str]] = {}  # who else has a node of the name
        self._listening: Any = None
        self._said = ""

    def look(self) -> None:
        """Say which names are there twice, once; to be called every few seconds."""
        counts = Counter(
            f"{namespace.rstrip('/')}/{name}"
            for name, namespace in self._asks.get_node_names_and_namespaces()
        )
        twice = [name for name in self._nodes if counts[name] > 1]
        now = self._clock()
        self._since = {name: self._since.get(name, now) for name in twice}
        self._listen(bool(twice))
        certain = [n for n in twice if n in self._others or now - self._since[n] >= _CERTAIN]
        for name, node in self._nodes.items():
            text = f"{name} runs in {self._where([name])}, too" if name in certain else ""
            node.health.condition(_CONDITION, text)
        line = ""
        if certain:
            line = f"{', '.join(certain)}: on the network twice, in {self._where(certain)}, too"
        if line and line != self._said:
            self._asks.get_logger().error(f"{line}; every frame is answered twice: {_CURE}")
        self._said = line

    def _where(self, names: Sequence[str]) -> str:
        """Which other processes have nodes of these names, as far as they say."""
        others = {other for name in names for other in self._others.get(name, ())}
        return " and ".join(sorted(others)) or "another process"

    def _listen(self, wanted: bool) -> None:
        """Hear the diagnostics while there are two: they tell who the other one is."""
        if wanted and self._listening is None:
            self._listening = self._asks.create_subscription(
                DiagnosticArray, DIAGNOSTICS.name, self._heard, profile(DIAGNOSTICS.qos)
            )
        elif not wanted and self._listening is not None:
            self._asks.destroy_subscription(self._listening)
            self._listening = None
            self._others.clear()

    def _heard(self, message: Any) -> None:
        for status in message.status:
            if status.name not in self._nodes:
                continue
            process = next((v.value for v in status.values if v.key == PROCESS), "")
            if (status.hardware_id, process) != self._own:
                other = f"process {process} on {status.hardware_id}"
                self._others.setdefault(status.name, set()).add(other)
