"""What `amodal eval` does and prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from amodal_core.bags.reader import is_bag
from amodal_core.errors import InputError
from amodal_core.evaluation import results
from amodal_core.evaluation.federated import judged
from amodal_core.evaluation.formats import check_apart, read_predictions
from amodal_core.evaluation.protocols import Protocol
from amodal_core.evaluation.run import Evaluation, evaluate
from amodal_core.evaluation.sets import KINDS
from amodal_core.evaluation.throughput import Throughput
from amodal_core.evaluation.throughput_report import NUMBERS
from amodal_core.evaluation.truth import read_truth, with_classes_of
from amodal_core.files import out_folder
from amodal_core.progress import ProgressBar
from amodal_core.views.report.tiles import number, percent
from amodal_ros.cli._progress import note, stderr, warn

console = Console(highlight=False)


def show_live(throughput: Throughput) -> None:
    """Print what the search for the highest rate gave."""
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


def run(
    gt: Path,
    dt: Path,
    out: Path,
    protocol: Protocol,
    level: str,
    kinds: list[str] | None,
    class_agnostic: bool,
    rename: list[str] | None,
) -> None:
    """Read both sides, evaluate, print and write."""
    for name in kinds or ():
        if name not in KINDS:
            raise InputError(f"no kind '{name}'", "--kind", f"there are: {', '.join(KINDS)}")
    check_apart(gt, dt)
    if class_agnostic:
        protocol = replace(protocol, class_agnostic=True)
    with out_folder(out):
        masks = [k for k in kinds or () if k != "box"]
        with bars() as progress:
            truth = read_truth(gt, progress)
            predictions = read_predictions(dt, truth, masks[0] if masks else "amodal", progress)
        predictions = results.renamed(predictions, rename or ())
        if truth.remark:
            warn([f"{gt}: {truth.remark}"])
        if truth.verified:
            predictions = judged(predictions, truth.verified)
        if is_bag(gt) and not class_agnostic:
            truth, absent = with_classes_of(truth, predictions)
            if absent:
                note([f"classes that the bag never shows, in no AP: {', '.join(absent)}"])
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
        note(result.notes)
        show(result)
        for path in results.write(result, out, inputs, truth, predictions):
            typer.echo(path)


def show(result: Evaluation) -> None:
    """Print the tables, each with what it says."""
    counts = ", ".join(f"{n} {what}" for what, n in result.counts.items() if n)
    kinds = list(result.scores)
    console.print(counts, style="bold")
    table = Table(result.protocol.name)
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
            table.add_row(escape(name), *map(percent, values))
    return table


def interval(difference: Any) -> str:
    """A difference with its 95 % interval, coloured where it is significant."""
    change = 100 * (difference.value - difference.base)
    low, high = 100 * difference.low, 100 * difference.high
    significant = low > 0 or high < 0
    colour = "green" if low > 0 else "red" if high < 0 else "default"
    text = f"{change:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"[{colour}]{text}[/]" if significant else text


@contextmanager
def bars() -> Iterator[ProgressBar]:
    """A function that shows a bar while an iterable of known length is used up."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=stderr, disable=not stderr.is_terminal
    ) as bars:

        def wrapped(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
            return bars.track(items, total=total, description=what)

        yield wrapped
