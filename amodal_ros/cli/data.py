"""`amodal data`: check, count, show and convert the data sets of the field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amodal_core.classes import parse_renames
from amodal_core.datasets import registry
from amodal_core.errors import InputError
from amodal_ros.cli._progress import bar, stderr, warn

if TYPE_CHECKING:
    from amodal_core.datasets.base import Dataset, Finding
    from amodal_core.datasets.statistics import Statistics

_LIST = "  ".join(registry.formats())
app = typer.Typer(
    help=f"Check, count, show and convert data sets. Formats that are recognised: {_LIST}",
    no_args_is_help=True,
)
stdout = Console(highlight=False)

PathArgument = Annotated[Path, typer.Argument(help="The data set's file or folder.")]
FormatOption = Annotated[str, typer.Option(help="Its format, where it is not recognised.")]
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="The folder of its images, or for KINS one that holds KITTI's layout."),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME=VALUE for the format's reader, such as camera=CAM_BACK."),
]


def _open(path: Path, format: str, images: Path | None, options: list[str] | None) -> Dataset:
    given = parse_options(options or [])
    return registry.open_dataset(path, format, images or "", **given)


def parse_options(rules: list[str]) -> dict[str, Any]:
    """A reader's options from NAME=VALUE: true and false, short whole numbers, else texts.

    Not as YAML, to which the name of a segment of Waymo (digits and underscores) is a number.

    Raises:
        InputError: one is no NAME=VALUE, or would be the path.
    """
    options: dict[str, Any] = {}
    for rule in rules:
        name, equals, value = rule.partition("=")
        if not name.isidentifier() or not equals or name in ("path", "format", "images"):
            cure = "such as --option camera=CAM_BACK"
            raise InputError(f"'{rule}' is not NAME=VALUE", "--option", cure)
        number = value.isascii() and value.isdigit() and len(value) < 10
        options[name] = int(value) if number else {"true": True, "false": False}.get(value, value)
    return options


def _steps(title: str, steps: Iterator[Any], total: int) -> Iterator[Any]:
    """Pass on what is not None; every None moves the bar."""
    done = 0
    with bar(title) as progress:
        for step in steps:
            if step is None:
                done += 1
                progress(done, total)
            else:
                yield step


@app.command()
def formats() -> None:
    """List the formats that are read, and those that `convert` writes."""
    for title, lines in (("read", registry.formats()), ("written", registry.TARGETS)):
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        for name, line in lines.items():
            table.add_row(name, escape(line))
        stdout.print(table)


@app.command(
    epilog="For example: amodal data check KINS/update_train_2020.json --fix build/kins_clean"
)
def check(
    path: PathArgument,
    fix: Annotated[
        Path | None, typer.Option(help="Write a cleaned copy here; the original is not touched.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows of the table; 0 for all.")] = 200,
    format: FormatOption = "",
    images: ImagesOption = None,
    option: OptionsOption = None,
) -> None:
    """Validate every rule; prints what was found. Exit code 1 where anything was."""
    data = _open(path, format, images, option)
    findings: list[Finding] = []
    rules: Counter[str] = Counter()
    for finding in _steps("checking", data.check(), len(data)):
        rules[finding.rule] += 1
        if not limit or len(findings) < limit:
            findings.append(finding)
    if findings:
        table = Table(title=escape(f"{data.name}: {rules.total()} findings"), title_justify="left")
        for column in ("rule", "file", "id", "what"):
            table.add_column(column, overflow="fold")
        for f in findings:
            table.add_row(f.rule, escape(f.where), f.id, escape(f.what))
        stdout.print(table)
        if len(findings) < rules.total():
            stdout.print(f"{rules.total() - len(findings)} more; --limit 0 shows all")
        for rule, times in rules.most_common():
            stdout.print(f"{times:7d}  {rule}")
    else:
        stdout.print(f"{data.name}: {len(data)} samples, nothing found", markup=False)
    if fix is not None:
        for _ in _steps("cleaning", data.fix(fix), len(data)):
            pass
        stderr.print(f"wrote the cleaned copy to {fix}", markup=False, soft_wrap=True)
    if rules:
        raise typer.Exit(1)


@app.command(epilog="For example: amodal data stats AmodalSynthDrive --out build/stats")
def stats(
    path: PathArgument,
    out: Annotated[Path | None, typer.Option(help="Folder for the plots.")] = None,
    format: FormatOption = "",
    images: ImagesOption = None,
    option: OptionsOption = None,
) -> None:
    """Count images, objects, classes, sizes and occlusion; images are not read."""
    from amodal_core.datasets.statistics import Statistics, count, plot

    data = _open(path, format, images, option)
    counted = Statistics()
    for _ in _steps("counting", count(data, counted), len(data)):
        pass
    _print_statistics(data, counted)
    if out is not None:
        plot(counted, data.name, out / "statistics.png")
        stderr.print(f"wrote {out / 'statistics.png'}", markup=False, soft_wrap=True)
    warn(f"{name}: {reason}" for name, reason in counted.broken.items())


def _print_statistics(data: Dataset, s: Statistics) -> None:
    many = max(1, s.objects)
    rows = [
        ("format", data.name),
        ("images", f"{s.samples}, {s.annotated} annotated, {len(s.broken)} broken"),
        ("image sizes", ", ".join(f"{w}x{h} ({n})" for (h, w), n in s.sizes.most_common(6))),
        ("objects", f"{s.objects} ({s.objects / max(1, s.annotated):.1f} an image)"),
    ]
    masks = int(s.occlusion.sum())
    if masks:
        rows += _occlusion_rows(s, masks)
    if s.videos:
        rows.append(
            (
                "videos",
                f"{len(s.videos)}, {min(s.videos.values())} to {max(s.videos.values())} frames",
            )
        )
        rows.append(("identities", f"{s.tracks}, {s.returns} returns after an absence"))
    table = Table(show_header=False)
    for name, value in rows:
        table.add_row(name, escape(value))
    stdout.print(table)
    classes = Table("class", "objects", "share")
    for name, number in s.classes.most_common():
        classes.add_row(escape(name), str(number), f"{number / many:.1%}")
    if s.classes:
        stdout.print(classes)


def _occlusion_rows(s: Statistics, masks: int) -> list[tuple[str, str]]:
    return [
        ("hidden > 0.25", f"{s.over[0]} ({s.over[0] / masks:.1%})"),
        ("hidden > 0.5", f"{s.over[1]} ({s.over[1] / masks:.1%})"),
        ("wholly hidden", f"{s.hidden}"),
        ("small, medium, large", ", ".join(str(n) for n in s.size_groups)),
        ("ignored", f"{s.ignored}"),
    ]


@app.command(epilog="For example: amodal data show COCO_amodal_val2014.json --out build/sheets")
def show(
    path: PathArgument,
    out: Annotated[Path, typer.Option(help="Folder for the sheets.")] = Path("build/sheets"),
    samples: Annotated[int, typer.Option(min=1, help="How many, evenly spread.")] = 16,
    first: Annotated[bool, typer.Option("--first", help="The first ones instead.")] = False,
    columns: Annotated[int, typer.Option(min=1, help="Pictures side by side.")] = 2,
    width: Annotated[int, typer.Option(min=64, help="Of a picture in pixels.")] = 800,
    format: FormatOption = "",
    images: ImagesOption = None,
    option: OptionsOption = None,
) -> None:
    """Contact sheets with masks drawn: what is seen filled, what is hidden hatched."""
    from amodal_core.views import contact_sheets

    data = _open(path, format, images, option)
    spread = contact_sheets.spread(data, samples)
    indices = list(range(len(spread))) if first else spread
    broken: list[str] = []
    sheets = contact_sheets.write_sheets(data, indices, out, columns=columns, width=width)
    for made in _steps("drawing", sheets, len(indices)):
        if isinstance(made, InputError):
            broken.append(str(made))
        else:
            stdout.print(str(made), markup=False, soft_wrap=True)
    warn(broken)


def _targets() -> str:
    return "; ".join(f"{name}: {line}" for name, line in registry.TARGETS.items())


@app.command(epilog="For example: amodal data convert labels_of_labelme build/kins --to kins")
def convert(
    src: PathArgument,
    dst: Annotated[Path, typer.Argument(help="What to write; it must not exist yet.")],
    to: Annotated[str, typer.Option(help=_targets())],
    kind: Annotated[
        str | None,
        typer.Option(
            help="Variant of CocoVID: amodal, visible, joint (when not given) or both_bbox;"
            " of video-truth: amodal (when not given) or visible."
        ),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="NAME=TARGET where a class has another name there."),
    ] = None,
    structure: Annotated[
        Path | None, typer.Option(help="JSON of the clips of SAIL-VOS-cut; else cut by content.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many samples.")] = None,
    format: FormatOption = "",
    images: ImagesOption = None,
    option: OptionsOption = None,
) -> None:
    """Write a data set in another format; what cannot be read is listed at the end."""
    from amodal_core.datasets.base import DERIVED
    from amodal_core.datasets.convert import convert as convert_dataset
    from amodal_core.datasets.recorded import Recorded

    data = _open(src, format, images, option)
    broken: dict[str, str] = {}
    steps = convert_dataset(
        data,
        dst,
        to,
        broken=broken,
        kind=kind,
        class_map=parse_renames(class_ or [], "--class"),
        structure=structure,
        limit=limit,
    )
    if data.derived:
        warn([f"{data.name}: {DERIVED}"])
    elif not data.has_masks and to not in ("kitti", "bag"):
        what = f"{data.name} annotates boxes, no masks: its images are written unannotated"
        recorded = isinstance(data, Recorded)
        warn([what + ("; --option masks=derived makes some of the boxes" if recorded else "")])
    done = 0
    with bar("converting", "written") as progress:
        for done, _ in enumerate(steps, 1):
            progress(done, max(done, len(data)))
    warn(f"{name}: {reason}" for name, reason in broken.items())
    following = "" if to in registry.NOT_SHOWN else f"; next: amodal data show {quote(str(dst))}"
    stderr.print(f"wrote {done} to {dst}{following}", markup=False, soft_wrap=True)
    if broken:
        raise typer.Exit(1)
