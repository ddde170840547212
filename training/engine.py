"""The loop: samples, losses, weights; the same for one process and for many."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from amodal_core.errors import InputError
from amodal_core.models import registry
from amodal_core.models.batch import Batch, make_batch
from amodal_core.models.checkpoint import load_shared, load_weights, read_info
from amodal_core.models.learned import LearnedModel
from training import state
from training.clips import clip_for
from training.config import Augment, Config, Source, as_values
from training.data import Augmented, Item, Samples, StepSampler, loader, open_sources
from training.distributed import Place
from training.judge import check_metric, judge
from training.progress import Display, Log, memory
from training.schedules import factor, make_optimizer
from training.sharding import shard, share_buffers, whole

_HALF = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Losses(nn.Module):
    """A model whose forward pass is its losses, as DistributedDataParallel wants it."""

    def __init__(self, model: LearnedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.model.losses(batch)


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        steps: done.
        finished: False where it was stopped by a signal and goes on when it is started again.
        metrics: of the last evaluation.
        best: the best value of the metric, None without a held-out split.
        checkpoints: files for inference.
    """

    steps: int
    finished: bool
    metrics: dict[str, float]
    best: float | None
    checkpoints: list[Path]


class Trainer:
    """A run from its configuration; goes on from where an earlier one in the same folder stopped.

    Args:
        config: the run.
        place: this process.
        display: where it shows what it does.

    Raises:
        InputError: anything in the configuration that does not fit the data or the model.
    """

    def __init__(self, config: Config, place: Place, display: Display) -> None:
        self.config, self.place, self.display = config, place, display
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        kind = registry.learned(config.model)
        check_metric(config.metric, completes=registry.completes(config.model))
        self._clip = clip_for(kind, config.clip)
        training, held_out = self._sources()
        classes = config.classes or _classes_of(training, config.class_map)
        # An entry of the map may be of the held-out data alone, but of some it must be.
        Samples([*training, *held_out], classes, config.class_map)
        least = config.smallest, config.least_visible
        self.samples = Samples(training, classes, self._known(training), *least)
        self.held_out = (
            Samples(held_out, classes, self._known(held_out), *least) if held_out else None
        )
        state.seed_step(config.seed, 0, 0)  # weights begin equal in every process
        model = kind.from_config({**config.settings, "classes": tuple(classes)})
        if config.init:
            display.say(_begin_with(model, config.init))
        model = model.to(place.device)
        if place.world > 1 and place.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if config.split:
            model.split(place.device, place.second or place.device)
        average = state.moving_average(model, config.ema) if config.ema else None
        self._sharded = config.sharding == "fsdp" and place.world > 1
        if self._sharded:
            shard(model, place)
            if average is not None:
                shard(average.module, place)
        self.parts = state.Parts(
            model,
            make_optimizer(model, config.optimiser),
            torch.amp.GradScaler(place.device.type, enabled=config.precision == "fp16"),
            average,
            state.Progressed(),
        )
        if self._last.exists():
            state.load(self._last, self.parts, self._values)
            display.say(f"going on after step {self.parts.progressed.step} of {config.steps}")
        self._norm = torch.zeros(())
        self._wrapped: nn.Module = _Losses(model)
        if place.world > 1 and not self._sharded:
            devices = [place.device] if place.device.type == "cuda" and not config.split else None
            # Heads without an object in a batch may get no gradient in one process.
            self._wrapped = DistributedDataParallel(
                self._wrapped, devices, find_unused_parameters=True
            )

    @property
    def _last(self) -> Path:
        return self.out / state.LAST

    @property
    def _values(self) -> dict[str, Any]:
        return as_values(self.config)

    def _sources(self) -> tuple[list[Any], list[Any]]:
        """Open the data; the first process renders and unpacks, the others then find it done."""
        found: tuple[list[Any], list[Any]] = ([], [])
        cache = Path(self.config.cache)
        for turn in (True, False):
            if self.place.first == turn:
                found = (
                    self._opened(self.config.train, cache),
                    self._opened(self.config.held_out, cache),
                )
            if turn:
                self.place.wait()
        return found

    def _opened(self, sources: tuple[Source, ...], cache: Path) -> list[Any]:
        workers = max(self.config.workers, 1)
        return open_sources(sources, cache, workers, self.display.preparing)

    def _known(self, sources: list[Any]) -> dict[str, str | None]:
        there = {name for data, _ in sources for name in data.classes}
        return {k: v for k, v in self.config.class_map.items() if k in there}

    def run(self) -> Outcome:
        """Train until the last step, or until a signal (SIGINT, SIGTERM) asks to stop.

        Raises:
            InputError: a sample that cannot be used, or a loss that is not finite; the batch is
                then saved in the folder of the run.
        """
        config, done = self.config, self.parts.progressed
        log = Log(self.out, done.step) if self.place.first else None
        batches = self._batches(done.step)
        mean = _Mean(self.place)
        judged = -1
        with _told_to_stop() as stop:
            try:
                while done.step < config.steps:
                    begin = perf_counter()
                    losses, norm, rate = self._step(done.step, batches, stop)
                    done.step += 1
                    mean.add(losses, norm, perf_counter() - begin)
                    stopping = stop.is_set()
                    if done.step % config.log_every == 0 or done.step == config.steps:
                        self._tell(log, mean.taken(), rate)
                    if config.evaluate_every and done.step % config.evaluate_every == 0:
                        self._judge(log)
                        judged = done.step
                    if stopping or done.step % config.save_every == 0:
                        self._save()
                    if stopping:
                        self.display.say(f"stopped after step {done.step}; start again to go on")
                        break
                finished = done.step >= config.steps
                if finished and judged != done.step:
                    self._judge(log)
                if finished:
                    self._save()
                    model = self.parts.ready()
                    if self.place.first:
                        self._keep(state.FINAL, model)
            finally:
                if log is not None:
                    log.close()
        self.place.wait()
        files = [p for n in (state.BEST, state.FINAL) if (p := self.out / n).exists()]
        return Outcome(done.step, finished, done.metrics, done.best, files)

    def _batches(self, start: int) -> Iterator[list[list[Item] | InputError]]:
        config, model = self.config, self.parts.model
        sampler = StepSampler(
            len(self.samples),
            config.batch_size,
            accumulate=config.accumulate,
            rank=self.place.rank,
            world=self.place.world,
            seed=config.seed,
            start=start,
            steps=config.steps,
        )
        data = Augmented(
            self.samples,
            _at_model_size(config.augment, model),
            config.seed,
            depth=model.config.lidar,
            points="points" in model.inputs,
            clip=self._clip,
        )
        return loader(data, sampler, config.workers)

    def _step(
        self, step: int, batches: Iterator[list[list[Item] | InputError]], stop: threading.Event
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, float]:
        """One step of the optimiser: mean losses of this process, norm of gradients, rate."""
        config, parts = self.config, self.parts
        rate = config.optimiser.rate * factor(config.schedule, step, config.steps)
        for group in parts.optimizer.param_groups:
            group["lr"] = rate
        state.seed_step(config.seed, step, self.place.rank)
        self._wrapped.train()
        if self._sharded and self.place.device.type != "cuda":
            share_buffers(parts.model)  # on GPUs norms are synchronised anyway
        parts.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for part in range(config.accumulate):
            clips = [_usable(clip) for clip in next(batches)]
            items = [item for clip in clips for item in clip]
            batch = _batch_of(items, len(clips[0]), self.place.device)
            last = part == config.accumulate - 1
            with (
                self._unsynchronised(last),
                torch.autocast(
                    self.place.device.type,
                    _HALF[config.precision],
                    enabled=config.precision != "fp32",
                ),
            ):
                losses = self._wrapped(batch)
                total = torch.stack([v.float() for v in losses.values()]).sum()
            self._check(total, losses, batch, items, step, stop)
            with self._unsynchronised(last):
                parts.scaler.scale(total / config.accumulate).backward()
            for name, value in losses.items():
                mean = value.detach().float().to(self.place.device) / config.accumulate
                sums[name] = sums.get(name, 0.0) + mean
        parts.scaler.unscale_(parts.optimizer)
        trained = [p for p in parts.model.parameters() if p.grad is not None]
        limit = config.optimiser.clip or float("inf")
        norm = whole(nn.utils.clip_grad_norm_(trained, limit))
        parts.scaler.step(parts.optimizer)
        parts.scaler.update()
        if parts.ema is not None:
            parts.ema.update_parameters(parts.model)
        self._norm = norm.detach()
        return sums, self._norm, rate

    def _unsynchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients of all but the last part of a step stay in the process."""
        if isinstance(self.parts.model, FSDPModule):
            self.parts.model.set_requires_gradient_sync(last)
        if last or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        return self._wrapped.no_sync()

    def _check(
        self,
        total: torch.Tensor,
        losses: dict[str, torch.Tensor],
        batch: Batch,
        items: list[Item],
        step: int,
        stop: threading.Event,
    ) -> None:
        """All processes stop together: where a loss is not finite, or where one was told to."""
        broken = ~torch.isfinite(total.detach())
        flags = torch.stack([broken, torch.tensor(stop.is_set(), device=broken.device)]).float()
        anywhere, told = self.place.totals(flags).tolist()
        if told:
            stop.set()
        if not anywhere:
            return
        path = self.out / f"broken_batch_rank{self.place.rank}.pt"
        if broken:
            torch.save(_plain(batch, items, losses, step), path)
        found = ", ".join(f"{k} {float(v.detach()):.3g}" for k, v in losses.items())
        raise InputError(
            f"the loss is not finite at step {step}: {found}"
            if broken
            else f"the loss of another process is not finite at step {step}",
            str(path if broken else self.out),
            "lower optimiser.rate, lengthen schedule.warm_up or set optimiser.clip; "
            "the batch is in that file",
        )

    def _tell(self, log: Log | None, means: dict[str, float], rate: float) -> None:
        done, device = self.parts.progressed, self.place.device
        used, where = memory(device)
        seconds = means.pop("seconds")
        frames = self.config.batch_size * (self._clip.frames if self._clip else 1)
        speed = frames / max(seconds, 1e-9)
        note = f"loss {means['loss']:.3f}  rate {rate:.2g}  {speed:.1f} images/s"
        note += f"  {used:.1f} GB {where}"
        self.display.step(done.step, self.config.steps, note)
        if log is not None:
            values = {**means, "rate": rate, "images_per_second": speed, "memory_gb": used}
            log.add(done.step, "train", values)

    def _judge(self, log: Log | None) -> None:
        """Evaluate, and keep the checkpoint where it is the best so far."""
        if self.held_out is None:
            return
        done, name = self.parts.progressed, self.config.metric
        batch = max(1, self.config.batch_size // self.place.world // self.config.accumulate)
        model = self.parts.ready()
        done.metrics = judge(model, self.held_out, batch, self.place, self.display)
        value = done.metrics.get(name, 0.0)
        better = done.best is None or value > done.best
        if better:
            done.best, done.best_step = value, done.step
        shown = f"step {done.step}: {name} {value:.3f}, best {done.best:.3f} at {done.best_step}"
        self.display.say(shown)
        if log is not None:
            log.add(done.step, "held_out", done.metrics)
            if better:
                self._keep(state.BEST, model)

    def _save(self) -> None:
        # Scaled fp16 losses may overflow in a step, which the scaler then leaves out.
        if self.config.precision != "fp16" and not torch.isfinite(self._norm):
            raise InputError(
                f"gradients are not finite at step {self.parts.progressed.step}",
                str(self.out),
                "lower optimiser.rate or set optimiser.clip; the state before is kept",
            )
        saved = state.collected(self.parts, self._values)
        if self.place.first:
            state.save(self._last, saved)

    def _keep(self, name: str, model: LearnedModel) -> None:
        told = ", ".join(_told(s) for s in self.config.train)
        metrics = self.parts.progressed.metrics
        state.keep(self.out / name, model, metrics, told, self.config.store == "fp16")


class _Mean:
    """Means since they were last taken, over steps and processes; nothing waits for the GPU."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._seconds, self._count = 0.0, 0

    def add(self, losses: dict[str, torch.Tensor], norm: torch.Tensor, seconds: float) -> None:
        total = torch.stack(list(losses.values())).sum()
        for name, value in {"loss": total, **losses, "gradient_norm": norm}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._seconds += seconds
        self._count += 1

    def taken(self) -> dict[str, float]:
        values = torch.stack([*self._sums.values()]) / self._count
        values = self._place.totals(values) / self._place.world
        means = dict(zip(self._sums, values.tolist(), strict=True))
        means["seconds"] = self._seconds / self._count
        self._clear()
        return means


