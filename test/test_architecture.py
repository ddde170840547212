"""The rooms of docs/architecture.md: who may import whom, and what each folder explains."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"amodal_core", "amodal_ros", "embedded_ros", "training"}
ROS = {
    "ament_index_python",
    "amodal_msgs",
    "cv_bridge",
    "diagnostic_msgs",
    "diagnostic_updater",
    "launch",
    "launch_ros",
    "message_filters",
    "rcl_interfaces",
    "rclpy",
    "sensor_msgs",
    "sensor_msgs_py",
    "std_msgs",
    "tf2_ros",
    "vision_msgs",
    "visualization_msgs",
}


def imports(package: str) -> dict[str, set[str]]:
    """Top-level names that each file of a package imports, by file."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
        found[str(path.relative_to(ROOT))] = names
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("amodal_core", (OURS | ROS) - {"amodal_core"}),
        ("embedded_ros", OURS - {"embedded_ros"}),
        ("training", (OURS | ROS) - {"training", "amodal_core"}),
    ],
)
def test_imports_run_one_way(package, forbidden):
    wrong = {file: names & forbidden for file, names in imports(package).items()}
    assert not {file: names for file, names in wrong.items() if names}


def test_the_core_loads_where_neither_ros_nor_embedded_ros_can():
    blocked = sorted(ROS | {"embedded_ros", "cyclonedds"})
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import amodal_core.pipeline, amodal_core.replay, amodal_core.evaluation.run\n"
        "import amodal_core.models.geometric, amodal_core.tracking.tracker\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_core_does_not_load_torch_until_a_tensor_is_needed():
    code = "import sys, amodal_core.pipeline; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_package_folder_says_what_it_is_for():
    folders = [ROOT / "amodal_core", ROOT / "amodal_ros", ROOT / "embedded_ros"]
    folders += [ROOT / "amodal_msgs", ROOT / "amodal_ros" / "nodes"]
    folders += [p.parent for p in (ROOT / "amodal_core").glob("*/__init__.py")]
    missing = [str(f.relative_to(ROOT)) for f in folders if not (f / "README.md").is_file()]
    assert not missing


def test_versions_of_package_xml_setup_and_code_agree():
    import xml.etree.ElementTree as ElementTree

    import amodal_core

    for xml in (ROOT / "package.xml", ROOT / "amodal_msgs" / "package.xml"):
        assert ElementTree.parse(xml).findtext("version") == amodal_core.__version__
    assert f'version="{amodal_core.__version__}"' in (ROOT / "setup.py").read_text()
