"""Raw CDR on Cyclone DDS: participant, writers, readers, wait sets.

The wheel's own Python serialiser and its GIL-holding write are passed by: payloads go through the
C library by ctypes, which releases the GIL, and large ones are received without a copy.
"""

from __future__ import annotations

import ctypes
import keyword
import os
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from cyclonedds import internal
from cyclonedds.core import DDSException, InstanceState, SampleState, ViewState
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import make_idl_struct
from cyclonedds.idl import types as idl
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from rosbags.interfaces import Nodetype

from embedded_ros import interfaces
from embedded_ros.loopback import bound_to_loopback

# Fragments near the largest UDP datagram: with Cyclone's defaults, best-effort images and clouds
# lose a third of their samples on the loopback interface.
_LOOPBACK = (
    '<Interfaces><NetworkInterface name="lo" multicast="true"/></Interfaces>'
    "<AllowMulticast>true</AllowMulticast>"
)
_CONFIGURATION = (
    '<CycloneDDS xmlns="https://cdds.io/config"><Domain Id="any"><General>{interfaces}'
    "<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize></General>"
    '<Internal><SocketReceiveBufferSize max="10MB"/></Internal></Domain></CycloneDDS>'
)
INFINITE = 2**63 - 1  # nanoseconds
_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
# Below this size a copy costs less than keeping Cyclone's buffer alive.
_COPY_BELOW = 1 << 16
# What Cyclone says of an entity that is gone: alone, with its parent, or with the last participant.
GONE = (
    DDSException.DDS_RETCODE_BAD_PARAMETER,
    DDSException.DDS_RETCODE_ALREADY_DELETED,
    DDSException.DDS_RETCODE_PRECONDITION_NOT_MET,
)

library = internal.load_cyclonedds()
_P = ctypes.c_void_p
SampleInfo = internal.dds_c_t.sample_info


class _Buffer(ctypes.Structure):
    _fields_ = (("address", _P), ("length", ctypes.c_size_t))


def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of the C library, by its types."""
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_i32, _u32, _i64, _size = ctypes.c_int32, ctypes.c_uint32, ctypes.c_int64, ctypes.c_size_t
_write = function("dds_write", _i32, _i32, _P)
_takecdr = function("dds_takecdr", _i32, _i32, _P, _u32, _P, _u32)
_serdata_size = function("ddsi_serdata_size", _u32, _P)
_serdata_to_ref = function("ddsi_serdata_to_ser_ref", _P, _P, _size, _size, _P)
_serdata_unref = function("ddsi_serdata_unref", None, _P)
_read_condition = function("dds_create_readcondition", _i32, _i32, _u32)
_create_guard = function("dds_create_guardcondition", _i32, _i32)
_set_guard = function("dds_set_guardcondition", _i32, _i32, ctypes.c_bool)
_take_guard = function("dds_take_guardcondition", _i32, _i32, _P)
_create_waitset = function("dds_create_waitset", _i32, _i32)
_attach = function("dds_waitset_attach", _i32, _i32, _i32, ctypes.c_ssize_t)
_detach = function("dds_waitset_detach", _i32, _i32, _i32)
_wait = function("dds_waitset_wait", _i32, _i32, _P, _size, _i64)
_delete = function("dds_delete", _i32, _i32)
_set_status_mask = function("dds_set_status_mask", _i32, _i32, _u32)
_instance_handle = function("dds_get_instance_handle", _i32, _i32, _P)
_matched = {
    kind: function(f"dds_get_matched_{kind}", _i32, _i32, _P, _size)
    for kind in ("subscriptions", "publications")
}


class Received(NamedTuple):
    """One sample: CDR bytes and the writer's handle."""

    data: memoryview
    publication_handle: int


def _checked(code: int, doing: str) -> int:
    if code < 0:
        raise DDSException(code, f"Occurred while {doing}")
    return code


class Participant(DomainParticipant):
    """A participant that ROS 2 peers recognise.

    It stays in its domain until delete(): Cyclone's Python objects refer to each other in circles,
    in which their own finalisers do not run.
    """

    def __init__(self, domain: int) -> None:
        super().__init__(domain, qos=Qos(Policy.Userdata(b"enclave=/;")))
        self.topics: dict[tuple[str, str], Topic] = {}
        self.topics_lock = threading.Lock()
        self.open_ports: list[int] = []  # which other machines can send to, though none should


