"""The folder of an evaluation: metrics.json, the matches of each kind, and what compares them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amodal_core.classes import ClassMap, check_renames, parse_renames
from amodal_core.errors import InputError, foreign
from amodal_core.evaluation import panels, report
from amodal_core.evaluation.bootstrap import DRAWS, Difference, compare
from amodal_core.evaluation.failures import MIN_SCORE
from amodal_core.evaluation.matching import Matches
from amodal_core.evaluation.run import Evaluation
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.evaluation.truth import Truth
from amodal_core.files import make_folder, write_json, write_text
from amodal_core.progress import ProgressBar, no_bar

METRICS = "metrics.json"
REPORT = "report.html"
COMPARISON = "comparison.json"


def write(
    result: Evaluation,
    out: str | Path,
    inputs: dict[str, Any],
    truth: Truth,
    predictions: AnnotationSet,
) -> list[Path]:
    """Write metrics.json, report.html and matches_<kind>.npz.

    Args:
        result: the numbers.
        out: a folder, made where it is missing.
        inputs: what was compared: paths and options, for metrics.json.
        truth: what was evaluated against, for the pictures of failures.
        predictions: what was evaluated, as given to `run.evaluate`.

    Returns:
        The files written.

    Raises:
        InputError: the folder cannot be made.
    """
    out = make_folder(out)
    written: list[Path] = []
    for kind, scores in result.scores.items():
        if scores.matches is not None:
            written.append(out / f"matches_{kind}.npz")
            scores.matches.save(written[-1])
    for stale in sorted(set(out.glob("matches_*.npz")) - set(written)):
        stale.unlink()
    write_json({"inputs": inputs, **result.as_json()}, out / METRICS)
    confident = predictions.select(predictions.scores >= MIN_SCORE)
    images = truth.images([f.image_id for f in result.failures])
    drawn = panels.draw(result.failures, truth.set, confident, images)
    text = report.render(
        result,
        drawn,
        Path(inputs["gt"]).name,
        Path(inputs["dt"]).name,
        f"Numbers are in {METRICS}; compare runs with `amodal eval compare`.",
    )
    write_text(out / REPORT, text)
    return [out / REPORT, out / METRICS, *written]


def renamed(predictions: AnnotationSet, rules: Sequence[str]) -> AnnotationSet:
    """The same set with classes renamed; two that get one name become one class.

    Args:
        predictions: what has the classes.
        rules: "old=new" each.

    Raises:
        InputError: a rule that is none, or of a class that is not there.
    """
    renames = parse_renames(rules, "--map")
    check_renames(renames, predictions.classes, "the list of predictions", "--map")
    return predictions.mapped(ClassMap.renaming(predictions.classes, renames))


@dataclass
class StoredEvaluation:
    """An evaluation read back.

    Attributes:
        name: of its folder.
        metrics: what metrics.json holds.
        matches: by kind.
    """

    name: str
    metrics: dict[str, Any]
    matches: dict[str, Matches]


def read(out: str | Path) -> StoredEvaluation:
    """Read what `write` wrote.

    Raises:
        InputError: the folder holds no evaluation, or a broken one.
    """
    out = Path(out)
    path = out / METRICS
    with foreign(path, "no evaluation", "give the --out of `amodal eval`"):
        metrics = json.loads(path.read_text())
    kinds = {"level": str, "protocol": dict, "scores": dict}
    if not isinstance(metrics, dict) or not all(
        isinstance(metrics.get(name), kind) for name, kind in kinds.items()
    ):
        raise InputError(
            "these are no metrics of `amodal eval`", str(path), "give the --out of `amodal eval`"
        )
    matches = {kind: Matches.load(out / f"matches_{kind}.npz") for kind in metrics["scores"]}
    return StoredEvaluation(out.resolve().name, metrics, matches)


@dataclass
class Comparison:
    """One number of several runs beside each other.

    Attributes:
        kind: "box", "visible" or "amodal".
        name: "AP", "AP50" or "AP75" (with a v before it for videos).
        base: value of the first run.
        others: of each further run.
    """

    kind: str
    name: str
    base: float
    others: list[Difference]


def compare_runs(
    runs: Sequence[StoredEvaluation],
    draws: int = DRAWS,
    progress: ProgressBar = no_bar,
) -> list[Comparison]:
    """AP, AP50 and AP75 of each kind that all runs have, with paired bootstrap intervals.

    Args:
        runs: two or more; differences are to the first.
        draws: number of resamples.
        progress: shows the draws of each number.

    Raises:
        InputError: fewer than two runs, other protocols, or other ground truths.
    """
    if len(runs) < 2:
        raise InputError(
            "nothing to compare with", runs[0].name if runs else "", "give two folders"
        )
    first = runs[0]
    for run in runs[1:]:
        for what in ("level", "protocol"):
            if run.metrics[what] != first.metrics[what]:
                raise InputError(
                    f"another {what} than that of {first.name}",
                    run.name,
                    "evaluate both with the same command and --protocol",
                )
    shared = [k for k in first.matches if all(k in r.matches for r in runs)]
    if not shared:
        raise InputError("no kind of masks that all have", ", ".join(r.name for r in runs))
    letter = "v" if first.metrics["level"] == "video" else ""
    compared = []
    for kind in shared:
        for name, thresholds in (
            ("AP", slice(None)),
            ("AP50", slice(0, 1)),
            ("AP75", slice(5, 6)),
        ):
            differences = compare(
                [r.matches[kind] for r in runs],
                thresholds,
                draws,
                progress=progress,
                name=f"{kind} {name}",
            )
            compared.append(Comparison(kind, letter + name, differences[0].base, differences))
    return compared


def write_comparison(
    runs: Sequence[StoredEvaluation], differences: Sequence[Comparison], draws: int, out: str | Path
) -> list[Path]:
    """Write comparison.json and report.html.

    Args:
        runs: what was compared.
        differences: what `compare_runs` gave.
        draws: number of resamples.
        out: a folder, made where it is missing.

    Returns:
        The files written.
    """
    out = make_folder(out)
    rows = [
        {
            "kind": line.kind,
            "name": line.name,
            runs[0].name: line.base,
            "others": {run.name: asdict(d) for run, d in zip(runs[1:], line.others, strict=True)},
        }
        for line in differences
    ]
    names = [r.name for r in runs]
    write_json({"runs": names, "draws": draws, "rows": rows}, out / COMPARISON)
    text = report.render_comparison(
        names,
        [(f"{line.kind} {line.name}", line.base, line.others) for line in differences],
        says(runs, draws),
        [r.metrics for r in runs],
    )
    write_text(out / REPORT, text)
    return [out / REPORT, out / COMPARISON]


def says(runs: Sequence[StoredEvaluation], draws: int) -> str:
    """How the intervals of a comparison came about."""
    unit = "videos" if runs[0].metrics["level"] == "video" else "images"
    count = len(next(iter(runs[0].matches.values())).images)
    text = (
        f"Paired bootstrap over {count} {unit}, {draws} draws; an interval without 0 is a "
        f"difference that another sample of {unit} would show, too."
    )
    if count < 10:
        text += f" With {count} {unit} the intervals say little."
    return text
