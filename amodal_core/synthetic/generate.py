"""Runs a whole generation: sequences in processes of their own, resumable, then written out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from amodal_core.datasets.base import Place
from amodal_core.datasets.frames import frame_file, is_frames, write_index
from amodal_core.errors import InputError
from amodal_core.files import write_json, write_text
from amodal_core.frame import Tracks
from amodal_core.parallel import end, process
from amodal_core.progress import Progress
from amodal_core.synthetic.camera import CameraOptions
from amodal_core.synthetic.export import FORMATS, write_bag, write_layout
from amodal_core.synthetic.frames import Drive, SyntheticFrame, load_frame, save_frame
from amodal_core.synthetic.lidar import LidarOptions
from amodal_core.synthetic.rig import make_rig
from amodal_core.synthetic.scene import Rig
from amodal_core.synthetic.statistics import Statistics
from amodal_core.synthetic.truth import CLASSES, Annotator
from amodal_core.synthetic.world import WorldOptions


@dataclass(frozen=True)
class RunOptions:
    """Everything that decides the bytes of a run.

    Attributes:
        frames: in all.
        seed: of everything.
        format: bag, kins, asd or kitti.
        camera: kitti or asd.
        size: width, height; None for the camera's own.
        focal: pixels; None for the camera's own field of view.
        length: frames of a sequence.
        street, weather: fixed kinds, None to draw them.
        randomise: domain randomisation.
        structures: share of the sequences with bridges, sign gantries, shelters, containers, walls.
        riders: times as many cyclists as streets have.
        lens: the camera's response.
        lidar: how the LiDAR measures.
    """

    frames: int
    seed: int = 0
    format: str = "bag"
    camera: str = "kitti"
    size: tuple[int, int] | None = None
    focal: float | None = None
    length: int = 50
    street: str | None = None
    weather: str | None = None
    randomise: bool = False
    structures: float = 0.0
    riders: float = 1.0
    lens: CameraOptions = field(default_factory=CameraOptions)
    lidar: LidarOptions = field(default_factory=LidarOptions)

    def rig(self) -> Rig:
        """Camera and LiDAR."""
        return make_rig(self.camera, self.size, self.focal)

    def lengths(self) -> list[int]:
        """Frames of each sequence."""
        whole, rest = divmod(self.frames, self.length)
        return [self.length] * whole + ([rest] if rest else [])

    def world(self, sequence: int) -> WorldOptions:
        """What one sequence drives through."""
        return WorldOptions(
            self.seed,
            self.lengths()[sequence],
            self.street,
            self.weather,
            self.randomise,
            self.structures,
            self.riders,
        )


def generate(
    out: Path, options: RunOptions, workers: int = 1, progress: Progress | None = None
) -> Statistics:
    """Make a run and write it to `out`; continues where a killed run of the same options stopped.

    Finished frames lie in a hidden folder beside `out` until all is written. A run of one sequence
    makes `out` itself the bag; one of several makes a folder of bags.

    Args:
        out: a new folder; for bags of one sequence also a path ending in .mcap.
        options: what to make.
        workers: processes; each renders one sequence at a time on one core.
        progress: is called with (frames done, frames in all).

    Raises:
        InputError: something lies at `out`, an unfinished run of other options lies beside it, or
            there is no EGL.
    """
    if options.format not in FORMATS:
        raise InputError(
            f"no format '{options.format}'", "--format", f"choose {', '.join(FORMATS)}"
        )
    if options.frames < 1 or options.length < 1:
        raise InputError("a run without a frame", "--frames", "give at least 1")
    if out.exists():
        raise InputError("exists already", str(out), "name another place or remove it first")
    if out.suffix == ".mcap" and (options.format != "bag" or options.frames > options.length):
        raise InputError("only one bag fits into one .mcap file", str(out), "name a folder")
    options.rig()
    work = _work_folder(out, options)
    render(work, options, workers, progress)
    statistics = _write(out, work, options, progress)
    shutil.rmtree(work)
    return statistics


def _work_folder(out: Path, options: RunOptions) -> Path:
    work = out.absolute().parent / f".{out.name}.synth"
    wanted = json.loads(json.dumps(asdict(options)))
    note = work / "options.json"
    if note.exists():
        if json.loads(note.read_text()) != wanted:
            raise InputError(
                "an unfinished run of other options",
                str(work),
                "finish it with them or remove that folder",
            )
        return work
    try:
        work.mkdir(parents=True, exist_ok=True)
        write_json(wanted, note)
    except OSError as error:
        raise InputError(
            f"cannot write there: {error.strerror}", str(work), "name another place"
        ) from error
    return work


def sequence_folder(work: Path, sequence: int) -> Path:
    """Where the frames of a sequence lie while it is made; `datasets.frames` reads it."""
    return work / f"{sequence:04d}"


def _parts(work: Path, sequence: int) -> list[Path]:
    """The finished frames of a sequence, in order."""
    return sorted(sequence_folder(work, sequence).glob("[0-9]*.npz"))


def places(options: RunOptions, sequence: int) -> list[Place]:
    """The places of a sequence's frames."""
    video = f"drive_{sequence:04d}"
    count = options.lengths()[sequence]
    return [Place(f"{video}/{k:06d}", video, k) for k in range(count)]


