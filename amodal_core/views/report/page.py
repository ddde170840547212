"""The report of a replay as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from amodal_core import __version__
from amodal_core.files import write_text
from amodal_core.views.report import charts
from amodal_core.views.report.record import PARTLY_HIDDEN, TOTAL, Record
from amodal_core.views.report.tiles import Tile, number, percent


def write_report(
    records: Sequence[Record], path: str | Path, videos: Sequence[str] | None = None
) -> None:
    """Write the page, whole or not at all; `videos` are the names of the videos beside it."""
    write_text(path, render(records, videos))


def render(records: Sequence[Record], videos: Sequence[str] | None = None) -> str:
    """The page's text: a part for each camera."""
    shown = videos or [""] * len(records)
    parts = [_part(record, video) for record, video in zip(records, shown, strict=True)]
    template = environment().get_template("page.html")
    return template.render(parts=parts, budgets=charts.BUDGETS, version=__version__)


def _part(record: Record, video: str) -> dict[str, object]:
    """What the page shows of one camera."""
    return {
        "record": record,
        "tiles": _tiles(record),
        "accuracy": _accuracy(record),
        "notes": [(note, 1) for note in record.notes],
        "numbers": {
            name: number(value) if name in record.counts else percent(value)
            for name, value in record.accuracy.items()
        },
        "video": video,
        "key_frames": [
            {"data": base64.b64encode(k.jpeg).decode(), "caption": k.caption}
            for k in record.key_frames
        ],
        "left_out": len(record.track_ids) - len(charts.shown_tracks(record)),
        "timeline": Markup(charts.timeline(record)),
        "occlusion": Markup(charts.occlusion(record)),
        "stage_bars": Markup(charts.stage_bars(record)),
        "frame_times": Markup(charts.frame_times(record)),
        "stages": record.percentiles(),
    }


def environment() -> Environment:
    """The templates of this folder; what they are given is escaped."""
    return Environment(
        loader=PackageLoader("amodal_core.views.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def _accuracy(record: Record) -> list[Tile]:
    """The large numbers against ground truth."""
    kept = record.identities
    return [*record.headlines, *([kept] if kept else [])]


def _tiles(record: Record) -> list[Tile]:
    frames = max(record.frames, 1)
    visible = [row for row in record.rows if not row.coasted]
    hidden = sum(row.occlusion_rate >= PARTLY_HIDDEN for row in visible) / max(len(visible), 1)
    total = record.percentiles().get(TOTAL)
    return [
        Tile(f"{record.frames}", "frames"),
        Tile(
            f"{record.fps:.0f}",
            "frames a second",
            "projection, model and tracking; without reading, drawing and writing",
        ),
        Tile(f"{total['p95_ms']:.0f} ms" if total else "-", "p95 a frame", "of the same stages"),
        Tile(f"{len(record.track_ids)}", "tracks", "identities over the whole drive"),
        Tile(
            f"{len(record.rows) / frames:.1f}",
            "tracks a frame",
            "as shown: after tracking, those carried unseen included",
        ),
        Tile(
            f"{100 * hidden:.0f} %",
            "partly hidden",
            f"of the seen tracks of all frames, at least {100 * PARTLY_HIDDEN:.0f} % of the amodal "
            "area",
        ),
        Tile(
            f"{sum(row.coasted for row in record.rows)}",
            "times carried unseen",
            "a track in a frame without a detection of it",
        ),
        Tile(f"{sum(record.faults.values())}", "warnings"),
    ]
