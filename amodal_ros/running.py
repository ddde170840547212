"""Nodes of a process from start to end: spun, watched, and ended in good order."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from amodal_core.errors import InputError
from amodal_ros import lifeline
from amodal_ros.base_node import BaseNode, start
from amodal_ros.doubles import Doubles
from amodal_ros.interrupts import deaf_to_interrupts, interruptible_start
from amodal_ros.restarts import REFUSED
from amodal_ros.viewers import Viewers

# So many exceptions of callbacks within so many seconds end the process.
_MOST, _WITHIN = 20, 10.0
_AFTER = 0.05  # seconds that rclpy may take to shut down after an interrupt
_LOOK_AT_VIEWERS, _LOOK_FOR_DOUBLES = 1.0, 2.0  # seconds


def executor_of(executor: SingleThreadedExecutor) -> Callable[[], None]:
    """A thread's target that spins until the process is asked to end."""

    def spin_until_the_end() -> None:
        with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
            spin(executor)

    return spin_until_the_end


def spin(executor: SingleThreadedExecutor) -> None:
    """Run callbacks until the process is asked to end; one that raises costs no other its turn.

    What a callback raises (a timer of ours, a service of rclpy that is asked nonsense, a message
    that the middleware cannot read) is logged and counted by the node that it came from.

    Raises:
        KeyboardInterrupt, ExternalShutdownException: it was.
        Exception: callbacks raise without end, or one that is none of our nodes' does.
    """
    raised: deque[float] = deque(maxlen=_MOST)
    last = -1.0
    while (error := _spun(executor)) is not None:
        # rclpy asks whether its context is valid, and waits then; a shutdown may come in between.
        if isinstance(error, RuntimeError) and "context is not valid" in str(error):
            return
        # Of many that follow each other only the first is waited for, so that none is held up.
        now = time.monotonic()
        if interrupted(_AFTER if now - last > 1 else 0):
            raise ExternalShutdownException from error
        last = now
        node = _origin(error, executor.get_nodes())
        if node is None:
            raise error
        if not node.declaration.viewer:  # `Viewers` sees to those
            raised.append(now)
        if len(raised) == _MOST and raised[-1] - raised[0] < _WITHIN:
            raise error
        node.caught(error)


def _spun(executor: SingleThreadedExecutor) -> Exception | None:
    """Spin until a callback raises, and what; None where the executor was shut down."""
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        raise
    except Exception as error:
        return error
    return None


def _origin(error: Exception, nodes: Iterable[Any]) -> BaseNode | None:
    """The node in whose callback an exception was raised; else the first of ours."""
    ours = [node for node in nodes if isinstance(node, BaseNode)]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        own = frame.f_locals.get("self")
        if any(own is node for node in ours):
            return own
    return ours[0] if ours else None


def interrupted(patience: float = 1.0) -> bool:
    """Whether an error came of an interrupt: amid a conversion or callback of C it is another one.

    Args:
        patience: seconds; rclpy shuts down in a thread of its own, and so a moment later.
    """
    end = time.monotonic() + patience
    while rclpy.ok() and time.monotonic() < end:
        time.sleep(0.01)
    return not rclpy.ok()


def run(make: Callable[[], BaseNode], args: Sequence[str] | None = None) -> int:
    """Run a node until it is interrupted; see `run_together`."""
    return run_together(lambda: [make()], args)


def run_together(make: Callable[[], Iterable[BaseNode]], args: Sequence[str] | None = None) -> int:
    """Run nodes in this process until it is interrupted, or the launch that started it has gone.

    Viewers among them neither keep the others from starting nor end them.

    Args:
        make: makes them, in the order in which they end: before those that they feed.
        args: the command line; the process's own where absent.

    Returns:
        0; REFUSED where one was told what it cannot do; 1 where one could not start or could not
        finish its work.
    """
    lifeline.follow()
    with interruptible_start() as started:
        rclpy.init(args=list(args) if args is not None else sys.argv)
        code = 0
        nodes: list[BaseNode] = []
        try:
            for node in make():
                nodes.append(node)  # noqa: PERF402 - what is made must end, if the next cannot be
            stages = [node for node in nodes if not node.declaration.viewer] or nodes
            viewers = Viewers([node for node in nodes if node not in stages])
            viewers.start()
            if not start(stages):
                return REFUSED if any(node.refused for node in stages) else 1
            started()
            executor = SingleThreadedExecutor()
            for node in nodes:
                executor.add_node(node)
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            doubles = Doubles(nodes, str(os.getpid()))
            stages[0].create_timer(_LOOK_AT_VIEWERS, viewers.look, clock=steady)
            stages[0].create_timer(_LOOK_FOR_DOUBLES, doubles.look, clock=steady)
            spin(executor)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        except Exception:
            if not interrupted():
                raise
        finally:
            started()
            with deaf_to_interrupts():
                code = max((_end(node) for node in nodes), default=0)
                for node in nodes:
                    node.destroy_node()
            rclpy.try_shutdown()
    return code


def _end(node: BaseNode) -> int:
    """Let a node finish its work: 0, or 1 where it cannot; the others end all the same."""
    try:
        node.close()
    except InputError as error:
        node.last_words(str(error))
        return 1
    except Exception:
        node.last_words(f"cannot finish: {traceback.format_exc()}")
        return 1
    return 0
