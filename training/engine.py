"""The loop: batches, losses, weights; the same for one process and for many."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
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
from amodal_core.files import make_folder
from amodal_core.models.layers.batch import Batch, make_batch
from amodal_core.models.learned import LearnedModel

from . import state
from .config import Augment, Config, as_values
from .data import Augmented, Item, StepSampler, loader, usable
from .distributed import Place
from .progress import Display
from .schedules import Pull, factor, set_rate
from .setup import make_state, open_data
from .sharding import is_sharded, share_buffers, unsharded

_HALF = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Losses(nn.Module):
    """A model whose forward pass is its losses, as DistributedDataParallel wants it."""

    def __init__(self, model: LearnedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.model.losses(batch)


@dataclass
class StepResult:
    """One step of the optimiser.

    Attributes:
        losses: means of this process.
        norm: of all gradients together, before it was limited.
        rate: the learning rate.
        seconds: wall time, waiting for the batch included.
    """

    losses: dict[str, torch.Tensor]
    norm: torch.Tensor
    rate: float
    seconds: float = 0.0


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


class Hook:
    """Called by the loop; all processes call the same hooks in the same order."""

    def begin(self, run: Trainer) -> None:
        """Before the first step."""

    def after_step(self, run: Trainer, result: StepResult) -> None:
        """After every step; `run.state.progressed.step` steps are done then."""

    def finish(self, run: Trainer) -> None:
        """After the last step of the run, not where it was stopped before."""

    def close(self) -> None:
        """At the end, whatever it was."""


class Trainer:
    """A run from its configuration; goes on from where an earlier one in the same folder stopped.

    Args:
        config: the run.
        place: this process.
        display: where it shows what it does.
        hooks: what happens beside the loop.

    Attributes:
        data: what is learnt from and judged on.
        state: all that changes.
        stopping: whether all processes have agreed to end after the current step.

    Raises:
        InputError: anything in the configuration that does not fit the data or the model.
    """

    def __init__(
        self, config: Config, place: Place, display: Display, hooks: Sequence[Hook]
    ) -> None:
        self.config, self.place, self.display = config, place, display
        self.out = Path(config.out)
        make_folder(self.out)
        self.data = open_data(config, place, display)
        self.state = make_state(config, self.data.classes, place, display)
        self._pull = Pull(self.state.optimizer)
        if (self.out / state.LAST).exists():
            state.load(self.out / state.LAST, self.state, as_values(config))
            display.say(f"going on after step {self.state.progressed.step} of {config.steps}")
        self.stopping, self._asked = False, threading.Event()
        self.hooks = hooks
        self._wrapped: nn.Module = _Losses(self.state.model)
        if place.world > 1 and not is_sharded(self.state.model):
            devices = [place.device] if place.device.type == "cuda" and not config.split else None
            looks = not self.state.model.reaches_all
            self._wrapped = DistributedDataParallel(
                self._wrapped, devices, find_unused_parameters=looks
            )

    def run(self) -> Outcome:
        """Train until the last step, or until a signal (SIGINT, SIGTERM) asks to stop.

        Raises:
            InputError: a sample that cannot be used, or a loss that is not finite; the batch is
                then saved in the folder of the run.
        """
        done = self.state.progressed
        batches = self.batches(done.step)
        with _signals_set(self._asked):
            try:
                for hook in self.hooks:
                    hook.begin(self)
                while done.step < self.config.steps and not self.stopping:
                    begin = perf_counter()
                    result = self.step(done.step, batches)
                    result.seconds = perf_counter() - begin
                    done.step += 1
                    for hook in self.hooks:
                        hook.after_step(self, result)
                finished = done.step >= self.config.steps
                if self.stopping:
                    self.display.say(f"stopped after step {done.step}; start again to go on")
                if finished:
                    for hook in self.hooks:
                        hook.finish(self)
            finally:
                for hook in self.hooks:
                    hook.close()
        self.place.wait()
        files = [p for n in (state.BEST, state.FINAL) if (p := self.out / n).exists()]
        return Outcome(done.step, finished, done.metrics, done.best, files)

    def batches(self, start: int) -> Iterator[list[list[Item] | InputError]]:
        """The parts of all steps from one on, one after the other, read ahead by workers."""
        config, model = self.config, self.state.model
        sampler = StepSampler(
            len(self.data.training),
            config.batch_size,
            accumulate=config.accumulate,
            rank=self.place.rank,
            world=self.place.world,
            seed=config.seed,
            start=start,
            steps=config.steps,
        )
        data = Augmented(
            self.data.training,
            _at_model_size(config.augment, model),
            config.seed,
            depth=model.config.lidar,
            points="points" in model.inputs,
            clip=self.data.clip,
            camera_view=model.camera_view,
            bank=self.data.bank,
        )
        return loader(data, sampler, config.workers)

    def step(self, step: int, batches: Iterator[list[list[Item] | InputError]]) -> StepResult:
        """One step of the optimiser.

        Args:
            step: its number, from 0.
            batches: gives the parts that a step's samples are computed in.
        """
        config, run, device = self.config, self.state, self.place.device
        rate = config.optimiser.rate * factor(config.schedule, step, config.steps)
        set_rate(run.optimizer, rate)
        state.seed_step(config.seed, step, self.place.rank)
        if not self._wrapped.training or not run.model.training:
            self._wrapped.train()
        if is_sharded(run.model) and device.type != "cuda":
            share_buffers(run.model)  # on GPUs norms are synchronised anyway
        run.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for turn in range(config.accumulate):
            clips = usable(next(batches))
            items = [item for clip in clips for item in clip]
            batch = batch_of(items, len(clips[0]), device)
            last = turn == config.accumulate - 1
            half = config.precision != "fp32"
            with (
                self._unsynchronised(last),
                torch.autocast(device.type, _HALF[config.precision], enabled=half),
            ):
                losses = self._wrapped(batch)
                total = torch.stack([v.float() for v in losses.values()]).sum()
            if self._anywhere_broken(total):
                raise self._not_finite(total, _plain(batch, items, losses, step))
            with self._unsynchronised(last):
                run.scaler.scale(total / config.accumulate).backward()
            for name, value in losses.items():
                mean = value.detach().float().to(device) / config.accumulate
                sums[name] = sums.get(name, 0.0) + mean
        run.scaler.unscale_(run.optimizer)
        trained = [p for p in run.model.parameters() if p.grad is not None]
        limit = config.optimiser.clip or float("inf")
        norm = unsharded(nn.utils.clip_grad_norm_(trained, limit))
        run.scaler.step(run.optimizer)
        run.scaler.update()
        self._pull.step()
        return StepResult(sums, norm.detach(), rate)

    def _unsynchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients of all but the last part of a step stay in the process."""
        if isinstance(self.state.model, FSDPModule):
            self.state.model.set_requires_gradient_sync(last)
        if last or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        return self._wrapped.no_sync()

    def _anywhere_broken(self, total: torch.Tensor) -> bool:
        """Whether the loss of a process is not finite; all agree on that, and on stopping."""
        broken = ~torch.isfinite(total.detach())
        asked = torch.tensor(self._asked.is_set(), device=broken.device)
        anywhere, stop = self.place.totals(torch.stack([broken, asked]).float()).tolist()
        self.stopping = self.stopping or bool(stop)
        return bool(anywhere)

    def _not_finite(self, total: torch.Tensor, batch: dict[str, Any]) -> InputError:
        """The error that ends the run; the batch is saved where the loss is this process's."""
        path, broken = self.out, not torch.isfinite(total.detach())
        if broken:
            path = self.out / f"broken_batch_rank{self.place.rank}.pt"
            torch.save(batch, path)
        whose = "the loss" if broken else "the loss of another process"
        values = ", ".join(f"{k} {v:.3g}" for k, v in batch["losses"].items())
        return InputError(
            f"{whose} is not finite at step {batch['step']}" + (f": {values}" if broken else ""),
            str(path),
            "lower optimiser.rate, lengthen schedule.warm_up or set optimiser.clip; "
            "the batch is in that file",
        )


def _at_model_size(options: Augment, model: LearnedModel) -> Augment:
    """Samples come at the size that the model sees in inference where nothing else is asked."""
    short, long, resize = (getattr(model.config, n) for n in ("short_side", "long_side", "resize"))
    return replace(
        options,
        short_sides=options.short_sides or ((short,) if short else ()),
        long_side=options.long_side or long,
        resize=options.resize if resize == "torch" else resize,
    )


def batch_of(items: list[Item], clip: int, device: torch.device) -> Batch:
    """Samples as a model learns from them; `clip` frames in a row belong together."""
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


@contextmanager
def _signals_set(event: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set an event while the block runs, instead of killing the run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
