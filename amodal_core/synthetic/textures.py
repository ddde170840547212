"""Procedural textures of grounds, walls and plants: (S, S, 4) uint8 sRGB, alpha as in `Mode`."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SIZE = 512

Painter = Callable[[np.random.Generator], np.ndarray]


def noise(rng: np.random.Generator, slope: float, size: int = SIZE) -> np.ndarray:
    """(S, S) float32 tileable noise, zero mean, unit variance, amplitude ~ 1 / f**slope."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return (field / field.std()).astype(np.float32)


def layer(
    grey: np.ndarray, colour: tuple[float, ...], alpha: np.ndarray | float = 1.0
) -> np.ndarray:
    """RGBA of a brightness field (1 = the colour itself) and an alpha field 0-1."""
    rgba = np.empty((SIZE, SIZE, 4), np.float32)
    rgba[..., :3] = np.asarray(grey)[..., None] * np.asarray(colour, np.float32)
    rgba[..., 3] = np.asarray(alpha) * 255
    return np.clip(rgba, 0, 255).astype(np.uint8)


def white(rng: np.random.Generator) -> np.ndarray:
    """A plain surface with barely visible dirt."""
    return layer(1 + 0.015 * noise(rng, 1.2), (248, 248, 248))


def asphalt(rng: np.random.Generator) -> np.ndarray:
    """Worn asphalt, 6 m a side: grain, wheel polish, repairs, cracks, oil."""
    grain = noise(rng, 0.1) * 0.13 + noise(rng, 0.8) * 0.06 + noise(rng, 1.7) * 0.05
    grey = 1 + grain
    patch = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(2):
        x, y, w, h = rng.integers(40, 300, 4)
        cv2.rectangle(patch, (int(x), int(y)), (int(x + w // 3), int(y + h // 2)), 1.0, -1)
    grey *= 1 - 0.13 * cv2.GaussianBlur(patch, (0, 0), 1.2)
    cracks = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(5):
        p = rng.uniform(0, SIZE, 2)
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(60):
            heading += rng.normal(0, 0.35)
            q = p + 5 * np.array([np.cos(heading), np.sin(heading)])
            cv2.line(cracks, p.astype(int).tolist(), q.astype(int).tolist(), 1.0, 1, cv2.LINE_AA)
            p = q
    grey *= 1 - 0.35 * cracks
    return layer(grey, (126, 124, 123))


def marking(rng: np.random.Generator) -> np.ndarray:
    """Road paint, worn through in places."""
    wear = np.clip(noise(rng, 1.1) * 0.5 + noise(rng, 0.2) * 0.25 - 0.55, 0, 1)
    return layer(1 - 0.5 * wear + 0.02 * noise(rng, 0.5), (232, 232, 228))


def paving(rng: np.random.Generator) -> np.ndarray:
    """Concrete slabs of half a metre, 4 m a side."""
    n = 8
    cell = SIZE // n
    tone = np.kron(rng.normal(1, 0.05, (n, n)), np.ones((cell, cell)))
    y, x = np.mgrid[:SIZE, :SIZE]
    joint = ((x % cell) < 2) | ((y % cell) < 2)
    grey = tone + 0.06 * noise(rng, 0.3) + 0.05 * noise(rng, 1.6)
    return layer(np.where(joint, grey * 0.62, grey), (158, 153, 146))


def grass(rng: np.random.Generator) -> np.ndarray:
    """Mown grass with dry patches, 5 m a side."""
    fine = noise(rng, 0.25)
    broad = noise(rng, 1.5)
    rgba = layer(0.95 + 0.28 * fine + 0.1 * broad, (96, 112, 52))
    dry = np.clip(broad * 0.35 + 0.2, 0, 0.7)[..., None]
    straw = layer(0.95 + 0.22 * fine, (142, 130, 82))
    rgba[..., :3] = (rgba[..., :3] * (1 - dry) + straw[..., :3] * dry).astype(np.uint8)
    return rgba


def gravel(rng: np.random.Generator) -> np.ndarray:
    """Trodden earth and gravel."""
    return layer(1 + 0.2 * noise(rng, 0.3) + 0.1 * noise(rng, 1.4), (128, 116, 98))


def concrete(rng: np.random.Generator) -> np.ndarray:
    """Cast concrete with streaks."""
    streaks = cv2.blur(noise(rng, 0.6), (3, 151))
    grey = 1 + 0.05 * noise(rng, 0.5) + 0.06 * noise(rng, 1.6) + 0.2 * streaks
    return layer(grey, (170, 167, 160))


def plaster(rng: np.random.Generator) -> np.ndarray:
    """Rough plaster with water streaks, light: buildings tint it."""
    streaks = cv2.blur(noise(rng, 0.8), (3, 101))
    grey = 0.98 + 0.03 * noise(rng, 0.3) + 0.04 * noise(rng, 1.7) + 0.07 * streaks
    return layer(grey, (236, 234, 230))


def brick(rng: np.random.Generator) -> np.ndarray:
    """Running-bond brick, 3 m a side, tinted by buildings."""
    rows, columns = 42, 12
    h, w = SIZE / rows, SIZE / columns
    y, x = np.mgrid[:SIZE, :SIZE]
    row = (y / h).astype(int)
    shifted = x + (row % 2) * w / 2
    tone = rng.normal(1, 0.13, (rows, columns))[row % rows, (shifted / w).astype(int) % columns]
    joint = ((y % h) < 1.6) | ((shifted % w) < 1.6)
    grey = np.where(joint, 1.12, tone + 0.05 * noise(rng, 0.4))
    rgba = layer(grey, (196, 150, 128))
    rgba[joint, :3] = (186, 180, 170)
    return rgba


def roof(rng: np.random.Generator) -> np.ndarray:
    """Clay tiles, 4 m a side."""
    y, x = np.mgrid[:SIZE, :SIZE]
    rows, columns = 14, 20
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * x * columns / SIZE)
    edge = (y * rows / SIZE) % 1.0
    tone = rng.normal(1, 0.1, (rows, columns))[
        (y * rows // SIZE) % rows, (x * columns // SIZE) % columns
    ]
    return layer(tone * (0.62 + 0.3 * wave + 0.14 * edge) + 0.06 * noise(rng, 1.4), (196, 132, 108))


def wood(rng: np.random.Generator) -> np.ndarray:
    """Upright planks, 2 m a side."""
    _y, x = np.mgrid[:SIZE, :SIZE]
    planks = 14
    cell = SIZE / planks
    tone = rng.normal(1, 0.12, planks)[(x / cell).astype(int) % planks]
    grain = cv2.blur(noise(rng, 0.4), (1, 61)) * 0.5
    return layer(np.where((x % cell) < 2.5, 0.35, tone + grain), (138, 104, 72))


def bark(rng: np.random.Generator) -> np.ndarray:
    """Furrowed bark."""
    ridges = cv2.blur(noise(rng, 0.7), (3, 41))
    return layer(0.95 + 0.9 * ridges / ridges.std() * 0.25 + 0.1 * noise(rng, 0.3), (104, 92, 78))


def cloth(rng: np.random.Generator) -> np.ndarray:
    """Woven cloth with soft folds, light: people tint it."""
    return layer(0.93 + 0.05 * noise(rng, 0.2) + 0.06 * noise(rng, 1.8), (245, 245, 245))


def tarp(rng: np.random.Generator) -> np.ndarray:
    """Truck tarpaulin: hanging folds, seams and a stripe of lettering."""
    x = np.arange(SIZE)
    folds = sum(
        rng.uniform(0.01, 0.035) * np.cos(2 * np.pi * f * x / SIZE + rng.uniform(0, 6.28))
        for f in (7, 14, 15, 29)
    )
    grey = 0.93 + np.broadcast_to(folds, (SIZE, SIZE)) + 0.03 * noise(rng, 1.5)
    rgba = layer(grey, (246, 246, 246))
    name, trade = rng.choice(list("AEIOURTNSLKMB"), 7), rng.choice(["LOGISTIK", "TRANS", "CARGO"])
    text = "".join([*name, " ", trade])
    colour = [int(c) for c in rng.integers(10, 150, 3)]
    plane = rgba[..., :3].copy()
    cv2.putText(plane, text, (22, 240), cv2.FONT_HERSHEY_DUPLEX, 1.7, colour, 7, cv2.LINE_AA)
    rgba[..., :3] = plane
    rgba[:8, :, :3] //= 2
    rgba[-14:, :, :3] //= 3
    return rgba


def _leaf_card(
    rng: np.random.Generator, count: int, size: tuple[float, float], hue: tuple
) -> np.ndarray:
    """A spray of leaves on twigs; the border is transparent."""
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[..., :3] = hue
    centre = SIZE / 2
    for _ in range(14):
        angle = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.5, 0.85) * centre
        tip = (int(centre + reach * np.cos(angle)), int(centre + reach * np.sin(angle)))
        cv2.line(rgba, (int(centre), int(centre)), tip, (62, 50, 38, 255), 3)
    for k in range(count):
        radius = np.sqrt(rng.uniform(0, 1)) * centre * 0.9
        angle = rng.uniform(0, 2 * np.pi)
        p = (int(centre + radius * np.cos(angle)), int(centre + radius * np.sin(angle)))
        tone = rng.uniform(0.45, 1.25) * (0.75 + 0.35 * k / count)
        shade = [float(min(255, h * tone * rng.uniform(0.9, 1.1))) for h in hue]
        axes = (int(rng.uniform(*size)), int(rng.uniform(*size) * 0.5))
        cv2.ellipse(rgba, p, axes, rng.uniform(0, 360), 0, 360, (*shade, 255.0), -1)
    return rgba


def leaves(rng: np.random.Generator) -> np.ndarray:
    """Broad leaves."""
    return _leaf_card(rng, 420, (10, 22), (122, 142, 64))


def leaves_b(rng: np.random.Generator) -> np.ndarray:
    """Small dense leaves."""
    return _leaf_card(rng, 700, (7, 14), (98, 120, 58))


def hedge(rng: np.random.Generator) -> np.ndarray:
    """A clipped hedge's face: leaves over darkness."""
    rgba = layer(np.ones((SIZE, SIZE)), (22, 28, 14))
    for _ in range(2600):
        p = rng.integers(0, SIZE, 2)
        tone = rng.uniform(0.35, 1.15)
        axes = (int(rng.uniform(6, 13)), int(rng.uniform(3, 7)))
        colour = (96 * tone, 118 * tone, 56 * tone, 255.0)
        cv2.ellipse(rgba, p.tolist(), axes, rng.uniform(0, 360), 0, 360, colour, -1)
    return rgba


def treeline(rng: np.random.Generator) -> np.ndarray:
    """A distant wood: crowns against a transparent sky, repeating sideways."""
    x = np.arange(SIZE)
    height = np.full(SIZE, 0.38 * SIZE)
    for centre, reach in zip(rng.uniform(0, SIZE, 34), rng.uniform(26, 70, 34), strict=True):
        away = np.abs((x - centre + SIZE / 2) % SIZE - SIZE / 2) / reach
        crown = rng.uniform(0.4, 0.85) * SIZE + reach * np.sqrt(np.clip(1 - away**2, 0, 1)) - reach
        height = np.where(away < 1, np.maximum(height, crown), height)
    y = np.arange(SIZE)[:, None]
    edge = noise(rng, 0.9) * 10
    inside = (SIZE - y) < (np.clip(height, 60, SIZE - 30) + edge)
    clumps = noise(rng, 1.1) * 0.22 + noise(rng, 0.3) * 0.16
    rise = np.clip((SIZE - y) / np.clip(height, 60, None), 0, 1)
    rgba = layer(np.clip(0.35 + 0.6 * rise**1.5 + clumps, 0.12, 1.5), (74, 88, 50), inside)
    return rgba


def mesh_fence(_: np.random.Generator) -> np.ndarray:
    """A welded bar fence, 2 m wide: a post, upright bars, two rails."""
    alpha = np.zeros((SIZE, SIZE), np.float32)
    alpha[:, :14] = 1
    for k in range(1, 16):
        alpha[20:, k * 32 : k * 32 + 5] = 1
    alpha[30:42] = 1
    alpha[-60:-48] = 1
    return layer(np.ones((SIZE, SIZE)), (70, 78, 74), alpha)


def signs(_: np.random.Generator) -> np.ndarray:
    """An atlas of 4 x 2 traffic signs; columns are v-flipped like every texture."""
    cell = SIZE // 4
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    red, blue, yellow = (186, 22, 30, 255), (18, 74, 158, 255), (246, 190, 20, 255)
    white_, black = (240, 240, 240, 255), (12, 12, 12, 255)

    def middle(k: int) -> tuple[int, int]:
        return (k % 4 * cell + cell // 2, k // 4 * cell + cell // 2)

    r = cell // 2 - 4
    for k, text in ((0, "30"), (1, "50")):
        cv2.circle(rgba, middle(k), r, red, -1, cv2.LINE_AA)
        cv2.circle(rgba, middle(k), int(r * 0.76), white_, -1, cv2.LINE_AA)
        at = (middle(k)[0] - 33, middle(k)[1] + 18)
        cv2.putText(rgba, text, at, cv2.FONT_HERSHEY_DUPLEX, 1.6, black, 5, cv2.LINE_AA)
    cx, cy = middle(2)
    for scale, colour in ((1.0, red), (0.66, white_)):
        q, up = r * scale, cy - r * scale * 0.75
        points = np.array([[cx, cy + q], [cx - q, up], [cx + q, up]], np.int32)
        cv2.fillPoly(rgba, [points], colour, cv2.LINE_AA)
    cx, cy = middle(3)
    for scale, colour in ((1.0, white_), (0.72, yellow)):
        q = r * scale
        points = np.array([[cx, cy - q], [cx + q, cy], [cx, cy + q], [cx - q, cy]], np.int32)
        cv2.fillPoly(rgba, [points], colour, cv2.LINE_AA)
    cx, cy = middle(4)
    cv2.rectangle(rgba, (cx - r, cy - r), (cx + r, cy + r), blue, -1)
    cv2.putText(rgba, "P", (cx - 26, cy + 34), cv2.FONT_HERSHEY_DUPLEX, 3, white_, 9, cv2.LINE_AA)
    cx, cy = middle(5)
    cv2.circle(rgba, (cx, cy), r, red, -1, cv2.LINE_AA)
    cv2.rectangle(rgba, (cx - 36, cy - 9), (cx + 36, cy + 9), white_, -1)
    cx, cy = middle(6)
    cv2.circle(rgba, (cx, cy), r, blue, -1, cv2.LINE_AA)
    cv2.arrowedLine(rgba, (cx - 26, cy - 26), (cx + 26, cy + 26), white_, 10, cv2.LINE_AA, 0, 0.4)
    cx, cy = middle(7)
    cv2.rectangle(rgba, (cx - r, cy - r), (cx + r, cy + r), blue, -1)
    points = np.array([[cx, cy - 44], [cx + 42, cy + 36], [cx - 42, cy + 36]], np.int32)
    cv2.fillPoly(rgba, [points], white_, cv2.LINE_AA)
    cv2.line(rgba, (cx - 6, cy - 16), (cx + 8, cy + 28), black, 9, cv2.LINE_AA)
    return rgba


def glass(rng: np.random.Generator) -> np.ndarray:
    """What shows through car glass: the dark cabin, seats and head rests, a lit far side."""
    rgba = layer(1 + 0.15 * noise(rng, 1.8), (30, 32, 34))
    for cx in (128, 384):
        cv2.ellipse(rgba, (cx, 330), (58, 44), 0, 0, 360, (10, 10, 11, 255), -1, cv2.LINE_AA)
        cv2.rectangle(rgba, (cx - 90, 380), (cx + 90, SIZE), (12, 12, 13, 255), -1)
    cv2.rectangle(rgba, (0, 470), (SIZE, SIZE), (8, 8, 9, 255), -1)
    return cv2.GaussianBlur(rgba, (0, 0), 5)
