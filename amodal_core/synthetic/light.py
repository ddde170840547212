"""Sun, sky and haze of a drive, and the panorama that surfaces reflect."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from amodal_core.synthetic.textures import noise

SKY_SIZE = (1024, 512)


@dataclass(frozen=True, eq=False)
class Light:
    """Linear light in units where a white surface in full sun is about 1.

    Attributes:
        kind: sun, overcast or dusk.
        sun: (3,) unit vector towards the sun, world frame.
        sun_colour: (3,) irradiance of a surface that faces the sun.
        zenith, horizon: (3,) radiance of the sky above and at the horizon.
        ground: (3,) light that comes back from the ground.
        haze: share of light lost to haze in a metre.
        clouds: share of the sky that is covered.
        exposure: the camera's factor.
        lamps: headlamps are on.
        seed: of the clouds.
    """

    kind: str
    sun: np.ndarray
    sun_colour: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    ground: np.ndarray
    haze: float
    clouds: float
    exposure: float
    lamps: bool
    seed: int


def make_light(rng: np.random.Generator, kind: str | None = None) -> Light:
    """Light of a random hour; `kind` fixes it to sun, overcast or dusk."""
    kind = kind or str(rng.choice(["sun", "sun", "sun", "overcast", "overcast", "dusk"]))
    azimuth = rng.uniform(0, 2 * np.pi)
    heights = {"sun": rng.uniform(24, 58), "overcast": 55.0, "dusk": rng.uniform(4, 10)}
    elevation = np.radians(heights[kind])
    flat = np.cos(elevation)
    sun = np.array([np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(elevation)])
    if kind == "sun":
        warm = np.clip((np.degrees(elevation) - 15) / 40, 0, 1)
        colour = np.array([1.0, 0.93 + 0.03 * warm, 0.80 + 0.1 * warm])
        return Light(
            kind,
            sun,
            sun_colour=colour * rng.uniform(1.25, 1.6),
            zenith=np.array([0.30, 0.46, 0.82]) * rng.uniform(0.85, 1.1),
            horizon=np.array([1.0, 1.08, 1.2]) * rng.uniform(0.85, 1.15),
            ground=np.array([0.15, 0.145, 0.13]),
            haze=rng.uniform(0.0006, 0.0018),
            clouds=rng.uniform(0.1, 0.6),
            exposure=rng.uniform(0.8, 1.15),
            lamps=False,
            seed=int(rng.integers(1 << 30)),
        )
    if kind == "overcast":
        grey = np.array([0.96, 1.0, 1.05])
        return Light(
            kind,
            sun,
            sun_colour=np.array([0.14, 0.14, 0.14]),
            zenith=grey * 0.85,
            horizon=grey * rng.uniform(0.95, 1.15),
            ground=np.array([0.14, 0.14, 0.135]),
            haze=rng.uniform(0.0012, 0.004),
            clouds=1.0,
            exposure=rng.uniform(0.85, 1.15),
            lamps=bool(rng.random() < 0.3),
            seed=int(rng.integers(1 << 30)),
        )
    return Light(
        kind,
        sun,
        sun_colour=np.array([1.0, 0.6, 0.32]) * rng.uniform(0.35, 0.6),
        zenith=np.array([0.12, 0.17, 0.34]),
        horizon=np.array([0.85, 0.56, 0.4]) * rng.uniform(0.6, 0.9),
        ground=np.array([0.06, 0.055, 0.055]),
        haze=rng.uniform(0.001, 0.0025),
        clouds=rng.uniform(0.2, 0.7),
        exposure=rng.uniform(1.5, 2.1),
        lamps=True,
        seed=int(rng.integers(1 << 30)),
    )


def panorama(light: Light) -> np.ndarray:
    """(512, 1024, 3) float32 radiance of sky and ground all round, row 0 straight down."""
    width, height = SKY_SIZE
    rng = np.random.default_rng(light.seed)
    elevation = (np.arange(height) + 0.5) / height * np.pi - np.pi / 2
    azimuth = (np.arange(width) + 0.5) / width * 2 * np.pi
    up = np.sin(elevation)[:, None]
    mix = np.clip(up, 0, 1) ** 0.42
    sky = light.horizon * (1 - mix[..., None]) + light.zenith * mix[..., None]
    sky = np.repeat(sky, width, axis=1)
    flat = np.cos(elevation)[:, None]
    towards = (
        (flat * np.cos(azimuth)) * light.sun[0]
        + (flat * np.sin(azimuth)) * light.sun[1]
        + up * light.sun[2]
    )
    towards = np.clip(towards, 0, 1)[..., None]
    if light.kind != "overcast":
        sky += light.sun_colour * (0.28 * towards**8 + 0.8 * towards**64 + 2.5 * towards**900)
    field = noise(rng, 1.5, 1024)
    # clouds on a plane overhead: perspective flattens them towards the horizon
    scale = 1.0 / np.maximum(up, 0.03)
    x = (flat * np.cos(azimuth) * scale * 60).astype(np.float32)
    y = (flat * np.sin(azimuth) * scale * 60).astype(np.float32)
    density = cv2.remap(field, x % 1024, y % 1024, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    threshold = float(np.quantile(field, 1 - 0.75 * min(light.clouds, 1.0)))
    cover = np.clip((density - threshold) * 0.9, 0, 1) * np.clip((up - 0.015) * 12, 0, 1)
    cover = cv2.GaussianBlur(cover.astype(np.float32), (0, 0), 0.8)
    density = cv2.GaussianBlur(density, (0, 0), 0.8)
    bright = light.horizon * 0.55 + light.sun_colour * (0.42 + 0.5 * towards**4)
    shade = 1 - 0.35 * np.clip(density - threshold - 0.5, 0, 1)
    if light.kind == "overcast":
        sky *= (1 + 0.11 * np.clip(density, -2, 2) * np.clip(up * 4, 0, 1))[..., None]
    else:
        sky += cover[..., None] * (bright * shade[..., None] - sky)
    below = np.clip(-up * 6, 0, 1)[..., None]
    ground = light.ground * 1.1
    panorama_ = np.where(
        up[..., None] < 0, light.horizon * 0.35 * (1 - below) + ground * below, sky
    )
    return panorama_.astype(np.float32)


def reflected(sky: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(256, 512, 3) what glossy surfaces mirror: the sky over a ragged line of roofs and trees."""
    small = cv2.resize(sky, (512, 256), interpolation=cv2.INTER_AREA)
    x = np.arange(512) / 512
    line = np.full(512, 0.075)
    for f in range(1, 40):
        line += rng.normal(0, 0.035 / f**0.7) * np.cos(2 * np.pi * f * x + rng.uniform(0, 6.28))
    v = (np.arange(256) / 256 - 0.5)[:, None]
    dark = small[:127].mean(axis=(0, 1)) * 0.5
    cover = np.clip((np.maximum(line, 0.02) - v) * 40, 0, 1) * (v > 0)
    small += cover[..., None] * (dark - small)
    return np.ascontiguousarray(small)
