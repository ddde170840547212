"""Clocks, timers and executors of embedded_ros."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import threading
import time

import pytest
import rclpy
from embedded_peers import Peer, ros, spin_until
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import ClockChange, ClockType, JumpThreshold, ROSClock
from rclpy.duration import Duration
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
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


def test_clock_drives_time_timers_and_jump_callbacks(ros):
    with Peer(ros, CLOCK) as peer:
        sim = Parameter("use_sim_time", value=True)
        node = rclpy.create_node("simulated", parameter_overrides=[sim])
        clock, ticks, jumps = node.get_clock(), [], []
        assert clock.now().nanoseconds == 0
        handle = clock.create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=jumps.append,
        )
        node.create_timer(0.2, lambda: ticks.append(clock.now().nanoseconds))
        assert spin_until(node, lambda: jumps)
        first_lap = list(ticks)
        assert spin_until(node, lambda: clock.now().nanoseconds == 1002 * 10**9)
        assert peer.hear() == "played"
        handle.unregister()
    assert len(jumps) == 1
    assert jumps[0].clock_change is ClockChange.ROS_TIME_NO_CHANGE
    assert jumps[0].delta.nanoseconds == pytest.approx(-2e9, abs=1e8)
    # The timer was made at time zero, so it is due at once, then every 0.2 s; after the jump it
    # starts a new period instead of waiting for the time to come back.
    assert 8 <= len(first_lap) <= 12
    assert 8 <= len(ticks) - len(first_lap) <= 12
    assert all(1000 * 10**9 <= t <= 1002 * 10**9 for t in ticks)


def test_use_sim_time_can_be_switched_while_running(ros):
    node, changes = rclpy.create_node("switched"), []
    clock = node.get_clock()
    assert abs(clock.now().nanoseconds - time.time_ns()) < 10**9
    threshold = JumpThreshold(min_forward=None, min_backward=None)
    handle = clock.create_jump_callback(threshold, post_callback=changes.append)
    node.set_parameters([Parameter("use_sim_time", value=True)])
    assert clock.ros_time_is_active
    assert clock.now().nanoseconds == 0
    node.set_parameters([Parameter("use_sim_time", value=False)])
    assert not clock.ros_time_is_active
    kinds = [jump.clock_change for jump in changes]
    assert kinds == [ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED]
    (refused,) = node.set_parameters([Parameter("use_sim_time", value=1)])
    assert not refused.successful
    handle.unregister()


def test_sleeping_follows_the_simulated_clock(ros):
    clock = ROSClock()
    clock._set_ros_time_is_active(True)
    clock.set_ros_time_override(Time(seconds=10, clock_type=ClockType.ROS_TIME))
    done = []
    thread = threading.Thread(target=lambda: done.append(clock.sleep_for(Duration(seconds=100))))
    thread.start()
    clock.set_ros_time_override(Time(seconds=109, clock_type=ClockType.ROS_TIME))
    time.sleep(0.1)
    assert done == []
    clock.set_ros_time_override(Time(seconds=110, clock_type=ClockType.ROS_TIME))
    thread.join(5)
    assert done == [True]


def test_a_late_timer_runs_once_and_stays_in_phase(ros):
    node, clock = rclpy.create_node("late"), ROSClock()
    clock._set_ros_time_is_active(True)

    def at(seconds):
        clock.set_ros_time_override(Time(seconds=seconds, clock_type=ClockType.ROS_TIME))

    at(10)
    calls = []
    timer = node.create_timer(1.0, lambda: calls.append(clock.now().nanoseconds), clock=clock)
    at(13.5)
    assert timer.is_ready()
    spin_until(node, lambda: False, timeout=0.1)
    assert calls == [13_500_000_000]
    assert timer.time_until_next_call() == 500_000_000
    timer.cancel()
    at(20)
    spin_until(node, lambda: False, timeout=0.1)
    assert len(calls) == 1
    timer.reset()
    assert timer.time_until_next_call() == 10**9


def test_wall_timers_keep_their_period(ros):
    node, times = rclpy.create_node("wall"), []
    node.create_timer(0.05, lambda: times.append(time.monotonic()))
    assert spin_until(node, lambda: len(times) == 11)
    assert times[-1] - times[0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("group", "expected"), [(MutuallyExclusiveCallbackGroup, 1), (ReentrantCallbackGroup, 3)]
)
def test_callback_groups_decide_what_runs_at_the_same_time(ros, group, expected):
    node, executor = rclpy.create_node("groups"), MultiThreadedExecutor(4)
    shared, running, most = group(), [], []

    def work():
        running.append(1)
        most.append(len(running))
        time.sleep(0.1)
        running.pop()

    for _ in range(3):
        node.create_timer(0.05, work, callback_group=shared)
    executor.add_node(node)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    assert len(most) >= 3
    assert max(most) == expected if expected == 1 else max(most) >= expected


def test_a_multi_threaded_executor_raises_what_a_callback_raises(ros):
    node, executor = rclpy.create_node("failing"), MultiThreadedExecutor(2)

    def fail():
        raise ValueError("broken")

    timer = node.create_timer(0.01, fail)
    executor.add_node(node)
    with pytest.raises(ValueError, match="broken"):
        executor.spin()
    timer.cancel()
    executor.shutdown()


def test_coroutine_callbacks_wait_for_futures(ros):
    node, executor = rclpy.create_node("async"), SingleThreadedExecutor()
    gate, order = rclpy.Future(), []

    async def work():
        order.append("waits")
        order.append(await gate)
        return "done"

    executor.add_node(node)
    task = executor.create_task(work)
    timer = node.create_timer(0.05, lambda: gate.set_result("opened"))
    executor.spin_until_future_complete(task, timeout_sec=5.0)
    timer.cancel()
    assert order == ["waits", "opened"]
    assert task.result() == "done"
    executor.shutdown()


def test_guard_conditions_wake_an_executor_from_any_thread(ros):
    node, woken = rclpy.create_node("guarded"), []
    guard = node.create_guard_condition(lambda: woken.append(threading.current_thread()))
    threading.Timer(0.1, guard.trigger).start()
    assert spin_until(node, lambda: woken)
    assert woken == [threading.current_thread()]


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
    node.declare_parameter("later", Parameter.Type.DOUBLE)
    with pytest.raises(exceptions.ParameterUninitializedException):
        node.get_parameter("later")
    assert node.set_parameters([Parameter("later", value=1.5)])[0].successful
    assert node.get_parameter("later").value == 1.5
    assert node.get_parameter_or("nope", Parameter("nope", value=7)).value == 7
