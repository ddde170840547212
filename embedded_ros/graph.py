"""The ROS graph: tells peers which node owns which endpoint, and asks the same of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsParticipant,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import DDSException, InstanceState, ReadCondition, SampleState, ViewState
from cyclonedds.qos import Policy, Qos

from embedded_ros import dds, interfaces

_TOPIC = "ros_discovery_info"
_TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
_FOREVER = 2**63 - 1


@contextmanager
def _unless_gone() -> Iterator[None]:
    """For what is asked while the domain is being left, by an interrupt for instance."""
    try:
        yield
    except DDSException as error:
        if error.code not in dds.GONE:
            raise


class Graph:
    """One participant's view of the graph. Thread-safe."""

    def __init__(self, participant: dds.Participant) -> None:
        self._lock = threading.RLock()
        self._gid: bytes = participant.guid.bytes
        # (namespace, name) of our nodes -> their endpoints.
        self._nodes: dict[tuple[str, str], list[dds.Endpoint]] = {}
        self._peers: dict[bytes, Any] = {}
        user_data = f"typehash={interfaces.type_hash(_TYPE)};".encode()

        def qos(*history: Any) -> Qos:
            return Qos(
                *history,
                Policy.Reliability.Reliable(_FOREVER),
                Policy.Durability.TransientLocal,
                Policy.DurabilityService(0, Policy.History.KeepLast(1), -1, -1, -1),
                Policy.WriterDataLifecycle(autodispose=False),
                Policy.DataRepresentation(use_cdrv0_representation=True),
                Policy.Userdata(user_data),
            )

        self._writer = dds.Writer(participant, _TOPIC, _TYPE, qos(Policy.History.KeepLast(1)))
        # Every participant writes to the same instance: a shorter history would lose some.
        self._reader = dds.Reader(participant, _TOPIC, _TYPE, qos(Policy.History.KeepAll))
        self._builtin = {
            topic: BuiltinDataReader(participant, topic)
            for topic in (
                BuiltinTopicDcpsParticipant,
                BuiltinTopicDcpsPublication,
                BuiltinTopicDcpsSubscription,
            )
        }
        self._alive = {
            topic: ReadCondition(reader, SampleState.Any | ViewState.Any | InstanceState.Alive)
            for topic, reader in self._builtin.items()
        }

    def add_node(self, namespace: str, name: str) -> None:
        """Announce a node."""
        with self._lock:
            self._nodes[namespace, name] = []
            self._publish()

    def remove_node(self, namespace: str, name: str) -> None:
        """Take a node back."""
        with self._lock:
            self._nodes.pop((namespace, name), None)
            self._publish()

    def add(self, node: tuple[str, str], *endpoints: dds.Endpoint) -> None:
        """Announce a node's endpoints."""
        with self._lock:
            if node in self._nodes:
                self._nodes[node].extend(endpoints)
                self._publish()

    def remove(self, node: tuple[str, str], *endpoints: dds.Endpoint) -> None:
        """Take endpoints back."""
        with self._lock:
            if node in self._nodes:
                self._nodes[node] = [e for e in self._nodes[node] if e not in endpoints]
                self._publish()

    def _publish(self) -> None:
        gid = interfaces.message("rmw_dds_common/msg/Gid")
        info = interfaces.message("rmw_dds_common/msg/NodeEntitiesInfo")

        def gids(endpoints: list[dds.Endpoint], kind: type) -> list[Any]:
            return [
                gid(data=np.frombuffer(e.gid, np.uint8)) for e in endpoints if isinstance(e, kind)
            ]

        sample = interfaces.message(_TYPE)(
            gid=gid(data=np.frombuffer(self._gid, np.uint8)),
            node_entities_info_seq=[
                info(
                    node_namespace=namespace,
                    node_name=name,
                    reader_gid_seq=gids(endpoints, dds.Reader),
                    writer_gid_seq=gids(endpoints, dds.Writer),
                )
                for (namespace, name), endpoints in self._nodes.items()
            ],
        )
        self._writer.write(interfaces.serialize(sample))
        self._update()

    def _update(self) -> None:
        with _unless_gone():
            self._take_all()

    def _take_all(self) -> None:
        while (sample := self._reader.take()) is not None:
            info = interfaces.deserialize(sample.data, interfaces.message(_TYPE))
            self._peers[info.gid.data.tobytes()] = info.node_entities_info_seq

    def _read(self, topic: Any) -> list[Any]:
        reader, condition = self._builtin[topic], self._alive[topic]
        with _unless_gone():
            return list(reader.read(100_000, condition=condition))
        return []

    def nodes(self) -> list[tuple[str, str]]:
        """(namespace, name) of every node on the network, ours included."""
        with self._lock:
            self._update()
            alive = {p.key.bytes for p in self._read(BuiltinTopicDcpsParticipant)}
            self._peers = {g: nodes for g, nodes in self._peers.items() if g in alive}
            return [
                (node.node_namespace, node.node_name)
                for nodes in self._peers.values()
                for node in nodes
            ]

    def endpoints(self, writers: bool) -> list[Any]:
        """DCPS data of every writer or reader on the network."""
        topic = BuiltinTopicDcpsPublication if writers else BuiltinTopicDcpsSubscription
        with self._lock:
            return self._read(topic)
