"""What may be done to a running node: its lifecycle's services, its parameters, its QoS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import node_bench as drive
import pytest
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from node_bench import Bench, start, until

from amodal_ros.nodes.depth_projection import DepthProjection

__all__ = ["start"]
pytestmark = pytest.mark.dds
REPLAY = {"queue": 0, "reliability": "reliable"}


def ask(bench: Bench, kind: Any, name: str, **fields: Any) -> Any:
    """The response of one of the node's services, asked by the peer over DDS."""
    client = bench.peer.create_client(kind, f"{bench.node.get_fully_qualified_name()}/{name}")
    until(client.service_is_ready, f"the service {name}")
    request = kind.Request()
    for field, value in fields.items():
        setattr(request.transition, field, value)
    future = client.call_async(request)
    until(future.done, f"an answer of {name}")
    bench.peer.destroy_client(client)
    return future.result()


def test_a_lifecycle_manager_leads_a_node_by_its_services(start: Callable[..., Bench]) -> None:
    bench = start(DepthProjection, ["camera_info", "points", "/tf_static"], **REPLAY)

    def state() -> str:
        return str(ask(bench, GetState, "get_state").current_state.label)

    def transitions() -> list[str]:
        kind = GetAvailableTransitions
        listed = ask(bench, kind, "get_available_transitions").available_transitions
        return sorted(t.transition.label for t in listed)

    def change(**transition: Any) -> bool:
        return bool(ask(bench, ChangeState, "change_state", **transition).success)

    states = {
        s.label for s in ask(bench, GetAvailableStates, "get_available_states").available_states
    }
    assert states >= {"unconfigured", "inactive", "active", "finalized"}
    assert (state(), transitions()) == ("active", ["deactivate", "shutdown"])
    assert change(label="deactivate")  # as `ros2 lifecycle set NODE deactivate`, or by number
    assert (state(), transitions()) == ("inactive", ["activate", "cleanup", "shutdown"])
    until(lambda: bench._outputs["points"].get_subscription_count() == 0, "the end")
    assert change(id=2)
    assert (state(), transitions()) == ("unconfigured", ["configure", "shutdown"])
    assert change(id=1)
    assert change(id=3)
    assert state() == "active"
    for name in ("camera_info", "points", "/tf_static"):
        until(lambda name=name: bench._outputs[name].get_subscription_count(), f"{name} again")
    until(lambda: bench.node.listeners("depth/image"), "the output to be heard again")
    bench.send("/tf_static", drive.tf_static())
    bench.send("camera_info", drive.info(0))
    bench.send("points", drive.cloud(0))
    assert bench.outputs("depth/image", 1)[0].header.frame_id == drive.CAMERA
    assert change(id=7)
    assert (state(), transitions()) == ("finalized", [])
