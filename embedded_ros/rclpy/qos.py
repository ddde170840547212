"""Quality of service: profiles, policies, presets, and a warning where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from cyclonedds.qos import Policy, Qos

from embedded_ros import dds
from embedded_ros.importer import refuse_arguments

from .duration import Duration

# DDS policy ids -> what rclpy calls them.
_POLICY_NAMES = {
    2: "DURABILITY",
    4: "DEADLINE",
    8: "LIVELINESS",
    11: "RELIABILITY",
    13: "HISTORY",
    21: "LIFESPAN",
}


class QoSPolicyKind(IntEnum):
    """The policies, numbered as in rmw's incompatible_qos_events_statuses.h."""

    INVALID = 1 << 0
    DURABILITY = 1 << 1
    DEADLINE = 1 << 2
    LIVELINESS = 1 << 3
    RELIABILITY = 1 << 4
    HISTORY = 1 << 5
    LIFESPAN = 1 << 6
    DEPTH = 1 << 7
    LIVELINESS_LEASE_DURATION = 1 << 8
    AVOID_ROS_NAMESPACE_CONVENTIONS = 1 << 9


class HistoryPolicy(IntEnum):
    """How many samples are kept."""

    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2


class ReliabilityPolicy(IntEnum):
    """Whether lost samples are sent again."""

    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2


class DurabilityPolicy(IntEnum):
    """Whether late subscribers get old samples."""

    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2


QoSHistoryPolicy = HistoryPolicy
QoSReliabilityPolicy = ReliabilityPolicy
QoSDurabilityPolicy = DurabilityPolicy


class InvalidQoSProfileException(Exception):
    """The policies contradict each other."""

    def __init__(self, *args: Any) -> None:
        super().__init__("Invalid QoSProfile", *args)


class QoSProfile:
    """Policies of a publisher, a subscription, a client or a service."""

    def __init__(
        self,
        *,
        history: HistoryPolicy | int | None = None,
        depth: int | None = None,
        reliability: ReliabilityPolicy | int = ReliabilityPolicy.RELIABLE,
        durability: DurabilityPolicy | int = DurabilityPolicy.VOLATILE,
        lifespan: Duration | None = None,
        **absent: Any,
    ) -> None:
        refuse_arguments("rclpy.qos.QoSProfile", absent)
        if history is None and depth is None:
            raise InvalidQoSProfileException("History and/or depth settings are required.")
        self.history = HistoryPolicy.KEEP_LAST if history is None else HistoryPolicy(history)
        if self.history is HistoryPolicy.KEEP_LAST and depth is None:
            raise InvalidQoSProfileException("History set to KEEP_LAST without a depth setting.")
        if depth is not None and (not isinstance(depth, int) or depth < 0):
            raise ValueError("depth must be an integer greater than or equal to zero")
        self.depth = depth or 0
        self.reliability = ReliabilityPolicy(reliability)
        self.durability = DurabilityPolicy(durability)
        self.lifespan = lifespan or Duration()

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!s}" for name, value in vars(self).items())
        return f"QoSProfile({shown})"


def as_profile(qos: QoSProfile | int) -> QoSProfile:
    """A profile, where a number stands for a depth."""
    if isinstance(qos, QoSProfile):
        return qos
    if isinstance(qos, int) and not isinstance(qos, bool):
        return QoSProfile(depth=qos)
    raise TypeError(f"Expected QoSProfile or int, but received '{type(qos)}'")


def to_dds(profile: QoSProfile, user_data: str) -> Qos:
    """The policies as rmw_cyclonedds sets them, with the endpoint's USER_DATA."""
    keep_all = profile.history is HistoryPolicy.KEEP_ALL
    history = Policy.History.KeepAll if keep_all else Policy.History.KeepLast(profile.depth or 1)
    best_effort = profile.reliability is ReliabilityPolicy.BEST_EFFORT
    policies = [
        history,
        Policy.Reliability.BestEffort if best_effort else Policy.Reliability.Reliable(dds.INFINITE),
        Policy.WriterDataLifecycle(autodispose=False),
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.Userdata(user_data.encode()),
        Policy.Liveliness.Automatic(dds.INFINITE),
    ]
    if profile.durability is DurabilityPolicy.TRANSIENT_LOCAL:
        policies.append(Policy.Durability.TransientLocal)
        policies.append(Policy.DurabilityService(0, history, -1, -1, -1))
    else:
        policies.append(Policy.Durability.Volatile)
    if profile.lifespan.nanoseconds > 0:
        policies.append(Policy.Lifespan(profile.lifespan.nanoseconds))
    return Qos(*policies)


class MismatchWarning:
    """Logs when a peer turns up that an endpoint cannot talk to; an executor waits for it."""

    def __init__(self, endpoint: dds.Endpoint, logger: Any, text: str) -> None:
        self._endpoint, self._logger, self._text = endpoint, logger, text
        self.condition = endpoint.ref
        endpoint.watch_mismatches()

    def _take(self) -> Callable[[], Any] | None:
        policy = self._endpoint.take_mismatch()
        if policy is None:
            return None
        name = _POLICY_NAMES.get(policy, "INVALID")
        return lambda: self._logger.warning(f"{self._text} Last incompatible policy: {name}")


qos_profile_default = QoSProfile(depth=10)
qos_profile_system_default = QoSProfile(history=0, depth=0, reliability=0, durability=0)
qos_profile_sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
qos_profile_services_default = QoSProfile(depth=10)
qos_profile_parameters = QoSProfile(depth=1000)
qos_profile_parameter_events = QoSProfile(depth=1000)
# rclpy keeps this one in qos under a private name; /rosout is latched for ten seconds.
qos_profile_rosout_default = QoSProfile(
    depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL, lifespan=Duration(seconds=10)
)
