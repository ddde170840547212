"""Collects the states of tasks and publishes them on /diagnostics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType

from embedded_ros.importer import absent_attribute

__getattr__ = absent_attribute(__name__)


class DiagnosticStatusWrapper(DiagnosticStatus):
    """A diagnostic_msgs/DiagnosticStatus that is easy to fill."""

    def summary(self, *args: Any) -> None:
        """Set level and message, given both or another status."""
        level, message = args if len(args) == 2 else (args[0].level, args[0].message)
        self.level, self.message = level, str(message)

    def clearSummary(self) -> None:  # noqa: N802  (ROS 2's names, here and below)
        """Set OK and no message."""
        self.summary(DiagnosticStatus.OK, "")

    def mergeSummary(self, *args: Any) -> None:  # noqa: N802
        """Keep the worse level; join the messages of equally good or equally bad ones."""
        level, message = args if len(args) == 2 else (args[0].level, args[0].message)
        if (level > DiagnosticStatus.OK) == (self.level > DiagnosticStatus.OK):
            self.message = f"{self.message}; {message}" if self.message else message
        elif level > self.level:
            self.message = message
        self.level = max(level, self.level)

    def add(self, key: str, val: str) -> None:
        """Add a key and its value."""
        self.values.append(KeyValue(key=key, value=val))


class DiagnosticTask:
    """Reports the state of one thing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def getName(self) -> str:  # noqa: N802
        """Its name."""
        return self.name

    def run(self, stat: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        """Fill in a status and return it."""
        raise NotImplementedError


class FunctionDiagnosticTask(DiagnosticTask):
    """Reports by a function."""

    def __init__(self, name: str, fn: Callable[[Any], Any]) -> None:
        super().__init__(name)
        self.fn = fn

    def run(self, stat: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        """Call the function."""
        return self.fn(stat)


class CompositeDiagnosticTask(DiagnosticTask):
    """Several tasks as one status."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.tasks: list[DiagnosticTask] = []

    def addTask(self, t: DiagnosticTask) -> None:  # noqa: N802
        """Add a task."""
        self.tasks.append(t)

    def run(self, stat: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        """Merge what the tasks report."""
        merged = DiagnosticStatusWrapper()
        for task in self.tasks:
            stat.clearSummary()
            stat = task.run(stat)
            merged.mergeSummary(stat)
        stat.summary(merged)
        return stat


class FrequencyStatusParam:
    """Bounds {"min", "max"} in Hz, their relative tolerance, and the window in updates."""

    def __init__(
        self, freq_bound: dict[str, float], tolerance: float = 0.1, window_size: int = 5
    ) -> None:
        self.freq_bound, self.tolerance, self.window_size = freq_bound, tolerance, window_size


class FrequencyStatus(DiagnosticTask):
    """Compares how often tick() is called with bounds."""

    def __init__(self, params: FrequencyStatusParam, name: str = "FrequencyStatus") -> None:
        super().__init__(name)
        self.params = params
        self._lock, self._clock = threading.Lock(), Clock(clock_type=ClockType.STEADY_TIME)
        self.clear()

    def clear(self) -> None:
        """Start anew."""
        with self._lock:
            self._count = 0
            self._window = [(self._clock.now(), 0)] * self.params.window_size

    def tick(self) -> None:
        """Count an event."""
        with self._lock:
            self._count += 1

    def run(self, stat: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        """Report the frequency over the window."""
        with self._lock:
            now, (then, before) = self._clock.now(), self._window.pop(0)
            self._window.append((now, self._count))
            events, total = self._count - before, self._count
        seconds = max((now - then).nanoseconds * 1e-9, 1e-9)
        rate, bounds, slack = events / seconds, self.params.freq_bound, self.params.tolerance
        if events == 0:
            stat.summary(DiagnosticStatus.ERROR, "No events recorded.")
        elif rate < bounds["min"] * (1 - slack):
            stat.summary(DiagnosticStatus.WARN, "Frequency too low.")
        elif rate > bounds.get("max", float("inf")) * (1 + slack):
            stat.summary(DiagnosticStatus.WARN, "Frequency too high.")
        else:
            stat.summary(DiagnosticStatus.OK, "Desired frequency met")
        stat.add("Events in window", str(events))
        stat.add("Events since startup", str(total))
        stat.add("Duration of window (s)", f"{seconds:f}")
        stat.add("Actual frequency (Hz)", f"{rate:f}")
        return stat


class HeaderlessTopicDiagnostic(CompositeDiagnosticTask):
    """Reports how often a topic is published."""

    def __init__(self, name: str, diag: Updater, freq: FrequencyStatusParam) -> None:
        super().__init__(f"{name} topic status")
        self.freq = FrequencyStatus(freq)
        self.addTask(self.freq)
        diag.add(self)

    def tick(self) -> None:
        """Count a message."""
        self.freq.tick()

    def clear_window(self) -> None:
        """Start anew."""
        self.freq.clear()


class Updater:
    """Runs tasks periodically and publishes what they report."""

    def __init__(self, node: Any, period: float = 1.0) -> None:
        self.node, self.hwid, self.verbose = node, "", False
        self.tasks: list[DiagnosticTask] = []
        self.lock = threading.Lock()
        self.publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        name = "diagnostic_updater.period"
        if not node.has_parameter(name):
            node.declare_parameter(name, float(period))
        self._period = node.get_parameter(name).value
        self.timer = node.create_timer(self._period, self.update)

    @property
    def period(self) -> float:
        """Seconds between two updates."""
        return self._period

    @period.setter
    def period(self, period: float) -> None:
        self._period = period
        self.node.destroy_timer(self.timer)
        self.timer = self.node.create_timer(period, self.update)

    def setHardwareID(self, hwid: str) -> None:  # noqa: N802
        """Name the hardware in every status."""
        self.hwid = hwid

    def add(self, *args: Any) -> None:
        """Add a task, or a name and a function."""
        task = FunctionDiagnosticTask(*args) if len(args) == 2 else args[0]
        with self.lock:
            self.tasks.append(task)
        starting = DiagnosticStatusWrapper(name=task.name)
        starting.summary(DiagnosticStatus.OK, "Node starting up")
        self.publish(starting)

    def removeByName(self, name: str) -> bool:  # noqa: N802
        """Remove the tasks of this name."""
        with self.lock:
            kept = [task for task in self.tasks if task.name != name]
            found, self.tasks = len(kept) < len(self.tasks), kept
        return found

    def update(self) -> None:
        """Run all tasks and publish."""
        with self.lock:
            tasks = list(self.tasks)
        found = []
        for task in tasks:
            status = DiagnosticStatusWrapper(
                level=DiagnosticStatus.ERROR,
                name=task.name,
                message="No message was set",
                hardware_id=self.hwid,
            )
            found.append(task.run(status))
        self.publish(found)

    force_update = update

    def broadcast(self, lvl: bytes, msg: str) -> None:
        """Publish one message as the status of all tasks."""
        statuses = [DiagnosticStatusWrapper(name=task.name) for task in self.tasks]
        for status in statuses:
            status.summary(lvl, msg)
        self.publish(statuses)

    def publish(self, msg: Any) -> None:
        """Publish one status or several."""
        array = DiagnosticArray()
        array.header.stamp = self.node.get_clock().now().to_msg()
        for status in msg if isinstance(msg, list) else [msg]:
            array.status.append(
                DiagnosticStatus(
                    level=status.level,
                    name=f"{self.node.get_name()}: {status.name}",
                    message=status.message,
                    hardware_id=status.hardware_id,
                    values=status.values,
                )
            )
        self.publisher.publish(array)
