"""Nodes end with the launch that started them, however that ends.

A launch that is killed (kill -9, out of memory) ends nothing, and the next one would double its
nodes. So a launch file leaves its process's number in the environment, and each node watches that
process. The kernel's own way, PR_SET_PDEATHSIG, is tied to the thread that forked and to the direct
parent, leaves no time to finish, and closes the pipes that nodes still write to.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

LAUNCH = "AMODAL_LAUNCH"  # variable: number of the launch's process, and when it began
_LOOK = 1.0  # seconds between two looks, where the kernel does not wake us
_PATIENCE = 15.0  # seconds that a node has to finish, as under a launch


def mark() -> str:
    """What LAUNCH is for the processes that this one starts; "" where that cannot be told."""
    began = _began(os.getpid())
    return f"{os.getpid()}:{began}" if began else ""


def follow() -> None:
    """Watch the launch that started this process, where one did; once, at the beginning of main.

    When it has gone the node is interrupted, as by ctrl-c, and ended where it does not end.
    """
    pid, _, began = os.environ.get(LAUNCH, "").partition(":")
    if not pid.isdecimal() or not began:
        return
    if _began(int(pid)) != began:
        sys.exit("[ERROR] the launch that started this node has gone")
    threading.Thread(target=_watch, args=(int(pid), began), name="lifeline", daemon=True).start()


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did; "" where there is none."""
    try:
        # Its name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _watch(pid: int, began: str) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # before Linux 5.3, or gone
        descriptor = -1
    if descriptor >= 0 and _began(pid) == began:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll()
    while _began(pid) == began:
        time.sleep(_LOOK)
    # Nobody reads what it prints any more: an end in good order may not fail for that.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)
