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


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def imports(package: str) -> dict[str, set[str]]:
    """The same of each file of a package, by file."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {str(path.relative_to(ROOT)): imports_of(path) for path in files}


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


def circles(package: str) -> list[set[str]]:
    """Modules of a package that import each other, wherever in the file, for types only too."""
    files = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    # ROS 2's launch and its neighbours stand inside embedded_ros under their own names.
    names = files | {n.removeprefix("embedded_ros."): p for n, p in files.items()}
    modules = {path: name for name, path in files.items()}
    ahead: dict[str, set[str]] = {}
    for name, path in files.items():
        folder = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
        ahead[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = folder[: len(folder) + 1 - node.level] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                inner = [f"{base}.{alias.name}" for alias in node.names]
                imported = [n for n in inner if n in names]
                # Only submodules: the package itself is loaded in any case.
                imported += [base] if len(imported) < len(inner) else []
            else:
                continue
            ahead[name] |= {modules[names[n]] for n in imported if n in names} - {name}
    # Peel off what imports nothing that is left, and what nothing left imports.
    left = set(ahead)
    while gone := {n for n in left if not ahead[n] & left} | left - set().union(
        *(ahead[n] for n in left)
    ):
        left -= gone
    return [{n, *(ahead[n] & left)} for n in sorted(left)]


@pytest.mark.parametrize("package", sorted(OURS))
def test_no_module_imports_one_that_imports_it(package):
    assert not circles(package)


def test_what_several_test_files_use_stands_in_none_of_them():
    wrong = {
        path.name: tests
        for path in sorted((ROOT / "test").rglob("*.py"))
        if (tests := {n for n in imports_of(path) if n.startswith("test_")})
    }
    assert not wrong


# Rooms of amodal_core: what each may import beside itself and what all may (EVERYWHERE).
# Whoever adds an arrow looks for a way without it first.
ROOMS = {
    "frame": "masks",
    "masks": "",
    "geometry": "",
    "interfaces": "",
    "bags": "geometry interfaces masks",
    "drive": "bags geometry",
    "datasets": "bags drive geometry masks",
    "synthetic": "bags datasets drive masks",
    "tracking": "masks",
    "models.layers": "geometry",
    "runtime": "",
    "models": "geometry masks models.layers runtime tracking",
    "views": "bags datasets drive geometry masks",
    "journal": "",
    "warm_up": "masks tracking",
    "evaluation": "bags datasets drive geometry masks views",
    "pipeline": "geometry models tracking",
    "replay": "bags drive evaluation pipeline views warm_up",
    "replays": "bags drive evaluation models pipeline replay tracking views",
    "inference": "datasets evaluation geometry journal models pipeline tracking",
    "track_inference": "datasets evaluation journal masks models",
    "quantising": "datasets evaluation inference models pipeline runtime",
}
EVERYWHERE = {
    "arrays",
    "classes",
    "errors",
    "extras",
    "files",
    "frame",
    "limits",
    "pickles",
    "yaml_texts",
    "parallel",
    "progress",
    "settings",
    "torch_files",
    "unpacking",
    "__version__",
}


def room(name: str) -> str:
    """The room of amodal_core that a dotted module or name lies in."""
    parts = name.split(".")
    return "models.layers" if parts[1:3] == ["models", "layers"] else parts[1]


def rooms() -> dict[str, dict[str, set[str]]]:
    """The rooms that each file of each room of amodal_core imports."""
    arrows: dict[str, dict[str, set[str]]] = {}
    for path in sorted((ROOT / "amodal_core").rglob("*.py")):
        file = path.relative_to(ROOT)
        own = room(".".join(file.with_suffix("").parts))
        names = {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        into = {room(n) for n in names if n.startswith("amodal_core.")}
        arrows.setdefault(own, {})[str(file)] = into - {own}
    return arrows


def test_arrows_between_the_rooms_of_the_core_are_those_of_the_table():
    wrong = {
        file: extra
        for own, files in rooms().items()
        for file, into in files.items()
        if (extra := into - EVERYWHERE - set(ROOMS.get(own, "").split()))
    }
    assert not wrong


def test_the_table_of_rooms_has_no_circle():
    below: dict[str, set[str]] = {}

    def reach(name: str, above: tuple[str, ...] = ()) -> set[str]:
        assert name not in above, f"a circle: {' -> '.join((*above, name))}"
        if name not in below:
            into = ROOMS.get(name, "").split()
            below[name] = set(into).union(*(reach(other, (*above, name)) for other in into))
        return below[name]

    for name in ROOMS:
        reach(name)


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
        package = ElementTree.parse(xml)
        assert package.findtext("version") == amodal_core.__version__
        kinds = {url.get("type") for url in package.findall("url")}
        assert kinds == {"website", "repository", "bugtracker"}
    assert f'version="{amodal_core.__version__}"' in (ROOT / "setup.py").read_text()
