"""Quality of service: profiles, policies, presets, compatibility."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

from cyclonedds.qos import Policy, Qos

from embedded_ros.importer import absent_attribute

from .duration import Duration, Infinite

__getattr__ = absent_attribute(__name__)


class QoSPolicyKind(IntEnum):
    """Numbers of the policies in incompatible-QoS events."""

    INVALID = 1
    DURABILITY = 2
    DEADLINE = 4
    LIVELINESS = 8
    RELIABILITY = 16
    HISTORY = 32
    LIFESPAN = 64
    DEPTH = 128
    LIVELINESS_LEASE_DURATION = 256
    AVOID_ROS_NAMESPACE_CONVENTIONS = 512


class _PolicyEnum(IntEnum):
    @classmethod
    def short_keys(cls) -> list[str]:
        """Names in lower case."""
        return [name.lower() for name in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> Any:
        """The value of a name in any case."""
        return cls[name.upper()].value

    @property
    def short_key(self) -> str:
        """The name in lower case."""
        return self.name.lower()


class HistoryPolicy(_PolicyEnum):
    """How many samples are kept."""

    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(_PolicyEnum):
    """Whether lost samples are sent again."""

    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(_PolicyEnum):
    """Whether late subscribers get old samples."""

    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(_PolicyEnum):
    """Who asserts that a publisher is alive."""

    SYSTEM_DEFAULT = 0
    AUTOMATIC = 1
    MANUAL_BY_TOPIC = 3
    UNKNOWN = 4
    BEST_AVAILABLE = 5


QoSHistoryPolicy = HistoryPolicy
QoSReliabilityPolicy = ReliabilityPolicy
QoSDurabilityPolicy = DurabilityPolicy
QoSLivelinessPolicy = LivelinessPolicy


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
        deadline: Duration | None = None,
        liveliness: LivelinessPolicy | int = LivelinessPolicy.SYSTEM_DEFAULT,
        liveliness_lease_duration: Duration | None = None,
        avoid_ros_namespace_conventions: bool = False,
    ) -> None:
        if history is None:
            if depth is None:
                raise InvalidQoSProfileException("History and/or depth settings are required.")
            history = HistoryPolicy.KEEP_LAST
        self.history = HistoryPolicy(history)
        if self.history is HistoryPolicy.KEEP_LAST and depth is None:
            raise InvalidQoSProfileException("History set to KEEP_LAST without a depth setting.")
        if depth is not None and (not isinstance(depth, int) or depth < 0):
            raise ValueError("depth must be an integer greater than or equal to zero")
        self.depth = depth or 0
        self.reliability = ReliabilityPolicy(reliability)
        self.durability = DurabilityPolicy(durability)
        self.lifespan = lifespan or Duration()
        self.deadline = deadline or Duration()
        self.liveliness = LivelinessPolicy(liveliness)
        self.liveliness_lease_duration = liveliness_lease_duration or Duration()
        self.avoid_ros_namespace_conventions = avoid_ros_namespace_conventions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QoSProfile) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

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
    forever = Infinite.nanoseconds
    policies = [
        history,
        Policy.Reliability.BestEffort if best_effort else Policy.Reliability.Reliable(forever),
        Policy.WriterDataLifecycle(autodispose=False),
        Policy.DataRepresentation(use_cdrv0_representation=True),
        Policy.Userdata(user_data.encode()),
    ]
    if profile.durability is DurabilityPolicy.TRANSIENT_LOCAL:
        policies.append(Policy.Durability.TransientLocal)
        policies.append(Policy.DurabilityService(0, history, -1, -1, -1))
    else:
        policies.append(Policy.Durability.Volatile)
    lease = profile.liveliness_lease_duration.nanoseconds or forever
    if profile.liveliness is LivelinessPolicy.MANUAL_BY_TOPIC:
        policies.append(Policy.Liveliness.ManualByTopic(lease))
    else:
        policies.append(Policy.Liveliness.Automatic(lease))
    if 0 < profile.lifespan.nanoseconds < forever:
        policies.append(Policy.Lifespan(profile.lifespan.nanoseconds))
    if 0 < profile.deadline.nanoseconds < forever:
        policies.append(Policy.Deadline(profile.deadline.nanoseconds))
    return Qos(*policies)


def from_dds(qos: Qos) -> QoSProfile:
    """The profile that a discovered endpoint offers or asks for; history is not announced."""

    def span(policy: Any, name: str) -> Duration:
        return Duration(nanoseconds=getattr(policy, name)) if policy is not None else Infinite

    reliable = isinstance(qos[Policy.Reliability], Policy.Reliability.Reliable)
    transient = qos[Policy.Durability] is Policy.Durability.TransientLocal
    liveliness = qos[Policy.Liveliness]
    manual = isinstance(liveliness, Policy.Liveliness.ManualByTopic)
    return QoSProfile(
        history=HistoryPolicy.UNKNOWN,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if transient else DurabilityPolicy.VOLATILE,
        lifespan=span(qos[Policy.Lifespan], "lifespan"),
        deadline=span(qos[Policy.Deadline], "deadline"),
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC if manual else LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=span(liveliness, "lease_duration"),
    )


_BEST_EFFORT, _SYSTEM = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.SYSTEM_DEFAULT
qos_profile_default = QoSProfile(depth=10)
qos_profile_system_default = QoSProfile(
    history=HistoryPolicy.SYSTEM_DEFAULT,
    depth=0,
    reliability=_SYSTEM,
    durability=DurabilityPolicy.SYSTEM_DEFAULT,
)
qos_profile_sensor_data = QoSProfile(depth=5, reliability=_BEST_EFFORT)
qos_profile_services_default = QoSProfile(depth=10)
qos_profile_parameters = QoSProfile(depth=1000)
qos_profile_parameter_events = QoSProfile(depth=1000)
qos_profile_action_status_default = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# rclpy keeps this one in qos under a private name; /rosout is latched for ten seconds.
qos_profile_rosout_default = QoSProfile(
    depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL, lifespan=Duration(seconds=10)
)


class QoSPresetProfiles(Enum):
    """The profiles by name."""

    DEFAULT = qos_profile_default
    SYSTEM_DEFAULT = qos_profile_system_default
    SENSOR_DATA = qos_profile_sensor_data
    SERVICES_DEFAULT = qos_profile_services_default
    PARAMETERS = qos_profile_parameters
    PARAMETER_EVENTS = qos_profile_parameter_events
    ACTION_STATUS_DEFAULT = qos_profile_action_status_default

    @classmethod
    def short_keys(cls) -> list[str]:
        """Names in lower case."""
        return [name.lower() for name in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name: str) -> QoSProfile:
        """The profile of a name in any case."""
        return cls[name.upper()].value


class QoSCompatibility(IntEnum):
    """Whether a publisher and a subscription can talk."""

    OK = 0
    WARNING = 1
    ERROR = 2


def qos_check_compatible(
    publisher_qos: QoSProfile, subscription_qos: QoSProfile
) -> tuple[QoSCompatibility, str]:
    """Whether a subscription would match a publisher, and the reason where not."""
    offered, wanted = publisher_qos, subscription_qos
    reasons = []
    if (
        offered.reliability is ReliabilityPolicy.BEST_EFFORT
        and wanted.reliability is ReliabilityPolicy.RELIABLE
    ):
        reasons.append("ERROR: Best effort publisher and reliable subscription;")
    if (
        offered.durability is DurabilityPolicy.VOLATILE
        and wanted.durability is DurabilityPolicy.TRANSIENT_LOCAL
    ):
        reasons.append("ERROR: Volatile publisher and transient local subscription;")
    limit = Infinite.nanoseconds
    if (wanted.deadline.nanoseconds or limit) < (offered.deadline.nanoseconds or limit):
        reasons.append("ERROR: Subscription deadline is less than publisher deadline;")
    return (QoSCompatibility.ERROR if reasons else QoSCompatibility.OK), "".join(reasons)
