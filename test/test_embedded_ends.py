"""How nodes, contexts and processes end without ROS 2, and what is left of them: nothing."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import gc
import signal
import threading

import pytest
import rclpy
from embedded_peers import TALKER, Peer, ros, spin_until
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_msgs.msg import String

from amodal_ros.domains import in_use

pytestmark = pytest.mark.dds
__all__ = ["ros"]


def test_the_graph_of_a_domain_that_was_left_is_empty(ros):
    node = rclpy.create_node("leaving")
    graph = node.context.graph
    assert graph.nodes()
    node.destroy_node()
    rclpy.shutdown()
    assert graph.nodes() == []
    assert graph.count("rt/rosout", writers=True) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_spin_and_the_process_exits_with_zero(number, domain):
    code = """
    rclpy.init(args=[])
    node = rclpy.create_node("stopped")
    timer = node.create_timer(0.1, lambda: (say("ready"), timer.cancel()))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException) as error:
        say(type(error).__name__)
    say(rclpy.ok())
    node.destroy_node()
    rclpy.try_shutdown()
    """
    with Peer(domain, code) as peer:
        assert peer.hear() == "ready"
        assert peer.interrupt(number) == 0
        said = peer.hear()
        # spin() returns where the signal comes between two of its rounds.
        if said is not False:
            assert said in ("KeyboardInterrupt", "ExternalShutdownException")
            said = peer.hear()
        assert said is False


def test_an_exception_in_a_callback_comes_out_of_spin(ros):
    with Peer(ros, TALKER, "1", "2") as talker:
        talker.hear()
        node = rclpy.create_node("listener")

        def fail(message):
            raise ValueError(message.data)

        node.create_subscription(String, "chat", fail, 10)
        with pytest.raises(ValueError, match="then"):
            spin_until(node, lambda: False)
        heard = []
        node.subscriptions[-1].callback = heard.append
        assert spin_until(node, lambda: heard)


def test_a_context_leaves_its_domain_with_its_last_node(ros):
    one, other = rclpy.create_node("one"), rclpy.create_node("other")
    one.destroy_node()
    rclpy.shutdown()
    assert in_use(ros)
    other.destroy_node()
    assert not in_use(ros)


def test_a_context_without_nodes_leaves_when_it_is_shut_down(ros):
    rclpy.create_node("short").destroy_node()
    assert in_use(ros)
    rclpy.shutdown()
    assert not in_use(ros)


def test_what_is_forgotten_leaves_with_the_garbage(domain):
    context = rclpy.Context()
    context.init(args=[])
    node = rclpy.create_node("forgotten", context=context)
    node.create_timer(1.0, lambda: None)
    del node, context
    gc.collect()
    assert not in_use(domain)
    assert rclpy.logging.get_logger("forgotten").info("its logger still prints")


def test_leaving_ends_a_spin_in_another_thread(ros):
    node, ended = rclpy.create_node("spun"), []
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin():
        try:
            executor.spin()
        except Exception as error:
            ended.append(type(error))

    thread = threading.Thread(target=spin)
    thread.start()
    rclpy.get_default_context().leave()
    thread.join(5)
    assert not thread.is_alive()
    assert ended in ([], [ExternalShutdownException])
