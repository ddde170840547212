"""DDS domains that nobody else on this machine uses."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from amodal_core.errors import InputError

VARIABLE = "ROS_DOMAIN_ID"
# The ports of higher domains lie where Linux hands out its own, from 32768.
LAST = 100
_turns = itertools.count(os.getpid())


def _discovery_port(domain: int) -> int:
    """Where the participants of a domain find each other: DDSI-RTPS 2.5, 9.6.2.3."""
    return 7400 + 250 * domain


def _bind(kind: socket.SocketKind, host: str, port: int) -> socket.socket | None:
    """A socket that has a port for itself; None where another has it."""
    bound = socket.socket(socket.AF_INET, kind)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return bound


def in_use(domain: int) -> bool:
    """Whether a participant on this machine is in the domain."""
    free = _bind(socket.SOCK_DGRAM, "", _discovery_port(domain))
    if free is not None:
        free.close()
    return free is None


def _reserve() -> tuple[int, socket.socket]:
    """A domain without participants, and what keeps it from others who ask here.

    That is a TCP socket on the number of the domain's discovery port, on which DDS uses UDP; the
    kernel takes it back even from a process that is killed.
    """
    for _ in range(LAST):
        domain = next(_turns) % LAST + 1
        kept = _bind(socket.SOCK_STREAM, "127.0.0.1", _discovery_port(domain))
        if kept is not None:
            if not in_use(domain):
                return domain, kept
            kept.close()
    raise InputError(f"all DDS domains from 1 to {LAST} are in use", cure="end what uses them")


@contextmanager
def own_domain() -> Iterator[int]:
    """Within the block, ROS_DOMAIN_ID is a domain for this process and those that it starts.

    Yields:
        The domain, 1 to 100.

    Raises:
        InputError: all are in use.
    """
    before = os.environ.get(VARIABLE)
    domain, kept = _reserve()
    os.environ[VARIABLE] = str(domain)
    try:
        yield domain
    finally:
        kept.close()
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
