"""Finds the embedded packages when an import names one that is not installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from embedded_ros import interfaces

_HERE = str(Path(__file__).parent)
# Import name -> the apt package that holds the whole of it.
PACKAGES = {
    "ament_index_python": "ros-jazzy-ament-index-python",
    "cv_bridge": "ros-jazzy-cv-bridge",
    "diagnostic_updater": "ros-jazzy-diagnostic-updater",
    "launch": "ros-jazzy-launch",
    "launch_ros": "ros-jazzy-launch-ros",
    "message_filters": "ros-jazzy-message-filters",
    "rclpy": "ros-jazzy-rclpy",
    "sensor_msgs_py": "ros-jazzy-sensor-msgs-py",
    "tf2_ros": "ros-jazzy-tf2-ros-py",
}


def missing(name: str) -> NoReturn:
    """Refuse a part of ROS 2 that is not here.

    Args:
        name: dotted, from the import name on, such as rclpy.action.

    Raises:
        ModuleNotFoundError: always.
    """
    top = name.split(".")[0]
    package = PACKAGES.get(top, f"ros-jazzy-{top.replace('_', '-')}")
    raise ModuleNotFoundError(f"{name} is not part of embedded_ros; install {package}", name=name)


def absent_attribute(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that names the ROS 2 package for what is not embedded."""

    def lookup(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(sys.modules[module], "__path__"):
            # `from package import submodule` asks for the attribute before it imports the module.
            return importlib.import_module(f"{module}.{name}")
        missing(f"{module}.{name}")

    return lookup


class _MessageLoader(Loader):
    """Makes `std_msgs`, `std_msgs.msg` and `std_msgs.srv` from the known definitions."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        package, _, kind = module.__name__.partition(".")
        if kind:
            for name in interfaces.names_in(package, kind):
                setattr(module, name, interfaces.interface(f"{package}/{kind}/{name}"))
        module.__getattr__ = absent_attribute(module.__name__)  # type: ignore[method-assign]


class _Finder(MetaPathFinder):
    """Answers for the embedded packages that no other finder knows.

    It stands first because a folder named `launch` or `amodal_msgs` in the working directory would
    otherwise pass for a namespace package of that name.
    """

    def __init__(self) -> None:
        self._owned: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if not rest:
            if top not in PACKAGES and not interfaces.has_package(top):
                return None
            if self._installed(fullname, target):
                return None
            self._owned.add(top)
        elif top not in self._owned:
            return None
        if top in PACKAGES:
            spec = PathFinder.find_spec(fullname, path if rest else [_HERE], target)
            if spec is None or spec.loader is None:
                missing(fullname)
            return spec
        if rest not in ("", *interfaces.kinds_in(top)):
            missing(fullname)
        return ModuleSpec(fullname, _MessageLoader(), is_package=not rest)

    def _installed(self, name: str, target: ModuleType | None) -> bool:
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, None, target)
            if spec is not None and spec.loader is not None and spec.origin is not None:
                return True
        return False


def install() -> None:
    """Put the finder in place, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
