"""Bridges leave the road free, stand where they say, and only where they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from amodal_core.synthetic.mesh import Mesh, pose
from amodal_core.synthetic.rig import make_rig
from amodal_core.synthetic.scene import Scene
from amodal_core.synthetic.street import make_street
from amodal_core.synthetic.structures import (
    CLEARANCE,
    Structures,
    bridge,
    build,
    container,
    gantry,
    shelter,
    swept,
    wall,
)
from amodal_core.synthetic.world import WorldOptions, make_scene


def volume(mesh: Mesh) -> float:
    """By the divergence theorem: that of a closed mesh whose faces look outward is positive."""
    a, b, c = np.moveaxis(mesh.positions[mesh.triangles].astype(float), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("order", [1, -1])
def test_a_swept_profile_is_a_closed_solid_that_looks_outward(order: int) -> None:
    corners = [(-1.0, 0.0), (1.0, 0.0), (1.0, 2.0), (0.0, 3.0), (-1.0, 2.0)]  # area 5
    path = np.array([[-2.0, 1.0], [0.0, 1.0], [4.0, 1.0]])  # 6 long
    mesh = swept(corners[::order], path, 0, (1, 2, 3))
    assert volume(mesh) == pytest.approx(30)
    assert mesh.bounds.tolist() == [[-1, -2, 1], [1, 4, 4]]


@pytest.mark.parametrize("seed", range(12))
def test_a_bridge_keeps_the_street_free_and_stands_on_its_piers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edge, turn = rng.uniform(5, 14), rng.uniform(-0.45, 0.45)
    mesh, footprints = bridge(rng, edge, 60.0, turn)
    x, y, z = mesh.placed(pose(yaw=turn)).positions.T
    assert (z[np.abs(y) < edge] > CLEARANCE).all()
    x, y, z = mesh.positions.T
    low = z < CLEARANCE
    inner = min(abs(at[1]) for at in footprints)
    inside = np.zeros(len(x), bool)
    for cx, cy, half_x, half_y in footprints:
        inside |= (np.abs(x - cx) <= half_x + 1e-3) & (np.abs(y - cy) <= half_y + 1e-3)
    assert inside[low & (np.abs(y) < inner + 2)].all()
    assert low.any()


def test_boards_hang_above_lorries_and_small_things_stand_on_the_ground() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        signs = gantry(rng, 8.0).positions
        over_the_road = np.abs(signs[:, 1]) < 7.4
        assert (signs[over_the_road, 2] > 3.6).all()
        assert signs[:, 2].min() == pytest.approx(0, abs=1e-6)
        for thing, least in ((shelter(rng), 2.3), (container(rng), 1.2)):
            low, high = thing.bounds
            assert low[2] == pytest.approx(0, abs=1e-6)
            assert high[2] > least
            assert (np.abs(thing.bounds[:, 0]) < 3.6).all()


@pytest.mark.parametrize("seed", range(8))
def test_a_wall_has_no_gaps_and_stands_where_it_says(seed: int) -> None:
    pieces = list(wall(np.random.default_rng(seed), 18.0))
    ends = np.array([x + mesh.bounds[:, 0] for x, mesh, _ in pieces])
    assert len(pieces) == 4  # of 4 m; the rest stays free
    assert ends[0, 0] <= 0
    assert 16 <= ends[-1, 1] < 18
    assert (ends[:-1, 1] >= ends[1:, 0]).all()
    for _, mesh, (x, y, half_x, half_y) in pieces:
        low, high = mesh.bounds
        assert low[2] == pytest.approx(0, abs=1e-6)
        assert 0.8 < high[2] < 5.3
        assert (np.abs(mesh.bounds[:, 0] - x) < half_x + 0.3).all()
        assert (np.abs(mesh.bounds[:, 1] - y) < half_y + 0.1).all()


def test_walls_leave_the_road_and_the_junctions_free() -> None:
    for seed in range(6):
        street = make_street(np.random.default_rng(seed), "urban", 60.0, 1.0)
        made = build(np.random.default_rng(seed), street, -40.0, 200.0)
        # Nothing stands in the lanes; gantries' arms and bridges are above them.
        for _, mesh in made.pieces:
            corners = mesh.positions[mesh.positions[:, 2] < CLEARANCE - 1.0]
            for x, y, _ in corners[:: max(1, len(corners) // 50)]:
                at = street.curve.nearest(x, y)
                centre = np.array(street.curve.at(at, 0.0)[:2], float)
                assert np.hypot(*(np.array([x, y]) - centre)) > street.kerb - 0.3
        assert len(made.pieces) > 5


def test_a_way_through_a_footprint_is_blocked_and_one_beside_it_is_not() -> None:
    turned = pose(10, 5, yaw=np.pi / 2)  # its x is the world's y
    structures = Structures(footprints=[(turned, 3.0, 1.0)])
    way = np.array([[0.0, 0.0], [0.0, 20.0]])
    assert structures.block(way + np.array([10.0, -12.5]), 0.0)
    assert not structures.block(way + np.array([11.2, -12.5]), 0.1)
    assert structures.block(way + np.array([11.2, -12.5]), 0.3)
    assert not structures.block(way + np.array([10.0, -20.0]), 0.0)
    stone = container(np.random.default_rng(0))
    pieces = [(40.0, stone), (45.0, stone), (58.0, stone), (60.0, stone)]
    spared = [s for s, _ in Structures(cleared=[(50.0, 9.0)]).spare(pieces)]
    assert spared == [40, 60]


def scene(share: float, seed: int = 6) -> Scene:
    return make_scene(WorldOptions(seed, 2, "arterial", structures=share), 0, make_rig("kitti"))


def test_structures_come_only_where_they_are_asked_for() -> None:
    rng = np.random.default_rng(1)
    street = make_street(rng, "arterial", 60.0, 1.0)
    made = build(rng, street, -40.0, 200.0)
    assert len(made.pieces) > 5
    assert made.cleared
    plain, built = scene(0.0), scene(1.0)
    assert sum(len(c.triangles) for c in built.chunks) != sum(
        len(c.triangles) for c in plain.chunks
    )
    # who is left is who was there before, and where
    before = {a.id: a for a in plain.actors}
    assert {a.id for a in built.actors} <= set(before)
    assert all(np.array_equal(a.xy, before[a.id].xy) for a in built.actors)
    assert np.array_equal(plain.world_from_lidar, built.world_from_lidar)
