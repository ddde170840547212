"""An evaluation, or a comparison of several, as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from amodal_core import __version__
from amodal_core.evaluation.bootstrap import Difference
from amodal_core.evaluation.failures import MIN_SCORE, Confusion
from amodal_core.evaluation.image_level import Scores
from amodal_core.evaluation.matching import RECALLS
from amodal_core.evaluation.panels import Panel
from amodal_core.evaluation.protocols import Column
from amodal_core.evaluation.run import Evaluation
from amodal_core.views.report import svg
from amodal_core.views.report.page import environment
from amodal_core.views.report.tiles import Tile, identities, number, percent

_LEFT, _TOP, _SIDE_X, _SIDE_Y = 46, 12, 440, 250  # of a chart of precision over recall
# Table, name of the value there, label, definition.
_HEADLINES = (
    (
        "tracking amodal",
        "HOTA",
        "HOTA, amodal",
        "mean over classes and IoU .05:.05:.95 (TrackEval)",
    ),
    (
        "mIoU skip-empty",
        "mIoU_occ",
        "mIoU of hidden parts",
        "of objects that have one, each with its best prediction",
    ),
    ("order", "right", "occlusion order right", "of the pairs whose objects were both found"),
)


def render(
    result: Evaluation, panels: Sequence[Panel], gt: str = "", dt: str = "", extra: str = ""
) -> str:
    """The page of one evaluation.

    Args:
        result: the numbers.
        panels: the worst failures.
        gt: what was compared with, for the title.
        dt: what was evaluated.
        extra: a sentence for the foot of the page.
    """
    protocol = result.protocol
    kinds = list(result.scores)
    return page(
        title=dt or "Evaluation",
        subtitle=f"against {gt}, {result.level} by {result.level}, protocol {protocol.name}; "
        f"{_counts(result)}",
        tiles=[*headlines(result), *_kept(result)],
        warnings=[(line, 1) for line in result.warnings],
        notes=[(line, 1) for line in result.notes],
        tables=_score_tables(result, kinds),
        curves=_curves(list(result.scores.values())),
        curves_say=f", over {protocol.columns[0].name}'s share of it" if _binned(protocol) else "",
        confusion=[_confusion(name, table) for name, table in result.confusion.items()],
        others=[
            {
                "title": table.title,
                "says": table.says,
                "rows": [
                    _row(name, [_cell(value, name not in table.plain)])
                    for name, value in table.values.items()
                ],
            }
            for table in result.tables.values()
        ],
        panels=[
            {
                "truth": base64.b64encode(p.truth).decode(),
                "prediction": base64.b64encode(p.prediction).decode(),
                "caption": p.caption,
                "where": p.where,
            }
            for p in panels
        ],
        files=extra,
    )


def render_comparison(
    names: Sequence[str],
    rows: Sequence[tuple[str, float, Sequence[Difference]]],
    says: str,
    metrics: Sequence[dict[str, Any]],
) -> str:
    """The page that compares runs.

    Args:
        names: of the runs; differences are to the first.
        rows: name of a number, its value in the first run, and the others' differences.
        says: how the intervals came about.
        metrics: metrics.json of each run, for all other numbers side by side.
    """
    table = {
        "title": "AP",
        "says": "",
        "heads": ["", *names],
        "rows": [
            _row(name, [_cell(base), *(_cell(d.value) for d in others)])
            for name, base, others in rows
        ],
    }
    return page(
        title=" / ".join(names),
        subtitle=f"{metrics[0]['level']} by {metrics[0]['level']}, protocol "
        f"{metrics[0]['protocol']['name']}: {metrics[0]['protocol']['says']}",
        tables=[table, *_side_by_side(names, metrics)],
        base=names[0],
        intervals=Markup(_intervals(names, rows)),
        intervals_say=says,
        files="Numbers are in comparison.json.",
    )


def page(**values: Any) -> str:
    """Fill in evaluation.html; what is not given is left out of the page."""
    empty: dict[str, Any] = {
        "tiles": [],
        "warnings": [],
        "notes": [],
        "curves": [],
        "curves_say": "",
        "plots": [],
        "plots_title": "",
        "plots_say": "",
        "confusion": [],
        "others": [],
        "panels": [],
        "base": "",
        "intervals": "",
        "intervals_say": "",
        "least_score": MIN_SCORE,
        "version": __version__,
    }
    return environment().get_template("evaluation.html").render({**empty, **values})


def _cell(value: float | None, share: bool = True) -> dict[str, Any]:
    finite = value is not None and not math.isnan(value) and 0 <= value <= 1
    return {
        "text": percent(value) if share else number(value),
        "share": 100 * value if share and finite and value is not None else None,
        "kind": "",
    }


def _row(name: str, cells: list[dict[str, Any]], count: str | None = None) -> dict[str, Any]:
    return {"name": name, "cells": cells, "count": count}


def _binned(protocol: Any) -> bool:
    return any(c.bin.occlusion or c.bin.area for c in protocol.columns[:1])


def headlines(result: Evaluation) -> list[Tile]:
    """The numbers that stand large on every page about this evaluation, each with what it is."""
    protocol = result.protocol
    tiles = [
        Tile(percent(s.values[c.name]), f"{c.name}, {kind}", _definition(c, kind, result))
        for c in protocol.columns[:1]
        for kind, s in reversed(result.scores.items())
    ]
    return tiles + [
        Tile(percent(result.tables[table].values[name]), label, says)
        for table, name, label, says in _HEADLINES
        if table in result.tables
    ]


def _definition(column: Column, kind: str, result: Evaluation) -> str:
    """What the first number of a protocol is, in a few words."""
    iou = ".50:.05:.95" if column.iou is None else f"{column.iou:g}"
    over = "IoU" if result.protocol.class_agnostic else "classes and IoU"
    what = "boxes" if kind == "box" else f"{kind} masks"
    unit = "whole videos" if result.level == "video" else "images"
    share = ""
    if column.bin.occlusion:
        low, high = column.bin.occlusion
        share = f", objects {100 * low:.0f}-{100 * high:.0f} % hidden"
    return f"mean over {over} {iou}; {what} of {unit}{share}"


def _kept(result: Evaluation) -> list[Tile]:
    """Identities through full occlusion, where any was."""
    if "identity" not in result.tables:
        return []
    values = result.tables["identity"].values
    names = ("full occlusions", "of tracked objects", "identity kept after")
    return [identities(*(round(values[name]) for name in names))]


def _counts(result: Evaluation) -> str:
    """What was compared: "24 images, 82 annotations, 59 predictions"."""
    texts = [
        f"{n:,} {what.removesuffix('s') if n == 1 else what}".replace(",", " ")
        for what, n in result.counts.items()
        if n
    ]
    return ", ".join(texts)


def _score_tables(result: Evaluation, kinds: list[str]) -> list[dict[str, Any]]:
    if not kinds:
        return []
    scores = [result.scores[k] for k in kinds]
    rows = []
    for name in scores[0].values:
        counts = " / ".join(dict.fromkeys(str(s.counts[name]) for s in scores))
        rows.append(_row(name, [_cell(s.values[name]) for s in scores], counts))
    tables: list[dict[str, Any]] = [
        {
            "title": "Average precision and recall",
            "says": result.protocol.says + " Annotations are those that count in a row, one number "
            "a kind where they differ.",
            "heads": ["", *kinds, "annotations"],
            "counted": True,
            "rows": rows,
        }
    ]
    classes = [
        _row(name, [_cell(s.per_class.get(name)) for s in scores])
        for name in scores[0].per_class
        if any(not math.isnan(s.per_class.get(name, math.nan)) for s in scores)
    ]
    if classes:
        title = f"{result.protocol.columns[0].name} by class"
        tables.append({"title": title, "says": "", "heads": ["", *kinds], "rows": classes})
    return tables


def _curves(scores: Sequence[Scores]) -> list[Markup]:
    """Precision over recall at IoU .5 and .75, one line a kind."""
    charts = []
    for iou in (0.5, 0.75):
        body = []
        for k in range(6):
            x, y = _LEFT + _SIDE_X * k / 5, _TOP + _SIDE_Y * k / 5
            body.append(svg.line(x, _TOP, x, _TOP + _SIDE_Y, "grid"))
            body.append(svg.line(_LEFT, y, _LEFT + _SIDE_X, y, "grid"))
            body.append(svg.text(x, _TOP + _SIDE_Y + 17, f"{20 * k}", "middle", "dim"))
            body.append(svg.text(_LEFT - 8, y + 4, f"{100 - 20 * k}", "end", "dim"))
        for one in scores:
            curve = one.curves.mean_curve(iou) if one.curves is not None else ()
            if len(curve):
                points = [
                    (_LEFT + _SIDE_X * r, _TOP + _SIDE_Y * (1 - p))
                    for r, p in zip(RECALLS, curve, strict=True)
                ]
                body.append(svg.polyline(points, f"curve {one.kind}"))
        body += svg.legend(_LEFT, [(s.kind, f"key-{s.kind}") for s in scores], _TOP + _SIDE_Y + 44)
        words = f"precision over recall, at IoU {iou:g}"
        middle = svg.text(_LEFT + _SIDE_X, _TOP + _SIDE_Y + 44, words, "end", "dim")
        title = f"Precision over recall at IoU {iou:g}"
        width, height = _LEFT + _SIDE_X + 12, _TOP + _SIDE_Y + 54
        charts.append(Markup(svg.chart(width, height, [*body, middle], title)))
    return charts if scores else []


def _confusion(name: str, table: Confusion) -> dict[str, Any]:
    rows = []
    for label, counts in zip(table.rows, table.counts.tolist(), strict=True):
        total = sum(counts)
        if not total:
            continue
        cells = []
        for column, n in zip(table.columns, counts, strict=True):
            kind = "hit" if column == label else "miss" if column == "missed" else "off"
            share = round(100 * n / total)
            cells.append({"text": n or "", "percent": max(share, 8) if n else 0, "kind": kind})
        rows.append({"name": label, "cells": cells})
    return {"title": name, "columns": table.columns, "rows": rows}


def _side_by_side(names: Sequence[str], metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every other number that all runs have."""
    tables = []
    for kind, first in metrics[0]["scores"].items():
        if all(kind in m["scores"] for m in metrics):
            values = [m["scores"][kind]["values"] for m in metrics]
            tables.append((f"All columns, {kind}", "", (), first["values"], values))
    for name, first in metrics[0]["tables"].items():
        if all(name in m["tables"] for m in metrics):
            values = [m["tables"][name]["values"] for m in metrics]
            tables.append((first["title"], first["says"], first["plain"], first["values"], values))
    return [
        {
            "title": title,
            "says": says,
            "heads": ["", *names],
            "rows": [_row(n, [_cell(v.get(n), n not in plain) for v in values]) for n in keys],
        }
        for title, says, plain, keys, values in tables
    ]


