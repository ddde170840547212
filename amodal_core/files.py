"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from amodal_core.errors import InputError

SHARED_MEMORY = Path("/dev/shm")
_LITTLE = 2**20  # bytes of room that are none


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` at the block's end.

    Where the block raises, nothing is left of it and an older file at `path` stays as it was. The
    path that is given is hidden, keeps the suffix, by which many writers choose a format, and is
    this process's own, so that two may fill one cache. Writers that stay open hold the block in an
    `ExitStack`.

    Raises:
        InputError: the disk is full, or cannot be written.
        OSError: the file cannot be renamed; what else the block raises.
    """
    part = _part(Path(path))
    try:
        with _room(Path(path)):
            yield part
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make_folder(out: str | Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        InputError: it cannot be made.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"cannot make the folder: {error.strerror}"
        raise InputError(text, str(out), "name another place") from None
    return out


@contextmanager
def out_folder(out: Path) -> Iterator[Path]:
    """`make_folder`; when the block fails, no folder that was made here is left empty."""
    made = [p for p in (out, *out.parents) if not p.exists()]
    make_folder(out)
    try:
        yield out
    except BaseException:
        with suppress(OSError):
            for new in made:
                new.rmdir()
        raise


@contextmanager
def folder_beside(path: str | Path) -> Iterator[Path]:
    """A new hidden folder on the file system of `path`, gone with what is in it at the block's end.

    Raises:
        InputError: the disk is full, or cannot be written.
        OSError: the folder cannot be made.
    """
    folder = _part(Path(path))
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process with this number
    try:
        with _room(Path(path)):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def filled(path: str | Path) -> Iterator[Path]:
    """A hidden folder to fill, which is at `path` when the block has ended, and not before.

    Raises:
        InputError: something lies at `path`, or it cannot be made; the disk is full, or cannot be
            written.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError("exists already", str(path), "name another place or remove it first")
    make_folder(path.parent)
    with folder_beside(path) as folder:
        yield folder
        if path.is_dir():
            path.rmdir()
        folder.rename(path)


def write_text(path: str | Path, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(value: Any, path: str | Path) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value))


def inside(folder: str | Path, name: str, at: str | Path = "") -> Path:
    """The path that a name from outside stands for, below a folder.

    Args:
        folder: what the name must not lead out of.
        name: relative, with slashes.
        at: the folder below `folder` that the name starts from.

    Raises:
        InputError: the name is absolute, leads out of the folder or to itself, or is no name.
    """
    if not isinstance(name, str):
        raise InputError(f"{str(name)[:60]} is no name", str(folder), "mend the name")
    steps = os.path.normpath(os.path.join(at, name))
    try:
        lengths = [len(os.fsencode(step)) for step in steps.split(os.sep)]
    except UnicodeEncodeError:
        lengths = [0]
    leaves = os.path.isabs(steps) or steps == "." or steps.split(os.sep)[0] == ".."
    if not name or "\0" in name or leaves or min(lengths) < 1 or max(lengths) > 255:
        shown = name[:60].encode("ascii", "backslashreplace").decode()
        raise InputError(f"'{shown}' names nothing in this folder", str(folder), "mend the name")
    if len(steps) > 2000:
        raise InputError(f"a name of {len(steps)} letters", str(folder), "shorten it")
    return Path(folder) / steps


def full_disk(error: OSError, path: Path) -> InputError | None:
    """The line for a disk that is full or cannot be written, None for other errors.

    What processes share lies in /dev/shm, in files without names: where it is missing, full or
    read-only (a container's has 64 MB), the line says so.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
    missing = error.errno in (errno.ENOSYS, errno.ENOENT, errno.EACCES)
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if error.filename is None and (full or missing) and _shared_memory_is_short(place):
        return InputError(
            f"processes cannot share memory: {error.strerror}",
            str(SHARED_MEMORY),
            "make room there, mount it (docker run --shm-size 1g), or use no workers",
        )
    if not full:
        return None
    free = shutil.disk_usage(place).free
    return InputError(
        f"cannot be written: {error.strerror}, {free / 1e6:.0f} MB free there",
        str(error.filename or path),
        "make room, or name a place elsewhere",
    )


def _shared_memory_is_short(place: Path) -> bool:
    """Whether it is /dev/shm that is missing, full or read-only, and not the disk of a place."""
    if not os.access(place, os.W_OK) or shutil.disk_usage(place).free < _LITTLE:
        return False
    if not SHARED_MEMORY.is_dir() or not os.access(SHARED_MEMORY, os.W_OK):
        return True
    return shutil.disk_usage(SHARED_MEMORY).free < _LITTLE


@contextmanager
def _room(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        line = full_disk(error, path)
        if line is None:
            raise
        raise line from error


_HOST = "".join(c for c in socket.gethostname() if c.isalnum())[:24] or "host"
_swept: set[tuple[Path, str]] = set()


def _part(path: Path) -> Path:
    """The hidden path of this process; what killed ones left of the same path goes."""
    if (path.parent, path.name) not in _swept:
        _swept.add((path.parent, path.name))
        for left in path.parent.glob(f".{escape(path.stem)}.{_HOST}-*.part{escape(path.suffix)}"):
            number = left.name.split(f".{_HOST}-")[-1].split(".")[0]
            if number.isdigit() and not _runs(int(number)):
                shutil.rmtree(left, ignore_errors=True)
                left.unlink(missing_ok=True)
    return path.with_name(f".{path.stem}.{_HOST}-{os.getpid()}.part{path.suffix}")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True