def render(
    work: Path, options: RunOptions, workers: int = 1, progress: Progress | None = None
) -> None:
    """Make the frames of a run that are missing in a folder, each sequence one of `Frames`.

    Args:
        work: the folder; whoever names it sees to it that it holds frames of these options only.
        options: what to make.
        workers: processes; each renders one sequence at a time on one core.
        progress: is called with (frames done, frames in all).

    Raises:
        InputError: nothing can be rendered here, or a process was killed.
    """
    sequences = range(len(options.lengths()))
    left = [k for k in sequences if not is_frames(sequence_folder(work, k))]
    if not left:
        return
    before = {k: os.environ.get(k) for k in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    pool = process(("amodal_core.synthetic.generate", "moderngl"), min(workers, len(left)))
    try:
        jobs = {pool.submit(render_sequence, work, options, k) for k in left}
        while jobs:
            done, jobs = wait(jobs, timeout=0.3, return_when=FIRST_COMPLETED)
            if progress is not None:
                made = sum(len(_parts(work, k)) for k in range(len(options.lengths())))
                progress(made, options.frames)
            for job in done:
                failure = job.result()
                if failure is not None:
                    raise InputError(*failure)
    except BrokenProcessPool:
        cure = "give it fewer --workers if memory ran out; the same command continues"
        raise InputError("a rendering process was killed", str(work), cure) from None
    except BaseException:
        end(pool)  # the frames that are whole stay
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


_ONE_THREAD = {
    "LP_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def render_sequence(work: Path, options: RunOptions, sequence: int) -> tuple[str, str, str] | None:
    """Make the missing frames of a sequence; an InputError comes back as its three parts."""
    import cv2

    cv2.setNumThreads(1)
    os.environ.update(_ONE_THREAD)  # for what is loaded from here on, such as the renderer
    folder, rig = sequence_folder(work, sequence), options.rig()
    folder.mkdir(parents=True, exist_ok=True)
    annotator = Annotator()
    try:
        drive = Drive(options.world(sequence), sequence, rig, options.lens, options.lidar)
        for k in range(options.lengths()[sequence]):
            path = frame_file(folder, k)
            if path.exists():
                annotator.tracks(load_frame(path).truth)
            else:
                made = drive.frame(k)
                save_frame(path, replace(made, truth=annotator.tracks(made.truth)))
        drive.close()
        listed = places(options, sequence)
        sizes = [(rig.height, rig.width)] * len(listed)
        write_index(folder, listed[0].video, CLASSES, listed, sizes)
    except InputError as error:
        return error.what, error.where, error.cure
    return None


def _write(out: Path, work: Path, options: RunOptions, progress: Progress | None) -> Statistics:
    """Everything in the format wanted, under a temporary name until it is whole."""
    total = Statistics()
    begun: set[int] = set()

    def rows(sequence: int) -> Iterator[tuple[SyntheticFrame, Tracks]]:
        yield from ((made, made.truth) for made in map(load_frame, _parts(work, sequence)))

    def note(sequence: int) -> Callable[[SyntheticFrame, Tracks], None]:
        def count(made: SyntheticFrame, tracks: Tracks) -> None:
            if sequence not in begun:
                begun.add(sequence)
                total.begin(made.street, made.light)
            total.add(tracks)
            if progress is not None:
                progress(total.frames, options.frames)

        return count

    sequences = range(len(options.lengths()))
    height = options.rig().lidar_height
    if options.format == "bag" and len(sequences) == 1:
        write_bag(out, rows(0), height, note(0))
        if out.is_dir():
            _leave_report(out, options, total)
        return total
    whole = work / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    if options.format == "bag":
        whole.mkdir(parents=True)
        for k in sequences:
            write_bag(whole / f"drive_{k:04d}", rows(k), height, note(k))
    else:
        current = {"k": -1}

        def opened(k: int) -> Callable[[], Iterator[tuple[SyntheticFrame, Tracks]]]:
            def start() -> Iterator[tuple[SyntheticFrame, Tracks]]:
                current["k"] = k
                return rows(k)

            return start

        named = [(f"drive_{k:04d}", opened(k)) for k in sequences]

        def count(made: SyntheticFrame, tracks: Tracks) -> None:
            note(current["k"])(made, tracks)

        for _ in write_layout(options.format, whole, named, count):
            pass
    _leave_report(whole, options, total)
    whole.replace(out)
    return total


def _leave_report(folder: Path, options: RunOptions, statistics: Statistics) -> None:
    report = {"options": asdict(replace(options)), "statistics": statistics.as_dict()}
    write_text(folder / "synth.json", json.dumps(report, indent=2) + "\n")
