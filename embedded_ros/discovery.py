"""What DDS discovery tells of other participants and their endpoints, read once each.

Cyclone keeps a sample of every participant, writer and reader in its built-in topics. Reading them
through the wheel makes Python objects of all policies of all of them, at every question, and fails
where a stranger's name is not UTF-8. Here only what is new is taken, and names stay bytes.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

from cyclonedds.core import DDSException, InstanceState

from embedded_ros import dds

# Built-in topics have fixed numbers in place of entities (DDS_BUILTIN_TOPIC_DCPS...).
PARTICIPANTS, PUBLICATIONS, SUBSCRIPTIONS = 0x7FFF0001, 0x7FFF0003, 0x7FFF0004
_BATCH = 256  # samples taken at a time
_P, _Info = ctypes.c_void_p, dds.SampleInfo


class _Participant(ctypes.Structure):
    _fields_ = (("key", ctypes.c_uint8 * 16), ("qos", _P))


class _Endpoint(ctypes.Structure):
    _fields_ = (
        ("key", ctypes.c_uint8 * 16),
        ("participant_key", ctypes.c_uint8 * 16),
        ("participant_handle", ctypes.c_uint64),
        ("topic_name", ctypes.c_char_p),
        ("type_name", ctypes.c_char_p),
        ("qos", _P),
    )


_EndpointPointer = ctypes.POINTER(_Endpoint)
_i32, _u32, _size = ctypes.c_int32, ctypes.c_uint32, ctypes.c_size_t
_create_reader = dds.function("dds_create_reader", _i32, _i32, _i32, _P, _P)
_take = dds.function("dds_take", _i32, _i32, _P, _P, _size, _u32)
_return_loan = dds.function("dds_return_loan", _i32, _i32, _P, _i32)
_get_user_data = dds.function("dds_qget_userdata", ctypes.c_bool, _P, _P, _P)
_free = dds.function("dds_free", None, _P)
_free_endpoint = dds.function("dds_builtintopic_free_endpoint", None, _EndpointPointer)
_matched_data = {
    kind: dds.function(f"dds_get_matched_{kind}_data", _EndpointPointer, _i32, ctypes.c_uint64)
    for kind in ("publication", "subscription")
}


class _Alive:
    """What of one built-in topic is alive. For one thread at a time."""

    _sample: ClassVar[type[_Participant | _Endpoint]]

    def __init__(self, participant: dds.Participant, topic: int) -> None:
        code = _create_reader(participant._ref, topic, None, None)
        if code < 0:
            raise DDSException(code, "Occurred while reading discovery")
        self._ref = code
        self._alive: dict[bytes, bytes] = {}  # by key, the name of the topic, where it has one

    def _names(self) -> dict[bytes, bytes]:
        """Key and topic of what is alive; only what came since the last question is read."""
        samples, infos = (_P * _BATCH)(), (_Info * _BATCH)()
        while True:
            samples[0] = None  # the samples are lent
            count = _take(self._ref, samples, infos, _BATCH, _BATCH)
            if count in dds.GONE:
                self._alive.clear()
            if count <= 0:
                return self._alive
            for address, info in zip(samples[:count], infos[:count], strict=True):
                sample = self._sample.from_address(address or 0)
                key = bytes(sample.key)
                if info.instance_state == InstanceState.Alive:
                    self._alive[key] = getattr(sample, "topic_name", None) or b""
                else:
                    self._alive.pop(key, None)
            _return_loan(self._ref, samples, count)


class Participants(_Alive):
    """The participants of a domain."""

    _sample = _Participant

    def __init__(self, participant: dds.Participant) -> None:
        super().__init__(participant, PARTICIPANTS)

    def gids(self) -> set[bytes]:
        """The 16 bytes of each."""
        return set(self._names())


class Endpoints(_Alive):
    """The writers or the readers of a domain, those of this participant included."""

    _sample = _Endpoint

    def __init__(self, participant: dds.Participant, *, writers: bool) -> None:
        super().__init__(participant, PUBLICATIONS if writers else SUBSCRIPTIONS)

    def topics(self) -> list[bytes]:
        """The DDS name of each one's topic, as it came: nothing says that it is UTF-8."""
        return list(self._names().values())


def user_data(endpoint: dds.Endpoint, handle: int) -> bytes | None:
    """USER_DATA of an endpoint that is matched with ours; None where it is no longer.

    Args:
        endpoint: ours.
        handle: the other's, as a sample or `matched()` gives it.
    """
    kind = "publication" if isinstance(endpoint, dds.Reader) else "subscription"
    other = _matched_data[kind](endpoint.ref, handle)
    if not other:
        return None
    value, length = _P(), _size()
    try:
        qos = other.contents.qos
        if not _get_user_data(qos, ctypes.byref(value), ctypes.byref(length)):
            return b""
        return ctypes.string_at(value, length.value) if value else b""
    finally:
        if value:
            _free(value)
        _free_endpoint(other)
