"""What a run would be, without it: shapes, classes, memory and time, from a few measured steps."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch

from amodal_core.datasets.frames import is_frames
from amodal_core.errors import InputError
from amodal_core.models.layers.batch import Batch

from . import state
from .config import Config, Source, as_values
from .data import usable
from .engine import Trainer, batch_of
from .progress import memory
from .setup import RunData
from .sources import Samples, class_table, drives_of
from .train import session

_FRAMES = 12  # rendered of drives that are not there yet
_STEPS, _SECONDS = 10, 30.0  # measured at most, after one that is not
Line = tuple[str, str]


def dry_run(config: Config, processes: int = 1) -> list[Line]:
    """Open everything, compute a few steps, and say what the whole run would take.

    Nothing is kept: what the run would render or unpack first is rendered in small, or unpacked,
    into a temporary folder.

    Args:
        config: of the run.
        processes: of the run; this one computes the share of one, without exchanging gradients.

    Returns:
        Name and text of each line.

    Raises:
        InputError: whatever would end the run.
    """
    if config.batch_size % (processes * config.accumulate):
        raise InputError(
            f"{config.batch_size} samples a step for {processes} processes",
            "batch_size",
            f"a multiple of {processes * config.accumulate}",
        )
    with tempfile.TemporaryDirectory(prefix="amodal_dry_run_") as scratch:
        small, unmade = _in_small(config, Path(scratch))
        steps = config.steps + _STEPS + 2  # however short the run is
        small = replace(small, batch_size=config.batch_size // processes, steps=steps)
        with session(small) as (place, display):
            trainer = Trainer(small, place, display, ())
            resumed = Path(config.out) / state.LAST
            if resumed.exists():
                state.load(resumed, trainer.state, as_values(config))
            pace = _Pace(trainer)
        frames = sum(s.synthetic.frames for s in unmade if s.synthetic is not None)
        rendering = _seconds_a_frame(Path(small.cache)) * frames / max(config.workers, 1)
    data, model, done = trainer.data, trainer.state.model, trainer.state.progressed.step
    learnt, weights = (
        sum(p.numel() for p in model.parameters() if p.requires_grad or not only) / 1e6
        for only in (True, False)
    )
    left = max(config.steps - done, 0)
    held_out = ""
    if data.held_out is not None:
        held_out = f", {_count(data.held_out, config.held_out, unmade)} held out"
    lines = [
        ("model", f"{model.name}, {weights:.2f} M weights, {learnt:.2f} M of them learnt"),
        ("classes", ", ".join(data.classes)),
        ("class map", _mapped(config, data)),
        ("samples", f"{_count(data.training, config.train, unmade)}{held_out}"),
        ("rendering", f"{frames} frames before the first step, about {_duration(rendering)}"),
        ("batch", pace.shapes + (f", in each of {processes} processes" if processes > 1 else "")),
        ("a step", f"{pace.step:.2f} s, {pace.wait:.2f} s of it waiting for samples"),
        ("memory", pace.memory),
        ("time", f"{_duration(pace.step * left)} for {left} steps, without evaluations"),
        ("writes to", config.out + (f", where it goes on after step {done}" if done else "")),
    ]
    if not frames:
        lines = [line for line in lines if line[0] != "rendering"]
    return [line for line in lines if line[1]]


class _Pace:
    """A few steps of a run.

    Attributes:
        shapes: of the first batch.
        step: seconds of a step, the median.
        wait: of them for samples.
        memory: in use after them.
    """

    def __init__(self, trainer: Trainer) -> None:
        batches, device = trainer.batches(0), trainer.place.device
        clips = usable(next(batches))
        self.shapes = _shapes(
            batch_of([item for clip in clips for item in clip], len(clips[0]), device)
        )
        spent, begin = [], perf_counter()
        for step in range(_STEPS + 1):
            since = perf_counter()
            parts = [next(batches) for _ in range(trainer.config.accumulate)]
            waited = perf_counter() - since
            trainer.step(step, iter(parts))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent.append((perf_counter() - since, waited))
            trainer.display.preparing("measuring", step, _STEPS)
            if step and perf_counter() - begin > _SECONDS:
                break
        # The first compiles, allocates, and finds samples that were read ahead.
        self.step, self.wait = (statistics.median(t) for t in zip(*spent[1:], strict=True))
        used, where = memory(device)
        whole = f" of {torch.cuda.mem_get_info(device)[1] / 2**30:.0f}" if where == "GPU" else ""
        self.memory = f"{used:.2f}{whole} GB ({where})"


def _count(samples: Samples, sources: Sequence[Source], unmade: Sequence[Source]) -> int:
    """How many samples there will be."""
    count = len(samples)
    for source in sources:
        if source in unmade and source.synthetic is not None:
            frames = source.synthetic.frames
            count += len(range(frames)[source.start : source.stop]) - min(frames, _FRAMES)
    return count


def _shapes(batch: Batch) -> str:
    """The tensors of a batch in words."""
    parts = {"images": batch.images, "depth": batch.depth}
    words = [f"{k} {'x'.join(map(str, v.shape))}" for k, v in parts.items() if v is not None]
    if batch.points is not None:
        words.append(f"{round(statistics.mean(map(len, batch.points)))} points a scan")
    objects = [len(target.labels) for target in batch.targets or ()]
    return ", ".join([*words, f"{sum(objects)} objects in it"])


def _mapped(config: Config, data: RunData) -> str:
    """What becomes of the data's classes that the model has not under their own name."""
    words: dict[str, str] = {}
    for one, _ in data.training.sources:
        table = class_table(one, data.classes, config.class_map).tolist()
        for name, kind in zip(one.classes, table, strict=True):
            target = "left out" if kind < 0 else data.classes[kind]
            if target != name:
                words[name] = f"{name} -> {target}"
    return ", ".join(words.values())


def _seconds_a_frame(cache: Path) -> float:
    """How long a frame took to render, of those that were just rendered; 0 where none were."""
    times = sorted(
        path.stat().st_mtime
        for folder in cache.iterdir()
        if not folder.is_symlink()
        for path in folder.rglob("*.npz")
    )
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _in_small(config: Config, scratch: Path) -> tuple[Config, list[Source]]:
    """The run in a folder of its own, and the sources whose drives it would have to render.

    What the run's cache has is there as links.
    """
    cache = scratch / "cache"
    cache.mkdir()
    unmade: list[Source] = []
    if Path(config.cache).is_dir():
        for entry in Path(config.cache).iterdir():
            (cache / entry.name).symlink_to(entry.resolve())

    def cut(source: Source) -> Source:
        wanted = source.synthetic
        if wanted is None or all(is_frames(d.path) for d in drives_of(wanted, cache)):
            return source
        unmade.append(source)
        few = min(wanted.frames, _FRAMES)
        made = replace(wanted, frames=few, length=min(wanted.length, few))
        return replace(source, synthetic=made, start=0, stop=None)

    train, held_out = tuple(map(cut, config.train)), tuple(map(cut, config.held_out))
    small = replace(config, train=train, held_out=held_out, out=str(scratch / "out"))
    return replace(small, cache=str(cache)), unmade
