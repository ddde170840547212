"""Streets are full, lawful and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.synthetic.assets import Asset
from amodal_core.synthetic.heavy_vehicles import bus, tram, truck
from amodal_core.synthetic.mesh import _distinct, box, cross, faceted
from amodal_core.synthetic.motion import part_matrices
from amodal_core.synthetic.people import CRANK, CRANK_LENGTH, CYCLE_PARTS, cyclist, pedestrian
from amodal_core.synthetic.population import MIXES, Population, populate
from amodal_core.synthetic.rig import make_rig
from amodal_core.synthetic.street import Curve, Junction, Lane, Signal, make_street
from amodal_core.synthetic.traffic import Driver, Traffic, footprint, touching
from amodal_core.synthetic.vehicles import BODIES, car
from amodal_core.synthetic.world import PERIOD, WorldOptions, make_scene


def street_people(seed: int, kind: str, frames: int = 40) -> Population:
    street = make_street(np.random.default_rng([seed, 0]), kind, frames * 1.2, frames * PERIOD)
    generator = np.random.default_rng([seed, 1])
    return populate(generator, street, frames, PERIOD, MIXES[kind], lambda tone: tone)


@pytest.mark.parametrize(("seed", "kind"), [(1, "urban"), (2, "residential"), (3, "arterial")])
def test_nobody_touches_anybody_and_nobody_jumps(seed: int, kind: str) -> None:
    people = street_people(seed, kind)
    actors = people.actors
    assert len(actors) > 20
    assert len({a.id for a in actors}) == len(actors)
    for frame in range(0, 40, 8):
        prints = []
        for a in actors:
            walker = a.asset.category == "pedestrian"
            length, width = (0.5, 0.5) if walker else a.asset.size[:2]
            prints.append((a, footprint(a.xy[frame], a.yaw[frame], length, width)))
        ego = footprint(people.ego.xy[frame], people.ego.yaw[frame], 4.6, 1.8)
        assert not any(touching(ego, quad) for _, quad in prints)
        centres = np.array([a.xy[frame] for a in actors])
        for i, (a, quad) in enumerate(prints):
            near = np.hypot(*(centres - centres[i]).T) < 30
            for j in np.flatnonzero(near):
                if j > i:
                    assert not touching(quad, prints[j][1]), (a.asset.name, prints[j][0].asset.name)
    for a in actors:
        steps = np.hypot(*np.diff(a.xy, axis=0).T)
        assert steps.max() < 20 * PERIOD


def test_ego_vehicle_and_traffic_move() -> None:
    people = street_people(1, "urban")
    moved = [float(np.hypot(*(a.xy[-1] - a.xy[0]))) for a in people.actors]
    assert sum(m > 3 for m in moved) >= 5
    categories = {a.asset.category for a in people.actors}
    assert {"car", "pedestrian"} <= categories
    headings = [float(np.cos(a.yaw[0] - people.ego.yaw[0])) for a in people.actors]
    assert min(headings) < -0.9
    assert max(headings) > 0.9


def one_lane(stops: tuple[tuple[float, Junction, bool], ...] = ()) -> Lane:
    return Lane("lane", lambda p: (p, 0.0, 0.0), stops, ())


def test_a_follower_stops_behind_a_standing_leader() -> None:
    leader = Driver(0, 100.0, 0.0, 1e-6, 4.0, None)
    follower = Driver(0, 20.0, 12.0, 14.0, 5.0, None)
    traffic = Traffic([one_lane()], [leader, follower])
    for _ in range(600):
        traffic.step(0.0)
    gap = leader.p - follower.p - 4.5
    assert 0.5 < gap < 4.0
    assert follower.v < 0.1
    assert follower.braking > 0.9


def test_red_stops_and_green_releases() -> None:
    junction = Junction(100.0, 5.0, Signal(main_first=False, switch=30.0))
    driver = Driver(0, 20.0, 10.0, 12.0, 4.0, None)
    traffic = Traffic([one_lane(((90.0, junction, True),))], [driver])
    t = 0.0
    while t < 33.5:  # the crossing is green, then all are red
        traffic.step(t)
        t += 0.05
    assert driver.v < 0.2
    assert 80 < driver.p + 2.0 <= 90.5
    while t < 50:
        traffic.step(t)
        t += 0.05
    assert driver.p > 100


def test_curve_keeps_lengths() -> None:
    curve = Curve(np.random.default_rng(0), -50, 300, 0.5)
    s = np.linspace(0, 200, 400)
    x, y, heading = curve.at(s, 0.0)
    steps = np.hypot(np.diff(x), np.diff(y))
    assert steps == pytest.approx(np.diff(s), rel=2e-3)
    left = np.stack(curve.at(s, 3.0)[:2]) - np.stack([x, y])
    assert (left * np.stack([np.cos(heading), np.sin(heading)])).sum(axis=0) == pytest.approx(
        0, abs=1e-9
    )


def placed_points(asset: Asset, travelled: float, speed: float) -> np.ndarray:
    matrices = part_matrices(asset, travelled, speed)[asset.mesh.parts]
    ones = np.ones((len(asset.mesh.positions), 1))
    points = np.concatenate([asset.mesh.positions, ones], axis=1)
    return np.einsum("vij,vj->vi", matrices, points)[:, :3]


def test_walkers_keep_a_foot_on_the_ground_and_swing_their_limbs() -> None:
    asset = pedestrian(np.random.default_rng(1))
    feet = []
    for travelled in np.linspace(0, 3, 13):
        points = placed_points(asset, float(travelled), 1.3)
        assert -0.06 < points[:, 2].min() < 0.06
        assert points[:, 2].max() == pytest.approx(asset.size[2], abs=0.15)
        left, right = (points[asset.mesh.parts == p, 0].mean() for p in (8, 9))
        feet.append(left - right)
    assert max(feet) > 0.25
    assert min(feet) < -0.25


def test_riders_feet_stay_on_the_pedals() -> None:
    asset = cyclist(np.random.default_rng(2))
    for travelled in np.linspace(0, 6, 7):
        parts = part_matrices(asset, float(travelled), 4.0)
        points = placed_points(asset, float(travelled), 4.0)
        for j, side in enumerate((1, -1)):
            pedal = (parts[13] @ [*(CRANK + np.array([CRANK_LENGTH * side, 0, 0])), 1.0])[:3]
            foot = points[asset.mesh.parts == CYCLE_PARTS["shin"] + j]
            lowest = foot[foot[:, 2].argmin()]
            assert np.hypot(*(lowest - pedal)[[0, 2]]) < 0.22
        assert points[:, 2].min() > -0.03


@pytest.mark.parametrize("kind", sorted(BODIES))
def test_cars_have_the_size_they_say_and_closed_outward_bodies(kind: str) -> None:
    asset = car(kind, np.random.default_rng(3))
    low, high = asset.mesh.bounds
    assert high[0] - low[0] == pytest.approx(asset.size[0], abs=1e-6)
    assert asset.size[1] <= high[1] - low[1] <= asset.size[1] + 0.45  # mirrors
    assert low[2] == pytest.approx(0, abs=0.01)
    body = asset.mesh.parts[asset.mesh.triangles[:, 0]] == 0
    corners = asset.mesh.positions[asset.mesh.triangles[body]].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # the divergence theorem: faces that look outward enclose a positive volume
    volume = (corners[:, 0] * normal).sum() / 6
    length, width, height = asset.size
    assert 0.4 < volume / (length * width * height) < 0.95
    assert np.linalg.norm(asset.mesh.normals, axis=1) == pytest.approx(1, abs=1e-3)


def test_heavy_vehicles_are_heavy() -> None:
    rng = np.random.default_rng(4)
    for asset in (
        bus(rng),
        tram(rng),
        *(truck(rng, k) for k in ("box", "tarp", "artic", "tanker", "flatbed")),
    ):
        length, width, height = asset.size
        assert 6 < length < 30
        assert 2.3 < width < 2.7
        assert 2.3 < height < 4.3


def test_box_faces_look_outward() -> None:
    mesh = box((2, 3, 4), (1, 1, 1))
    corners = mesh.positions[mesh.triangles].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((corners.mean(axis=1) - 1) * normal).sum(axis=1).min() > 0


def test_the_same_seed_makes_the_same_scene_and_another_seed_another() -> None:
    rig = make_rig("kitti")
    a, b = (make_scene(WorldOptions(5, 4, "arterial"), 0, rig) for _ in range(2))
    assert len(a.actors) == len(b.actors)
    for x, y in zip(a.actors, b.actors, strict=True):
        assert np.array_equal(x.xy, y.xy)
        assert np.array_equal(x.tint, y.tint)
        assert np.array_equal(x.asset.mesh.positions, y.asset.mesh.positions)
    assert np.array_equal(a.world_from_lidar, b.world_from_lidar)
    assert all(
        np.array_equal(x.positions, y.positions) for x, y in zip(a.chunks, b.chunks, strict=True)
    )
    other = make_street(np.random.default_rng([6, 0]), "arterial", 10, 1.0)
    same = make_street(np.random.default_rng([7, 0]), "arterial", 10, 1.0)
    assert other.junctions[0].s != same.junctions[0].s


def test_riders_multiply_cyclists() -> None:
    rig = make_rig("kitti")

    def cyclists(riders: float) -> int:
        made = [make_scene(WorldOptions(5, 2, "urban", riders=riders), k, rig) for k in range(3)]
        return sum(a.asset.category == "cyclist" for scene in made for a in scene.actors)

    plain = cyclists(1.0)
    assert plain > 5
    assert cyclists(4.0) > 2.5 * plain


def test_kitti_camera_is_kittis_and_scales() -> None:
    rig = make_rig("kitti")
    assert (rig.width, rig.height) == (1242, 375)
    assert rig.K[0, 0] == pytest.approx(721.5377)
    assert rig.K[0, 2] == pytest.approx(609.5593)
    assert rig.K[1, 2] == pytest.approx(172.854)
    half = make_rig("kitti", (621, 188))
    # the ray through the middle of the image's left border is the same
    left = (-0.5 - rig.K[0, 2]) / rig.K[0, 0]
    assert (-0.5 - half.K[0, 2]) / half.K[0, 0] == pytest.approx(left)
    asd = make_rig("asd")
    assert (asd.width, asd.height) == (1920, 1080)


def test_rows_are_told_apart_as_numpys_unique_does(rng):
    for n in (0, 1, 40):
        columns = [np.round(rng.normal(size=n), 1) for _ in range(2)]
        columns += [np.zeros(n), -np.zeros(n), rng.integers(0, 2, n)]
        _, first, kinds = np.unique(
            np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True
        )
        made = _distinct(columns)
        assert np.array_equal(made[0], first)
        assert np.array_equal(made[1], kinds.reshape(-1))
    a, b = rng.normal(size=(2, 50, 3))
    assert np.array_equal(cross(a, b), np.cross(a, b))


def test_corners_that_share_a_vertex_share_a_normal_up_to_the_crease():
    # Two walls of a roof, whose ridge is flatter than the crease or not; one triangle has no area.
    points = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0.2), (1, 1, 0.2), (0, 2, 0), (1, 2, 0)], float)
    triangles = np.array([(0, 1, 3), (0, 3, 2), (2, 3, 5), (2, 5, 4), (0, 0, 1)])
    angle = 2 * np.degrees(np.arctan(0.2))
    flat = faceted(points, triangles, 0, (9, 9, 9), crease=angle - 1)
    smooth = faceted(points, triangles, 0, (9, 9, 9), crease=angle + 1)
    assert (len(flat.positions), len(smooth.positions)) == (8, 6)
    ridge = smooth.normals[smooth.positions[:, 1] == 1]
    assert len(flat.triangles) == len(smooth.triangles) == 4
    # Ends of the ridge have the normals of their three faces.
    wall = np.array([(0, -0.2, 1), (0, 0.2, 1)]) / np.hypot(0.2, 1)
    mixed = [2 * wall[0] + wall[1], wall[0] + 2 * wall[1]]
    mixed = [m / np.linalg.norm(m) for m in mixed]
    for normal in ridge:
        assert min(np.abs(normal - m).max() for m in mixed) < 1e-6
