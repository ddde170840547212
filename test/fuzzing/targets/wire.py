"""What strangers send over DDS: the CDR decoder of embedded_ros, and what it does with samples."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from embedded_ros import dds, graph, interfaces
from embedded_ros.rclpy import service
from embedded_ros.rclpy.service import Service, pack
from embedded_ros.rclpy.subscription import Subscription
from fuzzing import mutations as spoil

from .base import add
from .messages import SAMPLES_ON_THE_WIRE, STORE

_ANNOUNCED = "rmw_dds_common/msg/ParticipantEntitiesInfo"
_REQUEST = "rcl_interfaces/srv/SetParameters"


def _announcement() -> bytes:
    gid = interfaces.message("rmw_dds_common/msg/Gid")
    node = interfaces.message("rmw_dds_common/msg/NodeEntitiesInfo")(
        node_namespace="/a", node_name="b", reader_gid_seq=[gid()], writer_gid_seq=[gid(), gid()]
    )
    made = interfaces.message(_ANNOUNCED)(gid=gid(), node_entities_info_seq=[node])
    return bytes(interfaces.serialize(made))


def _request() -> bytes:
    value = interfaces.message("rcl_interfaces/msg/ParameterValue")
    parameter = interfaces.message("rcl_interfaces/msg/Parameter")
    values = [value(type=1, bool_value=True), value(type=9, string_array_value=["a", "bc"])]
    made = interfaces.message(f"{_REQUEST}_Request")(
        parameters=[parameter(name="size", value=v) for v in values]
    )
    return pack(7, 1, made)


# Types with a valid sample of each; the first byte of an input is the place of its type here.
_KINDS: Sequence[tuple[str, bytes]] = [
    *SAMPLES_ON_THE_WIRE,
    (_ANNOUNCED, _announcement()),
    (f"{_REQUEST}_Request", _request()[:4] + _request()[20:]),
]
_CODES = {f"{_REQUEST}_Request"}


class _Sample:
    """A reader with one sample, and the writer's handle."""

    def __init__(self, data: bytes) -> None:
        self._waiting: list[bytes] = [data]

    def take(self) -> dds.Received | None:
        """The sample, once."""
        return dds.Received(memoryview(self._waiting.pop()), 5) if self._waiting else None


def _spoilt(rng: random.Random, data: bytes) -> bytes:
    kind = _KINDS[data[0]][0]
    store: Any = interfaces.definitions if kind in _CODES else STORE
    if kind not in store.fielddefs:
        return data[:1] + spoil.of_bytes(rng, data[1:])
    return data[:1] + spoil.of_message(lambda: store.fielddefs, store, kind)(rng, data[1:])


def _logger() -> Any:
    return SimpleNamespace(error=lambda *_, **__: None)


def _decoded(data: bytes, _: Path) -> None:
    """A sample of a topic, taken, looked at, copied and sent on."""
    kind, sample = _KINDS[data[0] % len(_KINDS)][0] if data else "", data[1:]
    if not kind:
        return
    subscription = Subscription.__new__(Subscription)
    heard: list[Any] = []
    subscription.__dict__.update(
        _reader=_Sample(sample), _logger=_logger(), msg_type=interfaces.message(kind), topic="/a",
        malformed=0, callback=heard.append,
    )  # fmt: skip
    call = subscription._take()
    assert (call is None) == (subscription.malformed == 1)
    if call is not None:
        call()
        again = interfaces.serialize(copy.deepcopy(heard[0]))
        assert interfaces.serialize(interfaces.deserialize(again, type(heard[0]))) == again
        assert len(repr(heard[0])) < 100 * len(data) + 100_000


def _requested(data: bytes, _: Path) -> None:
    """A request of a service."""
    server = Service.__new__(Service)
    server.__dict__.update(
        _reader=_Sample(data), _logger=_logger(), malformed=0, _stranger=False, srv_name="a",
        srv_type=interfaces.service(_REQUEST), callback=None,
    )  # fmt: skip
    service.user_data = lambda *_: b"clientid=1.2;"  # no writer is there to be asked
    call = server._take()
    assert (call is None) == (server.malformed == 1)


def _announced(data: bytes, _: Path) -> None:
    """A participant's announcement of its nodes."""
    view = graph.Graph.__new__(graph.Graph)
    said: list[str] = []
    names = SimpleNamespace(gids=lambda: set(view._peers), topics=list)
    view.__dict__.update(
        _reader=_Sample(data), _warn=said.append, _lock=threading.RLock(), _peers={}, malformed=0,
        _participants=names, _endpoints={False: names, True: names},
    )  # fmt: skip
    listed = view.nodes()
    assert len(said) == view.malformed <= 1
    assert not (said and listed)


add("wire", [bytes([k]) + sample for k, (_, sample) in enumerate(_KINDS)], _spoilt, _decoded)
_half = spoil.of_message(
    lambda: interfaces.definitions.fielddefs, interfaces.definitions, f"{_REQUEST}_Request"
)


def _of_request(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return spoil.of_bytes(rng, data)
    body = _half(rng, data[:4] + data[20:])
    return body[:4] + data[4:20] + body[4:]


add("wire_service", [_request()], _of_request, _requested)
add("wire_graph", [_announcement()], spoil.of_bytes, _announced)
