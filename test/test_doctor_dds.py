"""What `amodal doctor` says of the middleware's settings."""

from __future__ import annotations

import amodal_ros  # isort: skip - where ROS 2 is not installed, it puts rclpy in place

import shutil
from pathlib import Path

import pytest
import rclpy

from amodal_ros.cli.doctor import check_dds_settings, check_ros, check_shared_memory

CONFIG = Path(amodal_ros.__file__).resolve().parents[1] / "config"
FAST = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


@pytest.fixture(params=["rmw_fastrtps_cpp", "rmw_cyclonedds_cpp"])
def variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variable of settings under a ROS 2 with this middleware; none is set."""
    for name in (*FAST, "CYCLONEDDS_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rclpy, "__file__", "/opt/ros/rclpy/__init__.py")
    monkeypatch.setitem(vars(rclpy), "get_rmw_implementation_identifier", lambda: request.param)
    return FAST[0] if "fastrtps" in request.param else "CYCLONEDDS_URI"


def test_without_settings_the_launch_file_gives_ours_and_other_nodes_are_told_how(variable):
    said = check_dds_settings()
    assert (said.state, said.detail) == ("ok", "the launch file sets ours")
    file = Path(said.cure.partition(f"export {variable}=")[2])
    assert file.parent == CONFIG
    assert file.is_file()


@pytest.mark.parametrize("text", [None, "<dds><profiles></dds>"])
def test_a_file_that_cannot_be_read_fails(variable, text, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "mine.xml").write_text(text)
    monkeypatch.setenv(variable, str(tmp_path / "mine.xml"))
    said = check_dds_settings()
    assert said.state == "missing"
    assert variable in said.detail
    assert "unset" in said.cure


def test_our_files_are_good(variable, monkeypatch):
    file = CONFIG / ("fastdds.xml" if variable in FAST else "cyclonedds.xml")
    monkeypatch.setenv(variable, str(file) if variable in FAST else file.as_uri())
    assert check_dds_settings().state == "ok"


@pytest.mark.parametrize("size", ["", "<segment_size>524288</segment_size>"])
def test_profiles_of_fast_dds_with_little_shared_memory_lose_images(size, tmp_path, monkeypatch):
    monkeypatch.setattr(rclpy, "__file__", "/opt/ros/rclpy/__init__.py")
    monkeypatch.setitem(
        vars(rclpy), "get_rmw_implementation_identifier", lambda: "rmw_fastrtps_cpp"
    )
    (tmp_path / "mine.xml").write_text(f"<dds>{size}</dds>")
    monkeypatch.setenv(FAST[1], str(tmp_path / "mine.xml"))
    monkeypatch.delenv(FAST[0], raising=False)
    said = check_dds_settings()
    assert (said.state, "16 MB" in said.detail) == ("optional", True)


def test_embedded_ros_needs_none(monkeypatch):
    monkeypatch.setattr(rclpy, "__file__", "/x/embedded_ros/rclpy/__init__.py")
    monkeypatch.delenv("CYCLONEDDS_URI", raising=False)
    assert check_dds_settings()[1:3] == ("ok", "embedded_ros sets its own")


def test_little_shared_memory_is_said_with_the_option_of_containers(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**26, 0, 2**26))
    said = check_shared_memory(tmp_path)
    assert said.state == "optional"
    assert "64 MB free" in said.detail
    assert "--shm-size" in said.cure
    assert check_shared_memory(tmp_path / "missing").state == "optional"


def test_shared_memory_that_is_enough_is_only_shown(tmp_path):
    assert check_shared_memory(tmp_path).state == "ok"


def test_the_doctor_says_which_packages_of_ros_2_are_embedded():
    said = check_ros()
    assert said.state == "ok"
    assert "embedded" in said.detail
    if "embedded_ros" not in str(rclpy.__file__):
        assert "rclpy of" in said.detail
        assert "ros-jazzy-launch" in said.cure
