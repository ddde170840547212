"""Hand-made scenes: boxes on flat ground, scanned ray by ray. Exact by construction."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Calibration

SENSOR_HEIGHT = 1.73


def camera(width: int = 1242, height: int = 375, focal: float = 721.5) -> Calibration:
    """A camera at the LiDAR's place that looks along its x axis, centred."""
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    T = np.eye(4)
    T[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    return Calibration(K, T, width, height)


def standing(x: float, y: float, length: float, width: float, height: float, yaw: float = 0.0):
    """A box (7,) on the ground."""
    return np.array([x, y, height / 2 - SENSOR_HEIGHT, length, width, height, yaw])


def scan(
    boxes, seed: int | None = None, noise: float = 0.01, sector: float = 180
) -> tuple[np.ndarray, np.ndarray]:
    """What a 64-beam LiDAR at the origin sees of boxes (M, 7) on flat ground.

    Args:
        boxes: in space.
        seed: of the ranges' noise; None for none.
        noise: metres.
        sector: degrees to each side of straight ahead that are scanned.

    Returns:
        (N, 4) float32 points in the order of the lasers, and (N,) int: the box that each is on, -1
        for the ground.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 7)
    azimuth = np.arange(0, 360, 0.18) + 0.05
    azimuth = np.radians(azimuth[np.abs((azimuth + 180) % 360 - 180) <= sector])
    elevation = np.radians(np.concatenate([np.linspace(2, -8.3, 32), np.linspace(-8.8, -24.3, 32)]))
    e, a = (g.ravel() for g in np.meshgrid(elevation, azimuth, indexing="ij"))
    rays = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)
    reach = np.where(rays[:, 2] < 0, -SENSOR_HEIGHT / np.minimum(rays[:, 2], -1e-9), np.inf)
    owner = np.full(len(rays), -1)
    for k, b in enumerate(boxes):
        c, s = np.cos(b[6]), np.sin(b[6])
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        way, start = rays @ turn.T, turn @ -b[:3]
        with np.errstate(divide="ignore"):
            low, high = (-b[3:6] / 2 - start) / way, (b[3:6] / 2 - start) / way
        enter, leave = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        nearer = (enter > 0.5) & (enter <= leave) & (enter < reach)
        reach[nearer], owner[nearer] = enter[nearer], k
    if seed is not None:
        reach = reach + np.random.default_rng(seed).normal(0, noise, len(reach))
    inside = reach < 80
    points = np.column_stack([rays[inside] * reach[inside, None], np.full(inside.sum(), 0.3)])
    return points.astype(np.float32), owner[inside]
