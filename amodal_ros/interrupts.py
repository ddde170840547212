"""Ctrl-C around a node's life: it ends what still loads, and does not cut an end short."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Within the block SIGINT does nothing, so that a second one does not cut the end short.

    A launch without a terminal passes on the SIGINT that its nodes have had already; SIGKILL still
    ends the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        # A context that ends within the block has put the handlers of before it back already.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def interruptible_start(patience: float = 2.0) -> Iterator[Callable[[], None]]:
    """Until the function given is called, an interrupt ends the process, whoever swallows it.

    A model's first frame compiles; where SIGINT comes while the compiler calls back into Python,
    KeyboardInterrupt is lost. A node that starts has nothing to finish. To be entered before
    rclpy.init, whose own handler calls the one before it.

    Args:
        patience: seconds that KeyboardInterrupt has to end the start in good order.
    """
    # Whoever has set another handler, or lets SIGINT be ignored, has decided what it does.
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not own:
        yield lambda: None
        return
    timers: list[threading.Timer] = []
    starting = True

    def handle(number: int, frame: Any) -> None:
        if starting:
            timer = threading.Timer(patience, _leave)
            timer.daemon = True
            timer.start()
            timers.append(timer)
        signal.default_int_handler(number, frame)

    def started() -> None:
        nonlocal starting
        starting = False
        for timer in timers:
            timer.cancel()

    signal.signal(signal.SIGINT, handle)
    try:
        yield started
    finally:
        started()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave() -> None:
    print("[INFO] interrupted while it started", file=sys.stderr, flush=True)
    os._exit(0)
