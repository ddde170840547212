"""The event loop of a launch."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

from .core import Event, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from .events import ProcessExited, Shutdown, TimerEvent
from .output import close_log, open_log, say


class LaunchService:
    """Runs launch descriptions until all their processes have ended."""

    def __init__(self) -> None:
        self.context = LaunchContext()
        self._return_code = 0
        self._descriptions: list[LaunchDescription] = []

    def include_launch_description(self, launch_description: LaunchDescription) -> None:
        """Visit a description when `run` begins."""
        self._descriptions.append(launch_description)

    def run(self) -> int:
        """Run in the main thread.

        Returns:
            0; 1 where an entity or a handler raised, or where SIGTERM ended the launch.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("LaunchService can only be run in the main thread")
        log = open_log()
        if log is not None:
            say("INFO", "launch", f"all log files can be found below {log.parent}")
        old = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            for description in self._descriptions:
                self._guard(lambda d=description: self._visit([d]))
            self._loop()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            for process in list(self.context.running):
                if process.process is not None:
                    process.process.kill()
            self.context.close()
            close_log()
        return self._return_code

    def _loop(self) -> None:
        context = self.context
        while True:
            now = time.monotonic()
            due = [d for d in context.deadlines if d[0] <= now]
            context.deadlines = [d for d in context.deadlines if d[0] > now]
            for _, function in due:
                self._guard(function)
            idle = not context.running and context.events.empty()
            if context.is_shutdown and idle:
                return
            if idle and not context.deadlines:
                context.emit_event_sync(Shutdown(reason="idle"))
            soonest = min((d[0] for d in context.deadlines), default=now + 0.5)
            try:
                event = context.events.get(timeout=min(max(soonest - now, 0.0), 0.5))
            except queue.Empty:
                continue
            self._process(event)

    def _process(self, event: Event) -> None:
        context = self.context
        if isinstance(event, Shutdown) and context.is_shutdown:
            return
        if isinstance(event, ProcessExited):
            event.action.ended(context, event)
        if isinstance(event, TimerEvent) and not context.is_shutdown:
            self._guard(lambda: self._visit(event.entities))
        for handler in list(context.handlers):
            if handler.matches(event):
                self._guard(lambda h=handler: self._visit(h.handle(event, context)))
        if isinstance(event, Shutdown):
            context.is_shutdown = True
            if event.reason != "idle":
                say("INFO", "launch", f"shutting down: {event.reason}")
            for process in list(context.running):
                process.end(context)

    def _visit(self, entities: Iterable[LaunchDescriptionEntity]) -> None:
        stack = list(reversed(list(entities)))
        while stack:
            more = stack.pop().visit(self.context)
            stack.extend(reversed(list(more or ())))

    def _guard(self, function: Any) -> None:
        """Call; an exception ends the launch with return code 1."""
        try:
            function()
        except Exception as error:
            say("ERROR", "launch", f"caught exception in launch: {error}")
            self._return_code = 1
            self.context.emit_event_sync(Shutdown(reason="error in launch"))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self._return_code = 1
        name = signal.Signals(number).name
        self.context.emit_event_sync(Shutdown(reason=f"received {name}"))
