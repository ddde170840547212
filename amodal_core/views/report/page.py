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
from amodal_core.views.report.record import TOTAL, Record

# Shown large where the bag holds ground truth.
_HEADLINES = (
    ("amodal_AP", "amodal AP"),
    ("amodal_AP50", "amodal AP at IoU 0.5"),
    ("visible_AP", "visible AP"),
    ("visible_AP50", "visible AP at IoU 0.5"),
    ("HOTA", "HOTA"),
    ("IDF1", "IDF1"),
    ("AssA", "association (AssA)"),
)


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
    return template.render(
        parts=parts, headlines=_HEADLINES, budgets=charts.BUDGETS, version=__version__
    )


def _part(record: Record, video: str) -> dict[str, object]:
    """What the page shows of one camera."""
    return {
        "record": record,
        "tiles": _tiles(record),
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


def _tiles(record: Record) -> list[dict[str, str]]:
    frames = max(record.frames, 1)
    visible = [row for row in record.rows if not row.coasted]
    hidden = sum(row.occlusion_rate >= 0.1 for row in visible) / max(len(visible), 1)
    total = record.percentiles().get(TOTAL)
    tiles = [
        (f"{record.frames}", "frames"),
        (f"{record.fps:.0f}", "frames a second"),
        (f"{total['p95_ms']:.0f} ms" if total else "-", "p95 a frame"),
        (f"{len(record.track_ids)}", "tracks"),
        (f"{sum(record.instances) / frames:.1f}", "instances a frame"),
        (f"{hidden:.0%}", "of what is seen is partly hidden"),
        (f"{sum(row.coasted for row in record.rows)}", "times carried unseen"),
        (f"{sum(record.faults.values())}", "warnings"),
    ]
    return [{"value": value, "label": label} for value, label in tiles]
