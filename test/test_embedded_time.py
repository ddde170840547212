"""Clocks, timers and executors of embedded_ros."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import time

import pytest
import rclpy
from embedded_peers import Peer, ros, spin_until
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.time import Time

pytestmark = pytest.mark.dds
__all__ = ["ros"]

# Plays 2 s of a bag at tenfold speed, twice: its time jumps back once.
CLOCK = """
import time
from rosgraph_msgs.msg import Clock
from rclpy.time import Time
rclpy.init(args=[])
node = rclpy.create_node("player")
publisher = node.create_publisher(Clock, "/clock", 10)
while publisher.get_subscription_count() < 1:
    time.sleep(0.02)
for lap in range(2):
    for i in range(201):
        publisher.publish(Clock(clock=Time(nanoseconds=1000 * 10**9 + i * 10**7).to_msg()))
        time.sleep(0.002)
say("played")
sys.stdin.read()
"""


def test_clock_drives_time_and_timers(ros):
    with Peer(ros, CLOCK) as peer:
        sim = Parameter("use_sim_time", value=True)
        node = rclpy.create_node("simulated", parameter_overrides=[sim])
        clock, ticks = node.get_clock(), []
        assert clock.now().nanoseconds == 0
        node.create_timer(0.2, lambda: ticks.append(clock.now().nanoseconds))
        assert spin_until(node, lambda: len(ticks) > 1 and ticks[-1] < ticks[-2])
        first_lap = ticks[:-1]
        assert spin_until(node, lambda: clock.now().nanoseconds == 1002 * 10**9)
        assert peer.hear() == "played"
    # The timer was made at time zero, so it is due at once, then every 0.2 s; after the jump it
    # starts a new period instead of waiting for the time to come back. A busy machine may make a
    # call late, but none comes early.
    second_lap = ticks[len(first_lap) :]
    for lap, first in ((first_lap, -1), (second_lap, 1)):
        assert len(lap) > 1
        assert all(t >= 1000 * 10**9 + k * 2 * 10**8 for k, t in enumerate(lap, start=first))
        assert max(lap) <= 1002 * 10**9


def test_use_sim_time_can_be_switched_while_running(ros):
    node = rclpy.create_node("switched")
    clock = node.get_clock()
    assert abs(clock.now().nanoseconds - time.time_ns()) < 10**9
    node.set_parameters([Parameter("use_sim_time", value=True)])
    assert clock.ros_time_is_active
    assert clock.now().nanoseconds == 0
    node.set_parameters([Parameter("use_sim_time", value=False)])
    assert not clock.ros_time_is_active
    assert abs(clock.now().nanoseconds - time.time_ns()) < 10**9
    (refused,) = node.set_parameters([Parameter("use_sim_time", value=1)])
    assert not refused.successful


def test_a_late_timer_runs_once_and_stays_in_phase(ros):
    node, clock = rclpy.create_node("late"), Clock(clock_type=ClockType.ROS_TIME)

    def at(seconds):
        clock._drive(Time(seconds=seconds).nanoseconds)

    at(10)
    calls = []
    timer = node.create_timer(1.0, lambda: calls.append(clock.now().nanoseconds), clock=clock)
    at(13.5)
    assert timer.is_ready()
    spin_until(node, lambda: False, timeout=0.1)
    assert calls == [13_500_000_000]
    at(13.9)
    assert not timer.is_ready()
    at(14)
    assert timer.is_ready()
    timer.cancel()
    at(20)
    spin_until(node, lambda: False, timeout=0.1)
    assert len(calls) == 1
    timer.reset()
    at(20.9)
    assert not timer.is_ready()
    at(21)
    assert timer.is_ready()


def test_wall_timers_keep_their_period(ros):
    node, times, begin = rclpy.create_node("wall"), [], time.monotonic()
    node.create_timer(0.05, lambda: times.append(time.monotonic() - begin))
    assert spin_until(node, lambda: len(times) == 11)
    # A busy machine may make a call late, but none comes early.
    assert all(at >= 0.05 * k for k, at in enumerate(times, start=1))


def test_coroutine_callbacks_are_refused_instead_of_never_run(ros):
    node, executor = rclpy.create_node("async"), SingleThreadedExecutor()

    async def work():
        raise AssertionError("ran")

    node.create_timer(0.01, work)
    executor.add_node(node)
    with pytest.raises(NotImplementedError, match=r"coroutine .* install ros-jazzy-rclpy"):
        executor.spin()
    executor.shutdown()


def test_a_future_ends_the_spin_that_waits_for_it(ros):
    node, gate, order = rclpy.create_node("waits"), rclpy.Future(), []
    gate.add_done_callback(lambda future: order.append(future.result()))
    node.create_timer(0.05, lambda: gate.set_result("opened"))
    rclpy.spin_until_future_complete(node, gate, timeout_sec=5.0)
    gate.add_done_callback(lambda future: order.append("late"))
    assert order == ["opened", "late"]
    begin = time.monotonic()
    rclpy.spin_until_future_complete(node, rclpy.Future(), timeout_sec=0.2)
    assert 0.2 <= time.monotonic() - begin < 5.0


def test_nothing_runs_before_init_or_after_shutdown(ros):
    node = rclpy.create_node("short")
    rclpy.shutdown()
    assert not rclpy.ok()
    with pytest.raises(rclpy.exceptions.NotInitializedException):
        rclpy.create_node("late")
    with pytest.raises(RuntimeError):
        rclpy.shutdown()
    node.destroy_node()
    rclpy.init(args=[], domain_id=ros)
    again = rclpy.create_node("again")
    assert again.get_node_names() == ["again"]


def test_declared_parameters_are_checked(ros):
    from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
    from rclpy import exceptions

    overrides = [Parameter("rate", value=99), Parameter("name", value=3)]
    node = rclpy.create_node("declares", parameter_overrides=overrides)
    limits = ParameterDescriptor(integer_range=[IntegerRange(from_value=1, to_value=10)])
    with pytest.raises(exceptions.InvalidParameterValueException, match="out of range"):
        node.declare_parameter("rate", 5, limits)
    with pytest.raises(exceptions.InvalidParameterTypeException):
        node.declare_parameter("name", "text")
    assert node.declare_parameter("ratio", 0.5).value == 0.5
    with pytest.raises(exceptions.ParameterAlreadyDeclaredException):
        node.declare_parameter("ratio", 0.5)
    with pytest.raises(exceptions.ParameterNotDeclaredException):
        node.get_parameter("nope")
    with pytest.raises(NotImplementedError, match="install ros-jazzy-rclpy"):
        node.declare_parameter("later", Parameter.Type.DOUBLE)
