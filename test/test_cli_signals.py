"""Commands that are ended from outside: nothing half done is left."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from amodal_core import files
from amodal_core.errors import InputError
from amodal_core.files import atomic, filled, folder_beside, full_disk

DRIVE = Path(__file__).parents[1] / "data" / "sample_drive"
AMODAL = [sys.executable, "-m", "amodal_ros.cli.main"]


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(process: int) -> list[int]:
    """Processes whose parent this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = entry.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(after[1]) == process and after[0] != "Z":
            found.append(int(entry.parent.name))
    return found


@pytest.mark.skipif(not DRIVE.exists(), reason="no sample drive in this checkout")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_replay_that_is_ended_leaves_nothing_half_written(number, tmp_path):
    command = [
        *AMODAL,
        "replay",
        str(DRIVE),
        "--out",
        str(tmp_path / "out"),
        "--model",
        "geometric",
    ]
    # Whoever runs the tests under nohup has them ignore SIGHUP, and what they start.
    heard = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heard
    ) as process:
        until(lambda: list(tmp_path.glob("out/.tracks*")) or process.poll() is not None)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert b"Traceback" not in said
    assert list(tmp_path.rglob("*part*")) == []


def test_workers_of_a_rendering_end_with_it_however_it_ends(tmp_path):
    command = [*AMODAL, "synth", str(tmp_path / "drives"), "--frames", "40", "--length", "20"]
    command += ["--size", "96x64", "--workers", "2"]
    made = 0

    def one_more() -> bool:
        return len(list(tmp_path.glob(".drives*/*/[0-9]*.npz"))) > made

    for number in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            until(lambda p=process: one_more() or p.poll() is not None)
            if process.poll() is not None:
                pytest.skip(f"no rendering here: {process.stderr.read().decode()[-200:]}")
            made = len(list(tmp_path.glob(".drives*/*/[0-9]*.npz")))
            workers = [Path(f"/proc/{child}") for child in children(process.pid)]
            assert len(workers) >= 2
            process.send_signal(number)
            process.communicate(timeout=60)
        until(lambda w=workers: not any(path.exists() for path in w), 20.0)


def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    own = files._part(tmp_path / "set.json")
    dead = own.with_name(own.name.replace(f"-{os.getpid()}.", f"-{ended.pid}."))
    elsewhere = own.with_name(own.name.replace(files._HOST, "another"))
    running = own.with_name(own.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
    for path in (dead, elsewhere, running):
        path.write_text("half")
    monkeypatch.setattr(files, "_swept", set())
    with atomic(tmp_path / "set.json") as part:
        part.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "set.json", elsewhere, running])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("place", [atomic, folder_beside, filled])
def test_a_full_disk_is_one_line_with_the_file_and_the_room(code, place, tmp_path):
    def write() -> None:
        with place(tmp_path / "out"):
            raise OSError(code, os.strerror(code))

    with pytest.raises(
        InputError, match=rf"out: cannot be written: {os.strerror(code)}, \d+ MB free"
    ):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "shared"),
    [
        (errno.ENOSYS, "missing"),
        (errno.ENOENT, "missing"),
        (errno.EROFS, "missing"),
        (errno.ENOSPC, "full"),
    ],
)
def test_shared_memory_that_is_missing_or_full_is_named(code, shared, tmp_path, monkeypatch):
    """Semaphores and blocks of workers: their errors name no file."""
    room = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files, "SHARED_MEMORY", tmp_path / "shm")
    if shared == "full":
        (tmp_path / "shm").mkdir()
        usage = {tmp_path / "shm": room._replace(free=4096)}
        monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage.get(Path(path), room))
    error = OSError(code, os.strerror(code))
    line = str(full_disk(error, tmp_path))
    assert line.startswith(f"{tmp_path / 'shm'}: processes cannot share memory: ")
    assert "--shm-size" in line
    # An error that names its file is of that file.
    named = full_disk(OSError(code, os.strerror(code), str(tmp_path / "a")), tmp_path)
    assert named is None or "shm:" not in str(named)


def test_other_errors_without_a_file_are_no_full_disk(tmp_path):
    assert full_disk(OSError(errno.ENOENT, "x"), tmp_path) is None
    assert full_disk(OSError(errno.EPIPE, "x"), tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has mounts of its own")
@pytest.mark.parametrize("options", ["ro,size=1m", "size=4k"])
def test_workers_without_shared_memory_end_with_that_line(options, tmp_path):
    """In a mount namespace of its own, /dev/shm is read-only, or has a page."""
    code = (
        "import multiprocessing; from amodal_ros.cli import main as m\n"
        "def fail(): multiprocessing.Semaphore()\n"
        "m.app = fail; m.main()"
    )
    mounts = f"mount -t tmpfs -o {options} none /dev/shm && "
    mounts += "{ head -c 4096 /dev/zero > /dev/shm/x; true; } 2> /dev/null"
    apart = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*apart, "sh", "-c", mounts], capture_output=True, check=False).returncode:
        pytest.skip("no mounts in this container")
    run = [*apart, "sh", "-c", f'{mounts}; exec "$@"', "sh", sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "/dev/shm: processes cannot share memory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_on_a_full_device_ends_with_that_line(tmp_path):
    """/dev/full takes no byte, as a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "data.json").symlink_to("/dev/full")
    code = (
        "import sys; from amodal_ros.cli import main as m\n"
        "def fail(): open(sys.argv[1], 'wb', buffering=0).write(b'x')\n"
        "m.app = fail; m.main()"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "data.json")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_filled_folder_is_there_whole_or_not_at_all(tmp_path):
    def fail() -> None:
        with filled(tmp_path / "set") as folder:
            (folder / "a").write_text("a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with filled(tmp_path / "set") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "set").exists()
    assert (tmp_path / "set" / "a").read_text() == "a"
    with pytest.raises(InputError, match="exists already"), filled(tmp_path / "set"):
        pass
