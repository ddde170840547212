"""`amodal train`: train a model from a configuration file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from amodal_core.errors import InputError
from amodal_ros.cli._progress import stderr
from amodal_ros.cli._training import module, package


def command(
    config: Annotated[Path, typer.Argument(help="A YAML file; training/configs has many.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as optimiser.rate=0.01.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="On this machine: one a GPU, or several on the CPU.")
    ] = 1,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Measure a few steps: shapes, classes, memory, time. Keeps nothing."
        ),
    ] = False,
) -> None:
    """Train a model; started again, it goes on exactly where it was stopped.

    Leaves last.pt (the state), best.safetensors and final.safetensors (for `--checkpoint`),
    report.html (learning curves, samples with predictions), metrics.jsonl and TensorBoard's events
    in the folder `out`. Ctrl-C ends after the current step.

    For example:

    amodal train training/configs/synthetic/flagship_compact.yaml out=runs/compact

    amodal train training/configs/kins/aisformer.yaml train.0.path=kins --processes 8

    amodal train mine.yaml --dry-run
    """
    if dry_run:
        settings = module("config").read(config, overrides or [])
        for name, text in module("dry_run").dry_run(settings, processes):
            typer.echo(f"{name:<10} {text}")
        return
    if processes > 1:
        # Several processes are torchrun's business; so are several machines.
        arguments = [str(config), *(overrides or [])]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc-per-node", str(processes), "-m", f"{package()}.train"]
        done = subprocess.run([*launch, *arguments], check=False)
        raise typer.Exit(done.returncode)
    outcome = module("train").train(module("config").read(config, overrides or []))
    if not outcome.finished:
        raise typer.Exit(130)
    if not outcome.checkpoints:
        raise InputError("no checkpoint was written", str(config))
    if outcome.best is not None:
        stderr.print(f"best value of the metric: {outcome.best:.3f}")
    for path in outcome.checkpoints:
        typer.echo(path)
