"""Quality of service by name, so that topics can be declared as data."""

from __future__ import annotations

from typing import Any

from rclpy.qos import (
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    QoSReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions, _declare_qos_parameters

from amodal_core.errors import InputError

# What the declarations name; `sensor` follows the node's `reliability` parameter.
PROFILES: dict[str, str] = {
    "sensor": "keep last 5, volatile, best effort or reliable by parameter",
    "reliable": "keep last 10, volatile, reliable",
    "latched": "keep last 1, transient local, reliable",
    "clock": "keep last 1, volatile, reliable",
    "tf": "keep last 100, volatile, reliable",
    "latched_tf": "keep last 100, transient local, reliable",
}
_DEPTHS = {"sensor": 5, "reliable": 10, "latched": 1, "clock": 1, "tf": 100, "latched_tf": 100}
# History where no frame may be lost: ten seconds at 10 Hz.
LOSSLESS_DEPTH = 100


def profile(name: str, *, reliability: str = "best_effort", lossless: bool = False) -> QoSProfile:
    """The QoSProfile of a name.

    Args:
        name: one of PROFILES.
        reliability: what `sensor` topics ask for, best_effort or reliable.
        lossless: keep a history long enough that a replay loses nothing.
    """
    depth = _DEPTHS[name]
    if lossless and name in ("sensor", "reliable"):
        depth = LOSSLESS_DEPTH
    best_effort = name == "sensor" and reliability == "best_effort"
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=(
            QoSReliabilityPolicy.BEST_EFFORT if best_effort else QoSReliabilityPolicy.RELIABLE
        ),
        durability=(
            QoSDurabilityPolicy.TRANSIENT_LOCAL
            if name.startswith("latched")
            else QoSDurabilityPolicy.VOLATILE
        ),
    )


_OVERRIDABLE = QoSOverridingOptions(
    (
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
    )
)


def overridden(node: Any, kind: type, topic: str, qos: QoSProfile) -> QoSProfile:
    """A profile as the node's parameters qos_overrides.<topic>.<publisher|subscription> want it.

    They are declared here. rclpy does the same for what has a subscription of its own; ours may be
    shared by several nodes of a process.

    Args:
        node: of the endpoint.
        kind: Publisher or Subscription.
        topic: its full name.
        qos: the profile; is changed.

    Raises:
        InputError: a parameter is none of its policy's values.
    """
    try:
        _declare_qos_parameters(kind, node, topic, qos, _OVERRIDABLE)
    except Exception as error:
        # rclpy raises whatever its parameters and its enums do.
        raise InputError(
            " ".join(str(error).split()),
            f"parameter qos_overrides.{topic}",
            "reliability is reliable or best_effort, durability volatile or transient_local, "
            "history keep_last or keep_all, depth a number",
        ) from error
    return qos
