"""A training run as one self-contained HTML page: learning curves, pictures, settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from amodal_core import __version__
from amodal_core.views.palette import hex_colour
from amodal_core.views.report import svg
from amodal_core.views.report.page import environment
from amodal_core.views.report.tiles import Tile, percent

_LEFT, _TOP, _WIDTH, _HEIGHT = 58, 12, 430, 230  # of a chart's field
_MOST = 150  # points of a curve; more are averaged
_DECADE = 10.0  # ratio of largest to smallest value from which an axis is logarithmic
# What a step's values are beside the losses, and what they are called.
_OTHERS = (
    ("rate", "learning rate"),
    ("gradient_norm", "norm of the gradients, before it is limited"),
    ("images_per_second", "images a second"),
    ("memory_gb", "memory, GB"),
)
_KINDS = ("amodal", "visible", "box")

Row = Mapping[str, Any]
Point = tuple[float, float]


class Chart(NamedTuple):
    """A chart and its keys.

    Attributes:
        title: above it.
        drawn: SVG.
        keys: name and colour of each curve, where there are several.
    """

    title: str
    drawn: Markup
    keys: list[tuple[str, str]]


def render(
    run: str,
    model: str,
    rows: Sequence[Row],
    steps: tuple[int, int],
    metric: str,
    pictures: Sequence[tuple[int, str]],
    settings: str,
) -> str:
    """The page's text.

    Args:
        run: name of the run.
        model: what is trained.
        rows: of metrics.jsonl: `step`, `group` (train, held_out) and values by name.
        steps: done, and of the whole run.
        metric: of the best checkpoint, a name among the held-out values.
        pictures: step and base64 of a JPEG each, in the order of steps.
        settings: of the run, as text.
    """
    train = [row for row in rows if row["group"] == "train"]
    judged = [row for row in rows if row["group"] == "held_out"]
    apart = {"step", "group", "loss", *(name for name, _ in _OTHERS)}
    parts = [name for name in (train[-1] if train else ()) if name not in apart]
    charts = [_chart("loss, sum of its parts", train, ["loss"])]
    if len(parts) > 1:
        charts.append(_chart("parts of the loss", train, parts))
    kinds = {f"{kind} AP": kind for kind in _KINDS}
    shown = list(dict.fromkeys([metric, *kinds]))
    if judged:
        charts.append(_chart("held out, percent", judged, shown, percent=True))
    charts += [_chart(title, train, [name]) for name, title in _OTHERS]
    best = max(judged, key=lambda row: row.get(metric, -math.inf), default=None)
    template = environment().get_template("learning.html")
    return template.render(
        run=run,
        model=model,
        steps=steps,
        tiles=_tiles(train, judged, best, steps, metric),
        charts=[chart for chart in charts if chart is not None],
        table=_table(best),
        best=best["step"] if best else None,
        pictures=pictures,
        settings=settings,
        version=__version__,
    )


def _tiles(
    train: Sequence[Row],
    judged: Sequence[Row],
    best: Row | None,
    steps: tuple[int, int],
    metric: str,
) -> list[Tile]:
    tiles = [Tile(f"{steps[0]}", "steps", f"of {steps[1]}")]
    if train:
        first, last = train[0], train[-1]
        tiles.append(Tile(f"{last['loss']:.3g}", "loss", f"{first['loss']:.3g} at the beginning"))
    if best is not None:
        last_one = percent(judged[-1].get(metric))
        says = f"held out, at step {best['step']} (best.safetensors); {last_one} at the last"
        tiles.append(Tile(percent(best.get(metric)), f"{metric}, at its best", says))
    if train:
        speeds = sorted(row["images_per_second"] for row in train)
        tiles.append(Tile(f"{speeds[len(speeds) // 2]:.3g}", "images a second", "median"))
    return tiles


def _table(best: Row | None) -> list[tuple[str, list[str]]]:
    """Rows of a table: a number, then its amodal, visible and box value at the best evaluation."""
    if best is None:
        return []
    names = [name.removeprefix("amodal ") for name in best if name.startswith("amodal ")]
    return [(name, [percent(best.get(f"{kind} {name}")) for kind in _KINDS]) for name in names]


def _chart(
    title: str, rows: Sequence[Row], names: Sequence[str], percent: bool = False
) -> Chart | None:
    """Values over steps, one curve a name; None where there are none."""
    factor = 100 if percent else 1
    curves = {
        name: [(row["step"], factor * row[name]) for row in rows if _finite(row.get(name))]
        for name in names
    }
    curves = {name: _thinned(points) for name, points in curves.items() if points}
    if not curves:
        return None
    values = [y for points in curves.values() for _, y in points]
    last = max(x for points in curves.values() for x, _ in points)
    y_of, marks = _value_axis(min(values), max(values), percent)
    body = []
    for value in marks:
        y = y_of(value)
        body.append(svg.line(_LEFT, y, _LEFT + _WIDTH, y, "grid"))
        body.append(svg.text(_LEFT - 8, y + 4, f"{value:.6g}", "end", "dim"))
    for step in svg.ticks(last, 5):
        x = _LEFT + _WIDTH * step / max(last, 1)
        body.append(svg.line(x, _TOP, x, _TOP + _HEIGHT, "grid"))
        body.append(svg.text(x, _TOP + _HEIGHT + 17, f"{step:.0f}", "middle", "dim"))
    keys = []
    for k, (name, points) in enumerate(curves.items()):
        colour = hex_colour(k + 5) if len(curves) > 1 else "var(--s1)"
        keys.append((name, colour))
        placed = [(_LEFT + _WIDTH * x / max(last, 1), y_of(y)) for x, y in points]
        body.append(svg.polyline(placed, "curve", colour, len(points) <= 30))
    drawn = svg.chart(_LEFT + _WIDTH + 24, _TOP + _HEIGHT + 24, body, title)
    return Chart(title, Markup(drawn), keys if len(keys) > 1 else [])


def _value_axis(
    low: float, high: float, percent: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Where values stand, and the numbers beside the axis: from 0, or logarithmic over decades."""
    if low > 0 and high / low >= _DECADE and not percent:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine = [k * 10.0**p for p in powers for k in ((1, 2, 5) if len(powers) < 4 else (1,))]
        bottom = max((v for v in fine if v <= low), default=fine[0])
        top = min((v for v in fine if v >= high), default=fine[-1])
        marks = [v for v in fine if bottom <= v <= top]
        return lambda v: _height(math.log(v / bottom) / math.log(top / bottom)), marks
    floor = min(low, 0.0)
    top = max(high, floor + 1e-9) * (1.0 if floor else 1.05)
    marks = [floor + v for v in svg.ticks(top - floor, 5)]
    return lambda v: _height((v - floor) / (top - floor)), marks


def _height(share: float) -> float:
    return _TOP + _HEIGHT * (1 - share)


def _thinned(points: list[Point]) -> list[Point]:
    """At most `_MOST` points, each the mean of its neighbours."""
    size = math.ceil(len(points) / _MOST)
    groups = [points[k : k + size] for k in range(0, len(points), size)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
