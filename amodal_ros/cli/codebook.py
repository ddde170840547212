"""`amodal codebook`: the shapes that VRSP-Net knows, between its two training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amodal_ros.cli._progress import bar, stderr, warn
from amodal_ros.cli._training import module


def command(
    config: Annotated[Path, typer.Argument(help="The YAML file of the first run.")],
    checkpoint: Annotated[Path, typer.Argument(help="What it left: final.safetensors.")],
    out: Annotated[Path, typer.Option(help="The checkpoint with the codebook (.safetensors).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, as the run was given them.")
    ] = None,
) -> None:
    """Collect the shapes of the training data into the codebook of a VRSP-Net checkpoint.

    The first run trains the mask auto-encoder; this clusters what it makes of the masks, class by
    class; a second run that begins with the result learns to use them.

    For example:

    amodal train vrsp.yaml out=runs/first

    amodal codebook vrsp.yaml runs/first/final.safetensors --out runs/shapes.safetensors

    amodal train vrsp.yaml out=runs/second init=runs/shapes.safetensors
    """
    settings = module("config").read(config, overrides or [])
    build_codebook = module("codebook").build_codebook
    with bar("reading shapes") as progress:
        counts = build_codebook(settings, checkpoint, out, settings.device or "cpu", progress)
    line = ", ".join(f"{name}: {n} shapes" for name, n in counts.items())
    stderr.print(line, markup=False, soft_wrap=True)
    if empty := [name for name, n in counts.items() if not n]:
        warn([f"no shape of {', '.join(empty)}: they keep the scores and masks without priors"])
    typer.echo(out)
