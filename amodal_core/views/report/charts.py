"""Charts of a replay as SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from amodal_core.views.palette import hex_colour
from amodal_core.views.report import svg
from amodal_core.views.report.record import TOTAL, Record, TrackRow

MOST_TRACKS = 60
_APART = 200  # frames up to which bars stand apart
# Milliseconds a frame that the stages are allowed on one CPU core; the total is a 10 Hz sensor's.
BUDGETS = {
    "depth_projection": 3.0,
    "segmentation": 50.0,
    "tracking": 2.0,
    "messages": 5.0,
    TOTAL: 100.0,
}
_STAGES = ("depth_projection", "segmentation", "tracking")
_SHARES = (
    ("in full view", "seen", lambda r: not r.coasted and r.occlusion_rate < 0.1),
    ("partly hidden", "part", lambda r: not r.coasted and 0.1 <= r.occlusion_rate < 0.6),
    ("mostly hidden", "most", lambda r: not r.coasted and r.occlusion_rate >= 0.6),
    ("carried unseen", "gone", lambda r: r.coasted),
)


def _frame_axis(record: Record, y0: float, y1: float) -> list[str]:
    """Grid lines and numbers of frames below a chart; a phone leaves out every other number."""
    parts = []
    for k, tick in enumerate(svg.ticks(max(record.frames - 1, 1), 9)):
        x = _frame_x(record, tick)
        parts.append(svg.line(x, y0, x, y1, "grid"))
        parts.append(svg.text(x, y1 + 16, f"{tick:.0f}", "middle", "dim odd" if k % 2 else "dim"))
    return parts


def _frame_x(record: Record, frame: float) -> str:
    return svg.share(frame / max(record.frames, 1))


def shown_tracks(record: Record) -> list[int]:
    """The tracks of the timeline: the longest ones, in order of their first frame."""
    lengths: dict[int, int] = {}
    for row in record.rows:
        lengths[row.id] = lengths.get(row.id, 0) + 1
    longest = sorted(lengths, key=lambda i: -lengths[i])[:MOST_TRACKS]
    return [i for i in record.track_ids if i in set(longest)]


def timeline(record: Record) -> str:
    """One bar a track: solid while seen, hatched while carried, paler the more is hidden."""
    rows: dict[int, list[TrackRow]] = {}
    for row in record.rows:
        rows.setdefault(row.id, []).append(row)
    shown = shown_tracks(record)
    pitch, top = 20, 6
    bottom = top + pitch * len(shown)
    parts = [
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="3" height="6" class="hatch"/></pattern></defs>',
        *_frame_axis(record, top, bottom),
    ]
    names = []
    for k, track in enumerate(shown):
        y = top + k * pitch
        mine = rows[track]
        kind = record.classes[mine[-1].class_id]
        names.append((f"{kind} {track}", ""))
        colour = hex_colour(track)
        for (coasted, level), group in groupby(
            mine, key=lambda r: (r.coasted, 0 if r.occlusion_rate < 0.1 else 1)
        ):
            for first, last in _unbroken(list(group)):
                x = _frame_x(record, first.frame)
                width = _frame_x(record, last.frame + 1 - first.frame)
                state = "carried unseen" if coasted else "partly hidden" if level else "in view"
                tip = f"{kind} {track}: frames {first.frame}-{last.frame}, {state}"
                if coasted:
                    parts.append(svg.rect(x, y + 5, width, 10, "coasted", tip, colour))
                    parts.append(svg.rect(x, y + 5, width, 10, "over"))
                else:
                    parts.append(
                        svg.rect(x, y + 4, width, 12, "veiled" if level else "", tip, colour)
                    )
    title = "When each track was seen and when it was carried unseen"
    left = svg.rows([*names, ("frame", "dim")], pitch, top)
    return svg.field(bottom + 24, parts, title, [left])


def _unbroken(rows: Sequence[TrackRow]) -> list[tuple[TrackRow, TrackRow]]:
    """First and last row of each run of consecutive frames."""
    runs: list[tuple[TrackRow, TrackRow]] = []
    for row in rows:
        if runs and row.frame == runs[-1][1].frame + 1:
            runs[-1] = runs[-1][0], row
        else:
            runs.append((row, row))
    return runs


def stage_bars(record: Record) -> str:
    """p50 of each stage as a bar, p95 and p99 as marks, and the budget as a line."""
    stages = record.percentiles()
    names = sorted(stages, key=lambda n: (n == TOTAL, "." in n, -stages[n]["p50_ms"]))
    reach = max(
        [stages[n]["p99_ms"] for n in names if n != TOTAL]
        + [BUDGETS[n] for n in names if n in BUDGETS and n != TOTAL]
        + [stages[TOTAL]["p99_ms"] if TOTAL in stages else 0.0]
    )
    pitch, top = 30, 6
    bottom = top + pitch * len(names)
    reach = max(reach, 1e-6)
    parts = []
    for tick in svg.ticks(reach):
        x = svg.share(tick / reach)
        parts.append(svg.line(x, top, x, bottom, "grid"))
        parts.append(svg.text(x, bottom + 16, f"{tick:g}", "middle", "dim"))
    for k, name in enumerate(names):
        y, p = top + k * pitch, stages[name]
        tip = f"{name}: p50 {p['p50_ms']:.1f}, p95 {p['p95_ms']:.1f}, p99 {p['p99_ms']:.1f} ms"
        p50, p95, p99 = (svg.share(p[f"p{q}_ms"] / reach) for q in (50, 95, 99))
        parts.append(svg.rect("0%", y + 7, p50, 16, "sub" if "." in name else "stage", tip))
        parts += [svg.line(x, y + 7, x, y + 23, "mark") for x in (p95, p99)]
        parts.append(svg.line(p50, y + 15, p99, y + 15, "mark"))
        budget = BUDGETS.get(name)
        if budget is not None and budget <= reach:
            x = svg.share(budget / reach)
            parts.append(svg.line(x, y + 3, x, y + 27, "budget"))
    left = [*((name, "dim" if "." in name else "") for name in names), ("ms", "dim")]
    right = [(f"{stages[name]['p50_ms']:.1f} ms", "") for name in names]
    beside = [svg.rows(column, pitch, top) for column in (left, right)]
    return svg.field(bottom + 24, parts, "Milliseconds of each stage", beside)


def frame_times(record: Record) -> str:
    """The pipeline's stages stacked frame by frame, with the budget of a 10 Hz sensor."""
    stages = [s for s in _STAGES if len(record.timings.get(s, ())) == record.frames]
    stacks = [
        [(record.timings[s][k], f"series{n}", s) for n, s in enumerate(stages)]
        for k in range(record.frames)
    ]
    keys = [(s.replace("_", " "), f"series{n}") for n, s in enumerate(stages)]
    title = "Milliseconds of each frame"
    return _stacked(record, stacks, keys, "ms", title, "{name} {value:.1f} ms", BUDGETS[TOTAL])


