"""`amodal weights`: checkpoints of published weights, and of other checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from amodal_core.errors import InputError, foreign

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make checkpoints of published weights, and of other checkpoints."""


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The file of the network, and files that belong to it.", metavar="FILE"
        ),
    ],
    model: Annotated[
        str, typer.Option(help="What it is to be: a model (see `amodal models`), or a backbone.")
    ],
    out: Annotated[Path, typer.Option(help="The checkpoint (.safetensors).")],
    classes: Annotated[
        str,
        typer.Option(
            help="Classes of the checkpoint, with commas between, or COCO annotations (.json): "
            "chosen among the file's, or their names in order where it tells none."
        ),
    ] = "",
    style: Annotated[
        str,
        typer.Option(help="caffe or pytorch: of the ResNet, where the file does not say it."),
    ] = "",
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Write what there is, for `amodal train init=`."),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the model, such as min_score=0.3; repeatable."),
    ] = None,
) -> None:
    """Make a checkpoint of weights that another project published.

    The file is known by the names of its tensors. It may be .pth, .pt, .pkl or .safetensors, packed
    with gzip or not, or the folder of MobileSAM's two ONNX graphs; no code in it is run. All of it
    must fit, or nothing is written.

    For example:

    amodal weights import package/dist --model s_amodal --out mobile_sam.safetensors

    amodal weights import maskrcnn_resnet50_fpn_coco.pth --model mask_rcnn --out coco.safetensors

    amodal weights import coco.pth --model aisformer --partial --classes car --out begin.safetensors
    """
    from amodal_core.models.imports.importer import import_weights
    from amodal_core.settings import parse_rules
    from amodal_ros.cli._progress import stderr

    if style not in ("", "caffe", "pytorch"):
        raise InputError(f"'{style}' is no style", "--style", "caffe or pytorch")
    done = import_weights(
        files,
        model,
        out,
        classes=named_classes(classes),
        style=style,
        partial=partial,
        settings=parse_rules(settings or [], "--set"),
    )
    stderr.print(
        f"weights of {done.title}: {done.taken} of {done.tensors} tensors",
        markup=False,
        soft_wrap=True,
    )
    if done.classes:
        stderr.print(f"classes: {', '.join(done.classes)}", markup=False, soft_wrap=True)
    if done.rest:
        stderr.print(f"left to training: {', '.join(done.rest[:8])} ...", soft_wrap=True)
    typer.echo(out)


Out = Annotated[Path, typer.Option(help="The checkpoint that comes out (.safetensors).")]


@app.command()
def mean(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Two or more, of one model.", metavar="CHECKPOINT")
    ],
    out: Out,
    shares: Annotated[
        list[float] | None,
        typer.Option("--share", help="Of each in the mean, in their order; equal ones without."),
    ] = None,
) -> None:
    """Take the mean of checkpoints.

    Of runs that began with the same weights it is often better than each of them, and between a run
    and what it began with it forgets less. Its settings are those of the first.

    For example:

    amodal weights mean runs/a/final.safetensors runs/b/final.safetensors --out mean.safetensors
    """
    from amodal_core.models import mixing

    mixing.mean(checkpoints, out, shares or ())
    typer.echo(out)


@app.command()
def shift(
    checkpoint: Annotated[Path, typer.Argument(help="Of the flagship.")],
    out: Out,
    logits: Annotated[
        list[str],
        typer.Option(
            "--logit", help="CLASS=NUMBER: added to the log odds of its scores; repeatable."
        ),
    ],
) -> None:
    """Let the scores of classes begin lower or higher.

    What separates objects from nothing best may lie anywhere in a training's scores. -0.7 halves
    small scores, and 0.3 becomes 0.18; masks and boxes stay as they are.

    For example:

    amodal weights shift mean.safetensors --logit truck=-0.5 --logit bus=-1.4 --out new.safetensors
    """
    from amodal_core.models import mixing
    from amodal_core.settings import parse_rules

    values: dict[str, float] = {}
    for label, by in parse_rules(logits, "--logit").items():
        if isinstance(by, bool) or not isinstance(by, int | float):
            raise InputError(f"'{by}' is no number", f"--logit {label}", "such as -0.5")
        values[label] = float(by)
    mixing.shifted(checkpoint, out, values)
    typer.echo(out)


def named_classes(text: str) -> list[str]:
    """Names from the option: written there, or of a file of annotations."""
    if not text.endswith(".json"):
        return [name.strip() for name in text.split(",") if name.strip()]
    with foreign(text, "not COCO annotations", "give a file with `categories`"):
        categories = json.loads(Path(text).read_bytes())["categories"]
        return [str(c["name"]) for c in sorted(categories, key=lambda c: int(c["id"]))]
