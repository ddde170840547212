"""The embedded launch: what a launch file says is what happens, as under ROS 2's launch."""

from __future__ import annotations

import amodal_ros  # noqa: F401, isort: skip - where ROS 2 is not installed, it puts launch in place

import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

import launch
from amodal_ros.respawn import kept
from amodal_ros.restarts import LIMIT, REFUSED, WINDOW
from launch import LaunchDescription, LaunchService

embedded = "embedded_ros" in Path(str(launch.__file__)).parts
pytestmark = pytest.mark.skipif(not embedded, reason="ROS 2's own launch is installed")

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Launches entities; gives the return code and all that was printed."""
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))

    def go(*entities: Any, **arguments: str) -> tuple[int, str]:
        service = LaunchService()
        service.context.launch_configurations.update(arguments)
        service.include_launch_description(LaunchDescription(entities))
        code = service.run()
        out, err = capfd.readouterr()
        return code, out + err

    return go


def python(code: str, **options: Any) -> ExecuteProcess:
    return ExecuteProcess(cmd=[sys.executable, "-c", code], output="screen", name="it", **options)


def line(*text: Any) -> OpaqueFunction:
    """Prints text and substitutions."""

    def show(context: Any) -> None:
        print("".join(t if isinstance(t, str) else t.perform(context) for t in text), flush=True)

    return OpaqueFunction(function=show)


def test_lines_of_a_process_carry_its_name(run: Run) -> None:
    code, text = run(python("print('hello'); import sys; print('oh', file=sys.stderr)"))
    assert code == 0
    assert "[it-1] hello\n" in text
    assert "[it-1] oh\n" in text
    assert "[it-1]: process has finished cleanly" in text


def test_output_log_shows_errors_only_and_the_file_has_both(run: Run, tmp_path: Path) -> None:
    process = ExecuteProcess(
        cmd=[sys.executable, "-c", "import sys; print('plain'); print('bad', file=sys.stderr)"],
        name="it",
    )
    _, text = run(process)
    assert "plain" not in text
    assert "[it-1] bad" in text
    file = next((tmp_path / "log").glob("*/launch.log")).read_text()
    assert "[it-1] plain" in file
    assert "[it-1] bad" in file


def test_arguments_take_their_default_the_given_value_or_are_required(run: Run) -> None:
    declare = DeclareLaunchArgument("x", default_value="one", choices=["one", "two"])
    log = line("x is ", LaunchConfiguration("x"))
    assert "x is one" in run(declare, log)[1]
    assert "x is two" in run(declare, log, x="two")[1]
    code, text = run(declare, log, x="three")
    assert code == 1
    assert "'x' is 'three' where one of ['one', 'two'] is valid" in text
    code, text = run(DeclareLaunchArgument("y"))
    assert code == 1
    assert "required launch argument 'y'" in text


def test_variables_are_those_of_the_processes_that_follow(run: Run) -> None:
    shown = python("import os; print('it is', os.environ.get('LAUNCH_TEST'))")
    code, text = run(SetEnvironmentVariable("LAUNCH_TEST", LaunchConfiguration("x")), shown, x="on")
    assert code == 0
    assert "it is on" in text


def test_included_files_get_their_arguments(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "inner.launch.py"
    file.write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import DeclareLaunchArgument, OpaqueFunction\n"
        "from launch.substitutions import LaunchConfiguration\n"
        "def show(context): print('it is', LaunchConfiguration('who').perform(context))\n"
        "def generate_launch_description():\n"
        "    return LaunchDescription([DeclareLaunchArgument('who', default_value='nobody'),\n"
        "        OpaqueFunction(function=show)])\n"
    )
    source = PythonLaunchDescriptionSource(str(file))
    given = [("who", LaunchConfiguration("name"))]
    include = IncludeLaunchDescription(source, launch_arguments=given)
    assert "it is me" in run(include, name="me")[1]
    assert "it is nobody" in run(IncludeLaunchDescription(source))[1]
    arguments = LaunchDescription([include]).get_launch_arguments()
    assert [a.name for a in arguments] == ["who"]
    absent = PythonLaunchDescriptionSource(str(tmp_path / "absent.launch.py"))
    code, text = run(IncludeLaunchDescription(absent))
    assert code == 1
    assert "absent.launch.py" in text


def test_functions_give_entities_when_the_values_are_known(run: Run) -> None:
    def more(context: Any) -> list[Any]:
        count = int(LaunchConfiguration("count").perform(context))
        return [line(f"no {k}") for k in range(count)]

    _, text = run(OpaqueFunction(function=more), count="3")
    assert "no 2" in text
    assert "no 3" not in text


def test_handlers_see_processes_end(run: Run) -> None:
    first, second = python("pass"), python("raise SystemExit(3)")
    exits: list[tuple[str, int]] = []

    def ended(event: Any, context: Any) -> None:
        exits.append((event.process_name, event.returncode))

    run(
        RegisterEventHandler(OnProcessExit(target_action=first, on_exit=[second])),
        RegisterEventHandler(OnProcessExit(on_exit=ended)),
        first,
    )
    assert exits == [("it-1", 0), ("it-2", 3)]


def test_a_timer_visits_its_entities_later_and_not_after_a_shutdown(run: Run) -> None:
    begin = time.monotonic()
    code, said = run(
        LogInfo(msg=["now ", LaunchConfiguration("what")]),
        TimerAction(period=0.3, actions=[line("then"), Shutdown(reason="enough")]),
        TimerAction(period=30.0, actions=[line("never")]),
        what="this",
    )
    assert code == 0
    assert 0.3 <= time.monotonic() - begin < 20
    assert said.index("[INFO] [launch.user]: now this") < said.index("then")
    assert "never" not in said


def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> Callable[[], Any]:
    """What makes a process that appends a letter to a file and runs code; restarts come at once."""
    monkeypatch.setattr("amodal_ros.restarts._FIRST", 0.01)
    file = tmp_path / "runs"
    return lambda: python(f"open({str(file)!r}, 'a').write('x'); {code}")


@pytest.mark.parametrize(
    "ends", ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)", ""]
)
def test_live_a_stage_is_started_again_however_it_ends_and_too_often_ends_the_launch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    other = python("import time; time.sleep(60)")
    code, said = run(other, *kept(keeping(tmp_path, monkeypatch, ends), viewer=False))
    assert code == 1
    assert (tmp_path / "runs").read_text() == "x" * (1 + LIMIT)
    assert f"restart 1 of {LIMIT} in 0.01 s" in said
    assert f"is given up ({LIMIT} restarts in {WINDOW:g} s)" in said


def test_live_a_stage_that_refuses_what_it_was_told_ends_the_launch_at_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = keeping(tmp_path, monkeypatch, f"import sys; sys.exit({REFUSED})")
    code, said = run(*kept(refusing, viewer=False))
    assert code == 1
    assert (tmp_path / "runs").read_text() == "x"
    assert "died with exit code 2 and is given up (it says why)" in said


@pytest.mark.parametrize(
    ("ends", "runs", "words"),
    [
        ("import sys; sys.exit(3)", 1 + LIMIT, "is given up"),
        (f"import sys; sys.exit({REFUSED})", 1, "is given up (it says why)"),
        ("", 1, "has ended with exit code 0; the others go on"),
    ],
)
def test_live_a_viewer_ends_nothing_however_it_ends(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, runs: int, words: str
) -> None:
    # The other one is there until the viewer is given up, and ends by itself.
    stop = tmp_path / "stop"
    waits = f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(0.05)\n"
    make, made = keeping(tmp_path, monkeypatch, ends), []

    def counted() -> Any:
        made.append(make())
        return made[-1]

    def look(event: Any, context: Any) -> None:
        if event.action in made and len(made) == runs:
            stop.touch()

    other = python(waits + "print('ended last')")
    watch = RegisterEventHandler(OnProcessExit(on_exit=look))
    code, said = run(watch, other, *kept(counted, viewer=True))
    assert code == 0
    assert (tmp_path / "runs").read_text() == "x" * runs
    assert words in said
    assert "ended last" in said


def test_an_exception_in_a_handler_ends_the_launch_with_an_error(run: Run) -> None:
    def ended(event: Any, context: Any) -> None:
        raise RuntimeError("it must not end")

    short = python("pass")
    long = python("import time; time.sleep(60)")
    code, text = run(
        RegisterEventHandler(OnProcessExit(target_action=short, on_exit=ended)), long, short
    )
    assert code == 1
    assert "it must not end" in text


def test_shutdown_signals_are_stepped_up(run: Run, tmp_path: Path) -> None:
    stubborn = (
        "import pathlib, signal, time, sys\n"
        "for s in sys.argv[2:]: signal.signal(int(s), signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )

    def started(*signals: int) -> ExecuteProcess:
        ready = tmp_path / f"ready{len(signals)}"
        return ExecuteProcess(
            cmd=[sys.executable, "-c", stubborn, str(ready), *map(str, signals)],
            output="screen",
            sigterm_timeout="2.0",
            sigkill_timeout="0.5",
        )

    codes: list[int] = []
    processes = [started(), started(2), started(2, 15)]
    handlers = [
        RegisterEventHandler(
            OnProcessExit(target_action=p, on_exit=lambda e, c: codes.append(e.returncode))
        )
        for p in processes
    ]
    ready = python(
        "import pathlib, time\n"
        f"while len(list(pathlib.Path({str(tmp_path)!r}).glob('ready?'))) < 3: time.sleep(0.05)"
    )
    enough = Shutdown(reason="enough")
    handlers.append(RegisterEventHandler(OnProcessExit(target_action=ready, on_exit=[enough])))
    code, text = run(*handlers, *processes, ready)
    assert code == 0
    assert codes == [-2, -15, -9] or codes == [1, -15, -9]
    assert "shutting down: enough" in text
    assert "sending SIGTERM" in text
    assert "sending SIGKILL" in text


def node_command(node: Node, **arguments: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The node's command line, and the parameters in its files."""
    context = LaunchService().context
    context.launch_configurations.update(arguments)
    command = node.command(context)
    files = [Path(b) for a, b in pairwise(command) if a == "--params-file"]
    return command, [yaml.safe_load(f.read_text())["/**"]["ros__parameters"] for f in files]


