"""`amodal launch`: the nodes as processes, with ROS 2's launch or the embedded one."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from runpy import run_path
from typing import Annotated, Any

import typer

from amodal_core.errors import InputError
from amodal_ros import lifeline

FILES = {
    "pipeline": "projection, segmentation and tracking, live or with a bag",
    "replay": "a bag through the running pipeline, with latency, drops and accuracy measured",
}


def launch_file(name: str) -> Path:
    """Where `<name>.launch.py` lies: in the checkout, or where pip and colcon install it.

    Raises:
        InputError: there is no such launch file.
    """
    if name not in FILES:
        near = difflib.get_close_matches(name, FILES, 1)
        raise InputError(
            f"there is no launch file '{name}'",
            "amodal launch",
            f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(FILES)}",
        )
    places = [Path(__file__).resolve().parents[2] / "launch"]
    prefixes = (*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix)
    places += [Path(p) / "share" / "amodal_ros" / "launch" for p in prefixes if p]
    for place in places:
        if (place / f"{name}.launch.py").is_file():
            return place / f"{name}.launch.py"
    raise InputError(f"{name}.launch.py is not there", str(places[0]), "install amodal_ros again")


def has_ros2() -> bool:
    """Whether a real ROS 2 with its launch system is sourced."""
    import rclpy

    import launch

    paths = [str(getattr(m, "__file__", "") or "") for m in (launch, rclpy)]
    return not any("embedded_ros" in Path(p).parts for p in paths)


def command(
    name: Annotated[str, typer.Argument(help="pipeline or replay.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Launch arguments as NAME:=VALUE.")
    ] = None,
    show_args: Annotated[
        bool, typer.Option("--show-args", "-s", help="List the launch arguments and end.")
    ] = False,
) -> None:
    """Run the nodes as processes over DDS.

    With ROS 2 sourced this is `ros2 launch amodal_ros NAME.launch.py`; without it the embedded
    launch reads the same file.

    For example:

    amodal launch pipeline

    amodal launch pipeline bag:=build/drive rate:=1.0

    amodal launch replay bag:=build/drive out:=build/live

    amodal launch pipeline --show-args
    """
    file = launch_file(name)
    given = parse(arguments or [])
    if has_ros2():
        raise typer.Exit(_run_ros2(file, given, show_args))
    raise typer.Exit(_run_embedded(file, given, show_args))


def parse(arguments: list[str]) -> dict[str, str]:
    """NAME:=VALUE pairs.

    Raises:
        InputError: one is not of that form.
    """
    given = {}
    for argument in arguments:
        name, sign, value = argument.partition(":=")
        if not sign or not name:
            raise InputError(
                f"'{argument}' is not NAME:=VALUE", "amodal launch", "for example rate:=1.0"
            )
        given[name] = value
    return given


def check(file: Path, given: dict[str, str], arguments: Iterable[Any]) -> None:
    """Whether a launch file's arguments (DeclareLaunchArgument) are those given, or have a default.

    Raises:
        InputError: it does not.
    """
    declared = {a.name: a for a in arguments}
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            raise InputError(
                f"there is no launch argument '{name}'",
                file.name,
                f"did you mean '{near[0]}'?" if near else "see --show-args",
            )
        choices = declared[name].choices
        if choices and given[name] not in choices:
            valid = ", ".join(choices)
            raise InputError(f"'{given[name]}' is not valid", f"launch argument {name}", valid)
    missing = [n for n, a in declared.items() if a.default_value is None and n not in given]
    if missing:
        raise InputError(f"{missing[0]}:=VALUE is required", file.name, "see --show-args")
    # It reads bags, which the help of the commands does not need.
    from amodal_ros import launching

    launching.check(given)


def listed(arguments: Iterable[Any]) -> str:
    """Launch arguments (DeclareLaunchArgument) to read: in groups, with defaults and choices.

    A description that begins with [a name] belongs to the group of that name.
    """
    groups: dict[str, list[str]] = {}
    for argument in arguments:
        group, _, text = argument.description.removeprefix("[").partition("] ")
        if not text:
            group, text = "", argument.description
        # ROS 2's launch has put the choices into the description, after the text.
        text = text.partition(" Valid choices are: ")[0]
        if argument.choices:
            text += f" ({', '.join(argument.choices)})"
        default = "VALUE, required"
        if argument.default_value is not None:
            default = "".join(s.describe().strip("'") for s in argument.default_value)
        lines = groups.setdefault(group, [])
        lines.append(f"  {argument.name}:={default}")
        lines += textwrap.wrap(text, 92, initial_indent=" " * 8, subsequent_indent=" " * 8)
    blocks = ["\n".join([group or "This launch", *lines]) for group, lines in groups.items()]
    return "\n\n".join(["Launch arguments, NAME:=VALUE, with their defaults", *blocks])


def _run_ros2(file: Path, given: dict[str, str], show_args: bool) -> int:
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    description = run_path(str(file))["generate_launch_description"]()
    if show_args:
        print(listed(description.get_launch_arguments()))
        return 0
    # ros2 launch takes any argument, and says nothing of one that nobody declares.
    check(file, given, description.get_launch_arguments())
    try:
        get_package_prefix("amodal_ros")
    except PackageNotFoundError:
        raise InputError(
            "ROS 2 is sourced, but amodal_ros is not built in a sourced workspace",
            "amodal launch",
            "colcon build --base-paths . amodal_msgs && . install/setup.bash",
        ) from None
    ros2 = shutil.which("ros2")
    if ros2 is None:
        raise InputError(
            "there is no ros2 command", "amodal launch", "install ros-jazzy-ros2launch"
        )
    arguments = [f"{k}:={v}" for k, v in given.items()]
    os.execv(ros2, [ros2, "launch", "amodal_ros", file.name, *arguments])


def _run_embedded(file: Path, given: dict[str, str], show_args: bool) -> int:
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchService

    lifeline.follow()
    service = LaunchService()
    description = PythonLaunchDescriptionSource(str(file)).load(service.context)
    if show_args:
        print(listed(description.get_launch_arguments(service.context)))
        return 0
    check(file, given, description.get_launch_arguments(service.context))
    service.context.launch_configurations.update(given)
    service.include_launch_description(description)
    return int(service.run())