def _classes_of(sources: list[Any], class_map: dict[str, str | None]) -> tuple[str, ...]:
    """The data's own class names after the map, each once, in their order."""
    names = [name for data, _ in sources for name in data.classes]
    mapped = [class_map.get(name, name) for name in names]
    return tuple(dict.fromkeys(name for name in mapped if name is not None))


def _begin_with(model: LearnedModel, path: str) -> str:
    """First weights from a checkpoint: all of its own model's, what is shared of another's.

    Returns:
        What was done.
    """
    info = read_info(path)
    if info.classes != model.classes:
        raise InputError(
            f"a checkpoint with the classes {', '.join(info.classes)}",
            path,
            f"set `classes` to them; the run has {', '.join(model.classes)}",
        )
    model.check_tied(info, path)
    if info.model == model.name:
        load_weights(path, model, model.name)
        return f"beginning with {path}"
    taken, own = load_shared(path, model)
    return f"{taken} of {own} tensors begin with those of {info.model}, the rest anew"


def _at_model_size(options: Augment, model: LearnedModel) -> Augment:
    """Samples come at the size that the model sees in inference where nothing else is asked."""
    short, long = model.config.short_side, model.config.long_side
    return replace(
        options,
        short_sides=options.short_sides or ((short,) if short else ()),
        long_side=options.long_side or long,
    )


