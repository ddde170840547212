"""Many bags through the pipeline: each into a folder of its own, one report of all.

A run that was killed goes on with the bags that are not done; one that fails stops no other.
"""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amodal_core import __version__
from amodal_core.bags.reader import BagReader, is_bag
from amodal_core.drive.cameras import camera_names
from amodal_core.drive.topics import cameras_in
from amodal_core.errors import InputError
from amodal_core.evaluation.stream import COUNTS
from amodal_core.files import make_folder, write_json, write_text
from amodal_core.models.base import Model, stream_of
from amodal_core.parallel import outcomes
from amodal_core.pipeline import Pipeline
from amodal_core.progress import Progress
from amodal_core.replay import METRICS, REPORT, ReplayOptions, replay_cameras
from amodal_core.tracking import CoastingTracker
from amodal_core.views.report.page import environment
from amodal_core.views.report.record import Record
from amodal_core.views.report.tiles import Tile, number, percent

# What was replayed and how; it is written last, so that a folder with it is whole.
DONE = "replay.json"
ERROR = "error.txt"


@dataclass(frozen=True)
class ReplayPlan:
    """How each of some bags is replayed.

    Attributes:
        model: makes the model; it can be pickled, as `functools.partial` of a module's function.
        tracker: makes a tracker, as well.
        cameras: image topics; "" finds the only one, "all" stands for each.
        options: see `amodal_core.replay`.
        decides: what decides the results, as JSON values; bags done otherwise are done anew.
        threads: of each replay, 0 for as many as torch takes.
    """

    model: Callable[[], Model]
    tracker: Callable[[], CoastingTracker | None]
    cameras: tuple[str, ...] = ("",)
    options: ReplayOptions = field(default_factory=ReplayOptions)
    decides: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0


@dataclass(frozen=True)
class Replays:
    """What became of some bags.

    Attributes:
        metrics: what metrics.json of each holds that was replayed, by name.
        failed: what was wrong with the others, by name.
    """

    metrics: dict[str, dict[str, Any]]
    failed: dict[str, str]


def replay_bag(
    plan: ReplayPlan, bag: Path, out: Path, progress: Progress | None = None
) -> list[Record]:
    """Replay one bag.

    Raises:
        InputError: see `amodal_core.replay`.
    """
    topics: Sequence[str] = plan.cameras
    if list(topics) == ["all"]:
        with BagReader(bag) as opened:
            topics = cameras_in(opened) or [""]
    camera_names(list(topics))  # refuses a camera that is named twice
    model = plan.model()
    models = [model, *(stream_of(model) for _ in topics[1:])]
    pipelines = {t: Pipeline(m, plan.tracker()) for t, m in zip(topics, models, strict=True)}
    return replay_cameras(bag, out, pipelines, plan.options, progress)


def replay_bags(
    bags: Sequence[Path],
    out: Path,
    plan: ReplayPlan,
    workers: int = 1,
    cluster: str = "",
    progress: Progress | None = None,
) -> Replays:
    """Replay bags into out/NAME, several at once, and write metrics.json and report.html of all.

    Args:
        bags: rosbag2 folders or files; a folder of bags stands for them.
        out: a folder. Bags that are done in it, by the same plan, are not done again.
        plan: how.
        workers: replays at once.
        cluster: see `parallel.outcomes`.
        progress: is called with (bags done, bags in all).

    Raises:
        InputError: there is no bag, one is named twice, `out` cannot be written, no Ray cluster.
    """
    named = bag_folders(bags)
    done = {name for name, bag in named.items() if _mark(out / name / DONE) == _made(bag, plan)}
    left = [name for name in named if name not in done]
    if left:  # what no bag can be replayed with is said at once
        plan.model()
        plan.tracker()
    failed: dict[str, str] = {}
    total, count = len(named), len(done)
    if progress is not None:
        progress(count, total)
    jobs = [(plan, named[name], out / name) for name in left]
    for place, outcome in outcomes(_job, jobs, workers, cluster, ("amodal_core.replays",)):
        if isinstance(outcome, Exception):
            outcome = f"{type(outcome).__name__}: {outcome}"
        if outcome is not None:
            failed[left[place]] = outcome
        count += 1
        if progress is not None:
            progress(count, total)
    result = Replays(
        {
            name: json.loads((out / name / METRICS).read_text())
            for name in named
            if name not in failed
        },
        {name: failed[name] for name in named if name in failed},
    )
    _write(result, out)
    return result


def bag_folders(bags: Sequence[Path]) -> dict[str, Path]:
    """Bags by the names of their folders of results: their own, with parents' where they clash.

    Raises:
        InputError: there is no bag, or one is named twice.
    """
    paths: list[Path] = []
    for bag in bags:
        inner = [] if is_bag(bag) or not bag.is_dir() else sorted(filter(is_bag, bag.iterdir()))
        paths += [path.resolve() for path in inner or [bag]]
        if len(bags) == 1 and bag.is_dir() and not inner and not is_bag(bag):
            cure = "give a bag's folder, .mcap, .db3 or .bag, or a folder of them"
            raise InputError("there is no bag in it", str(bag), cure)
    if not paths:
        raise InputError("no bag is named", "BAG", "name bags, or a folder of bags")
    twice = {path for path in paths if paths.count(path) > 1}
    if twice:
        raise InputError("named twice", str(min(twice)), "name each bag once")
    depths = [1] * len(paths)
    while True:
        names = [_name(path, depth) for path, depth in zip(paths, depths, strict=True)]
        clashes = [k for k, name in enumerate(names) if names.count(name) > 1]
        if not clashes:
            return dict(zip(names, paths, strict=True))
        for k in clashes:
            depths[k] += 1


