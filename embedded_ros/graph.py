"""The ROS graph: tells peers which node owns which endpoint, and asks the same of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cyclonedds.core import DDSException
from cyclonedds.qos import Policy, Qos
from rosbags.serde import SerdeError

from embedded_ros import dds, discovery, interfaces

_TOPIC = "ros_discovery_info"
_TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"


@contextmanager
def _unless_gone() -> Iterator[None]:
    """For what is asked while the domain is being left, by an interrupt for instance."""
    try:
        yield
    except DDSException as error:
        if error.code not in dds.GONE:
            raise


class Graph:
    """One participant's view of the graph. Thread-safe.

    Args:
        participant: ours.
        warn: takes a line about what a stranger announces.
    """

    def __init__(self, participant: dds.Participant, warn: Callable[[str], Any]) -> None:
        self._warn = warn
        self._lock = threading.RLock()
        self._gid: bytes = participant.guid.bytes
        # (namespace, name) of our nodes -> their endpoints.
        self._nodes: dict[tuple[str, str], list[dds.Endpoint]] = {}
        self._peers: dict[bytes, Any] = {}
        user_data = f"typehash={interfaces.type_hash(_TYPE)};".encode()

        def qos(*history: Any) -> Qos:
            return Qos(
                *history,
                Policy.Reliability.Reliable(dds.INFINITE),
                Policy.Durability.TransientLocal,
                Policy.DurabilityService(0, Policy.History.KeepLast(1), -1, -1, -1),
                Policy.WriterDataLifecycle(autodispose=False),
                Policy.DataRepresentation(use_cdrv0_representation=True),
                Policy.Userdata(user_data),
            )

        self._writer = dds.Writer(participant, _TOPIC, _TYPE, qos(Policy.History.KeepLast(1)))
        # Every participant writes to the same instance: a shorter history would lose some.
        self._reader = dds.Reader(participant, _TOPIC, _TYPE, qos(Policy.History.KeepAll))
        self._participants = discovery.Participants(participant)
        self._endpoints = {w: discovery.Endpoints(participant, writers=w) for w in (True, False)}
        self.malformed = 0  # announcements that could not be read

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
            try:
                info = interfaces.deserialize(sample.data, interfaces.message(_TYPE))
            except SerdeError as error:
                self._refuse(error)
                continue
            self._peers[info.gid.data.tobytes()] = info.node_entities_info_seq

    def _refuse(self, error: SerdeError) -> None:
        """A stranger's announcement cannot be read, such as a name that is not UTF-8."""
        self.malformed += 1
        self._warn(
            f"dropped a participant's announcement of its nodes ({self.malformed} so far), which "
            f"are therefore not listed: {error}"
        )

    def nodes(self) -> list[tuple[str, str]]:
        """(namespace, name) of every node on the network, ours included."""
        with self._lock:
            self._update()
            for endpoints in self._endpoints.values():
                endpoints.topics()  # what has come and gone is not kept for whoever counts next
            alive = self._participants.gids()
            self._peers = {g: nodes for g, nodes in self._peers.items() if g in alive}
            return [
                (node.node_namespace, node.node_name)
                for nodes in self._peers.values()
                for node in nodes
            ]

    def count(self, topic: str, *, writers: bool) -> int:
        """How many writers or readers a topic, by its DDS name, has on the network."""
        with self._lock:
            return self._endpoints[writers].topics().count(topic.encode())