def _usable(clip: list[Item] | InputError) -> list[Item]:
    if isinstance(clip, InputError):
        raise clip
    return clip


def _batch_of(items: list[Item], clip: int, device: torch.device) -> Batch:
    batch = make_batch([i.frame for i in items], [i.targets for i in items], device=device)
    batch.videos = [i.video for i in items]
    batch.indices = [i.index for i in items]
    batch.clip = clip
    return batch


def _plain(
    batch: Batch, items: list[Item], losses: dict[str, torch.Tensor], step: int
) -> dict[str, Any]:
    """A batch as tensors and plain values, which `torch.load` reads without trusting the file."""
    targets = [{f.name: getattr(t, f.name).cpu() for f in fields(t)} for t in batch.targets or ()]
    return {
        "step": step,
        "names": [i.name for i in items],
        "losses": {k: float(v.detach()) for k, v in losses.items()},
        "images": batch.images.cpu(),
        "depth": None if batch.depth is None else batch.depth.cpu(),
        "sizes": batch.sizes,
        "points": batch.points and [p.cpu() for p in batch.points],
        "targets": targets,
    }


def _told(source: Source) -> str:
    if source.synthetic is None:
        return f"{source.format or 'data'} {Path(source.path).name}"
    made = source.synthetic
    size = f" at {made.size[0]}x{made.size[1]}" if made.size else ""
    return f"{made.frames} frames of synthetic drives{size}, seed {made.seed}"


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set while the block runs, instead of killing the run."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in numbers]
    try:
        yield event
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
