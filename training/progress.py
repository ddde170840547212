"""What a run shows: bars with memory and time left; metrics as JSON lines and to loggers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from amodal_core.files import write_text

from .config import Config
from .loggers import loggers

console = Console(stderr=True, highlight=False)


class Display:
    """Bars of the first process; silent in the others.

    Args:
        progress: where the bars are drawn.
        talks: whether this process says anything.
    """

    def __init__(self, progress: Progress, talks: bool) -> None:
        self._progress, self._talks = progress, talks
        self._tasks: dict[str, Any] = {}

    def say(self, line: str) -> None:
        """One line above the bars."""
        if self._talks:
            self._progress.console.print(line, soft_wrap=True)

    def preparing(self, what: str, done: int, total: int) -> None:
        """A bar that goes away when it is full."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, note="")
        self._progress.update(self._tasks[what], completed=done, total=total)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(what))

    def step(self, done: int, total: int, note: str) -> None:
        """The bar of the steps."""
        if "step" not in self._tasks:
            self._tasks["step"] = self._progress.add_task("training", total=total, note=note)
        self._progress.update(self._tasks["step"], completed=done, total=total, note=note)


@contextmanager
def display(talks: bool) -> Iterator[Display]:
    """Bars on stderr while the block runs; plain lines where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    shown = talks and console.is_terminal
    with Progress(*columns, console=console, disable=not shown) as progress:
        yield Display(progress, talks)


def memory(device: torch.device) -> tuple[float, str]:
    """Gigabytes in use and where: the most on a GPU so far, or this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30, "GPU"
    return float(psutil.Process().memory_info().rss) / 2**30, "RAM"


class Log:
    """metrics.jsonl, and whoever else is told (`loggers`).

    Args:
        config: of the run.
        out: its folder.
        step: steps done before; later lines of an interrupted run are cut off, they will come
            again.

    Raises:
        InputError: what the configuration asks for is not installed.
    """

    def __init__(self, config: Config, out: Path, step: int) -> None:
        self.path = out / "metrics.jsonl"
        self._loggers = loggers(config, out, step)
        if self.path.exists():
            lines = self.path.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_text(self.path, "".join(f"{line}\n" for line in kept))

    def add(self, step: int, group: str, values: dict[str, float]) -> None:
        """Write values of one step."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "group": group, **values}) + "\n")
        for logger in self._loggers:
            logger.add(step, group, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Show a picture, (H, W, 3) uint8 RGB."""
        for logger in self._loggers:
            logger.image(step, name, image)

    def close(self) -> None:
        """Write what is pending."""
        for logger in self._loggers:
            logger.close()