def create_participant(domain: int) -> Participant:
    """Join a domain; on the loopback interface only unless the environment says else."""
    if not os.environ.get("CYCLONEDDS_URI"):
        subnet = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "SUBNET"
        os.environ["CYCLONEDDS_URI"] = _CONFIGURATION.format(interfaces="" if subnet else _LOOPBACK)
    if _LOOPBACK not in os.environ["CYCLONEDDS_URI"]:
        return Participant(domain)
    ports: list[int] = []
    with bound_to_loopback(ports):
        participant = Participant(domain)
    participant.open_ports = ports
    return participant


def delete(ref: int) -> None:
    """Delete an entity with everything that belongs to it; one that is gone stays so."""
    code = _delete(ref)
    if code not in GONE:
        _checked(code, "deleting")


# Its classes make types when subscripted, without being generics.
_make: Any = idl
# Types that IDL calls otherwise.
_IDL = {"bool": bool, "string": str, "wstring": str}
_IDL.update(dict.fromkeys(("byte", "octet", "char"), idl.uint8))


@cache
def _idl_type(name: str, is_service: bool = False) -> Any:
    """The DDS type of a message. Service halves begin with rmw_cyclonedds' request header."""
    package, kind, short = name.split("/")
    fields: dict[str, Any] = {"rmw_guid": idl.uint64, "rmw_seq": idl.int64} if is_service else {}
    for field, desc in interfaces.definitions.fielddefs[name][1]:
        fields[field + "_" * keyword.iskeyword(field)] = _idl_field(desc)
    return make_idl_struct(f"{short}_", f"{package}::{kind}::dds_::{short}_", fields)


def _idl_field(desc: Any) -> Any:
    kind, detail = desc
    if kind == Nodetype.BASE:
        base, limit = detail
        if base == "string" and limit:
            return _make.bounded_str[limit]
        return _IDL.get(base) or getattr(idl, base)
    if kind == Nodetype.NAME:
        return _idl_type(detail)
    item, length = _idl_field(detail[0]), detail[1]
    if kind == Nodetype.ARRAY:
        return _make.array[item, length]
    return _make.sequence[item, length] if length else _make.sequence[item]


def _topic(participant: Participant, name: str, ros_type: str) -> Topic:
    """A participant may create a topic once; readers and writers of one name share it."""
    made = participant.topics
    with participant.topics_lock:
        if (name, ros_type) not in made:
            is_service = name.startswith(("rq/", "rr/"))
            made[name, ros_type] = Topic(participant, name, _idl_type(ros_type, is_service))
        return made[name, ros_type]


class Endpoint:
    """What writers and readers share: identity, matches, deletion."""

    _matches: str
    _mismatch_bit: int
    _mismatch_status: Any

    def __init__(self, entity: DataWriter | DataReader) -> None:
        self.entity = entity
        self.ref: int = entity._ref
        self.gid: bytes = entity.guid.bytes

    def matched(self) -> list[int]:
        """Instance handles of the matched endpoints."""
        get, room = _matched[self._matches], 16
        while True:
            handles = (ctypes.c_uint64 * room)()
            count = get(self.ref, handles, room)
            if count <= room:
                return list(handles[: max(0, count)])
            room = count

    def watch_mismatches(self) -> None:
        """Let wait sets that this endpoint is attached to wake on an incompatible peer."""
        _checked(_set_status_mask(self.ref, 1 << self._mismatch_bit), "setting a status mask")

    def take_mismatch(self) -> int | None:
        """DDS id of the policy by which a new peer is incompatible; None where none came."""
        status = self._mismatch_status()
        read = getattr(library, f"dds_get_{self._mismatch_status.__name__}")
        if read(self.ref, ctypes.byref(status)) < 0 or not status.total_count_change:
            return None
        return int(status.last_policy_id)

    def close(self) -> None:
        """Delete the DDS entity."""
        delete(self.ref)
        self.entity._ref = 0