def occlusion(record: Record) -> str:
    """Tracks of each frame by how much of them is hidden."""
    counts = [[0] * len(_SHARES) for _ in range(record.frames)]
    for row in record.rows:
        for n, (_, _, belongs) in enumerate(_SHARES):
            if belongs(row):
                counts[row.frame][n] += 1
    stacks = [
        [(n, kind, label) for (label, kind, _), n in zip(_SHARES, numbers, strict=True) if n]
        for numbers in counts
    ]
    keys = [(label, kind) for label, kind, _ in _SHARES]
    title = "Tracks by how much of them is hidden"
    return _stacked(record, stacks, keys, "tracks", title, "{value} {name}")


def _stacked(
    record: Record,
    stacks: Sequence[Sequence[tuple[float, str, str]]],
    keys: Sequence[tuple[str, str]],
    unit: str,
    title: str,
    tip: str,
    budget: float = math.inf,
) -> str:
    """A bar a frame, of parts (value, class of the style, name) from the bottom up."""
    reach = max([*(sum(value for value, *_ in stack) for stack in stacks), 1.0]) * 1.08
    top, bottom = 22, 212
    scale = (bottom - top) / reach
    marks = [(bottom - tick * scale, f"{tick:g}") for tick in svg.ticks(reach, 4)]
    parts = [svg.line("0%", y, "100%", y, "grid") for y, _ in marks]
    parts += _frame_axis(record, top, bottom)
    width = _frame_x(record, 1)
    for k, stack in enumerate(stacks):
        y = float(bottom)
        for value, kind, name in stack:
            y -= value * scale
            words = f"frame {k}: " + tip.format(name=name, value=value)
            parts.append(svg.rect(_frame_x(record, k), y, width, value * scale, kind, words))
    if budget <= reach:
        y = bottom - budget * scale
        parts.append(svg.line("0%", y, "100%", y, "budget"))
    few = "bars" if record.frames <= _APART else ""
    body = [f'<g class="{few}">', *parts, "</g>"]
    left = svg.axis([(10, unit), *marks, (bottom + 12, "frame")], bottom + 24)
    return svg.field(bottom + 24, body, title, [left]) + svg.keys(keys)
