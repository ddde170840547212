"""`amodal eval`: every number that the field quotes, with its protocol beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from amodal_core.bags.reader import is_bag
from amodal_core.errors import InputError
from amodal_core.evaluation import results
from amodal_core.evaluation.formats import read_predictions
from amodal_core.evaluation.protocols import (
    IMAGE_PROTOCOLS,
    VIDEO_PROTOCOLS,
    Protocol,
    find,
    legacy_size_names,
)
from amodal_core.evaluation.report import number, percent
from amodal_core.evaluation.run import Evaluation, evaluate
from amodal_core.evaluation.sets import KINDS
from amodal_core.evaluation.throughput import Search, Throughput, measure
from amodal_core.evaluation.throughput_report import NUMBERS, write_throughput
from amodal_core.evaluation.truth import read_truth, with_classes_of
from amodal_core.models.registry import DEFAULT
from amodal_core.progress import ProgressBar
from amodal_ros.cli._progress import stderr, warn

app = typer.Typer(
    help="Evaluate: AP by occlusion and size, HOTA, occluded IoU, latency; compare runs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
console = Console(highlight=False)
_BUSY = 20.0  # percent of all processors that others may take without disturbing a measurement

_Gt = Annotated[
    Path, typer.Option("--gt", help="Ground truth: a data set, its JSON file, or a bag with it.")
]
_Dt = Annotated[
    Path,
    typer.Option(
        "--dt",
        help="Predictions: COCO results (a file, or a folder with visible.json and amodal.json), a "
        "YouTube-VIS list, a bag with tracks, or the --out of `amodal replay`.",
    ),
]
_Out = Annotated[Path, typer.Option(help="Folder of metrics.json, report.html and the matches.")]
_Name = Annotated[str, typer.Option(help="Which numbers; see `amodal eval protocols`.")]
_Kind = Annotated[
    list[str] | None,
    typer.Option(
        help="What to compare: box, visible, amodal; may be given several times. A single results "
        "file holds masks of the (first) mask kind given. Default: all that both sides have."
    ),
]
_Agnostic = Annotated[bool, typer.Option("--class-agnostic", help="Ignore classes in matching.")]
_Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="old=new: rename a class of the predictions; repeatable."),
]


@app.command()
def image(
    gt: _Gt,
    dt: _Dt,
    out: _Out,
    protocol: _Name = "default",
    kind: _Kind = None,
    class_agnostic: _Agnostic = False,
    legacy_names: Annotated[
        bool,
        typer.Option(
            "--legacy-names",
            help="With --protocol vrsp: print occlusion under APs, APm and APl, as that code did.",
        ),
    ] = False,
    rename: _Map = None,
) -> None:
    """Image by image: AP of boxes, visible and whole masks by occlusion and size, and more.

    [bold]Example[/]

    amodal eval image --gt kins/update_test_2020.json --dt results/ --protocol vrsp --out build/eval
    """
    chosen = find(IMAGE_PROTOCOLS, protocol)
    if legacy_names:
        chosen = legacy_size_names(chosen)
    _run(gt, dt, out, chosen, "image", kind, class_agnostic, rename)


@app.command()
def video(
    gt: _Gt,
    dt: _Dt,
    out: _Out,
    protocol: _Name = "default",
    kind: _Kind = None,
    class_agnostic: _Agnostic = False,
    rename: _Map = None,
) -> None:
    """Track by track: video AP, HOTA, IDF1, MOTA, and identities through full occlusion.

    [bold]Example[/]

    amodal eval video --gt sailvos/valid.json --dt results.json --kind amodal --out build/eval
    """
    chosen = find(VIDEO_PROTOCOLS, protocol)
    _run(gt, dt, out, chosen, "video", kind, class_agnostic, rename)


@app.command()
def bag(
    gt: Annotated[Path, typer.Option("--gt", help="A bag with a ground_truth topic.")],
    dt: Annotated[
        Path, typer.Option("--dt", help="The --out of `amodal replay`, or a bag with tracks.")
    ],
    out: _Out,
    protocol: _Name = "default",
    kind: _Kind = None,
    class_agnostic: _Agnostic = False,
    rename: _Map = None,
) -> None:
    """A bag's ground truth against recorded tracks, paired by stamp; numbers as for videos.

    [bold]Example[/]

    amodal eval bag --gt build/drive --dt build/replay --out build/eval
    """
    if not is_bag(gt):
        raise InputError("this is no bag", str(gt), "for data sets: `amodal eval video`")
    _run(gt, dt, out, find(VIDEO_PROTOCOLS, protocol), "video", kind, class_agnostic, rename)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `amodal eval`, two or more.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and comparison.json.")
    ] = None,
    draws: Annotated[int, typer.Option(min=10, help="Resamples of the bootstrap.")] = 500,
) -> None:
    """Runs side by side: differences to the first with paired bootstrap intervals over images.

    [bold]Example[/]

    amodal eval compare build/eval/geometric build/eval/mask_rcnn --out build/compared
    """
    read = [results.read(r) for r in runs]
    with _bars() as progress:
        compared = results.compare_runs(read, draws, progress)
    table = Table(title=f"against {read[0].name}", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column(read[0].name, justify="right")
    for other in read[1:]:
        table.add_column(other.name, justify="right")
        table.add_column("95 % interval", justify="right", no_wrap=True)
    for line in compared:
        cells = [f"{line.kind} {line.name}", percent(line.base)]
        for other_value in line.others:
            cells += [percent(other_value.value), _interval(other_value)]
        table.add_row(*cells)
    console.print(table)
    console.print(results.says(read, draws), style="dim")
    if out is not None:
        for path in results.write_comparison(read, compared, draws, out):
            typer.echo(path)


@app.command()
def protocols() -> None:
    """List the protocols with what they say."""
    for level, by_name in (("image", IMAGE_PROTOCOLS), ("video and bag", VIDEO_PROTOCOLS)):
        console.print(f"[bold]{level}[/]")
        for one in by_name.values():
            columns = ", ".join(c.name for c in one.columns)
            console.print(Padding(f"[bold cyan]{one.name}[/]  {one.says}", (0, 0, 0, 2)))
            console.print(Padding(columns, (0, 0, 1, 4)), style="dim")


@app.command()
def live(
    bag: Annotated[Path, typer.Argument(help="A bag with camera, camera_info and LiDAR.")],
    out: Annotated[Path, typer.Option(help="Folder of throughput.json, report.html, nodes.log.")],
    model: Annotated[str, typer.Option(help="See `amodal models`.")] = DEFAULT,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights (.safetensors).")] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
    lowest: Annotated[float, typer.Option(min=0.1, help="Hz at which the search begins.")] = 1.0,
    highest: Annotated[float, typer.Option(min=0.2, help="Hz at which it ends.")] = 60.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of each final run.")] = 8.0,
) -> None:
    """Latency and throughput of the running nodes: percentiles, drops, the highest sustained rate.

    Starts the nodes as processes with the parameters of a vehicle (the newest frame wins), feeds
    them with the bag's frames at rates found by the search of ros2_benchmark, and matches answers
    by stamp. Takes minutes; let the machine do nothing else.

    [bold]Example[/]

    amodal eval live build/drive --model geometric --highest 30 --out build/live
    """
    # Brings in rclpy, real or embedded, which the other commands do without.
    from amodal_ros.live_bench import LiveBench

    if lowest >= highest:
        raise InputError(f"{lowest:g} is not below {highest:g}", "--lowest", "give a wider range")
    folder = results.make_folder(out)
    arguments = [f"model:={model}", f"device:={device}"]
    if checkpoint is not None:
        if not checkpoint.exists():
            raise InputError("there is no such checkpoint", str(checkpoint), "check the path")
        arguments.append(f"checkpoint:={checkpoint.resolve()}")
    search = Search(lowest=lowest, highest=highest, run_seconds=seconds)
    busy = psutil.cpu_percent(1.0)
    nodes = LiveBench(bag, arguments, folder / "nodes.log")
    with stderr.status("starting the nodes") as status, nodes as bench:
        throughput = measure(bench.run, search, lambda what: status.update(what))
    if busy > _BUSY:
        others = f"other programs kept the processors {busy:.0f} % busy before the first run"
        throughput.warnings.append(others)
    warn(throughput.warnings)
    _show_live(throughput)
    for path in write_throughput(throughput, search, folder, f"{model} on {device}", bag.name):
        typer.echo(path)


def _show_live(throughput: Throughput) -> None:
    probes = Table(title="search", title_justify="left", title_style="bold", box=None)
    for name in ("rate, Hz", "answered, Hz", "missed", "p50, ms", "p95, ms", "sustained"):
        probes.add_column(name, justify="right")
    for result, good in throughput.probes:
        row = result.numbers()
        probes.add_row(
            f"{result.rate:.3g}",
            f"{row['answered_hz']:.1f}",
            f"{result.missed} of {result.sent}",
            number(row["p50_ms"]),
            number(row["p95_ms"]),
            "yes" if good else "no",
        )
    console.print(probes)
    table = Table(box=None, show_header=False)
    table.add_row("[bold]highest sustained rate[/]", f"[bold]{number(throughput.rate)} Hz[/]")
    for name, value in throughput.numbers.items():
        shown = percent(value) + " %" if name.endswith("share") else number(value)
        table.add_row(NUMBERS[name], shown)
    for reason, count in throughput.drops.items():
        table.add_row(f"dropped, {reason}", str(count))
    for node in throughput.cpu:
        cost = f"{throughput.cpu[node]:.2f} cores, {throughput.memory_mb[node]:.0f} MB"
        table.add_row(node, cost)
    console.print(table)


def _run(
    gt: Path,
    dt: Path,
    out: Path,
    protocol: Protocol,
    level: str,
    kinds: list[str] | None,
    class_agnostic: bool,
    rename: list[str] | None,
) -> None:
    for name in kinds or ():
        if name not in KINDS:
            raise InputError(f"no kind '{name}'", "--kind", f"there are: {', '.join(KINDS)}")
    if class_agnostic:
        protocol = replace(protocol, class_agnostic=True)
    results.make_folder(out)
    masks = [k for k in kinds or () if k != "box"]
    with _bars() as progress:
        truth = read_truth(gt, progress)
        predictions = read_predictions(dt, truth, masks[0] if masks else "amodal", progress)
    predictions = results.renamed(predictions, rename or ())
    if is_bag(gt) and not class_agnostic:
        truth, absent = with_classes_of(truth, predictions)
        if absent:
            warn([f"classes that the bag never shows, in no AP: {', '.join(absent)}"])
    with stderr.status("evaluating") as status:
        result = evaluate(
            truth.set,
            predictions,
            protocol,
            level,
            kinds or (),
            str(dt),
            lambda what: status.update(f"evaluating: {what}"),
        )
    inputs = {
        "gt": str(gt),
        "dt": str(dt),
        "kinds": kinds or [],
        "class_agnostic": protocol.class_agnostic,
        "map": rename or [],
    }
    warn(result.warnings)
    show(result)
    for path in results.write(result, out, inputs, truth, predictions):
        typer.echo(path)


def show(result: Evaluation) -> None:
    """Print the tables, each with what it says."""
    counts = ", ".join(f"{n} {what}" for what, n in result.counts.items() if n)
    kinds = list(result.scores)
    table = Table(title=f"{counts}", title_justify="left", title_style="bold")
    table.add_column(result.protocol.name)
    for kind in kinds:
        table.add_column(kind, justify="right")
    table.add_column("annotations", justify="right", style="dim")
    first = result.scores[kinds[0]] if kinds else None
    for name in first.values if first else ():
        cells = [percent(result.scores[k].values[name]) for k in kinds]
        numbers = dict.fromkeys(str(result.scores[k].counts[name]) for k in kinds)
        table.add_row(name, *cells, " / ".join(numbers))
    console.print(table)
    console.print(result.protocol.says, style="dim")
    if first and any(result.scores[k].per_class for k in kinds):
        console.print()
        console.print(_per_class(result, kinds))
    for other in result.tables.values():
        console.print()
        console.print(f"[bold]{other.title}[/]")
        small = Table(box=None, show_header=False)
        small.add_column()
        small.add_column(justify="right")
        for name, value in other.values.items():
            small.add_row(name, number(value) if name in other.plain else percent(value))
        console.print(small)
        console.print(other.says, style="dim")


def _per_class(result: Evaluation, kinds: list[str]) -> Table:
    title = f"{result.protocol.columns[0].name} by class"
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    table.add_column("")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for name in result.scores[kinds[0]].per_class:
        values = [result.scores[k].per_class.get(name, math.nan) for k in kinds]
        if not all(map(math.isnan, values)):
            table.add_row(name, *map(percent, values))
    return table


def _interval(difference: Any) -> str:
    change = 100 * (difference.value - difference.base)
    low, high = 100 * difference.low, 100 * difference.high
    significant = low > 0 or high < 0
    colour = "green" if low > 0 else "red" if high < 0 else "default"
    text = f"{change:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"[{colour}]{text}[/]" if significant else text


@contextmanager
def _bars() -> Iterator[ProgressBar]:
    """A function that shows a bar while an iterable of known length is used up."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=stderr, disable=not stderr.is_terminal
    ) as bars:

        def wrapped(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
            return bars.track(items, total=total, description=what)

        yield wrapped
