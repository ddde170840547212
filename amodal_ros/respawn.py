"""Live, a process that ends is started again; one that only looks on never ends the launch.

Made of what every ROS 2's launch has: its own `respawn` has no limit before Jazzy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launch.actions import LogInfo, RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessExit

from amodal_ros.restarts import LIMIT, REFUSED, WINDOW, Restarts


def kept(make: Callable[[], Any], *, viewer: bool) -> list[Any]:
    """What starts a process, and starts it again when it ends.

    A viewer that ends in good order stays closed, and one that fails too often is given up: the
    others go on. A stage is started again however it ends; where it fails too often, or refuses
    what it was told, the launch ends with an error.

    Args:
        make: makes the action; called for each start, since an action runs once.
        viewer: whether it only looks on.
    """
    restarts = Restarts()

    def begin() -> list[Any]:
        process = make()
        handler = OnProcessExit(target_action=process, on_exit=ended)
        return [RegisterEventHandler(handler), process]

    def ended(event: Any, context: Any) -> list[Any] | None:
        name, code = event.process_name, event.returncode
        if context.is_shutdown:
            if code not in (0, -2, -15):
                raise RuntimeError(f"{name} died with exit code {code}")
            return None
        how = f"{name} has ended with exit code {code}"
        if viewer and code == 0:
            return [LogInfo(msg=f"{how}; the others go on")]
        delay = None if code == REFUSED else restarts.delay()
        if delay is not None:
            text = f"{how}: restart {restarts.count} of {LIMIT} in {delay:g} s"
            return [LogInfo(msg=text), TimerAction(period=delay, actions=begin())]
        why = "it says why" if code == REFUSED else f"{LIMIT} restarts in {WINDOW:g} s"
        if viewer:
            return [LogInfo(msg=f"{how} and is given up ({why}); the others go on")]
        raise RuntimeError(f"{name} died with exit code {code} and is given up ({why})")

    return begin()
