"""Keeps the sockets of Cyclone DDS on the loopback interface.

Cyclone receives on 0.0.0.0 whatever its interfaces are, and has no setting for it. The kernel binds
a socket to a device afterwards, too, and then drops what comes in by any other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

DEVICE = b"lo"
_ANYWHERE = "0.0.0.0"
_LINK = "/socket:"


@contextmanager
def bound_to_loopback(ports: list[int]) -> Iterator[None]:
    """Bind the sockets that the block opens on all interfaces to the loopback device.

    Args:
        ports: takes those of sockets that stay open to other machines, since the kernel (Linux
            before 5.7) binds sockets to devices for root alone, or not at all.
    """
    before = _sockets()
    yield
    for descriptor in _sockets() - before:
        try:
            opened = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue  # it has been closed since
        with opened:
            if opened.family != socket.AF_INET or opened.getsockname()[0] != _ANYWHERE:
                continue
            try:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, DEVICE)
            except (AttributeError, OSError):
                ports.append(opened.getsockname()[1])


def _sockets() -> set[int]:
    """Descriptors of this process's sockets."""
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):
        return set()
    return {int(n) for n in os.listdir(folder) if _LINK in os.path.realpath(f"{folder}/{n}")}
