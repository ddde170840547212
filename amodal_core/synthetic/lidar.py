"""A spinning LiDAR of 64 beams: pattern, range noise, dropout, intensity, rolling shutter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amodal_core.synthetic.assets import Motion
from amodal_core.synthetic.bvh import Library, cast_rays
from amodal_core.synthetic.materials import lidar_table
from amodal_core.synthetic.mesh import Mesh, merged
from amodal_core.synthetic.scene import Scene

# Velodyne HDL-64E S2: upper block 1/3 degree apart, lower block 1/2 degree.
BEAMS = np.radians(np.concatenate([np.linspace(2.0, -8.33, 32), np.linspace(-8.83, -24.33, 32)]))


@dataclass(frozen=True)
class LidarOptions:
    """How the LiDAR measures.

    Attributes:
        columns: measurements of a beam in a turn.
        range: metres.
        noise: standard deviation of a range in metres.
        dropout: pulses get lost on glass, dark paint and at grazing angles.
        rolling: a turn takes `period` seconds, its middle looks ahead at the frame's stamp.
        period: seconds.
        fov: degrees around straight ahead that are kept.
        grain: metres to which coordinates are rounded.
    """

    columns: int = 2048
    range: float = 120.0
    noise: float = 0.015
    dropout: bool = True
    rolling: bool = False
    period: float = 0.1
    fov: float = 360.0
    grain: float = 0.001


@dataclass(eq=False)
class Scan:
    """One turn.

    Attributes:
        points: (N, 4) float32, LiDAR frame, intensity 0-1.
        ids: (N,) int32 actor ids, 0 = background.
    """

    points: np.ndarray
    ids: np.ndarray


class Caster:
    """Shapes and instances of a scene for casting rays at any of its frames.

    Args:
        scene: what is cast at.
        texture_seed: seed of the texture layers.
    """

    def __init__(self, scene: Scene, texture_seed: int) -> None:
        self.scene = scene
        meshes: list[Mesh] = [merged(scene.chunks)]
        self._shapes: dict[int, list[tuple[int, int]]] = {}
        for actor in scene.actors:
            asset = actor.asset
            if id(asset) in self._shapes:
                continue
            # wheels are round: they need no parts of their own
            parts = [0] if asset.motion is Motion.WHEELS else np.unique(asset.mesh.parts).tolist()
            entries = []
            for part in parts:
                mesh = asset.mesh if asset.motion is Motion.WHEELS else _part(asset.mesh, part)
                entries.append((part, len(meshes)))
                meshes.append(mesh)
            self._shapes[id(asset)] = entries
        self.library = Library(meshes, texture_seed)

    def instances(self, frame: int) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
        """Shape, pose (I, 4, 4), velocity (I, 3) and actor id (I,) of each instance.

        The first is the street.
        """
        shapes, poses, velocities, ids = [0], [np.eye(4)], [np.zeros(3)], [0]
        for actor in self.scene.actors:
            matrices = actor.parts(frame)
            speed = actor.speed[frame]
            velocity = np.array([np.cos(actor.yaw[frame]), np.sin(actor.yaw[frame]), 0]) * speed
            for part, shape in self._shapes[id(actor.asset)]:
                shapes.append(shape)
                poses.append(matrices[part])
                velocities.append(velocity)
                ids.append(actor.id)
        return shapes, np.stack(poses), np.stack(velocities), np.array(ids)


def _part(mesh: Mesh, part: int) -> Mesh:
    keep = mesh.parts[mesh.triangles[:, 0]] == part
    return replace(mesh, triangles=mesh.triangles[keep])


def scan(caster: Caster, frame: int, options: LidarOptions, rng: np.random.Generator) -> Scan:
    """One turn of the LiDAR at a frame."""
    scene = caster.scene
    azimuth = np.linspace(np.pi, -np.pi, options.columns, endpoint=False)  # clockwise, as it spins
    keep = np.abs(azimuth) <= np.radians(options.fov / 2)
    delay = (np.arange(options.columns) / options.columns - 0.5) * options.period
    azimuth, delay = azimuth[keep], delay[keep] if options.rolling else np.zeros(int(keep.sum()))
    a, e = np.meshgrid(azimuth, BEAMS, indexing="ij")
    local = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=-1)
    poses = _sensor_poses(scene.world_from_lidar, frame, delay, options.period)
    directions = (local @ poses[:, :3, :3].transpose(0, 2, 1)).reshape(-1, 3)
    origins = np.repeat(poses[:, :3, 3], len(BEAMS), axis=0)
    delays = np.repeat(delay, len(BEAMS))
    shapes, places, velocities, ids = caster.instances(frame)
    hits = cast_rays(
        caster.library, shapes, places, velocities, origins, directions, delays, options.range
    )
    hit = hits.triangle >= 0
    triangle, instance, distance = hits.triangle[hit], hits.instance[hit], hits.distance[hit]
    normal = caster.library.normals[triangle]
    towards = directions[hit]
    cosine = np.zeros(len(triangle))
    for i in range(3):
        for j in range(3):
            cosine += places[:, i, j][instance] * normal[:, j] * towards[:, i]
    cosine = np.abs(cosine)
    table = lidar_table()[caster.library.materials[triangle]]
    tints = np.ones(int(ids.max()) + 1)
    for actor in scene.actors:
        tints[actor.id] = float(actor.tint.mean())
    tone = caster.library.tones[triangle] * tints[ids[instance]]
    reflectance = table[:, 0] * (0.35 + 0.65 * np.clip(tone, 0, 1))
    strength = reflectance * (0.25 + 0.75 * cosine)
    noise = rng.standard_normal((3, len(distance)))
    chance = rng.random(len(distance))
    measured = distance + noise[0] * (options.noise + 0.00025 * distance)
    kept = measured > 0.9
    if options.dropout:
        # a pulse is lost when too little of it comes back: weak surface, flat angle, far away
        signal = reflectance * np.clip(cosine, 0.02, 1) / (distance / 40.0) ** 2
        kept &= chance > table[:, 1] + 0.9 * np.clip(1 - signal / 0.028, 0, 1)
    intensity = np.clip(strength * (1 + 0.12 * noise[1]) + 0.015 * noise[2], 0, 0.99)
    points = local.reshape(-1, 3)[hit] * measured[:, None]
    grain = options.grain
    points = np.round(points / grain) * grain
    rows = np.concatenate([points, np.round(intensity, 2)[:, None]], axis=1)[kept]
    return Scan(rows.astype(np.float32), ids[instance][kept].astype(np.int32))


def _sensor_poses(way: np.ndarray, frame: int, delay: np.ndarray, period: float) -> np.ndarray:
    """(C, 4, 4) the sensor's poses around a frame; it moves and turns evenly between frames."""
    now = way[frame]
    if len(way) < 2 or not delay.any():
        return np.broadcast_to(now, (len(delay), 4, 4))
    a, b = (frame - 1, frame) if frame == len(way) - 1 else (frame, frame + 1)
    speed = (way[b][:3, 3] - way[a][:3, 3]) / period
    yaw = [np.arctan2(way[k][1, 0], way[k][0, 0]) for k in (a, b)]
    rate = (yaw[1] - yaw[0] + np.pi) % (2 * np.pi) - np.pi
    poses = np.tile(now, (len(delay), 1, 1))
    turn = rate * delay / period
    c, s = np.cos(turn), np.sin(turn)
    poses[:, 0, :3] = c[:, None] * now[0, :3] - s[:, None] * now[1, :3]
    poses[:, 1, :3] = s[:, None] * now[0, :3] + c[:, None] * now[1, :3]
    poses[:, :3, 3] = now[:3, 3] + delay[:, None] * speed
    return poses
