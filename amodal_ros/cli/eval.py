"""`amodal eval`: every number that the field quotes, with its protocol beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from amodal_core.errors import InputError
from amodal_core.models.registry import DEFAULT
from amodal_ros.cli._progress import stderr, warn

app = typer.Typer(
    help="Evaluate: AP by occlusion and size, HOTA, occluded IoU, latency; compare runs.",
    no_args_is_help=True,
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

    For example:

    amodal eval image --gt kins/update_test_2020.json --dt results/ --protocol vrsp --out build/eval
    """
    from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, find, legacy_size_names
    from amodal_ros.cli._evaluation import run

    chosen = find(IMAGE_PROTOCOLS, protocol)
    if legacy_names:
        chosen = legacy_size_names(chosen)
    run(gt, dt, out, chosen, "image", kind, class_agnostic, rename)


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

    For example:

    amodal eval video --gt sailvos/valid.json --dt results.json --kind amodal --out build/eval
    """
    from amodal_core.evaluation.protocols import VIDEO_PROTOCOLS, find
    from amodal_ros.cli._evaluation import run

    chosen = find(VIDEO_PROTOCOLS, protocol)
    run(gt, dt, out, chosen, "video", kind, class_agnostic, rename)


@app.command()
def kitti(
    gt: Annotated[
        Path, typer.Option("--gt", help="KITTI's folder of the object benchmark, or a label_2.")
    ],
    dt: Annotated[
        Path,
        typer.Option(
            "--dt", help="The --out of `amodal infer` on it, or a folder of result files (.txt)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of kitti.json.")],
    frames: Annotated[
        Path | None,
        typer.Option(help="A list of names, one a line, such as ImageSets/val.txt; all must be."),
    ] = None,
) -> None:
    """KITTI's benchmark of objects: AP in 3D, from above and in the image, and orientation.

    Every number is the development kit's: easy, moderate and hard; 40 recalls (R40) and 11 (R11);
    least overlap .7 of cars, .5 of pedestrians and cyclists. Without --frames, the frames are those
    that have a result file.

    For example:

    amodal infer KITTI/training --model pointpillars --checkpoint best.safetensors --out r

    amodal eval kitti --gt KITTI --dt r --frames KITTI/ImageSets/val.txt --out build/eval
    """
    import json

    from amodal_core.evaluation.kitti_benchmark import DIFFICULTIES, KINDS, evaluate
    from amodal_core.evaluation.kitti_files import read_names, read_pairs
    from amodal_core.files import atomic, make_folder

    names = [] if frames is None else read_names(frames)
    scores = evaluate(*read_pairs(gt, dt, names))
    table = Table(title=f"{scores.images} images", title_justify="left", title_style="bold")
    table.add_column("")
    for recalls in ("R40", "R11"):
        for difficulty in DIFFICULTIES:
            table.add_column(f"{recalls} {difficulty}", justify="right")
    for name, counts in scores.objects.items():
        for kind in KINDS:
            numbers = (*scores.r40[name][kind], *scores.r11[name][kind])
            table.add_row(f"{name} {kind}", *(f"{100 * v:.2f}" for v in numbers))
        table.add_row("objects", *map(str, counts), "", "", "", style="dim", end_section=True)
    console.print(table)
    make_folder(out)
    with atomic(out / "kitti.json") as part:
        part.write_text(json.dumps(scores.as_json(), indent=1) + "\n")
    typer.echo(out / "kitti.json")


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

    For example:

    amodal eval bag --gt build/drive --dt build/replay --out build/eval
    """
    from amodal_core.bags.reader import is_bag
    from amodal_core.evaluation.protocols import VIDEO_PROTOCOLS, find
    from amodal_ros.cli._evaluation import run

    if not is_bag(gt):
        raise InputError("this is no bag", str(gt), "for data sets: `amodal eval video`")
    run(gt, dt, out, find(VIDEO_PROTOCOLS, protocol), "video", kind, class_agnostic, rename)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `amodal eval`, two or more.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and comparison.json.")
    ] = None,
    draws: Annotated[int, typer.Option(min=10, help="Resamples of the bootstrap.")] = 500,
) -> None:
    """Runs side by side: differences to the first with paired bootstrap intervals over images.

    For example:

    amodal eval compare build/eval/geometric build/eval/mask_rcnn --out build/compared
    """
    from amodal_core.evaluation import results
    from amodal_core.evaluation.report import percent
    from amodal_ros.cli._evaluation import bars, interval

    twice = [r for k, r in enumerate(runs) if r.resolve() in {q.resolve() for q in runs[:k]}]
    if twice:
        raise InputError("given twice", str(twice[0]), "give folders of several runs")
    read = [results.read(r) for r in runs]
    with bars() as progress:
        compared = results.compare_runs(read, draws, progress)
    table = Table(title=escape(f"against {read[0].name}"), title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column(escape(read[0].name), justify="right")
    for other in read[1:]:
        table.add_column(escape(other.name), justify="right")
        table.add_column("95 % interval", justify="right", no_wrap=True)
    for line in compared:
        cells = [f"{line.kind} {line.name}", percent(line.base)]
        for other_value in line.others:
            cells += [percent(other_value.value), interval(other_value)]
        table.add_row(*cells)
    console.print(table)
    console.print(results.says(read, draws), style="dim", markup=False)
    if out is not None:
        for path in results.write_comparison(read, compared, draws, out):
            typer.echo(path)


@app.command()
def protocols() -> None:
    """List the protocols with what they say."""
    from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS

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

    For example:

    amodal eval live build/drive --model geometric --highest 30 --out build/live
    """
    # Brings in rclpy, real or embedded, which the other commands do without.
    import psutil

    from amodal_core.evaluation.throughput import Search, measure
    from amodal_core.evaluation.throughput_report import write_throughput
    from amodal_core.files import make_folder
    from amodal_core.runtime.devices import check_device
    from amodal_ros.cli._evaluation import show_live
    from amodal_ros.live_bench import LiveBench

    if lowest >= highest:
        raise InputError(f"{lowest:g} is not below {highest:g}", "--lowest", "give a wider range")
    check_device(device)
    arguments = [f"model:={model}", f"device:={device}"]
    if checkpoint is not None:
        if not checkpoint.exists():
            raise InputError("there is no such checkpoint", str(checkpoint), "check the path")
        arguments.append(f"checkpoint:={checkpoint.resolve()}")
    search = Search(lowest=lowest, highest=highest, run_seconds=seconds)
    busy = psutil.cpu_percent(1.0)
    nodes = LiveBench(bag, arguments, out / "nodes.log")
    folder = make_folder(out)
    with stderr.status("starting the nodes") as status, nodes as bench:
        throughput = measure(bench.run, search, lambda what: status.update(what))
    if busy > _BUSY:
        others = f"other programs kept the processors {busy:.0f} % busy before the first run"
        throughput.warnings.append(others)
    warn(throughput.warnings)
    show_live(throughput)
    for path in write_throughput(throughput, search, folder, f"{model} on {device}", bag.name):
        typer.echo(path)
