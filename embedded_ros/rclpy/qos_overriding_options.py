"""Policies of a topic that parameters override: qos_overrides.<topic>.<publisher|subscription>."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor

from embedded_ros.importer import refuse

from .duration import Duration
from .exceptions import ParameterAlreadyDeclaredException
from .publisher import Publisher
from .qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from .subscription import Subscription

_ENUMS: dict[QoSPolicyKind, Any] = {
    QoSPolicyKind.HISTORY: HistoryPolicy,
    QoSPolicyKind.RELIABILITY: ReliabilityPolicy,
    QoSPolicyKind.DURABILITY: DurabilityPolicy,
}
_KINDS = {*_ENUMS, QoSPolicyKind.DEPTH, QoSPolicyKind.LIFESPAN}


class InvalidQosOverridesError(Exception):
    """The callback of the options refuses what the overrides make of a profile."""


class QoSOverridingOptions:
    """Which policies parameters may override.

    Args:
        policy_kinds: those policies.
        callback: accepts or refuses the profile with a SetParametersResult.
        entity_id: tells apart what has the same topic.
    """

    def __init__(
        self,
        policy_kinds: Iterable[QoSPolicyKind],
        *,
        callback: Callable[[QoSProfile], Any] | None = None,
        entity_id: str | None = None,
    ) -> None:
        self.policy_kinds = tuple(policy_kinds)
        self.callback, self.entity_id = callback, entity_id

    @classmethod
    def with_default_policies(cls, **options: Any) -> QoSOverridingOptions:
        """History, depth and reliability."""
        kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return cls(kinds, **options)


def _declare_qos_parameters(
    entity_type: type[Publisher | Subscription],
    node: Any,
    topic_name: str,
    qos: QoSProfile,
    options: QoSOverridingOptions,
) -> None:
    """Declare the parameters of an endpoint, and do to its profile, in place, what they say.

    Args:
        entity_type: what it is.
        node: its node.
        topic_name: its topic's full name.
        qos: its profile, which gives the parameters their defaults.
        options: which policies.

    Raises:
        RuntimeError: a parameter names no value of its policy.
        InvalidQosOverridesError: the options' callback refuses the profile.
    """
    suffix = "" if options.entity_id is None else f"_{options.entity_id}"
    kind = "publisher" if issubclass(entity_type, Publisher) else "subscription"
    prefix = f"qos_overrides.{topic_name}.{kind}{suffix}"
    about = f" for {kind} `{topic_name}` with id `{options.entity_id}`"
    for policy in options.policy_kinds:
        if policy not in _KINDS:
            refuse(f"rclpy.qos_overriding_options of the policy {policy.name}")
        word = policy.name.lower()
        if policy is QoSPolicyKind.LIFESPAN and kind == "subscription":
            continue
        value = getattr(qos, word)
        default = value.nanoseconds if isinstance(value, Duration) else value
        if policy in _ENUMS:
            default = value.name.lower()
        descriptor = ParameterDescriptor(description=word + about, read_only=True)
        try:
            value = node.declare_parameter(f"{prefix}.{word}", default, descriptor).value
        except ParameterAlreadyDeclaredException:
            value = node.get_parameter(f"{prefix}.{word}").value
        if policy in _ENUMS:
            try:
                value = _ENUMS[policy][value.upper()]
            except KeyError:
                text = f"Unexpected QoS override for policy `{word}`: `{value}`"
                raise RuntimeError(text) from None
        elif policy is QoSPolicyKind.LIFESPAN:
            value = Duration(nanoseconds=value)
        setattr(qos, word, value)
    if options.callback is not None:
        result = options.callback(qos)
        if not result.successful:
            text = f"Provided QoS overrides{about}, are not valid: {result.reason}"
            raise InvalidQosOverridesError(text)
