"""`amodal export`: a trained model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amodal_core.errors import InputError
from amodal_ros.cli._progress import stderr, warn

_CLOSE = 1e-3


def command(
    checkpoint: Annotated[Path, typer.Argument(help="Weights (.safetensors) of a model.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The .onnx file; NAME.PART.onnx of a model in several parts."),
    ] = None,
    beside: Annotated[
        bool,
        typer.Option(
            "--beside",
            help="Write the graph beside the checkpoint, in which it reads its weights, for images "
            "of any size: machines without PyTorch run it, the others need not write it.",
        ),
    ] = False,
    size: Annotated[
        str, typer.Option(help="WxH of the input in pixels, multiples of 32; fixed in the file.")
    ] = "640x192",
    batch: Annotated[int, typer.Option(min=1, help="Images at once; fixed in the file.")] = 1,
) -> None:
    """Export a trained model as ONNX and compare it with onnxruntime.

    The file of `flagship` takes `images` (B, 3, H, W), RGB less mean over deviation of ImageNet,
    and `depth` (B, 2, H, W), log depth over log 80 m and its validity, where the model takes a
    LiDAR; `limits` (B, 2) is the images' width and height without padding.

    Two-stage models are several graphs: `trunk`, the pyramid and what proposes; `boxes`, `masks`
    and what else a model has, of the features of some RoIs at a time. The choice of proposals,
    RoIAlign and suppression lie between them.

    [bold]Example[/]

    amodal export runs/compact/best.safetensors --out compact.onnx --size 1248x384

    amodal export runs/compact/best.safetensors --beside
    """
    if (out is None) != beside:
        raise InputError("one of them is needed", "--out, --beside", "name the .onnx file")
    from amodal_core.models import registry
    from amodal_core.models.checkpoint import read_info
    from amodal_core.models.export import export, export_beside, export_parts
    from amodal_core.models.two_stage import TwoStage

    try:
        width, height = (int(v) for v in size.lower().split("x"))
    except ValueError:
        raise InputError(f"'{size}' is no size", "--size", "write it like 640x192") from None
    info = read_info(checkpoint)
    with stderr.status(f"exporting {info.model}"):
        if out is None:
            results = [export_beside(checkpoint)]
        else:
            model = registry.learned(info.model).from_checkpoint(str(checkpoint), runtime="torch")
            in_parts = isinstance(model, TwoStage) and batch == 1
            results = (
                export_parts(model, out, (width, height))
                if in_parts
                else [export(model, out, (width, height), batch)]
            )
    for done in results:
        shapes = ", ".join(f"{k} {'x'.join(map(str, v))}" for k, v in done.inputs.items())
        stderr.print(f"inputs: {shapes}; outputs: {', '.join(done.outputs)}", soft_wrap=True)
        stderr.print(f"largest relative difference of onnxruntime from torch: {done.error:.1e}")
        if done.error > _CLOSE:
            warn(["onnxruntime gives other results than torch; see the difference above"])
        typer.echo(done.path)
