"""Processes: start, pass on what they print, end them politely, then less so."""

from __future__ import annotations

import shlex
import signal
import subprocess
import threading
from collections.abc import Iterable
from typing import IO, Any

from embedded_ros.importer import refuse_arguments

from .core import Action, LaunchContext, SomeSubstitutionsType, perform
from .events import ProcessExited
from .output import emit, say

_OUTPUTS = ("screen", "log", "both", "own_log", "full")


class ExecuteProcess(Action):
    """Run a process.

    Args:
        cmd: command line.
        name: its name in the log; the executable's without it.
        output: "screen" shows both streams, "log" stderr only; the log file gets both.
        sigterm_timeout: seconds from SIGINT to SIGTERM.
        sigkill_timeout: seconds from SIGTERM to SIGKILL.
        absent: what launch has besides; refused.
    """

    def __init__(
        self,
        *,
        cmd: Iterable[SomeSubstitutionsType],
        name: SomeSubstitutionsType | None = None,
        output: SomeSubstitutionsType = "log",
        sigterm_timeout: SomeSubstitutionsType = "5",
        sigkill_timeout: SomeSubstitutionsType = "5",
        **absent: Any,
    ) -> None:
        refuse_arguments("launch.actions.ExecuteProcess", absent)
        self.cmd = list(cmd)
        self.name = name
        self.output = output
        self.sigterm_timeout, self.sigkill_timeout = sigterm_timeout, sigkill_timeout
        self.process: subprocess.Popen[str] | None = None
        self.process_name = ""
        self._waits = 5.0, 5.0
        self._screen = False

    def command(self, context: LaunchContext) -> list[str]:
        """The command line, all substitutions done."""
        return [perform(context, item) for item in self.cmd]

    def execute(self, context: LaunchContext) -> None:
        """Start it."""
        if context.is_shutdown:
            return
        self._waits = (
            float(perform(context, self.sigterm_timeout)),
            float(perform(context, self.sigkill_timeout)),
        )
        output = perform(context, self.output)
        if output not in _OUTPUTS:
            raise RuntimeError(f"output '{output}' is none of {', '.join(_OUTPUTS)}")
        self._screen = output in ("screen", "both", "full")
        command = self.command(context)
        context.process_count += 1
        base = perform(context, self.name) if self.name is not None else command[0].split("/")[-1]
        self.process_name = f"{base}-{context.process_count}"
        self.process = subprocess.Popen(
            command,
            # Lines must come when they are printed, not when a block is full.
            env={"PYTHONUNBUFFERED": "1", **context.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # ctrl-c reaches the launch alone, which then signals each process once.
            start_new_session=True,
        )
        pid = self.process.pid
        say("INFO", self.process_name, f"process started with pid [{pid}]")
        context.running.add(self)
        threading.Thread(
            target=self._watch, args=(context, self.process, command), daemon=True
        ).start()

    def _watch(
        self, context: LaunchContext, process: subprocess.Popen[str], command: list[str]
    ) -> None:
        """Pass on both streams until they close, then report the end."""
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            threading.Thread(target=self._pass_on, args=(stream, error), daemon=True)
            for stream, error in ((process.stdout, False), (process.stderr, True))
        ]
        for reader in readers:
            reader.start()
        code = process.wait()
        for reader in readers:
            # A grandchild may hold the streams open longer than the process lives.
            reader.join(timeout=1.0)
        context.emit_event_sync(ProcessExited(self, self.process_name, command, process.pid, code))

    def _pass_on(self, stream: IO[str], error: bool) -> None:
        for line in stream:
            emit(
                f"[{self.process_name}] {line.rstrip()}",
                error=error,
                screen=error or self._screen,
            )

    def ended(self, context: LaunchContext, event: ProcessExited) -> None:
        """Log the end."""
        context.running.discard(self)
        if event.returncode == 0:
            say("INFO", event.process_name, f"process has finished cleanly [pid {event.pid}]")
        else:
            say(
                "ERROR",
                event.process_name,
                f"process has died [pid {event.pid}, exit code {event.returncode}, "
                f"cmd '{shlex.join(event.cmd)}'].",
            )

    def end(self, context: LaunchContext) -> None:
        """SIGINT now; SIGTERM and SIGKILL later where it does not end."""
        process = self.process

        def step(signals: tuple[signal.Signals, ...], waits: tuple[float, ...]) -> None:
            if process is None or process.poll() is not None:
                return
            if signals[0] is not signal.SIGINT:
                say("ERROR", self.process_name, f"does not end, sending {signals[0].name}")
            process.send_signal(signals[0])
            if len(signals) > 1:
                context.call_later(waits[0], lambda: step(signals[1:], waits[1:]))

        step((signal.SIGINT, signal.SIGTERM, signal.SIGKILL), self._waits)
