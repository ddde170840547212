"""Who is told how a run goes, beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.extras import extra

from .config import Config, as_values


class Logger(ABC):
    """Values and pictures of a run, step by step."""

    @abstractmethod
    def add(self, step: int, group: str, values: dict[str, float]) -> None:
        """Values of one step."""

    @abstractmethod
    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, (H, W, 3) uint8 RGB."""

    @abstractmethod
    def close(self) -> None:
        """Write what is pending."""


class TensorBoard(Logger):
    """Events in the folder `tensorboard` of the run.

    Args:
        out: folder of the run.
        step: steps done before; later events of an interrupted run are hidden.
    """

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def add(self, step: int, group: str, values: dict[str, float]) -> None:
        """Values of one step."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


class WeightsAndBiases(Logger):
    """A run of Weights & Biases; `WANDB_MODE=offline` keeps it in the folder `wandb` of the run.

    The identity is kept beside it, so that a run that goes on is the same one there.
    """

    def __init__(self, config: Config, out: Path) -> None:
        import wandb

        self._wandb = wandb
        known = _Identity(out / "wandb_run.txt")
        self._run = wandb.init(
            project=config.project,
            name=out.name,
            dir=str(out),
            id=known.value or None,
            resume="allow",
            config=as_values(config),
        )
        known.keep(self._run.id)
        # Steps of their own: values of an evaluation come after those of its step.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def add(self, step: int, group: str, values: dict[str, float]) -> None:
        """Values of one step."""
        self._run.log({"step": step, **{f"{group}/{k}": v for k, v in values.items()}})

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture."""
        self._run.log({"step": step, name: self._wandb.Image(image)})

    def close(self) -> None:
        """Write what is pending."""
        self._run.finish()


class MLflow(Logger):
    """A run of MLflow, at `MLFLOW_TRACKING_URI` or else in the folder `mlflow` of the run."""

    def __init__(self, config: Config, out: Path) -> None:
        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            # Files need no server and no data base; MLflow 3 wants to be asked for them.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri((out / "mlflow").resolve().as_uri())
        mlflow.set_experiment(config.project)
        known = _Identity(out / "mlflow_run.txt")
        run = mlflow.start_run(run_id=known.value or None, run_name=out.name)
        self._client, self._run = mlflow.MlflowClient(), run.info.run_id
        if not known.value:
            mlflow.log_params(dict(_flat(as_values(config))))
        known.keep(self._run)
        self._mlflow = mlflow

    def add(self, step: int, group: str, values: dict[str, float]) -> None:
        """Values of one step."""
        # Neither blanks nor brackets but these letters are allowed in its names.
        named = {_plain(f"{group}/{k}"): v for k, v in values.items()}
        self._mlflow.log_metrics(named, step=step, run_id=self._run)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture."""
        self._client.log_image(self._run, image, f"{name}/step_{step:08d}.png")

    def close(self) -> None:
        """Write what is pending."""
        self._mlflow.end_run()


class _Identity:
    """What a service calls this run, kept in the run's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.value = path.read_text().strip() if path.is_file() else ""

    def keep(self, value: str) -> None:
        self._path.write_text(f"{value}\n")


def _flat(values: Any, way: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; lists as they are."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{way}{name}.")
        else:
            yield f"{way}{name}", value


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


def check_loggers(names: Sequence[str]) -> None:
    """Make sure that those are installed which somebody must ask for.

    Raises:
        InputError: one is not.
    """
    for name in ("wandb", "mlflow"):
        if name in names:
            with extra(name, f"log_to: {name}"):
                import_module(name)


def loggers(config: Config, out: Path, step: int) -> list[Logger]:
    """Those that a configuration asks for; TensorBoard is left out where it is not installed.

    Args:
        config: of the run.
        out: its folder.
        step: steps done before.
    """
    made: list[Logger] = []
    for name in dict.fromkeys(config.log_to):
        if name == "wandb":
            made.append(WeightsAndBiases(config, out))
        elif name == "mlflow":
            made.append(MLflow(config, out))
        elif find_spec("tensorboard") is not None:
            made.append(TensorBoard(out, step))
    return made
