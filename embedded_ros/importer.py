"""Finds the embedded packages when an import names one that is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NoReturn

_HERE = str(Path(__file__).parent)
# Import name -> the apt package that holds the whole of it; others follow the same rule.
PACKAGES = {
    "ament_index_python": "ros-jazzy-ament-index-python",
    "cv_bridge": "ros-jazzy-cv-bridge",
    "launch": "ros-jazzy-launch",
    "launch_ros": "ros-jazzy-launch-ros",
    "message_filters": "ros-jazzy-message-filters",
    "rclpy": "ros-jazzy-rclpy",
    "sensor_msgs_py": "ros-jazzy-sensor-msgs-py",
}
_NO_DDS = (
    "embedded_ros needs cyclonedds, which is not installed (wheels are for x86_64, this is {}); "
    "source a ROS 2 (. /opt/ros/jazzy/setup.bash), or pip install cyclonedds"
)
# How names of message packages end; the rest of an import costs nothing.
_MESSAGES = ("_msgs", "_srvs", "_interfaces", "_dds_common")
_definitions: list[Callable[[], Mapping[str, str]]] = []


def _interfaces() -> Any:
    """The module that makes message classes, with all definitions that were given."""
    from embedded_ros import interfaces

    while _definitions:
        interfaces.add_messages(_definitions[-1]())
        _definitions.pop()
    return interfaces


def _refusal(name: str) -> str:
    top = name.split(".")[0]
    package = PACKAGES.get(top, f"ros-jazzy-{top.replace('_', '-')}")
    return f"{name} is not part of embedded_ros; install {package}"


def missing(name: str) -> NoReturn:
    """Refuse a module of ROS 2 that is not here, or a name in one.

    Args:
        name: dotted, from the import name on, such as rclpy.action.

    Raises:
        ModuleNotFoundError: always.
    """
    raise ModuleNotFoundError(_refusal(name), name=name)


def refuse(what: str) -> NoReturn:
    """Refuse a use of a class or function that ROS 2 allows and embedded_ros does not.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(_refusal(what))


def refuse_arguments(function: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments that a function has in ROS 2 and not here.

    Args:
        function: dotted, such as rclpy.node.Node.create_publisher.
        given: the unknown keyword arguments.

    Raises:
        NotImplementedError: there are any.
    """
    for name in given:
        refuse(f"{function}({name}=)")


class Partial:
    """Base of classes that have only a part of the attributes that they have in ROS 2."""

    # Those that are missing, separated by spaces.
    _absent: ClassVar[str] = ""

    def __getattr__(self, name: str) -> NoReturn:
        for base in type(self).__mro__:
            if name in vars(base).get("_absent", "").split():
                raise AttributeError(_refusal(f"{base.__module__}.{base.__qualname__}.{name}"))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


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


class _SourceLoader(SourceFileLoader):
    """Loads an embedded module, and lets it name the package for what it lacks."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module).setdefault("__getattr__", absent_attribute(module.__name__))


class _MessageLoader(Loader):
    """Makes `std_msgs`, `std_msgs.msg` and `std_msgs.srv` from the known definitions."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        package, _, kind = module.__name__.partition(".")
        if kind:
            interfaces = _interfaces()
            for name in interfaces.names_in(package, kind):
                setattr(module, name, interfaces.interface(f"{package}/{kind}/{name}"))
        vars(module)["__getattr__"] = absent_attribute(module.__name__)


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
            if not self._offered(top) or self._installed(fullname, target):
                return None
            self._owned.add(top)
        elif top not in self._owned:
            return None
        if fullname == "rclpy" and importlib.util.find_spec("cyclonedds") is None:
            raise ModuleNotFoundError(_NO_DDS.format(platform.machine()), name="cyclonedds")
        if top in PACKAGES:
            spec = PathFinder.find_spec(fullname, path if rest else [_HERE], target)
            if spec is None or spec.loader is None or spec.origin is None:
                missing(fullname)
            spec.loader = _SourceLoader(fullname, spec.origin)
            return spec
        if rest not in ("", *_interfaces().kinds_in(top)):
            missing(fullname)
        return ModuleSpec(fullname, _MessageLoader(), is_package=not rest)

    def _offered(self, top: str) -> bool:
        """Whether the package is embedded; messages only where rclpy is, they belong together."""
        if top in PACKAGES or not top.endswith(_MESSAGES):
            return top in PACKAGES
        return not self._installed("rclpy", None) and bool(_interfaces().kinds_in(top))

    def _installed(self, name: str, target: ModuleType | None) -> bool:
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, None, target) for finder in others)
        return any(s is not None and s.loader is not None and s.origin is not None for s in specs)


def install(definitions: Callable[[], Mapping[str, str]] | None = None) -> None:
    """Put the finder in place, once, and keep definitions for the first message that is used."""
    if definitions is not None:
        _definitions.append(definitions)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
