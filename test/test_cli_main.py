"""The `amodal` command itself: what it lists, and that listing imports nothing heavy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from amodal_ros.cli import main

runner = CliRunner()


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_list_says_what_the_help_of_a_command_begins_with(name):
    text = " ".join(main.load(name).help.split())
    assert text.startswith(main.COMMANDS[name])
    assert main.load(name).name == name


def test_the_list_needs_no_command_and_no_heavy_library():
    code = (
        "import sys\n"
        "from amodal_ros.cli.main import main\n"
        "sys.argv = ['amodal', '--help']\n"
        "try: main()\n"
        "finally: print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f" {name} " in done.stdout for name in main.COMMANDS)
    loaded = set(done.stderr.split())
    heavy = {"numpy", "numba", "cv2", "torch", "scipy", "rosbags", "cyclonedds", "yaml"}
    assert not loaded & (heavy | {f"amodal_ros.cli.{name}" for name in main.COMMANDS})


def test_help_of_a_command_needs_no_heavy_library():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from amodal_ros.cli import main\n"
        "for name in main.COMMANDS:\n"
        "    done = CliRunner().invoke(main.app, [name, '--help'])\n"
        "    assert f'amodal {name}' in done.stdout, done.output\n"
        "print(*sys.modules, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numba", "cv2", "torch", "scipy", "rosbags", "cyclonedds", "pycocotools", "rclpy"}
    assert not heavy & set(done.stdout.split())


def paths():
    for name in main.COMMANDS:
        yield (name,)
        yield from ((name, inner) for inner in getattr(main.load(name), "commands", ()))


@pytest.mark.parametrize("words", [(), *paths()], ids=" ".join)
def test_help_fits_80_columns_and_says_every_option_in_full(words):
    shown = runner.invoke(main.app, [*words, "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert not [line for line in shown.splitlines()[1:] if line.endswith("...")]
    command = typer.main.get_command(main.app) if not words else main.load(words[0])
    command = command.commands[words[1]] if words[1:] else command
    names = {name for p in command.params for name in p.opts if name.startswith("-")}
    assert all(name in shown for name in names)


def test_a_mistyped_command_is_corrected():
    done = runner.invoke(main.app, ["doctr"])
    assert done.exit_code == 2
    assert "Did you mean 'doctor'?" in done.output


def test_options_of_a_group_reach_its_commands():
    done = runner.invoke(main.app, ["eval", "protocols", "-h"])
    assert done.exit_code == 0
    assert "eval protocols" in done.stdout


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_while_llvm_calls_python_waits_until_it_has_returned(number, raised):
    """What is raised in such a call is lost, and LLVM goes on with nothing in its hands."""
    done, names = [], {}
    text = "def called_back(first, then):\n    first()\n    then()\n"
    exec(compile(text, "/lib/llvmlite/binding/executionengine.py", "exec"), names)

    def interrupted() -> None:
        names["called_back"](lambda: os.kill(os.getpid(), number), lambda: done.append(1))
        time.sleep(5)

    before = {n: signal.signal(n, main._end) for n in (number, signal.SIGALRM)}
    try:
        with pytest.raises(raised):
            interrupted()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for n, handler in before.items():
            signal.signal(n, handler)
    assert done == [1]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("between", "code"), [(SystemExit(143), 143), (KeyboardInterrupt(), 130), (ValueError(), 1)]
)
def test_a_signal_in_the_middle_of_compiled_code_ends_a_command_as_elsewhere(
    between, code, times, monkeypatch
):
    """The interpreter wraps what its handler raises there in an error of its own, once a call."""

    def interrupted() -> None:
        error = between
        for _ in range(times):
            wrapped = SystemError("returned a result with an exception set")
            wrapped.__cause__, error = error, wrapped
        raise error

    monkeypatch.setattr(main, "app", interrupted)
    monkeypatch.setattr(main.signal, "signal", lambda number, handler: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
