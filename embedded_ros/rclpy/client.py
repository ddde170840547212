"""Clients of services."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rosbags.serde import SerdeError

from embedded_ros import dds

from .qos import QoSProfile
from .service import endpoints, pack, unpack
from .task import Future

if TYPE_CHECKING:
    from .node import Node


class Client:
    """Asks a service; see Node.create_client."""

    def __init__(
        self,
        node: Node,
        srv_type: Any,
        srv_name: str,
        callback_group: Any,
        qos_profile: QoSProfile,
    ) -> None:
        self._node = node
        self.context = node.context
        self.srv_type, self.srv_name, self.service_name = srv_type, srv_name, srv_name
        self.callback_group = callback_group
        self.qos_profile = qos_profile
        identity = f"clientid={node.context.next_service_id()}"
        self._reader, self._writer = endpoints(
            node, srv_type, srv_name, qos_profile, identity, serves=False
        )
        self.condition = self._reader.condition
        self._sequence = itertools.count(1)
        self._pending: dict[int, Future] = {}

    def call_async(self, request: Any) -> Future:
        """Ask; the future holds the response.

        Raises:
            TypeError: the request is of another type.
        """
        if not isinstance(request, self.srv_type.Request):
            raise TypeError(f"Expected {self.srv_type.Request}, got {type(request)}")
        future = Future(executor=self._node.executor)
        sequence = next(self._sequence)
        self._pending[sequence] = future
        future.add_done_callback(lambda _: self._pending.pop(sequence, None))
        self._writer.write(pack(self._writer.handle, sequence, request))
        return future

    def call(self, request: Any, timeout_sec: float | None = None) -> Any:
        """Ask and wait, while another thread spins the node.

        Raises:
            TimeoutError: there is no answer in time.
        """
        future = self.call_async(request)
        if not future._wait(timeout_sec):
            self.remove_pending_request(future)
            raise TimeoutError(f"no answer from '{self.srv_name}' in {timeout_sec} s")
        return future.result()

    def remove_pending_request(self, future: Future) -> None:
        """Forget a request."""
        for sequence, pending in list(self._pending.items()):
            if pending is future:
                del self._pending[sequence]

    def service_is_ready(self) -> bool:
        """Whether a server is there."""
        return bool(self._writer.matched() and self._reader.matched())

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        """Whether a server is there within the time."""
        end = None if timeout_sec is None else time.monotonic() + timeout_sec
        while self.context.ok() and not self.service_is_ready():
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return self.service_is_ready()

    def destroy(self) -> None:
        """Ask no more."""
        self._node.destroy_client(self)

    def _close(self) -> list[dds.Endpoint]:
        self._reader.close()
        self._writer.close()
        return [self._reader, self._writer]

    def _take(self) -> Callable[[], Any] | None:
        sample = self._reader.take()
        if sample is None:
            return None
        try:
            handle, sequence, response = unpack(sample.data, self.srv_type.Response)
        except SerdeError as error:
            self._node.get_logger().error(
                f"dropped a malformed reply of '{self.srv_name}': {error}",
                throttle_duration_sec=5.0,
            )
            return None
        # Replies to all clients of a service come on one topic.
        future = self._pending.get(sequence) if handle == self._writer.handle else None
        return None if future is None else (lambda: future.set_result(response))
