"""Services, and what they share with clients.

As rmw_cyclonedds does it, requests and replies begin with the client's handle and a sequence
number, and USER_DATA says which reader and writer belong together.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from rosbags.serde import SerdeError

from embedded_ros import dds, interfaces
from embedded_ros.discovery import user_data
from embedded_ros.importer import Partial

from .qos import QoSProfile, to_dds

_HEADER = struct.Struct("<Qq")
# USER_DATA of the endpoints of services and clients, as rmw_cyclonedds has it.
_IDENTITIES = (b"serviceid=", b"clientid=")
_STRANGER = (
    "service '{}': a {} of another middleware (Fast DDS, most likely) is there. It ties replies to "
    "requests in another way, so that no request of either is answered; topics are not concerned. "
    "Run both on Cyclone DDS: RMW_IMPLEMENTATION=rmw_cyclonedds_cpp, or both on one ROS 2"
)
# How long a reply waits until the client's reader is known, as in rmw_cyclonedds.
_PATIENCE = 0.1


class Received(NamedTuple):
    """A request or a reply: the client's handle, its count of requests, the message, the writer."""

    handle: int
    sequence: int
    body: Any
    writer: int


def pack(handle: int, sequence: int, body: Any) -> bytes:
    """CDR bytes of a request or a reply."""
    cdr = interfaces.serialize(body)
    return b"".join((cdr[:4], _HEADER.pack(handle, sequence), cdr[4:]))


class ServiceHalf(Partial):
    """The endpoints of a service or of a client."""

    _role: ClassVar[str]

    def __init__(self, node: Any, srv_type: Any, srv_name: str, qos_profile: QoSProfile) -> None:
        self._logger = node.get_logger()
        self.srv_type, self.srv_name, self.service_name = srv_type, srv_name, srv_name
        self.qos_profile = qos_profile
        self._stranger = False  # one has come and has been named
        self.malformed = 0  # requests or replies that could not be read
        identity = f"{self._role}id={node.context.next_service_id()}"

        def make(kind: Any, half: str, topic: str) -> Any:
            name = f"{srv_type.ros_name}_{half}"
            qos = to_dds(qos_profile, f"{identity};typehash={interfaces.type_hash(name)};")
            return kind(node.context.participant, topic, name, qos)

        request, response = ("Request", f"rq{srv_name}Request"), ("Response", f"rr{srv_name}Reply")
        incoming, outgoing = (request, response) if self._role == "service" else (response, request)
        self._reader: dds.Reader = make(dds.Reader, *incoming)
        self._writer: dds.Writer = make(dds.Writer, *outgoing)
        self.condition = self._reader.condition

    def _own_kind(self, data: bytes | None, other: str) -> bool:
        """Whether an endpoint of this USER_DATA understands ours; says so where it does not."""
        if data is None or _identity(data) is not None:
            return True
        if not self._stranger:
            self._logger.error(_STRANGER.format(self.srv_name, other))
        self._stranger = True
        return False

    def _close(self) -> list[dds.Endpoint]:
        self._reader.close()
        self._writer.close()
        return [self._reader, self._writer]

    def _receive(self, kind: Any) -> Received | None:
        sample = self._reader.take()
        if sample is None:
            return None
        origin = user_data(self._reader, sample.publication_handle)
        if not self._own_kind(origin, "client" if self._role == "service" else "service"):
            return None
        data, start = sample.data, 4 + _HEADER.size
        try:
            if len(data) < start or data[1] != 1:
                raise SerdeError("the request header is missing, or big-endian")
            body = interfaces.deserialize(bytes(data[:4]) + bytes(data[start:]), kind)
        except SerdeError as error:
            self.malformed += 1
            which = f"of service '{self.srv_name}' ({self.malformed} so far)"
            text = f"dropped a malformed message {which}: {error}"
            self._logger.error(text, throttle_duration_sec=5.0)
            return None
        handle, sequence = _HEADER.unpack_from(data, 4)
        return Received(handle, sequence, body, sample.publication_handle)


class Service(ServiceHalf):
    """Answers requests; see Node.create_service."""

    _absent = "configure_introspection handle"
    _role = "service"

    def __init__(
        self,
        node: Any,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        qos_profile: QoSProfile,
    ) -> None:
        super().__init__(node, srv_type, srv_name, qos_profile)
        self.callback = callback
        self._known_clients: set[int] = set()

    def _take(self) -> Callable[[], Any] | None:
        received = self._receive(self.srv_type.Request)
        return None if received is None else (lambda: self._answer(received))

    def _answer(self, received: Received) -> None:
        response = self.callback(received.body, self.srv_type.Response())
        if not isinstance(response, self.srv_type.Response):
            raise TypeError(
                f"the callback of service '{self.srv_name}' returned {type(response)}, "
                f"not {self.srv_type.Response}"
            )
        self._await_client(received.writer)
        self._writer.write(pack(received.handle, received.sequence, response))

    def _await_client(self, request_writer: int) -> None:
        """Wait until the client's reply reader is matched, else the reply would be lost."""
        if request_writer in self._known_clients:
            return
        identity = _identity(user_data(self._reader, request_writer))
        end = time.monotonic() + _PATIENCE
        while identity is not None and time.monotonic() < end:
            readers = (user_data(self._writer, handle) for handle in self._writer.matched())
            if any(_identity(data) == identity for data in readers):
                # Of clients that have gone nothing is kept.
                self._known_clients &= set(self._reader.matched())
                self._known_clients.add(request_writer)
                return
            time.sleep(0.002)


def _identity(data: bytes | None) -> bytes | None:
    """The identity of a service or client in its endpoint's USER_DATA."""
    return next((item for item in (data or b"").split(b";") if item.startswith(_IDENTITIES)), None)
