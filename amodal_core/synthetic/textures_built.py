"""Procedural textures of made things: facades, vehicle fronts, rears and sides."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from amodal_core.synthetic.textures import SIZE, brick, layer, noise

Colour = Sequence[float]


def _rect(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fill a rectangle given in shares of the image, y from the top."""
    a = (round(x0 * SIZE), round(y0 * SIZE))
    b = (round(x1 * SIZE) - 1, round(y1 * SIZE) - 1)
    cv2.rectangle(image, a, b, tuple(float(c) for c in colour), -1)


def _facade(
    rng: np.random.Generator,
    wall: np.ndarray,
    bays: int,
    floors: int,
    window: tuple[float, float, float, float],
    frame: Colour,
    *,
    mullion: int = 2,
    sill: bool = True,
    shutters: bool = False,
    balconies: bool = False,
) -> np.ndarray:
    """A wall with rows of windows; alpha is the glass. `window` is x0, y0, x1, y1 in a bay."""
    rgba = wall.copy()
    rgba[..., 3] = 0
    cw, ch = 1 / bays, 1 / floors
    for i in range(bays):
        for j in range(floors):
            x0, x1 = (i + window[0]) * cw, (i + window[2]) * cw
            y0, y1 = (j + window[1]) * ch, (j + window[3]) * ch
            t = 0.006
            rim = (*(0.72 * c for c in frame), 0)
            _rect(rgba, x0 - 2 * t, y0 - 2 * t, x1 + 2 * t, y1 + 2 * t, rim)
            _rect(rgba, x0 - t, y0 - t, x1 + t, y1 + t, (*frame, 0))
            blind = rng.uniform(0, 0.6) if rng.random() < 0.45 else 0.0
            tone = rng.uniform(0.5, 1.6)
            _rect(rgba, x0, y0, x1, y1, (24 * tone, 27 * tone, 31 * tone, 255))
            if blind:
                light = rng.uniform(0.6, 1.0)
                yb = y0 + (y1 - y0) * blind
                _rect(rgba, x0, y0, x1, yb, (196 * light, 190 * light, 178 * light, 60))
            elif rng.random() < 0.5:
                w = (x1 - x0) * 0.25
                for a, b in ((x0, x0 + w), (x1 - w, x1)):
                    _rect(rgba, a, y0, b, y1, (150, 148, 142, 110))
            for k in range(1, mullion):
                x = x0 + (x1 - x0) * k / mullion
                _rect(rgba, x - t / 2, y0, x + t / 2, y1, (*frame, 0))
            _rect(rgba, x0, y0, x1, y0 + t * 1.5, (12, 12, 13, 0))  # the reveal's shadow
            if sill:
                _rect(rgba, x0 - 3 * t, y1, x1 + 3 * t, y1 + 1.5 * t, (205, 202, 196, 0))
                _rect(rgba, x0 - 3 * t, y1 + 1.5 * t, x1 + 3 * t, y1 + 2.6 * t, (92, 90, 86, 0))
            if shutters:
                w = (x1 - x0) * 0.42
                for a, b in ((x0 - w, x0 - t), (x1 + t, x1 + w)):
                    _rect(rgba, a, y0, b, y1, (58, 84, 70, 0))
                    for s in np.arange(y0, y1, 0.012):
                        _rect(rgba, a, s, b, s + 0.004, (40, 60, 50, 0))
            if balconies and i % 2 == 0:
                _rect(rgba, x0 - 0.03, y1 - 0.035, x1 + 0.03, y1 + 0.012, (120, 122, 124, 0))
                _rect(rgba, x0 - 0.03, y1 + 0.012, x1 + 0.03, y1 + 0.026, (70, 70, 70, 0))
    return rgba


def facade_a(rng: np.random.Generator) -> np.ndarray:
    """Plastered flats, 4 bays x 3 floors, 12 m x 9 m."""
    streaks = cv2.blur(noise(rng, 0.8), (3, 101))
    wall = layer(0.97 + 0.03 * noise(rng, 0.4) + 0.06 * streaks, (226, 222, 214))
    return _facade(rng, wall, 4, 3, (0.28, 0.22, 0.72, 0.76), (232, 232, 228))


def facade_b(rng: np.random.Generator) -> np.ndarray:
    """A brick front with tall windows, 4 bays x 3 floors."""
    return _facade(rng, brick(rng), 4, 3, (0.3, 0.16, 0.7, 0.8), (214, 210, 200))


