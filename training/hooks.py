"""What happens beside the loop: averaging, logging, evaluating, pictures, checkpoints, report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from amodal_core.datasets.image_files import write_image
from amodal_core.errors import InputError
from amodal_core.models.learned import LearnedModel
from amodal_core.tracking import make_tracker

from . import curves, pictures, state
from .config import as_values
from .distributed import Place
from .engine import Hook, StepResult, Trainer
from .judge import judge
from .progress import Log, memory
from .setup import described


class Averaging(Hook):
    """The moving average of the weights."""

    def after_step(self, run: Trainer, result: StepResult) -> None:
        """Take the step's weights in."""
        if run.state.ema is not None:
            run.state.ema.update()


class Logging(Hook):
    """Means of losses on the screen, in metrics.jsonl and where `log_to` says."""

    def __init__(self) -> None:
        self._log: Log | None = None

    def begin(self, run: Trainer) -> None:
        """Go on with the log of the run."""
        self._mean = _Mean(run.place)
        if run.place.first:
            self._log = Log(run.config, run.out, run.state.progressed.step)

    def add(self, step: int, group: str, values: dict[str, float]) -> None:
        """Write values of one step, in the first process."""
        if self._log is not None:
            self._log.add(step, group, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Show a picture, (H, W, 3) uint8 RGB, in the first process."""
        if self._log is not None:
            self._log.image(step, name, image)

    def after_step(self, run: Trainer, result: StepResult) -> None:
        """Every `log_every` steps, and after the last."""
        self._mean.add(result)
        config, step = run.config, run.state.progressed.step
        if step % config.log_every and step != config.steps:
            return
        means = self._mean.taken()
        used, where = memory(run.place.device)
        clip = run.data.clip
        frames = config.batch_size * (clip.frames if clip else 1)
        speed = frames / max(means.pop("seconds"), 1e-9)
        note = f"loss {means['loss']:.3f}  rate {result.rate:.2g}  {speed:.1f} images/s"
        run.display.step(step, config.steps, f"{note}  {used:.1f} GB {where}")
        more = {"rate": result.rate, "images_per_second": speed, "memory_gb": used}
        self.add(step, "train", {**means, **more})

    def close(self) -> None:
        """Write what is pending."""
        if self._log is not None:
            self._log.close()


class Evaluation(Hook):
    """The held-out split, and the checkpoint of the best value so far.

    Args:
        logging: where the values are written.
    """

    def __init__(self, logging: Logging) -> None:
        self._logging, self._last = logging, -1

    def after_step(self, run: Trainer, result: StepResult) -> None:
        """Every `evaluate_every` steps."""
        every = run.config.evaluate_every
        if every and run.state.progressed.step % every == 0:
            self._evaluate(run)

    def finish(self, run: Trainer) -> None:
        """The last weights, where they are not yet evaluated."""
        if self._last != run.state.progressed.step:
            self._evaluate(run)

    def _evaluate(self, run: Trainer) -> None:
        done, config = run.state.progressed, run.config
        self._last = done.step
        if run.data.held_out is None:
            return
        batch = max(1, config.batch_size // run.place.world // config.accumulate)
        model = run.state.ready()
        tracker = None
        if config.tracker:
            tracker = partial(make_tracker, config.tracker, config.tracker_settings)
        done.metrics = judge(model, run.data.held_out, batch, run.place, run.display, tracker)
        value = done.metrics.get(config.metric, 0.0)
        better = done.best is None or value > done.best
        if better:
            done.best, done.best_step = value, done.step
        best = f"best {done.best:.3f} at {done.best_step}"
        run.display.say(f"step {done.step}: {config.metric} {value:.3f}, {best}")
        self._logging.add(done.step, "held_out", done.metrics)
        if better and run.place.first:
            keep(run, state.BEST, model)


class Pictures(Hook):
    """Samples with their truth and what the model now finds, side by side.

    Args:
        logging: where they are shown; they also lie in the folder `samples` of the run.
    """

    def __init__(self, logging: Logging) -> None:
        self._logging = logging

    def after_step(self, run: Trainer, result: StepResult) -> None:
        """Every `samples_every` steps, and after the last of a run at least that long."""
        step, every, last = run.state.progressed.step, run.config.samples_every, run.config.steps
        if not every or (step % every and (step != last or last < every)):
            return
        model = run.state.ready()
        if run.place.first:
            picture = pictures.drawn(model, run.data, run.config.samples)
            write_image(pictures.path_of(run.out, step), picture)
            self._logging.image(step, pictures.NAME, picture)


class Report(Hook):
    """Learning curves, the held-out split and the pictures on one page, `report.html`."""

    def after_step(self, run: Trainer, result: StepResult) -> None:
        """Where the state is saved: a run can be looked at while it goes on."""
        if run.stopping or run.state.progressed.step % run.config.save_every == 0:
            self._write(run)

    def finish(self, run: Trainer) -> None:
        """The whole run."""
        self._write(run)

    def _write(self, run: Trainer) -> None:
        if run.place.first:
            curves.write(run.out, run.config, run.state.progressed)


class Checkpoints(Hook):
    """The state that a run goes on from, and its last weights for inference."""

    def __init__(self) -> None:
        self._norm = torch.zeros(())

    def after_step(self, run: Trainer, result: StepResult) -> None:
        """Every `save_every` steps, and where the run is stopped."""
        self._norm = result.norm
        if run.stopping or run.state.progressed.step % run.config.save_every == 0:
            self._save(run)

    def finish(self, run: Trainer) -> None:
        """The state and the checkpoint."""
        self._save(run)
        model = run.state.ready()
        if run.place.first:
            keep(run, state.FINAL, model)

    def _save(self, run: Trainer) -> None:
        # Scaled fp16 losses may overflow in a step, which the scaler then leaves out.
        if run.config.precision != "fp16" and not torch.isfinite(self._norm):
            raise InputError(
                f"gradients are not finite at step {run.state.progressed.step}",
                str(run.out),
                "lower optimiser.rate or set optimiser.clip; the state before is kept",
            )
        values = state.collected(run.state, as_values(run.config))
        if run.place.first:
            state.save(run.out / state.LAST, values)


def keep(run: Trainer, name: str, model: LearnedModel) -> None:
    """Write a checkpoint for inference into the folder of the run."""
    config, metrics = run.config, run.state.progressed.metrics
    half = config.store == "fp16"
    state.keep(run.out / name, model, metrics, described(config.train), half)


class _Mean:
    """Means since they were last taken, over steps and processes; nothing waits for the GPU."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._seconds, self._count = 0.0, 0

    def add(self, result: StepResult) -> None:
        total = torch.stack(list(result.losses.values())).sum()
        for name, value in {"loss": total, **result.losses, "gradient_norm": result.norm}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._seconds += result.seconds
        self._count += 1

    def taken(self) -> dict[str, float]:
        values = torch.stack([*self._sums.values()]) / self._count
        values = self._place.totals(values) / self._place.world
        means = dict(zip(self._sums, values.tolist(), strict=True))
        means["seconds"] = self._seconds / self._count
        self._clear()
        return means


def usual() -> Sequence[Hook]:
    """The hooks of every run, in the order in which the loop calls them."""
    logging = Logging()
    return Averaging(), logging, Evaluation(logging), Pictures(logging), Checkpoints(), Report()
