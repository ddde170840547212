"""`amodal export`: a trained model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amodal_core.errors import InputError
from amodal_ros.cli._progress import bar, stderr, warn

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
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Write a graph beside the checkpoint whose convolutions are in int8 where that "
            "hardly costs accuracy, which OpenVINO runs, and say what it costs.",
        ),
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="A bag or data set, whose frames tell int8 its ranges.")
    ] = None,
    measure: Annotated[
        Path | None,
        typer.Option(
            help="A bag or data set on which int8 is measured: AP where it has truth; else the "
            "other frames of the calibration."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="For calibration, and to measure.")] = 100,
) -> None:
    """Export a trained model as ONNX and compare it with onnxruntime.

    The file of `flagship` takes `images` (B, 3, H, W), RGB / 255 less mean over deviation of
    ImageNet, zeros where padded, and `depth` (B, 2, H, W), log depth over log 80 m and its
    validity, where the model takes a LiDAR; `limits` (B, 2) is the images' width and height
    without padding. What comes out: docs/flagship.md.

    Two-stage models are several graphs: `trunk`, the pyramid and what proposes; `boxes`, `masks`
    and what else a model has, of the features of some RoIs at a time. The choice of proposals,
    RoIAlign and suppression lie between them.

    For example:

    amodal export runs/compact/best.safetensors --out compact.onnx --size 1248x384

    amodal export runs/compact/best.safetensors --beside

    amodal export runs/compact/best.safetensors --int8 --calibration drives --measure other_drive
    """
    if (out is not None) + beside + int8 != 1:
        raise InputError("one of them is needed", "--out, --beside, --int8", "name the .onnx file")
    if int8:
        _int8(checkpoint, calibration, measure, frames)
        return
    if calibration is not None or measure is not None:
        raise InputError("they are for int8", "--calibration, --measure", "add --int8")
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


def _int8(checkpoint: Path, calibration: Path | None, measure: Path | None, frames: int) -> None:
    """Write the graph in int8 and say what it costs."""
    if calibration is None:
        raise InputError("int8 needs frames", "--calibration", "give a drive as it will see them")
    from amodal_core.datasets.registry import open_dataset
    from amodal_core.quantising import export_int8

    drives = open_dataset(calibration), None if measure is None else open_dataset(measure)
    with bar("int8") as progress:
        done = export_int8(checkpoint, drives[0], frames, drives[1], progress)
    stderr.print(f"in int8 {done.cost}", soft_wrap=True)
    typer.echo(done.path)
