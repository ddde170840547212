"""Collects the states of tasks and publishes them on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from embedded_ros.importer import Partial


class DiagnosticStatusWrapper(DiagnosticStatus):
    """A diagnostic_msgs/DiagnosticStatus that is easy to fill."""

    def summary(self, level: bytes, message: str) -> None:
        """Set level and message."""
        self.level, self.message = level, message

    def add(self, key: str, val: str) -> None:
        """Add a key and its value."""
        self.values.append(KeyValue(key=key, value=val))


class Updater(Partial):
    """Runs tasks periodically and publishes what they report."""

    _absent = "broadcast force_update period removeByName"

    def __init__(self, node: Any, period: float = 1.0) -> None:
        self.node, self.hwid = node, ""
        self.tasks: list[tuple[str, Callable[[Any], Any]]] = []
        self.publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        parameter = node.declare_parameter("diagnostic_updater.period", float(period))
        self.timer = node.create_timer(parameter.value, self.update)

    def setHardwareID(self, hwid: str) -> None:  # noqa: N802  (ROS 2's name)
        """Name the hardware in every status."""
        self.hwid = hwid

    def add(self, name: str, fn: Callable[[Any], Any]) -> None:
        """Add a task: a function that fills in a DiagnosticStatusWrapper and returns it."""
        self.tasks.append((name, fn))

    def update(self) -> None:
        """Run all tasks and publish."""
        array = DiagnosticArray()
        array.header.stamp = self.node.get_clock().now().to_msg()
        for name, task in self.tasks:
            silent = DiagnosticStatusWrapper(
                level=DiagnosticStatus.ERROR, message="No message was set", hardware_id=self.hwid
            )
            status = task(silent)
            status.name = f"{self.node.get_name()}: {name}"
            array.status.append(status)
        self.publisher.publish(array)
