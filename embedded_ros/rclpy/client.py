"""Clients of services."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from embedded_ros.discovery import user_data

from .qos import QoSProfile
from .service import ServiceHalf, pack
from .task import Future


class Client(ServiceHalf):
    """Asks a service; see Node.create_client."""

    _absent = "call configure_introspection handle remove_pending_request"
    _role = "client"

    def __init__(self, node: Any, srv_type: Any, srv_name: str, qos_profile: QoSProfile) -> None:
        super().__init__(node, srv_type, srv_name, qos_profile)
        self.context = node.context
        self._sequence = itertools.count(1)
        self._pending: dict[int, Future] = {}

    def call_async(self, request: Any) -> Future:
        """Ask; the future holds the response.

        Raises:
            TypeError: the request is of another type.
        """
        if not isinstance(request, self.srv_type.Request):
            raise TypeError(f"Expected {self.srv_type.Request}, got {type(request)}")
        future, sequence = Future(), next(self._sequence)
        self._pending[sequence] = future
        future.add_done_callback(lambda _: self._pending.pop(sequence, None))
        self._writer.write(pack(self._writer.handle, sequence, request))
        return future

    def service_is_ready(self) -> bool:
        """Whether a server is there that can answer."""
        servers = (user_data(self._writer, handle) for handle in self._writer.matched())
        own = [self._own_kind(server, "service") for server in servers]
        return bool(any(own) and self._reader.matched())

    def wait_for_service(self, timeout_sec: float | None = None) -> bool:
        """Whether a server is there within the time."""
        end = None if timeout_sec is None else time.monotonic() + timeout_sec
        while self.context.ok() and not self.service_is_ready():
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return self.service_is_ready()

    def _take(self) -> Callable[[], Any] | None:
        received = self._receive(self.srv_type.Response)
        # Replies to all clients of a service come on one topic.
        if received is None or received.handle != self._writer.handle:
            return None
        future = self._pending.get(received.sequence)
        return None if future is None else (lambda: future.set_result(received.body))