class Writer(Endpoint):
    """Writes CDR payloads."""

    _matches = "subscriptions"
    _mismatch_bit, _mismatch_status = 3, internal.dds_c_t.offered_incompatible_qos_status

    def __init__(self, participant: Participant, name: str, ros_type: str, qos: Qos) -> None:
        super().__init__(DataWriter(participant, _topic(participant, name, ros_type), qos=qos))
        handle = ctypes.c_uint64()
        _checked(_instance_handle(self.ref, ctypes.byref(handle)), "asking for a handle")
        self.handle = handle.value

    def write(self, cdr: bytes | bytearray | memoryview) -> None:
        """Publish; blocks, without the GIL, while a reliable reader holds the queue full."""
        if len(cdr) & 3:
            cdr = bytes(cdr) + b"\0" * (-len(cdr) & 3)
        payload = np.frombuffer(cdr, np.uint8)
        sample = _Buffer(payload.ctypes.data, payload.nbytes)
        _checked(_write(self.ref, ctypes.byref(sample)), "writing")


class Reader(Endpoint):
    """Takes CDR payloads, oldest first."""

    _matches = "publications"
    _mismatch_bit, _mismatch_status = 4, internal.dds_c_t.requested_incompatible_qos_status

    def __init__(self, participant: Participant, name: str, ros_type: str, qos: Qos) -> None:
        super().__init__(DataReader(participant, _topic(participant, name, ros_type), qos=qos))
        self.condition = _checked(_read_condition(self.ref, _ANY), "creating a condition")
        self._lock = threading.Lock()

    def take(self) -> Received | None:
        """The oldest waiting sample, or None."""
        slot, info = (_P * 1)(), (SampleInfo * 1)()
        while True:
            with self._lock:
                if self.entity._ref == 0:
                    return None
                if _checked(_takecdr(self.ref, slot, 1, info, _ANY), "taking") == 0:
                    return None
            serdata = _P(slot[0])
            if info[0].valid_data:
                return Received(_payload(serdata), info[0].publication_handle)
            _serdata_unref(serdata)

    def close(self) -> None:
        """Delete the DDS entity."""
        with self._lock:
            super().close()


def _payload(serdata: Any) -> memoryview:
    """The sample's bytes; gives up the caller's reference on it."""
    size, view = _serdata_size(serdata), _Buffer()
    handle = _P(_serdata_to_ref(serdata, 0, size, ctypes.byref(view)))
    _serdata_unref(serdata)
    if size < _COPY_BELOW:
        copied = ctypes.string_at(view.address, size)
        _serdata_unref(handle)
        return memoryview(copied)
    owner = (ctypes.c_uint8 * size).from_address(view.address)
    weakref.finalize(owner, _serdata_unref, handle).atexit = False
    return memoryview(owner).cast("B").toreadonly()


class Guard:
    """A condition that any thread may trigger."""

    def __init__(self, participant: Participant) -> None:
        self.ref = _checked(_create_guard(participant._ref), "creating a guard condition")

    def trigger(self) -> None:
        """Wake the wait sets that this is attached to."""
        _set_guard(self.ref, True)

    def take(self) -> bool:
        """Whether it was triggered; it no longer is."""
        was = ctypes.c_bool()
        _take_guard(self.ref, ctypes.byref(was))
        return was.value


class WaitSet:
    """Sleeps until one of its conditions triggers. For one thread."""

    def __init__(self, participant: Participant) -> None:
        self._ref = _checked(_create_waitset(participant._ref), "creating a wait set")
        self._attached: set[int] = set()

    def wait(self, refs: set[int], nanoseconds: int | None) -> set[int]:
        """The conditions among `refs` that have triggered; empty after the time is over."""
        for ref in self._attached - refs:
            _detach(self._ref, ref)
        for ref in refs - self._attached:
            _attach(self._ref, ref, ref)
        self._attached = set(refs)
        triggered = (ctypes.c_ssize_t * (len(refs) + 1))()
        timeout = INFINITE if nanoseconds is None else max(0, nanoseconds)
        count = _checked(_wait(self._ref, triggered, len(triggered), timeout), "waiting")
        return set(triggered[: min(count, len(triggered))])