def facade_c(rng: np.random.Generator) -> np.ndarray:
    """An office front: bands of glass, 6 bays x 3 floors."""
    wall = layer(0.95 + 0.04 * noise(rng, 1.2), (168, 172, 176))
    return _facade(rng, wall, 6, 3, (0.04, 0.2, 0.96, 0.82), (66, 70, 74), mullion=2, sill=False)


def facade_d(rng: np.random.Generator) -> np.ndarray:
    """A house with shutters and balconies, 3 bays x 3 floors."""
    wall = layer(0.97 + 0.03 * noise(rng, 0.4) + 0.04 * noise(rng, 1.6), (232, 224, 206))
    return _facade(
        rng, wall, 3, 3, (0.33, 0.24, 0.67, 0.78), (240, 238, 232), shutters=True, balconies=True
    )


def shop(rng: np.random.Generator) -> np.ndarray:
    """Ground floor with shop windows, doors and signs, 12 m x 4 m."""
    rgba = layer(0.95 + 0.05 * noise(rng, 1.0), (140, 136, 130), 0.0)
    for i in range(3):
        x = i / 3
        board = rng.integers(30, 220, 3)
        _rect(rgba, x + 0.015, 0.06, x + 0.318, 0.2, (*board, 0))
        text = "".join(rng.choice(list("AEIOURTNSLKMB"), rng.integers(4, 8)))
        ink = (245, 245, 240, 0) if board.mean() < 130 else (20, 20, 30, 0)
        at = (int((x + 0.05) * SIZE), int(0.165 * SIZE))
        cv2.putText(rgba, text, at, cv2.FONT_HERSHEY_DUPLEX, 0.9, ink, 2, cv2.LINE_AA)
        _rect(rgba, x + 0.02, 0.25, x + 0.22, 0.86, (36, 38, 42, 235))
        grey = rng.integers(40, 110)
        for _ in range(9):  # goods behind the glass, mostly grey in its reflections
            px, py = x + rng.uniform(0.03, 0.19), rng.uniform(0.5, 0.78)
            tone = grey + rng.integers(-25, 40, 3)
            _rect(rgba, px, py, px + rng.uniform(0.01, 0.025), 0.84, (*tone.tolist(), 215))
        _rect(rgba, x + 0.24, 0.27, x + 0.31, 0.98, (30, 32, 34, 235))
        _rect(rgba, x + 0.235, 0.25, x + 0.24, 1.0, (60, 60, 60, 0))
    return rgba


def _plate(image: np.ndarray, rng: np.random.Generator, cx: float, cy: float, width: float) -> None:
    height = width * 0.22 * 1.05
    w, h, m = width / 2, height / 2, 0.004
    _rect(image, cx - w, cy - h, cx + w, cy + h, (30, 30, 30, 255))
    x0, y0 = cx - w + m, cy - h + m
    _rect(image, x0, y0, cx + w - m, cy + h - m, (225, 225, 222, 255))
    _rect(image, x0, y0, x0 + width * 0.09, cy + h - m, (20, 50, 150, 255))
    town, number = rng.choice(list("KABFSHXMR"), 2), rng.choice(list("0123456789"), 4)
    letters = "".join([*town, " ", *number])
    at = (int((x0 + width * 0.14) * SIZE), int((cy + height * 0.28) * SIZE))
    scale, ink = width * SIZE / 205, (18, 18, 18, 255)
    cv2.putText(image, letters, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 2, cv2.LINE_AA)


def _lens(image: np.ndarray, points: Sequence[tuple[float, float]], colour: Colour) -> None:
    polygon = (np.asarray(points) * SIZE).round().astype(np.int32)
    cv2.fillPoly(image, [polygon], tuple(float(c) for c in colour), cv2.LINE_AA)


def _mirrored(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(1 - x, y) for x, y in points]


def _front_lamp(rng: np.random.Generator) -> list[tuple[float, float]]:
    """The outline of a left headlamp: slanted, upright or long."""
    shapes = (
        [(0.04, 0.38), (0.25, 0.42), (0.27, 0.52), (0.12, 0.53), (0.035, 0.47)],
        [(0.05, 0.34), (0.2, 0.36), (0.22, 0.53), (0.06, 0.54)],
        [(0.03, 0.41), (0.3, 0.45), (0.31, 0.5), (0.05, 0.5)],
    )
    shift = rng.uniform(-0.02, 0.03)
    return [(x, y + shift) for x, y in shapes[rng.integers(len(shapes))]]


