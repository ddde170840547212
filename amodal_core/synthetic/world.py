"""From a seed to a scene: street, people, houses, light and the sensors' way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from amodal_core.datasets.base import BEGIN
from amodal_core.synthetic.ground import ground, markings
from amodal_core.synthetic.light import make_light
from amodal_core.synthetic.mesh import Mesh, merged, pose, rotation_y
from amodal_core.synthetic.population import MIXES, populate
from amodal_core.synthetic.scene import Rig, Scene
from amodal_core.synthetic.street import make_street
from amodal_core.synthetic.structures import Structures, build
from amodal_core.synthetic.surroundings import furniture, horizon, houses, planting

PERIOD = 0.1  # seconds between frames
CHUNK = 24.0  # metres of street in a piece of static geometry
KINDS = ("urban", "urban", "urban", "residential", "residential", "arterial", "arterial")


@dataclass(frozen=True)
class WorldOptions:
    """What a user may fix about a drive.

    Attributes:
        seed: of the whole run; each sequence draws its own world from it.
        frames: of the sequence.
        kind: street kind, None to draw one.
        weather: sun, overcast or dusk, None to draw one.
        randomise: domain randomisation: colours and light beyond what streets show.
        structures: share of the sequences with bridges, sign gantries, shelters, containers, walls.
        riders: times as many cyclists as streets have.
    """

    seed: int
    frames: int
    kind: str | None = None
    weather: str | None = None
    randomise: bool = False
    structures: float = 0.0
    riders: float = 1.0


def generator(seed: int, sequence: int, stream: int) -> np.random.Generator:
    """The random numbers of one concern of one sequence: independent of every other."""
    return np.random.default_rng([seed, sequence, stream])


def make_scene(options: WorldOptions, sequence: int, rig: Rig) -> Scene:
    """Build a sequence's scene; the same arguments give the same scene."""
    draw = generator(options.seed, sequence, 0)
    kind = options.kind or str(draw.choice(KINDS))
    light = make_light(generator(options.seed, sequence, 1), options.weather)
    paint = generator(options.seed, sequence, 2)

    def tint(tone: np.ndarray) -> np.ndarray:
        return paint.uniform(0.02, 1.0, 3) if options.randomise and paint.random() < 0.7 else tone

    reach = options.frames * PERIOD * 12.0
    street = make_street(generator(options.seed, sequence, 3), kind, reach, options.frames * PERIOD)
    mix = replace(MIXES[kind], riders=MIXES[kind].riders * options.riders)
    people = populate(
        generator(options.seed, sequence, 4), street, options.frames, PERIOD, mix, tint
    )
    way = people.ego
    low, high = street.curve.nearest(*way.xy[0]) - 40, street.curve.nearest(*way.xy[-1]) + 150
    surround = generator(options.seed, sequence, 5)
    draw = generator(options.seed, sequence, 7)
    wanted = draw.random() < options.structures
    structures = build(draw, street, low, high) if wanted else Structures()
    chunks = _chunks(ground(street, low - 20, high + 30))
    chunks += _chunks(markings(street, low, high))
    for make in (houses, planting, furniture):
        chunks += _chunks(structures.spare(make(surround, street, low, high)))
    chunks += _chunks(horizon(surround, street, low, high))
    chunks += _chunks(structures.pieces)
    if options.randomise:
        chunks = [c.tinted(paint.uniform(0.55, 1.25, 3)) for c in chunks]
    stamps = (
        BEGIN
        + sequence * 3_600_000_000_000
        + np.arange(options.frames, dtype=np.int64) * int(PERIOD * 1e9)
    )
    shake = generator(options.seed, sequence, 6)
    return Scene(
        chunks,
        [a for a in people.actors if not structures.block(a.xy, 0.35)],
        _sensor_poses(shake, way.xy, way.yaw, way.speed, rig),
        stamps,
        light,
        kind,
    )


def _chunks(pieces: Iterable[tuple[float, Mesh]]) -> list[Mesh]:
    groups: dict[int, list[Mesh]] = {}
    for s, mesh in pieces:
        groups.setdefault(int(s // CHUNK), []).append(mesh)
    return [merged(group) for _, group in sorted(groups.items())]


def _sensor_poses(
    rng: np.random.Generator, xy: np.ndarray, yaw: np.ndarray, speed: np.ndarray, rig: Rig
) -> np.ndarray:
    """(F, 4, 4) world_from_lidar: the car pitches under braking and shakes a little on the road."""
    frames = len(xy)
    noise = rng.normal(0, 1, (3, frames + 8))
    smooth = np.stack(
        [np.convolve(row, np.hanning(9) / np.hanning(9).sum(), "valid")[:frames] for row in noise]
    )
    rough = np.clip(speed / 8, 0, 1)
    acceleration = np.gradient(speed) / PERIOD if frames > 1 else np.zeros(frames)
    pitch = -0.004 * acceleration + 0.0035 * smooth[0] * rough + 0.002
    roll = 0.003 * smooth[1] * rough
    heave = 0.012 * smooth[2] * rough
    poses = np.empty((frames, 4, 4))
    for k in range(frames):
        tilt = np.eye(4)
        c, s_ = np.cos(roll[k]), np.sin(roll[k])
        tilt[1:3, 1:3] = [[c, -s_], [s_, c]]
        poses[k] = (
            pose(xy[k, 0], xy[k, 1], rig.lidar_height + heave[k], yaw[k])
            @ rotation_y(pitch[k])
            @ tilt
        )
    return poses