def test_a_node_gets_name_namespace_parameters_and_remaps() -> None:
    node = Node(
        package="amodal_ros",
        executable="tracking",
        name="eyes",
        namespace="robot/head",
        parameters=[
            {
                "a": 1,
                "b": LaunchConfiguration("given"),
                "nested": {"d": [1.5, 2.5]},
            },
        ],
        remappings=[("image", LaunchConfiguration("camera"))],
        ros_arguments=["--log-level", "debug"],
    )
    command, parameters = node_command(node, given="7", camera="/cam")
    assert command[:3] == [sys.executable, "-m", "amodal_ros.nodes.tracking"]
    text = " ".join(command)
    assert "-r __node:=eyes" in text
    assert "-r __ns:=/robot/head" in text
    assert "-r image:=/cam" in text
    assert "--log-level debug" in text
    assert parameters == [{"a": 1, "b": 7, "nested": {"d": [1.5, 2.5]}}]


def test_an_unknown_executable_or_parameter_file_is_named() -> None:
    with pytest.raises(RuntimeError, match="'amodal_ros' has no executable 'nonesuch'"):
        node_command(Node(package="amodal_ros", executable="nonesuch"))
    with pytest.raises(FileNotFoundError, match=r"/nowhere/p\.yaml"):
        node_command(
            Node(package="amodal_ros", executable="tracking", parameters=["/nowhere/p.yaml"])
        )


def test_what_is_not_embedded_names_the_package_to_install() -> None:
    with pytest.raises(ImportError, match="ros-jazzy-launch"):
        from launch.actions import AppendEnvironmentVariable  # noqa: F401
    with pytest.raises(ImportError, match="ros-jazzy-launch-ros"):
        from launch_ros.actions import ComposableNodeContainer  # noqa: F401
    with pytest.raises(ImportError, match="ros-jazzy-launch"):
        from launch.conditions import IfCondition  # noqa: F401
    with pytest.raises(NotImplementedError, match="ros-jazzy-launch"):
        ExecuteProcess(cmd=["true"], emulate_tty=True)
    with pytest.raises(NotImplementedError, match="ros-jazzy-launch"):
        Node(executable="tracking", condition=None)
