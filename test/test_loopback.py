"""Without ROS 2 no other machine can send to the nodes: their sockets are the loopback device's."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts rclpy in place

import os
import socket
from collections.abc import Iterator

import pytest
import rclpy
from embedded_peers import ros

from embedded_ros import dds, loopback

pytestmark = pytest.mark.dds
__all__ = ["ros"]


def receiving() -> dict[int, bytes]:
    """By port, the devices of this process's UDP sockets that are bound to all addresses."""
    devices = {}
    for descriptor in loopback._sockets():
        with socket.socket(fileno=os.dup(descriptor)) as opened:
            if opened.type == socket.SOCK_DGRAM and opened.getsockname()[0] == "0.0.0.0":
                option = opened.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
                devices[opened.getsockname()[1]] = option.rstrip(b"\0")
    return devices


@pytest.fixture
def own_socket() -> Iterator[int]:
    """Port of a socket that the middleware has not opened."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("0.0.0.0", 0))
        yield opened.getsockname()[1]


def test_sockets_of_the_middleware_and_no_others_are_bound_to_the_device(
    ros: int, own_socket: int
) -> None:
    before = receiving()
    participant = dds.create_participant(ros + 1)
    try:
        opened = {port: device for port, device in receiving().items() if port not in before}
        assert len(opened) >= 2
        assert set(opened.values()) == {b"lo"}
        assert participant.open_ports == []
        assert receiving()[own_socket] == b""
    finally:
        dds.delete(participant._ref)


def test_where_the_kernel_refuses_the_open_ports_are_said(
    domain: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loopback, "DEVICE", b"nosuchdevice")
    rclpy.init(args=[])
    try:
        ports = rclpy.get_default_context().participant.open_ports
        assert 7400 + 250 * domain in ports
        said = capfd.readouterr().err
        assert f"UDP {', '.join(map(str, ports))} are open to other machines" in said
    finally:
        rclpy.get_default_context().leave()


def test_who_asks_for_the_subnet_gets_it(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CYCLONEDDS_URI", raising=False)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    before = receiving()
    participant = dds.create_participant(domain)
    try:
        opened = {device for port, device in receiving().items() if port not in before}
        assert opened == {b""}
        assert participant.open_ports == []
    finally:
        dds.delete(participant._ref)
