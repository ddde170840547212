"""DDS domains that one process has for itself."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rclpy
from conftest import end_strays

from amodal_core.errors import InputError
from amodal_ros import domains
from amodal_ros.domains import in_use, own_domain

pytestmark = pytest.mark.dds


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has a domain be the only one that there is."""
    return lambda one: monkeypatch.setattr(domains, "_turns", itertools.repeat(one - 1))


def test_children_inherit_the_domain_and_it_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    ask = [sys.executable, "-c", "import os; print(os.environ['ROS_DOMAIN_ID'])"]
    with own_domain() as outer:
        with own_domain() as inner:
            assert subprocess.check_output(ask, text=True) == f"{inner}\n"
            assert inner != outer
        assert os.environ["ROS_DOMAIN_ID"] == str(outer)
    assert "ROS_DOMAIN_ID" not in os.environ


def test_a_domain_is_given_once_at_a_time(offer: Callable[[int], None]) -> None:
    with own_domain() as mine:
        offer(mine)
        with pytest.raises(InputError, match="all DDS domains from 1 to 100 are in use"):
            own_domain().__enter__()
    with own_domain() as again:
        assert again == mine


def test_a_domain_with_a_participant_is_passed_over(
    domain: int, offer: Callable[[int], None]
) -> None:
    with own_domain() as theirs:
        pass
    offer(theirs)
    rclpy.init(args=[], domain_id=theirs)
    node = rclpy.create_node("there")
    assert in_use(theirs)
    with pytest.raises(InputError, match="in use"):
        own_domain().__enter__()
    rclpy.shutdown()
    node.destroy_node()
    with own_domain() as again:
        assert again == theirs


def test_another_process_gets_another_domain(domain: int) -> None:
    code = f"""
import itertools
from amodal_ros import domains
domains._turns = itertools.count({domain - 1})
with domains.own_domain() as theirs:
    print(theirs)
"""
    assert int(subprocess.check_output([sys.executable, "-c", code], text=True)) != domain


def test_what_a_test_leaves_in_its_domain_is_killed_and_nothing_else(
    request: pytest.FixtureRequest,
) -> None:
    command = ["sleep", "60"]
    with (
        own_domain() as mine,
        subprocess.Popen(command, start_new_session=True) as left,
        own_domain(),
        subprocess.Popen(command) as elsewhere,
    ):
        while not Path(f"/proc/{left.pid}/environ").read_bytes():
            time.sleep(0.001)  # the kernel still makes it
        end_strays(request.node.nodeid, mine)
        assert left.wait(10) == -signal.SIGKILL
        assert elsewhere.poll() is None
        elsewhere.kill()
