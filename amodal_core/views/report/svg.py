"""Pieces of SVG that take their colours from the page's style, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape


def chart(width: float, height: float, body: Sequence[str], title: str) -> str:
    """An image of width x height user units that scales with the page."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(body)
        + "</svg>"
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """Words at a point; `kind` is a class of the page's style."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} class="{kind}">{escape(words)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{kind}"/>'


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
    x: float, y: float, w: float, h: float, kind: str = "", title: str = "", fill: str = ""
) -> str:
    """A box with rounded corners and a tooltip."""
    paint = f' fill="{fill}"' if fill else ""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.2f}" y="{y:.1f}" width="{max(w, 0.5):.2f}" height="{h:.1f}" rx="2" '
        f'class="{kind}"{paint}>{tip}</rect>'
    )


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
