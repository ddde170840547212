"""What `throughput.measure` found, as JSON and as a page."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from amodal_core.evaluation.report import page
from amodal_core.evaluation.throughput import RUNS, RunResult, Search, Throughput
from amodal_core.files import write_json, write_text
from amodal_core.views.report import svg
from amodal_core.views.report.tiles import Tile, number, percent

NUMBERS = {
    "published_hz": "published, Hz",
    "answered_hz": "answered, Hz",
    "missed_share": "frames without an answer, %",
    "p50_ms": "latency p50, ms",
    "p95_ms": "latency p95, ms",
    "p99_ms": "latency p99, ms",
    "max_ms": "latency, longest, ms",
    "cpu_cores": "processor, cores",
    "memory_mb": "memory, MB",
}
_SAYS = (
    "The search of ros2_benchmark: a trial run, a binary search of the publishing rate, a linear "
    f"scan upwards, then {RUNS} runs at the rate found, the best and the worst of which are "
    "dropped from every number. A rate is sustained where answers come within {lag} of it and no "
    "more than {loss} of the frames stay without one. Latency runs from a frame's publication to "
    "its tracks, matched by stamp; the newest frame wins, as on a vehicle."
)


def write_throughput(
    throughput: Throughput, search: Search, out: Path, model: str, bag: str
) -> list[Path]:
    """Write throughput.json and report.html.

    Args:
        throughput: what was measured.
        search: how it was looked for.
        out: a folder.
        model: and where it ran.
        bag: that was played.

    Returns:
        The files.
    """
    values: dict[str, Any] = {
        "model": model,
        "bag": bag,
        "search": asdict(search),
        "rate_hz": _finite(throughput.rate),
        "numbers": {k: _finite(v) for k, v in throughput.numbers.items()},
        "drops": throughput.drops,
        "cpu_cores": throughput.cpu,
        "memory_mb": throughput.memory_mb,
        "probes": [{**_row(r), "sustained": good} for r, good in throughput.probes],
        "runs": [_row(r) for r in throughput.runs],
        "warnings": throughput.warnings,
    }
    write_json(values, out / "throughput.json")
    write_text(out / "report.html", render(throughput, search, model, bag))
    return [out / "report.html", out / "throughput.json"]


def _row(result: RunResult) -> dict[str, Any]:
    numbers = {k: _finite(v) for k, v in result.numbers().items()}
    return {"rate_hz": result.rate, "sent": result.sent, **numbers, "drops": result.drops}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def render(throughput: Throughput, search: Search, model: str, bag: str) -> str:
    """The page's text."""
    numbers = throughput.numbers
    tiles = [
        Tile(
            f"{number(throughput.rate)} Hz",
            "highest sustained rate",
            f"at most {100 * search.loss:.0f} % of the frames without an answer",
        )
    ]
    if numbers:
        tiles += [
            Tile(f"{numbers['p50_ms']:.0f} ms", "latency p50", "publication to tracks"),
            Tile(f"{numbers['p95_ms']:.0f} ms", "latency p95", "publication to tracks"),
            Tile(f"{numbers['p99_ms']:.0f} ms", "latency p99", "publication to tracks"),
            Tile(f"{percent(numbers['missed_share'])} %", "without an answer", "of the frames"),
            Tile(f"{numbers['cpu_cores']:.1f}", "cores busy", "all processes together"),
            Tile(f"{numbers['memory_mb']:.0f} MB", "memory", "all processes together"),
        ]
    tables = [
        _table(
            "At the highest sustained rate",
            ["", "value"],
            [
                [NUMBERS[k], percent(v) if k.endswith("share") else number(v)]
                for k, v in numbers.items()
            ],
            _SAYS.format(lag=f"{100 * search.lag:.0f} %", loss=f"{100 * search.loss:.0f} %"),
        ),
        _table(
            "Processes",
            ["", "cores", "memory, MB"],
            [[n, f"{c:.2f}", f"{throughput.memory_mb[n]:.0f}"] for n, c in throughput.cpu.items()],
        ),
        _table(
            "Frames given up, by reason",
            ["", f"in {RUNS} runs"],
            [[reason, str(count)] for reason, count in throughput.drops.items()],
        ),
        _table(
            "The search",
            ["rate, Hz", "answered, Hz", "missed", "p50, ms", "p95, ms", "p99, ms", "sustained"],
            [
                [
                    f"{r.rate:.3g}",
                    f"{r.answered_hz:.1f}",
                    f"{r.missed} of {r.sent}",
                    *(number(r.numbers()[k]) for k in ("p50_ms", "p95_ms", "p99_ms")),
                    "yes" if good else "no",
                ]
                for r, good in throughput.probes
            ],
        ),
    ]
    return page(
        title=f"{model}, live",
        subtitle=f"real nodes over DDS, fed from {bag}",
        tiles=tiles,
        warnings=[(line, 1) for line in throughput.warnings],
        tables=[t for t in tables if t["rows"]],
        plots=[Markup(_rates(throughput))] if throughput.probes else [],
        plots_title="Answers by publishing rate",
        plots_say="A dot a run, the line where every frame is answered; green: sustained.",
        files="Numbers are in throughput.json, the nodes' output in nodes.log.",
    )


def _table(title: str, heads: list[str], rows: list[list[str]], says: str = "") -> dict[str, Any]:
    return {
        "title": title,
        "says": says,
        "heads": heads,
        "rows": [
            {
                "name": row[0],
                "cells": [{"text": text, "share": None, "kind": ""} for text in row[1:]],
                "count": None,
            }
            for row in rows
        ],
    }


def _rates(throughput: Throughput) -> str:
    """Rate of answers over the publishing rate, a dot a run."""
    runs = [*throughput.probes, *((r, True) for r in throughput.runs)]
    reach = max(max(r.rate, r.answered_hz) for r, _ in runs) * 1.08
    left, top, width, height = 50, 12, 620, 260
    body = []
    for tick in svg.ticks(reach, 8):
        x, y = left + width * tick / reach, top + height * (1 - tick / reach)
        body.append(svg.line(x, top, x, top + height, "grid"))
        body.append(svg.line(left, y, left + width, y, "grid"))
        body.append(svg.text(x, top + height + 17, f"{tick:g}", "middle", "dim"))
        body.append(svg.text(left - 8, y + 4, f"{tick:g}", "end", "dim"))
    body.append(svg.line(left, top + height, left + width, top, "mark"))
    for result, good in runs:
        x = left + width * result.rate / reach
        y = top + height * (1 - result.answered_hz / reach)
        kind = "better" if good else "worse"
        tip = f"{result.rate:.3g} Hz: {result.answered} of {result.sent} answered"
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="dot {kind}"><title>{tip}</title>'
            "</circle>"
        )
    body.append(svg.text(left + width, top + height + 36, "published, Hz", "end", "dim"))
    body.append(svg.text(left + 8, top + 14, "answered, Hz", "start", "dim"))
    return svg.chart(left + width + 12, top + height + 44, body, "Answers by publishing rate")
