"""Charts of a replay as SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from amodal_core.views.palette import hex_colour
from amodal_core.views.report import svg
from amodal_core.views.report.record import TOTAL, Record, TrackRow

WIDTH = 1000
_LEFT, _RIGHT = 150, 20
MOST_TRACKS = 60
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
    """Grid lines and numbers of frames below a chart."""
    parts = []
    for tick in svg.ticks(max(record.frames - 1, 1), 9):
        x = _frame_x(record, tick)
        parts.append(svg.line(x, y0, x, y1, "grid"))
        parts.append(svg.text(x, y1 + 16, f"{tick:.0f}", "middle", "dim"))
    parts.append(svg.text(_LEFT - 10, y1 + 16, "frame", "end", "dim"))
    return parts


def _frame_x(record: Record, frame: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * frame / max(record.frames, 1)


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
    for k, track in enumerate(shown):
        y = top + k * pitch
        mine = rows[track]
        kind = record.classes[mine[-1].class_id]
        parts.append(svg.text(_LEFT - 10, y + 14, f"{kind} {track}", "end"))
        colour = hex_colour(track)
        for (coasted, level), group in groupby(
            mine, key=lambda r: (r.coasted, 0 if r.occlusion_rate < 0.1 else 1)
        ):
            for first, last in _unbroken(list(group)):
                x = _frame_x(record, first.frame)
                width = _frame_x(record, last.frame + 1) - x
                state = "carried unseen" if coasted else "partly hidden" if level else "in view"
                tip = f"{kind} {track}: frames {first.frame}-{last.frame}, {state}"
                if coasted:
                    parts.append(svg.rect(x, y + 5, width, 10, "coasted", tip, colour))
                    parts.append(svg.rect(x, y + 5, width, 10, "over"))
                else:
                    parts.append(
                        svg.rect(x, y + 4, width, 12, "veiled" if level else "", tip, colour)
                    )
    return svg.chart(
        WIDTH, bottom + 24, parts, "When each track was seen and when it was carried unseen"
    )


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
    scale = (WIDTH - _LEFT - _RIGHT - 130) / max(reach, 1e-6)
    parts = []
    for tick in svg.ticks(reach):
        x = _LEFT + tick * scale
        parts.append(svg.line(x, top, x, bottom, "grid"))
        parts.append(svg.text(x, bottom + 16, f"{tick:g}", "middle", "dim"))
    parts.append(svg.text(_LEFT - 10, bottom + 16, "ms", "end", "dim"))
    for k, name in enumerate(names):
        y, p = top + k * pitch, stages[name]
        part = "." in name
        parts.append(svg.text(_LEFT - 10, y + 19, name, "end", "dim" if part else ""))
        tip = f"{name}: p50 {p['p50_ms']:.1f}, p95 {p['p95_ms']:.1f}, p99 {p['p99_ms']:.1f} ms"
        parts.append(
            svg.rect(_LEFT, y + 7, p["p50_ms"] * scale, 16, "sub" if part else "stage", tip)
        )
        for q in ("p95_ms", "p99_ms"):
            x = _LEFT + p[q] * scale
            parts.append(svg.line(x, y + 7, x, y + 23, "mark"))
        parts.append(
            svg.line(
                _LEFT + p["p50_ms"] * scale, y + 15, _LEFT + p["p99_ms"] * scale, y + 15, "mark"
            )
        )
        budget = BUDGETS.get(name)
        if budget is not None and budget <= reach:
            x = _LEFT + budget * scale
            parts.append(svg.line(x, y + 3, x, y + 27, "budget"))
        parts.append(
            svg.text(
                _LEFT + max(p["p99_ms"], budget or 0) * scale + 10, y + 19, f"{p['p50_ms']:.1f} ms"
            )
            if budget is None or budget <= reach
            else svg.text(_LEFT + p["p99_ms"] * scale + 10, y + 19, f"{p['p50_ms']:.1f} ms")
        )
    return svg.chart(WIDTH, bottom + 24, parts, "Milliseconds of each stage")


def frame_times(record: Record) -> str:
    """The pipeline's stages stacked frame by frame, with the budget of a 10 Hz sensor."""
    stages = [s for s in _STAGES if len(record.timings.get(s, ())) == record.frames]
    totals = [sum(record.timings[s][k] for s in stages) for k in range(record.frames)]
    reach = max([*totals, 1.0]) * 1.08
    top, bottom = 10, 200
    parts = _value_axis(reach, top, bottom, "ms") + _frame_axis(record, top, bottom)
    gap = _gap(record)
    for k in range(record.frames):
        x, width = _frame_x(record, k), _frame_x(record, k + 1) - _frame_x(record, k)
        y = float(bottom)
        for number, stage in enumerate(stages):
            ms = record.timings[stage][k]
            high = (bottom - top) * ms / reach
            y -= high
            tip = f"frame {k}: {stage} {ms:.1f} ms"
            parts.append(svg.rect(x, y, width - gap, high, f"series{number}", tip))
    budget = BUDGETS[TOTAL]
    if budget <= reach:
        y = bottom - (bottom - top) * budget / reach
        parts.append(svg.line(_LEFT, y, WIDTH - _RIGHT, y, "budget"))
    parts += svg.legend(
        _LEFT, [(s.replace("_", " "), f"series{n}") for n, s in enumerate(stages)], bottom + 40
    )
    return svg.chart(WIDTH, bottom + 50, parts, "Milliseconds of each frame")


def occlusion(record: Record) -> str:
    """Tracks of each frame by how much of them is hidden."""
    counts = [[0] * len(_SHARES) for _ in range(record.frames)]
    for row in record.rows:
        for n, (_, _, belongs) in enumerate(_SHARES):
            if belongs(row):
                counts[row.frame][n] += 1
    reach = max([*(sum(c) for c in counts), 1]) * 1.08
    top, bottom = 10, 200
    parts = _value_axis(reach, top, bottom, "tracks") + _frame_axis(record, top, bottom)
    gap = _gap(record)
    for k, numbers in enumerate(counts):
        x, width = _frame_x(record, k), _frame_x(record, k + 1) - _frame_x(record, k)
        y = float(bottom)
        for (label, kind, _), number in zip(_SHARES, numbers, strict=True):
            if number:
                high = (bottom - top) * number / reach
                y -= high
                tip = f"frame {k}: {number} {label}"
                parts.append(svg.rect(x, y, width - gap, high, kind, tip))
    parts += svg.legend(_LEFT, [(label, kind) for label, kind, _ in _SHARES], bottom + 40)
    return svg.chart(WIDTH, bottom + 50, parts, "Tracks by how much of them is hidden")


def _gap(record: Record) -> float:
    return 1.0 if record.frames <= 200 else 0.0


def _value_axis(reach: float, top: float, bottom: float, unit: str) -> list[str]:
    parts = []
    for tick in svg.ticks(reach, 4):
        y = bottom - (bottom - top) * tick / reach
        parts.append(svg.line(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
        parts.append(svg.text(_LEFT - 10, y + 4, f"{tick:g}", "end", "dim"))
    parts.append(svg.text(10, top + 12, unit, "start", "dim"))
    return parts
