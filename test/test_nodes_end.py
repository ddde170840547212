"""How a node ends: an interrupt lets it finish, and a second one does not cut that short."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import signal

import pytest

from amodal_ros.base_node import BaseNode, run
from amodal_ros.declarations import Declaration
from amodal_ros.domains import own_domain

pytestmark = pytest.mark.dds


class Impatient(BaseNode):
    """Is interrupted while it runs, and again while it ends."""

    declaration = Declaration(name="impatient", purpose="Ends.")
    finished = False

    def on_activate(self, state):
        """Ask for the first interrupt."""
        self.create_timer(0.05, lambda: signal.raise_signal(signal.SIGINT))
        return super().on_activate(state)

    def finish(self) -> None:
        """The second interrupt comes before the work is done."""
        signal.raise_signal(signal.SIGINT)
        type(self).finished = True


def test_a_second_interrupt_does_not_cut_the_end_short():
    before = signal.getsignal(signal.SIGINT)
    try:
        with own_domain():
            assert run(Impatient, []) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert Impatient.finished