def _name(path: Path, depth: int) -> str:
    parts = [part for part in path.parts[:-1] if part != path.anchor]
    own = path.stem if depth <= len(parts) + 1 else path.name  # a.mcap beside a.db3
    return "_".join([*parts[len(parts) - min(depth - 1, len(parts)) :], own])


def _made(bag: Path, plan: ReplayPlan) -> dict[str, Any]:
    """What the mark of a whole replay of this bag holds."""
    files = sorted(p for p in bag.iterdir() if p.is_file()) if bag.is_dir() else [bag]
    stats = [p.stat() for p in files if p.exists()]
    made = {
        "bag": str(bag),
        "bytes": sum(s.st_size for s in stats),
        "changed": max((s.st_mtime_ns for s in stats), default=0),
        "how": dict(plan.decides),
        "version": __version__,
    }
    return dict(json.loads(json.dumps(made)))


def _mark(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _job(job: tuple[ReplayPlan, Path, Path]) -> str | None:
    """Replay a bag in a process of its own; what was wrong with it, None where nothing was."""
    import cv2

    plan, bag, out = job
    if plan.threads:
        # The network's where torch is not installed; torch reads it too late.
        os.environ["OMP_NUM_THREADS"] = str(plan.threads)
        with suppress(ModuleNotFoundError):
            import torch

            torch.set_num_threads(plan.threads)
        cv2.setNumThreads(plan.threads)
    (out / DONE).unlink(missing_ok=True)
    (out / ERROR).unlink(missing_ok=True)
    made = _made(bag, plan)
    try:
        replay_bag(plan, bag, out)
        write_json(made, out / DONE)
    except InputError as error:
        return str(error)
    except Exception as error:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / ERROR, traceback.format_exc())
        return f"{type(error).__name__}: {error} (see {out / ERROR})"
    return None


def _rows(metrics: Mapping[str, dict[str, Any]]) -> list[tuple[str, str, dict[str, Any]]]:
    """(folder, camera or "", its metrics)."""
    return [
        (name, camera, values)
        for name, all_of in metrics.items()
        for camera, values in (all_of.get("cameras") or {"": all_of}).items()
    ]


def _totals(result: Replays) -> dict[str, Any]:
    """Sums over all drives; accuracies as means over those with truth, weighed by their frames.

    Those that are counts are sums.
    """
    rows = [values for _, _, values in _rows(result.metrics)]
    sums = ("frames", "seconds", "instances", "tracks", "coasted")
    totals: dict[str, Any] = {name: round(sum(r[name] for r in rows), 3) for name in sums}
    scored = [(r["frames"], r["accuracy"]) for r in rows if r["accuracy"]]
    means = {}
    for name in dict.fromkeys(name for _, accuracy in scored for name in accuracy):
        values = [(frames, accuracy[name]) for frames, accuracy in scored if name in accuracy]
        weight = 1 if name in COUNTS else sum(frames for frames, _ in values)
        total = math.fsum(v if name in COUNTS else frames * v for frames, v in values)
        means[name] = round(total / weight, 4)
    return totals | {"accuracy": means or None}


def _write(result: Replays, out: Path) -> None:
    make_folder(out)  # where every bag failed nothing has made it
    totals = _totals(result)
    whole = {"bags": result.metrics, "failed": result.failed, "totals": totals}
    write_text(out / METRICS, json.dumps(whole, indent=2) + "\n")
    accuracy = totals["accuracy"] or {}
    measures = [m for m in ("amodal_AP", "visible_AP", "HOTA") if m in accuracy]
    rows = [
        {
            "name": f"{name}: {camera}" if camera else name,
            "link": f"{name}/{REPORT}",
            "numbers": [
                f"{values['frames']}",
                f"{values['seconds']:.0f}",
                f"{values['fps']:.0f}",
                f"{values['tracks']}",
                f"{len(values['warnings'])}",
                *(percent((values["accuracy"] or {}).get(m)) for m in measures),
            ],
        }
        for name, camera, values in _rows(result.metrics)
    ]
    says = "mean over the drives with ground truth, weighed by their frames"
    tiles = [
        Tile(f"{len(result.metrics)}", "drives replayed"),
        Tile(f"{len(result.failed)}", "failed"),
        Tile(number(totals["frames"]), "frames"),
        Tile(f"{totals['seconds'] / 60:.0f}", "minutes of driving"),
        Tile(number(totals["tracks"]), "tracks"),
        *(Tile(percent(accuracy[m]), m.replace("_", " "), says) for m in measures),
    ]
    page = environment().get_template("replays.html")
    text = page.render(
        rows=rows, tiles=tiles, measures=measures, failed=result.failed, version=__version__
    )
    write_text(out / REPORT, text)
