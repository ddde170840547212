"""Runs targets on spoilt inputs in a process of little memory, and says what each did wrong."""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import mmap
import os
import random
import re
import resource
import select
import signal
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from amodal_core import limits
from amodal_core.errors import InputError

from .targets import Target

CASES = Path(__file__).parent / "cases"
MEMORY = 2**30  # bytes that an input may ask for beyond what the process has
_TOO_LARGE = 2**28  # bytes of it that it may use: no valid input here is over a megabyte
_TOO_LONG = 5.0  # seconds of CPU
_SILENT = 60.0  # seconds until a process that says nothing is a hang
_LARGEST = 2**22  # bytes of an input


@dataclass(frozen=True)
class Finding:
    """What a parser should not have done.

    Attributes:
        target: its name.
        what: the exception, the signal, or what it took.
        where: the innermost lines of ours.
        data: the input.
    """

    target: str
    what: str
    where: str
    data: bytes

    @property
    def key(self) -> tuple[str, str, str]:
        """The same for inputs that find the same."""
        return self.target, re.split(r"[:\d]", self.what)[0], self.where

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:8]}.bin"


def cases(target: Target) -> list[bytes]:
    """The inputs that were found before."""
    return [p.read_bytes() for p in sorted(CASES.glob(f"{target.name}-*.bin"))]


def inputs(target: Target, seed: int, first: int = 0) -> Iterator[bytes]:
    """The valid inputs and those found before, then spoilt ones without end."""
    whole = [*target.seeds, *cases(target)]
    yield from whole[first:]
    for k in range(max(first, len(whole)), 2**62):
        rng = random.Random(f"{target.name} {seed} {k}")
        data = rng.choice(whole if rng.random() < 0.2 else list(target.seeds))
        try:
            data = target.mutate(rng, data)
        except Exception:  # an input that is no JSON has no values to spoil
            data = rng.randbytes(rng.randrange(200))
        yield data[:_LARGEST]


_OWN = re.compile(r"/(amodal_core|amodal_ros|training|embedded_ros)/")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if _OWN.search(f.filename)]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(own[-2:]))


def _crash(report: Path) -> str:
    """The innermost line of all and those of ours where a process crashed, from its own report."""
    text = report.read_text() if report.exists() else ""
    current = text.partition("Current thread")[2].partition("\n\n")[0]
    lines = re.findall(r'File "(.+)", line (\d+)', current)
    chosen = lines[:1] + [line for line in lines[1:] if _OWN.search(line[0])][:2]
    return " < ".join(f"{Path(name).name}:{line}" for name, line in chosen)


