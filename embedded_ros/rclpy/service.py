"""Services, and the wire form that they share with clients.

As rmw_cyclonedds does it, requests and replies begin with the client's handle and a sequence
number, and USER_DATA says which reader and writer belong together.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy
from cyclonedds.sub import DataReader
from rosbags.serde import SerdeError

from embedded_ros import dds, interfaces

from .qos import QoSProfile, to_dds

if TYPE_CHECKING:
    from .node import Node

HEADER = struct.Struct("<Qq")
# How long a reply waits until the client's reader is known, as in rmw_cyclonedds.
_PATIENCE = 0.1


def pack(handle: int, sequence: int, body: Any) -> bytes:
    """CDR bytes of a request or a reply."""
    cdr = interfaces.serialize(body)
    return b"".join((cdr[:4], HEADER.pack(handle, sequence), cdr[4:]))


def unpack(data: memoryview, kind: Any) -> tuple[int, int, Any]:
    """Client handle, sequence number and message.

    Raises:
        SerdeError: the bytes are no such message.
    """
    if len(data) < 4 + HEADER.size or data[1] != 1:
        raise SerdeError("the request header is missing, or big-endian")
    handle, sequence = HEADER.unpack_from(data, 4)
    body = interfaces.deserialize(bytes(data[:4]) + bytes(data[4 + HEADER.size :]), kind)
    return handle, sequence, body


def endpoints(
    node: Node, srv_type: Any, name: str, qos_profile: QoSProfile, identity: str, serves: bool
) -> tuple[dds.Reader, dds.Writer]:
    """The reader and writer of a service, or of a client."""
    participant = node.context.participant
    halves = (
        (f"{srv_type.ros_name}_Request", f"rq{name}Request"),
        (
            f"{srv_type.ros_name}_Response",
            f"rr{name}Reply",
        ),
    )
    (in_type, in_topic), (out_type, out_topic) = halves if serves else halves[::-1]

    def qos(half: str) -> Any:
        return to_dds(qos_profile, f"{identity};typehash={interfaces.type_hash(half)};")

    return (
        dds.Reader(participant, in_topic, in_type, qos(in_type)),
        dds.Writer(participant, out_topic, out_type, qos(out_type)),
    )


def _identity(endpoint: Any) -> str | None:
    """The clientid in a discovered endpoint's USER_DATA."""
    if endpoint is None or endpoint.qos is None:
        return None
    policy = endpoint.qos[Policy.Userdata]
    for item in (policy.data if policy else b"").split(b";"):
        if item.startswith(b"clientid="):
            return item.decode()
    return None


class Service:
    """Answers requests; see Node.create_service."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        callback_group: Any,
        qos_profile: QoSProfile,
    ) -> None:
        self._node = node
        self.srv_type, self.srv_name, self.service_name = srv_type, srv_name, srv_name
        self.callback, self.callback_group = callback, callback_group
        self.qos_profile = qos_profile
        identity = f"serviceid={node.context.next_service_id()}"
        self._reader, self._writer = endpoints(
            node, srv_type, srv_name, qos_profile, identity, serves=True
        )
        self.condition = self._reader.condition
        self._known_clients: set[int] = set()

    def destroy(self) -> None:
        """Answer no more."""
        self._node.destroy_service(self)

    def _close(self) -> list[dds.Endpoint]:
        self._reader.close()
        self._writer.close()
        return [self._reader, self._writer]

    def _take(self) -> Callable[[], Any] | None:
        sample = self._reader.take()
        if sample is None:
            return None
        try:
            handle, sequence, request = unpack(sample.data, self.srv_type.Request)
        except SerdeError as error:
            self._node.get_logger().error(
                f"dropped a malformed request to '{self.srv_name}': {error}",
                throttle_duration_sec=5.0,
            )
            return None

        async def run() -> None:
            response = self.callback(request, self.srv_type.Response())
            if hasattr(response, "__await__"):
                response = await response
            if not isinstance(response, self.srv_type.Response):
                raise TypeError(
                    f"the callback of service '{self.srv_name}' returned {type(response)}, "
                    f"not {self.srv_type.Response}"
                )
            self._await_client(sample.publication_handle)
            self._writer.write(pack(handle, sequence, response))

        return run

    def _await_client(self, request_writer: int) -> None:
        """Wait until the client's reply reader is matched, else the reply would be lost."""
        if request_writer in self._known_clients:
            return
        reader, writer = self._reader.entity, self._writer.entity
        assert isinstance(reader, DataReader)
        assert isinstance(writer, DataWriter)
        identity = _identity(reader.get_matched_publication_data(request_writer))
        end = time.monotonic() + _PATIENCE
        while identity is not None and time.monotonic() < end:
            readers = map(writer.get_matched_subscription_data, self._writer.matched())
            if any(_identity(found) == identity for found in readers):
                self._known_clients.add(request_writer)
                return
            time.sleep(0.002)
