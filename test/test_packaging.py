"""What pip, rosdep and colcon read of the project."""

from __future__ import annotations

import json
import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from record_rosdep_keys import DISTRIBUTIONS, keys

ROOT = Path(__file__).resolve().parents[1]
RECORDED = json.loads((ROOT / "test/fixtures/rosdep_keys.json").read_text())
X86, ARM = {"platform_machine": "x86_64"}, {"platform_machine": "aarch64"}


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py gives to setuptools."""
    values: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: values.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return values


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_rosdep_has_every_key_of_package_xml(distribution):
    """A new key is recorded anew with test/record_rosdep_keys.py."""
    assert sorted(RECORDED[distribution]) == keys()


def test_the_record_tells_ros_packages_from_ubuntu_s():
    assert RECORDED["jazzy"]["cv_bridge"] == "ros-jazzy-cv-bridge"
    assert RECORDED["humble"]["python3-opencv"] == "python3-opencv"


def test_cyclonedds_is_required_only_where_it_has_a_wheel(metadata):
    (cyclone,) = [Requirement(r) for r in metadata["install_requires"] if "cyclonedds" in r]
    assert cyclone.marker is not None
    linux = {"platform_system": "Linux"}
    assert cyclone.marker.evaluate(linux | X86)
    assert not cyclone.marker.evaluate(linux | ARM)
    assert not cyclone.marker.evaluate({"platform_system": "Darwin"} | ARM)


def test_all_else_is_required_everywhere(metadata):
    rest = [Requirement(r) for r in metadata["install_requires"] if "cyclonedds" not in r]
    assert len(rest) > 10
    assert all(r.marker is None for r in rest)


def test_gigabytes_come_only_with_the_extras_that_need_them(metadata):
    def names(requirements):
        return {Requirement(r).name for r in requirements}

    heavy = {"torch", "torchvision"}
    extras = metadata["extras_require"]
    assert not heavy & names(metadata["install_requires"])
    assert "openvino" in names(metadata["install_requires"])  # runs the default model's network
    for extra in ("torch", "train", "sam", "export", "tensorrt", "all", "test"):
        assert heavy <= names(extras[extra]), extra
    for extra in ("onnxruntime", "plots", "synth"):
        assert not heavy & names(extras[extra]), extra


@pytest.fixture
def set_up(tmp_path):
    """Runs scripts/setup.sh on an environment that only notes what it was asked for."""
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    folder = tmp_path / "bin"
    folder.mkdir()
    python = folder / "python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '  "-c import torch") exit 1 ;;\n'
        "  -c*urllib*) exit $UNREACHED ;;\n"
        f'  *"pip install"*) echo "$*" >> {tmp_path}/asked ;;\n'
        "esac\n"
    )
    (folder / "amodal").write_text("#!/bin/sh\n")
    for file in folder.iterdir():
        file.chmod(0o755)

    def run(size: str, reached: bool) -> tuple[list[str], str]:
        environment = os.environ | {
            "VENV": str(tmp_path),
            "PYTHON": sys.executable,
            "UNREACHED": str(int(not reached)),
        }
        command = ["bash", str(ROOT / "scripts/setup.sh"), size]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return (tmp_path / "asked").read_text().splitlines(), done.stdout + done.stderr

    return run


def test_the_demo_installs_the_package_alone(set_up):
    asked, _ = set_up("small", True)
    assert [line.split()[-2:] for line in asked] == [["-e", "."], ["trackeval", "tabulate"]]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere PyPI has CPU builds")
def test_without_a_gpu_torch_is_a_cpu_build_where_its_index_answers(set_up):
    asked, said = set_up("all", True)
    assert asked[0].endswith(
        "--extra-index-url https://download.pytorch.org/whl/cpu torch torchvision"
    )
    assert all("extra-index-url" not in line for line in asked[1:])
    assert "5.5 GB" not in said


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere PyPI has CPU builds")
def test_where_it_does_not_one_line_says_what_that_costs_before(set_up):
    asked, said = set_up("all", False)
    assert not any("extra-index-url" in line for line in asked)
    (line,) = [line for line in said.splitlines() if "5.5 GB" in line]
    assert "no NVIDIA GPU" in line


WITHOUT_CYCLONE = """
import sys
import amodal_ros
from importlib.machinery import PathFinder

# As on a machine where pip installed all but cyclonedds and no ROS 2 is sourced.
real = PathFinder.find_spec
hidden = ("cyclonedds", "rclpy")
PathFinder.find_spec = classmethod(
    lambda c, name, path=None, target=None:
        None if name in hidden and path is None else real(name, path, target))
from amodal_ros.cli.doctor import check_ros
from amodal_ros.cli.main import main
print(check_ros())
sys.argv = ["amodal", *sys.argv[1:]]
main()
"""


def test_without_cyclonedds_and_ros_2_one_line_says_what_to_do():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CYCLONE, "launch", "pipeline"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    for words in (done.stdout, done.stderr):  # the doctor's, and the command's
        assert "cyclonedds, which is not installed" in words
        assert "source a ROS 2" in words
    assert "Traceback" not in done.stderr


def test_the_containers_use_what_is_in_the_repository():
    lines = (ROOT / "docker/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    scripts = [word for line in lines for word in line.split() if word.endswith(".sh")]
    assert copied == [".", "docker/entrypoint.sh"]
    assert "src/amodal_ros/scripts/install_ros.sh" in scripts
    for path in (*copied, "scripts/install_ros.sh"):
        assert (ROOT / path).exists()
    declared = {line.split()[1].partition("=")[0] for line in lines if line.startswith("ARG")}
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    assert {"humble", "jazzy", "humble-cuda", "jazzy-cuda"} == set(services)
    for name, service in services.items():
        build, (distribution, _, cuda) = service["build"], name.partition("-")
        assert set(build["args"]) <= declared
        assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()
        assert build["args"]["ROS_DISTRO"] == distribution
        assert build["args"]["TORCH"].startswith("cu1" if cuda else "cpu")
        assert ("deploy" in service) == bool(cuda)


def test_the_workflow_runs_what_the_makefile_and_the_tests_have():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ros.yml").read_text())
    (job,) = workflow["jobs"].values()
    commands = " ".join(step.get("run", "") for step in job["steps"])
    assert "make ros WS=/ws" in commands
    assert "\nros:" in (ROOT / "Makefile").read_text()
    patterns = [word for word in commands.split() if word.startswith("test/")]
    assert len(patterns) > 3
    assert all(list(ROOT.glob(pattern)) for pattern in patterns)
