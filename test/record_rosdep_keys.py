"""Records what the dependencies of our package.xml files are in each ROS 2 distribution.

git clone --depth 1 https://github.com/ros/rosdistro /tmp/rosdistro
python test/record_rosdep_keys.py /tmp/rosdistro > test/fixtures/rosdep_keys.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

# Distribution -> Ubuntu's name of the release that it is made for.
DISTRIBUTIONS = {"humble": "jammy", "jazzy": "noble", "kilted": "noble", "lyrical": "resolute"}
ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ("package.xml", "amodal_msgs/package.xml")


def keys() -> list[str]:
    """All dependencies that are not ours."""
    elements = [e for m in MANIFESTS for e in ElementTree.parse(ROOT / m).getroot()]
    named = {str(e.text) for e in elements if e.tag.endswith("depend")}
    return sorted(named - {"amodal_msgs"})


def load(file: Path) -> Any:
    """A YAML file of many thousand lines."""
    with file.open() as stream:
        return yaml.load(stream, yaml.CSafeLoader)


def record(rosdistro: Path) -> dict[str, dict[str, str]]:
    """Distribution -> key -> the apt package that rosdep takes for it, where there is one."""
    rules = load(rosdistro / "rosdep/base.yaml") | load(rosdistro / "rosdep/python.yaml")
    recorded: dict[str, dict[str, str]] = {}
    for distribution, ubuntu in DISTRIBUTIONS.items():
        repositories = load(rosdistro / distribution / "distribution.yaml")["repositories"]
        released = {
            package
            for name, repository in repositories.items()
            for package in (repository.get("release") or {"packages": []}).get("packages", [name])
        }
        packages = recorded[distribution] = {}
        for key in keys():
            rule = rules.get(key, {}).get("ubuntu")
            if isinstance(rule, dict):
                rule = rule.get(ubuntu, rule.get("*"))
            if key in released:
                packages[key] = f"ros-{distribution}-{key.replace('_', '-')}"
            elif isinstance(rule, list) and rule:
                packages[key] = " ".join(rule)
    return recorded


if __name__ == "__main__":
    print(json.dumps(record(Path(sys.argv[1])), indent=1))
