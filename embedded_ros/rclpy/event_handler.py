"""What happens to publishers and subscriptions besides messages: mismatched QoS and others."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

from embedded_ros import dds

from .logging import get_logger
from .qos import QoSPolicyKind

_statuses = dds.internal.dds_c_t


class QoSOfferedIncompatibleQoSInfo(NamedTuple):
    """Readers that this publisher cannot serve."""

    total_count: int
    total_count_change: int
    last_policy_kind: int


class QoSRequestedIncompatibleQoSInfo(NamedTuple):
    """Writers that cannot serve this subscription."""

    total_count: int
    total_count_change: int
    last_policy_kind: int


class QoSSubscriptionMatchedInfo(NamedTuple):
    """Publishers came or went."""

    total_count: int
    total_count_change: int
    current_count: int
    current_count_change: int


class QoSPublisherMatchedInfo(NamedTuple):
    """Subscriptions came or went."""

    total_count: int
    total_count_change: int
    current_count: int
    current_count_change: int


class QoSRequestedDeadlineMissedInfo(NamedTuple):
    """No message came in time."""

    total_count: int
    total_count_change: int


class QoSOfferedDeadlineMissedInfo(NamedTuple):
    """No message was published in time."""

    total_count: int
    total_count_change: int


class QoSLivelinessChangedInfo(NamedTuple):
    """Publishers fell silent or came back."""

    alive_count: int
    not_alive_count: int
    alive_count_change: int
    not_alive_count_change: int


class QoSLivelinessLostInfo(NamedTuple):
    """This publisher did not assert its liveliness in time."""

    total_count: int
    total_count_change: int


class QoSMessageLostInfo(NamedTuple):
    """Messages were lost."""

    total_count: int
    total_count_change: int


class _Kind(NamedTuple):
    bit: int
    status: str
    info: Any


_SUBSCRIPTION = {
    "deadline": _Kind(2, "requested_deadline_missed", QoSRequestedDeadlineMissedInfo),
    "incompatible_qos": _Kind(4, "requested_incompatible_qos", QoSRequestedIncompatibleQoSInfo),
    "message_lost": _Kind(5, "sample_lost", QoSMessageLostInfo),
    "liveliness": _Kind(10, "liveliness_changed", QoSLivelinessChangedInfo),
    "matched": _Kind(12, "subscription_matched", QoSSubscriptionMatchedInfo),
}
_PUBLISHER = {
    "deadline": _Kind(1, "offered_deadline_missed", QoSOfferedDeadlineMissedInfo),
    "incompatible_qos": _Kind(3, "offered_incompatible_qos", QoSOfferedIncompatibleQoSInfo),
    "liveliness": _Kind(9, "liveliness_lost", QoSLivelinessLostInfo),
    "matched": _Kind(11, "publication_matched", QoSPublisherMatchedInfo),
}
# DDS policy ids -> rclpy's kinds.
_POLICIES = {
    2: QoSPolicyKind.DURABILITY,
    4: QoSPolicyKind.DEADLINE,
    8: QoSPolicyKind.LIVELINESS,
    11: QoSPolicyKind.RELIABILITY,
    13: QoSPolicyKind.HISTORY,
    21: QoSPolicyKind.LIFESPAN,
}


class _Callbacks:
    _kinds: dict[str, _Kind]

    def __init__(self, use_default_callbacks: bool, **callbacks: Callable[[Any], Any] | None):
        self.callbacks = {name: call for name, call in callbacks.items() if call is not None}
        self.use_default_callbacks = use_default_callbacks

    def _default(self, topic: str, logger: Any) -> Callable[[Any], Any]:
        raise NotImplementedError

    def create_event_handler(
        self, endpoint: dds.Endpoint, topic: str, logger_name: str, callback_group: Any
    ) -> EventHandler | None:
        """What calls these callbacks, or None where there are none."""
        callbacks = dict(self.callbacks)
        if self.use_default_callbacks and "incompatible_qos" not in callbacks:
            callbacks["incompatible_qos"] = self._default(topic, get_logger(logger_name))
        if not callbacks:
            return None
        named = [(self._kinds[name], call) for name, call in callbacks.items()]
        return EventHandler(endpoint, named, callback_group)


class SubscriptionEventCallbacks(_Callbacks):
    """Callbacks of a subscription's events; by default a QoS mismatch is logged."""

    _kinds = _SUBSCRIPTION

    def __init__(
        self,
        *,
        deadline: Callable[[Any], Any] | None = None,
        liveliness: Callable[[Any], Any] | None = None,
        message_lost: Callable[[Any], Any] | None = None,
        incompatible_qos: Callable[[Any], Any] | None = None,
        matched: Callable[[Any], Any] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        super().__init__(
            use_default_callbacks,
            deadline=deadline,
            liveliness=liveliness,
            message_lost=message_lost,
            incompatible_qos=incompatible_qos,
            matched=matched,
        )

    def _default(self, topic: str, logger: Any) -> Callable[[Any], Any]:
        def warn(event: QoSRequestedIncompatibleQoSInfo) -> None:
            logger.warning(
                f"New publisher discovered on topic '{topic}', offering incompatible QoS. "
                "No messages will be received from it. "
                f"Last incompatible policy: {QoSPolicyKind(event.last_policy_kind).name}"
            )

        return warn


class PublisherEventCallbacks(_Callbacks):
    """Callbacks of a publisher's events; by default a QoS mismatch is logged."""

    _kinds = _PUBLISHER

    def __init__(
        self,
        *,
        deadline: Callable[[Any], Any] | None = None,
        liveliness: Callable[[Any], Any] | None = None,
        incompatible_qos: Callable[[Any], Any] | None = None,
        matched: Callable[[Any], Any] | None = None,
        use_default_callbacks: bool = True,
    ) -> None:
        super().__init__(
            use_default_callbacks,
            deadline=deadline,
            liveliness=liveliness,
            incompatible_qos=incompatible_qos,
            matched=matched,
        )

    def _default(self, topic: str, logger: Any) -> Callable[[Any], Any]:
        def warn(event: QoSOfferedIncompatibleQoSInfo) -> None:
            logger.warning(
                f"New subscription discovered on topic '{topic}', requesting incompatible QoS. "
                "No messages will be sent to it. "
                f"Last incompatible policy: {QoSPolicyKind(event.last_policy_kind).name}"
            )

        return warn


class EventHandler:
    """Waits for one endpoint's events and calls back."""

    def __init__(
        self,
        endpoint: dds.Endpoint,
        callbacks: list[tuple[_Kind, Callable[[Any], Any]]],
        callback_group: Any,
    ) -> None:
        self._endpoint, self._callbacks = endpoint, callbacks
        self.callback_group = callback_group
        self.condition = endpoint.ref
        mask = 0
        for kind, _ in callbacks:
            mask |= 1 << kind.bit
        endpoint.watch(mask)

    def _take(self) -> Callable[[], Any] | None:
        happened = []
        for kind, callback in self._callbacks:
            status = getattr(_statuses, f"{kind.status}_status")()
            read = getattr(dds.library, f"dds_get_{kind.status}_status")
            if read(self._endpoint.ref, ctypes.byref(status)) < 0:
                continue
            values = {field: getattr(status, field) for field, _ in status._fields_}
            if not any(value for name, value in values.items() if name.endswith("_change")):
                continue
            if "last_policy_id" in values:
                policy = _POLICIES.get(values["last_policy_id"], QoSPolicyKind.INVALID)
                values["last_policy_kind"] = policy
            happened.append((callback, kind.info(*(values[f] for f in kind.info._fields))))
        if not happened:
            return None

        def run() -> None:
            for callback, info in happened:
                callback(info)

        return run