def _state(process: int) -> tuple[str, float]:
    """A process's state, R where it runs or waits for a core, and the seconds of CPU it has had."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0.0
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(error: BaseException | None) -> bool:
    """Whether memory ran out beneath what a reader then said."""
    while error is not None:
        if isinstance(error, MemoryError) or "Insufficient memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def check(target: Target, data: bytes, folder: Path) -> tuple[str, str] | None:
    """What a parser does wrong with an input, and where; None where it is read or refused."""
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        target.read(data, folder)
    except InputError as error:
        text = str(error)
        if _memory(error):
            return "asks for too much memory", _place(error)
        if not error.where:
            return f"an error without a place: {error.what[:40]}", _place(error)
        if "\n" in text or len(text) > 3500:
            return f"an error of {len(text)} letters or more lines", _place(error)
    except Exception as error:
        if _memory(error):
            return "asks for too much memory", _place(error)
        line = traceback.format_exception_only(error)[-1].strip()
        return line[:200], _place(error)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if taken * 1024 > _TOO_LARGE:
        return f"takes {taken // 1024} MB", ""
    spent = time.process_time() - begin
    if spent > _TOO_LONG:
        return f"takes {spent:.0f} s", ""
    return None


class Campaign:
    """Spoilt inputs for one target, in a forked process each time that one ends.

    Args:
        target: whose parser is tried.
        seed: of the inputs, which are the same for the same seed.
        seconds: for how long.
        count: how many inputs at most, after the valid ones and those found before.
        say: what a person may read of it.
    """

    def __init__(
        self,
        target: Target,
        seed: int = 0,
        seconds: float = 60,
        count: int = 2**62,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.target, self.seed, self.seconds, self.say = target, seed, seconds, say
        self.done = 0
        self.findings: dict[tuple[str, str, str], Finding] = {}
        self._count = count + len(target.seeds) + len(cases(target))

    def run(self) -> list[Finding]:
        """The findings, each kind once."""
        end = time.monotonic() + self.seconds
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            while self.done < self._count and time.monotonic() < end:
                self._fork(Path(folder), end)
        return list(self.findings.values())

    def _fork(self, folder: Path, end: float) -> None:
        """Go on from the input that is next, in a new process."""
        shared = mmap.mmap(-1, 8 + 8 + _LARGEST)  # how many are done; the one that is read now
        out, into = os.pipe()
        report = folder.with_name(folder.name + ".crash")  # a parser may empty its own folder
        report.unlink(missing_ok=True)
        # What this process has made is not the other's to take apart: nodes, contexts of a renderer
        # and pools of threads end badly where their threads are not. It is put aside before there
        # is another process: what libraries do as one begins can already collect garbage.
        gc.freeze()
        child = os.fork()
        if not child:
            os.close(out)
            code = 1
            try:
                code = self._child(folder, end, shared, into, report)
            finally:
                os._exit(code)
        gc.unfreeze()
        os.close(into)
        status = self._watch(child, out, shared)
        self.done, length = struct.unpack("<QQ", shared[:16])
        data = bytes(shared[16 : 16 + length])
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            silent = number == signal.SIGKILL
            what = f"silent for {_SILENT:.0f} s" if silent else signal.Signals(number).name
            self._add(Finding(self.target.name, what, _crash(report), data))
            self.done += 1
        report.unlink(missing_ok=True)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1:
            raise RuntimeError(f"the harness failed on {self.target.name}")
        shared.close()

    def _watch(self, child: int, out: int, shared: mmap.mmap) -> int:
        """Take the findings in until the process has ended; its status."""
        text, heard, before, spent = b"", time.monotonic(), b"", 0.0
        while True:
            ready = select.select([out], [], [], 1.0)[0]
            if ready:
                part = os.read(out, 65536)
                if not part:
                    break
                text += part
            if bytes(shared[:8]) != before:
                before, heard, spent = bytes(shared[:8]), time.monotonic(), _state(child)[1]
            elif time.monotonic() - heard > _SILENT:
                state, now = _state(child)
                if state != "R" or now - spent > _SILENT:  # else the machine gives it no time
                    os.kill(child, signal.SIGKILL)
        os.close(out)
        while len(text) >= 12:
            lengths = struct.unpack("<III", text[:12])
            parts, at = [], 12
            for length in lengths:
                parts.append(text[at : at + length])
                at += length
            text = text[at:]
            what, where = parts[0].decode(), parts[1].decode()
            self._add(Finding(self.target.name, what, where, parts[2]))
        return os.waitpid(child, 0)[1]

    def _add(self, finding: Finding) -> None:
        known = self.findings.get(finding.key)
        if known is None:
            self.say(f"{finding.target}: {finding.what}  [{finding.where}]")
        if known is None or len(finding.data) < len(known.data):
            self.findings[finding.key] = finding

    def _child(self, folder: Path, end: float, shared: mmap.mmap, into: int, report: Path) -> int:
        """Try inputs; 0 where all were tried, 2 where a new process is to go on."""
        faulthandler.enable(open(report, "w"))  # noqa: SIM115 (as long as the process lasts)
        # Smaller than what sensors send, so that what passes them is seen in little memory.
        limits.PIXELS, limits.POINTS, limits.UNPACKED = 2**22, 2**20, 2**25
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            for data in inputs(self.target, self.seed, self.done):
                shared[8 : 16 + len(data)] = struct.pack("<Q", len(data)) + data
                wrong = check(self.target, data, folder)
                self.done += 1
                shared[:8] = struct.pack("<Q", self.done)
                if wrong is not None:
                    parts = [w.encode("utf-8", "replace") for w in wrong] + [data]
                    message = struct.pack("<III", *map(len, parts)) + b"".join(parts)
                    while message:
                        message = message[os.write(into, message) :]
                    if "memory" in wrong[0] or "MB" in wrong[0]:
                        return 2  # whose peak hides the next one
                if self.done >= self._count or time.monotonic() > end:
                    return 0
        return 0