def car_front(rng: np.random.Generator) -> np.ndarray:
    """A car's nose seen from ahead, sill to bonnet: lamps, grille, intakes, plate."""
    rgba = layer(np.ones((SIZE, SIZE)), (60, 60, 60), 0.0)
    _rect(rgba, 0.0, 0.9, 1.0, 1.0, (16, 16, 17, 255))
    intake = rng.uniform(0.12, 0.3)
    _rect(rgba, intake, 0.72, 1 - intake, 0.88, (14, 14, 15, 255))
    wide, top = rng.uniform(0.26, 0.36), rng.uniform(0.34, 0.42)
    _rect(rgba, wide, top, 1 - wide, 0.52, (20, 20, 21, 255))
    bright = int(rng.integers(60, 170))
    for y in np.arange(top + 0.015, 0.52, rng.uniform(0.022, 0.045)):
        _rect(rgba, wide + 0.01, y, 0.99 - wide, y + 0.009, (bright, bright, bright + 2, 255))
    badge = (SIZE // 2, int((top + 0.07) * SIZE))
    cv2.circle(rgba, badge, int(rng.integers(10, 20)), (190, 192, 194, 255), -1, cv2.LINE_AA)
    lamp = _front_lamp(rng)
    high = float(np.mean([y for _, y in lamp]))
    for points in (lamp, _mirrored(lamp)):
        _lens(rgba, points, (24, 24, 26, 255))
        inner = [(0.5 + (x - 0.5) * 0.985, high + (y - high) * 0.78) for x, y in points]
        _lens(rgba, inner, (172, 178, 186, 255))
        cx = np.mean([x for x, _ in points])
        at = (int(cx * SIZE), int(high * SIZE))
        cv2.circle(rgba, at, 16, (236, 240, 250, 255), -1, cv2.LINE_AA)
        cv2.circle(rgba, at, 17, (70, 72, 76, 255), 2, cv2.LINE_AA)
    for x in (0.09, 0.91):
        at = (int(x * SIZE), int(0.79 * SIZE))
        cv2.circle(rgba, at, 13, (150, 155, 160, 255), -1, cv2.LINE_AA)
    _rect(rgba, 0.02, 0.585, 0.98, 0.592, (26, 26, 28, 255))
    _plate(rgba, rng, 0.5, 0.65, 0.3)
    return rgba


def _rear_lamp(rng: np.random.Generator) -> list[tuple[float, float]]:
    """The outline of a left tail lamp: wrapped round the corner, upright, or a long bar."""
    shapes = (
        [(0.03, 0.26), (0.19, 0.28), (0.21, 0.45), (0.06, 0.48), (0.03, 0.42)],
        [(0.02, 0.16), (0.11, 0.17), (0.13, 0.52), (0.03, 0.53)],
        [(0.02, 0.3), (0.27, 0.32), (0.27, 0.41), (0.04, 0.43)],
    )
    return shapes[rng.integers(len(shapes))]


def car_rear(rng: np.random.Generator) -> np.ndarray:
    """A car's tail, sill to belt: lamps, boot lid, bumper, plate, exhaust."""
    rgba = layer(np.ones((SIZE, SIZE)), (60, 60, 60), 0.0)
    _rect(rgba, 0.06, rng.uniform(0.82, 0.92), 0.94, 1.0, (18, 18, 19, 255))
    lamp = _rear_lamp(rng)
    low, high = (max(y for _, y in lamp), min(y for _, y in lamp))
    middle, tall = (low + high) / 2, low - high
    for points in (lamp, _mirrored(lamp)):
        _lens(rgba, points, (40, 8, 8, 255))
        inner = [(0.5 + (x - 0.5) * 0.99, middle + (y - middle) * 0.88) for x, y in points]
        _lens(rgba, inner, (150, 14, 16, 255))
        cx = float(np.mean([x for x, _ in points]))
        spread = 0.3 * (max(x for x, _ in points) - min(x for x, _ in points))
        y = middle + 0.1 * tall
        _rect(rgba, cx - spread, y, cx + spread, y + 0.22 * tall, (196, 176, 170, 255))
        y = middle - 0.35 * tall
        _rect(rgba, cx - spread, y, cx + spread, y + 0.4 * tall, (205, 16, 20, 255))
    seam = (24, 24, 26, 255)
    _rect(rgba, 0.22, 0.6, 0.78, 0.607, seam)
    _rect(rgba, 0.218, 0.46, 0.224, 0.6, seam)
    _rect(rgba, 0.776, 0.46, 0.782, 0.6, seam)
    _rect(rgba, 0.02, 0.64, 0.98, 0.648, seam)
    if rng.random() < 0.65:  # the plate on the lid, else in the bumper
        _rect(rgba, 0.33, 0.355, 0.67, 0.375, (150, 152, 154, 255))
        _rect(rgba, 0.32, 0.39, 0.68, 0.53, (30, 30, 32, 150))
        _plate(rgba, rng, 0.5, 0.46, 0.31)
    else:
        badge = (SIZE // 2, int(0.42 * SIZE))
        cv2.circle(rgba, badge, 15, (170, 172, 175, 255), -1, cv2.LINE_AA)
        _plate(rgba, rng, 0.5, 0.71, 0.31)
    _rect(rgba, 0.1, 0.8, 0.2, 0.83, (180, 20, 24, 255))
    _rect(rgba, 0.8, 0.8, 0.9, 0.83, (180, 20, 24, 255))
    at = (int(0.25 * SIZE), int(0.95 * SIZE))
    cv2.ellipse(rgba, at, (20, 9), 0, 0, 360, (90, 90, 92, 255), -1)
    return rgba


def car_side(_: np.random.Generator) -> np.ndarray:
    """A car's flank, u along the length (tail 0, nose 1): door gaps, handles, sill, fuel flap."""
    rgba = layer(np.ones((SIZE, SIZE)), (22, 22, 22), 0.0)
    seam = (16, 16, 17, 235)
    for x in (0.31, 0.5, 0.69):
        _rect(rgba, x, 0.33, x + 0.004, 0.87, seam)
    _rect(rgba, 0.31, 0.865, 0.694, 0.872, seam)
    for x in (0.335, 0.525):
        _rect(rgba, x, 0.42, x + 0.05, 0.438, (44, 44, 46, 255))
        _rect(rgba, x, 0.415, x + 0.05, 0.42, (170, 170, 172, 160))
    _rect(rgba, 0.3, 0.625, 0.7, 0.645, (28, 28, 29, 90))
    _rect(rgba, 0.0, 0.93, 1.0, 1.0, (20, 20, 21, 255))
    _rect(rgba, 0.175, 0.39, 0.215, 0.394, seam)
    _rect(rgba, 0.175, 0.455, 0.215, 0.459, seam)
    _rect(rgba, 0.8, 0.55, 0.83, 0.57, (190, 110, 30, 220))
    return rgba


def rim(rng: np.random.Generator) -> np.ndarray:
    """A wheel seen from the side: tyre wall, rim, spokes with dark gaps."""
    rgba = layer(np.ones((SIZE, SIZE)), (20, 20, 21))
    c = (SIZE // 2, SIZE // 2)
    tone = int(rng.integers(95, 165))
    cv2.circle(rgba, c, 172, (tone - 18, tone - 17, tone - 14, 255), -1, cv2.LINE_AA)
    cv2.circle(rgba, c, 158, (22, 22, 24, 255), -1, cv2.LINE_AA)
    spokes = int(rng.integers(5, 13))
    for k in range(spokes):
        angle = 2 * np.pi * k / spokes
        tip = (int(c[0] + 166 * np.cos(angle)), int(c[1] + 166 * np.sin(angle)))
        cv2.line(rgba, c, tip, (tone, tone + 2, tone + 5, 255), 240 // spokes, cv2.LINE_AA)
    cv2.circle(rgba, c, 52, (tone - 10, tone - 9, tone - 5, 255), -1, cv2.LINE_AA)
    cv2.circle(rgba, c, 22, (62, 64, 68, 255), -1, cv2.LINE_AA)
    return rgba


def bus_side(rng: np.random.Generator) -> np.ndarray:
    """A 4 m piece of a bus's or tram's flank: a band of dark windows, doors every other piece."""
    rgba = layer(1 + 0.01 * noise(rng, 1.0), (245, 245, 245), 0.0)
    for i in range(3):
        x = i / 3
        _rect(rgba, x + 0.012, 0.16, x + 0.322, 0.56, (26, 29, 32, 255))
        head = (int((x + 0.16) * SIZE), int(0.5 * SIZE))
        cv2.ellipse(rgba, head, (22, 34), 0, 0, 360, (14, 14, 15, 225), -1)
        _rect(rgba, x + 0.012, 0.24, x + 0.322, 0.25, (70, 72, 74, 120))
    _rect(rgba, 0, 0.14, 1, 0.16, (40, 40, 42, 0))
    _rect(rgba, 0, 0.56, 1, 0.575, (40, 40, 42, 0))
    _rect(rgba, 0, 0.72, 1, 0.74, (150, 150, 152, 0))
    _rect(rgba, 0, 0.93, 1, 1, (36, 36, 38, 0))
    return rgba


def bus_end(rng: np.random.Generator) -> np.ndarray:
    """A bus's or tram's face: big screen, line number, lamps, plate."""
    rgba = layer(np.ones((SIZE, SIZE)), (245, 245, 245), 0.0)
    _rect(rgba, 0.06, 0.17, 0.94, 0.62, (24, 27, 30, 255))
    _rect(rgba, 0.3, 0.05, 0.7, 0.14, (14, 14, 14, 0))
    text = f"{rng.integers(1, 9)} {rng.choice(['HBF', 'MARKT', 'NORD'])}"
    at = (int(0.34 * SIZE), int(0.125 * SIZE))
    cv2.putText(rgba, text, at, cv2.FONT_HERSHEY_SIMPLEX, 1.1, (250, 170, 30, 0), 3, cv2.LINE_AA)
    for x in (0.13, 0.87):
        at = (int(x * SIZE), int(0.75 * SIZE))
        cv2.ellipse(rgba, at, (36, 20), 0, 0, 360, (60, 60, 62, 0), -1, cv2.LINE_AA)
        cv2.ellipse(rgba, at, (29, 15), 0, 0, 360, (220, 222, 226, 0), -1, cv2.LINE_AA)
    _rect(rgba, 0, 0.9, 1, 1, (36, 36, 38, 0))
    _plate(rgba, rng, 0.5, 0.83, 0.22)
    rgba[int(0.79 * SIZE) : int(0.87 * SIZE), int(0.38 * SIZE) : int(0.62 * SIZE), 3] = 0
    return rgba


def truck_front(rng: np.random.Generator) -> np.ndarray:
    """A truck cab's face: screen, grille, lamps, bumper."""
    rgba = layer(np.ones((SIZE, SIZE)), (60, 60, 60), 0.0)
    _rect(rgba, 0.07, 0.2, 0.93, 0.46, (22, 25, 28, 255))
    _rect(rgba, 0.04, 0.15, 0.96, 0.2, (24, 24, 26, 255))
    for y in np.arange(0.53, 0.74, 0.045):
        _rect(rgba, 0.2, y, 0.8, y + 0.028, (24, 25, 27, 255))
    _rect(rgba, 0.0, 0.8, 1.0, 1.0, (46, 48, 52, 255))
    lamp = [(0.05, 0.83), (0.2, 0.83), (0.22, 0.91), (0.05, 0.91)]
    for points in (lamp, _mirrored(lamp)):
        _lens(rgba, points, (200, 206, 214, 255))
    _plate(rgba, rng, 0.5, 0.93, 0.2)
    return rgba


def truck_rear(rng: np.random.Generator) -> np.ndarray:
    """The doors at the back of a box body, lamps and warning stripes below."""
    rgba = layer(1 + 0.04 * noise(rng, 1.5), (240, 240, 240), 0.0)
    dark = (50, 52, 54, 255)
    _rect(rgba, 0.495, 0.02, 0.505, 0.8, dark)
    for x in (0.12, 0.38, 0.62, 0.88):
        _rect(rgba, x - 0.006, 0.02, x + 0.006, 0.8, (120, 122, 124, 255))
        _rect(rgba, x - 0.02, 0.5, x + 0.02, 0.54, dark)
    for y in (0.0, 0.79):
        _rect(rgba, 0, y, 1, y + 0.02, dark)
    _rect(rgba, 0, 0.82, 1, 1, (30, 30, 31, 255))
    for k in range(12):
        x, tone = k / 12, (190, 24, 26, 255) if k % 2 else (230, 226, 60, 255)
        stripe = [(x, 0.87), (x + 1 / 12, 0.87), (x + 1 / 12 + 0.03, 0.83), (x + 0.03, 0.83)]
        _lens(rgba, stripe, tone)
    for x in (0.04, 0.8):
        _rect(rgba, x, 0.89, x + 0.16, 0.96, (190, 16, 20, 255))
        _rect(rgba, x + 0.06, 0.905, x + 0.1, 0.945, (230, 140, 30, 255))
    _plate(rgba, rng, 0.5, 0.93, 0.22)
    return rgba


def plates(rng: np.random.Generator) -> np.ndarray:
    """A single licence plate over the whole layer."""
    rgba = layer(np.ones((SIZE, SIZE)), (228, 228, 224))
    _rect(rgba, 0.0, 0.0, 0.08, 1.0, (20, 50, 150, 255))
    cv2.putText(rgba, "KA RS 42", (50, 330), cv2.FONT_HERSHEY_SIMPLEX, 3.2, (18, 18, 18, 255), 18)
    return rgba