def _intervals(
    names: Sequence[str], rows: Sequence[tuple[str, float, Sequence[Difference]]]
) -> str:
    """A dot for each difference with its 95 % interval."""
    lines = [
        (f"{name}, {run}" if len(names) > 2 else name, d)
        for name, _, others in rows
        for run, d in zip(names[1:], others, strict=True)
    ]
    finite = [x for _, d in lines for x in (d.low, d.high) if not math.isnan(x)]
    reach = max([abs(x) for x in finite] + [0.005]) * 1.15
    pitch, top = 28, 6
    bottom = top + pitch * len(lines)

    def x_of(value: float) -> str:
        return svg.share((value + reach) / (2 * reach))

    body = []
    for k, tick in enumerate(svg.ticks(reach * 100, 4)):
        for signed in {tick, -tick}:
            x, kind = x_of(signed / 100), "dim odd" if k % 2 else "dim"
            body.append(svg.line(x, top, x, bottom, "grid" if tick else "zero"))
            body.append(svg.text(x, bottom + 16, f"{signed:+g}" if tick else "0", "middle", kind))
    words = []
    for k, (_, d) in enumerate(lines):
        y = top + k * pitch + pitch / 2
        change = 100 * (d.value - d.base)
        words.append(
            "" if math.isnan(d.low) else f"{change:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        )
        if math.isnan(d.low):
            continue
        kind = "better" if d.low > 0 else "worse" if d.high < 0 else ""
        body.append(svg.line(x_of(d.low), y, x_of(d.high), y, f"whisker {kind}"))
        body.append(f'<circle cx="{x_of(change / 100)}" cy="{y:.1f}" r="5" class="dot {kind}"/>')
    beside = [
        svg.rows([(w, "") for w in column], pitch, top) for column in ([n for n, _ in lines], words)
    ]
    return svg.field(bottom + 26, body, "Differences with 95 % intervals", beside)
