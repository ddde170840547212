"""Pieces of SVG that take their colours from the page's style, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Length = float | str  # of user units, or a `share`


def chart(width: float, height: float, body: Sequence[str], title: str) -> str:
    """An image of width x height user units that scales with the page."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(body)
        + "</svg>"
    )


def share(part: float) -> str:
    """A length as a part of the image's width, for images of `field`."""
    return f"{100 * part:.3f}%"


def field(height: float, body: Sequence[str], title: str, names: Sequence[str] = ()) -> str:
    """An image as wide as its place, a phone's or a desk's, whose words keep their size.

    Args:
        height: pixels.
        body: parts, upright in pixels, along in `share`s.
        title: for who cannot see it.
        names: columns of HTML beside it (`rows`, `axis`), the first one on its left.
    """
    drawn = (
        f'<svg height="{height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(body)
        + "</svg>"
    )
    return f'<div class="plot">{"".join([*names[:1], drawn, *names[1:]])}</div>'


def rows(names: Sequence[tuple[str, str]], pitch: float, top: float) -> str:
    """A column of words, one a row of `pitch` pixels: (words, class of the page's style)."""
    lines = "".join(
        f'<div class="{kind}" title="{escape(words)}">{escape(words)}</div>'
        for words, kind in names
    )
    return f'<div class="rows" style="line-height:{pitch:g}px;padding-top:{top:g}px">{lines}</div>'


def axis(values: Sequence[tuple[float, str]], height: float) -> str:
    """A column of the numbers beside a field: (y in pixels, words)."""
    body = "".join(text(38, y + 4, words, "end", "dim") for y, words in values)
    return f'<svg class="axis" height="{height:.0f}">{body}</svg>'


def keys(entries: Sequence[tuple[str, str]]) -> str:
    """Colour keys in as many lines as they need: (words, class of the page's style)."""
    return (
        '<p class="keys dim">'
        + "".join(
            f'<span><svg width="12" height="12">{rect(0, 0, 12, 12, kind)}</svg>'
            f"{escape(words)}</span> "
            for words, kind in entries
        )
        + "</p>"
    )


def text(x: Length, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """Words at a point; `kind` is a class of the page's style."""
    place = f'x="{_along(x)}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} class="{kind}">{escape(words)}</text>'


def line(x0: Length, y0: float, x1: Length, y1: float, kind: str) -> str:
    """A straight line."""
    ends = f'x1="{_along(x0)}" y1="{y0:.1f}" x2="{_along(x1)}" y2="{y1:.1f}"'
    return f'<line {ends} class="{kind}"/>'


def polyline(
    points: Sequence[tuple[float, float]], kind: str, colour: str = "", dots: bool = False
) -> str:
    """A line through points; `colour` in place of the style's own, `dots` at the points."""
    paint = f' style="stroke:{colour}"' if colour else ""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{colour or "currentColor"}"/>'
        for x, y in points
        if dots
    )
    return f'<polyline points="{places}" class="{kind}"{paint}/>{marks}'


def rect(
    x: Length, y: float, w: Length, h: float, kind: str = "", title: str = "", fill: str = ""
) -> str:
    """A box with rounded corners and a tooltip."""
    paint = f' fill="{fill}"' if fill else ""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{_along(x)}" y="{y:.1f}" width="{_along(w)}" height="{h:.1f}" rx="2" '
        f'class="{kind}"{paint}>{tip}</rect>'
    )


def _along(x: Length) -> str:
    return x if isinstance(x, str) else f"{x:.1f}"


def ticks(top: float, most: int = 6) -> list[float]:
    """Round numbers from 0 up to `top`."""
    if top <= 0:
        return [0.0]
    raw = top / most
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * k for k in (1, 2, 5, 10) if size * k >= raw)
    return [k * step for k in range(int(top / step + 1e-9) + 1)]


def legend(left: float, entries: Sequence[tuple[str, str]], y: float) -> list[str]:
    """A row of colour keys: (words, class of the page's style)."""
    parts, x = [], left
    for label, kind in entries:
        parts.append(rect(x, y - 10, 12, 12, kind))
        parts.append(text(x + 18, y, label))
        x += 38 + 7.2 * len(label)
    return parts
