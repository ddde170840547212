"""Fills a street: vehicles in lanes, parked rows, walkers and riders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from amodal_core.synthetic.assets import Asset
from amodal_core.synthetic.heavy_vehicles import bus, tram, truck
from amodal_core.synthetic.people import cyclist, pedestrian
from amodal_core.synthetic.scene import Actor
from amodal_core.synthetic.street import Lane, Street, make_lanes
from amodal_core.synthetic.traffic import Driver, Traffic, Way, drive_way, meets, walk_way
from amodal_core.synthetic.vehicles import BODIES, car

# sRGB paints of European streets and how common they are
PAINTS = (
    ((0.05, 0.05, 0.055), 0.2),
    ((0.66, 0.67, 0.69), 0.2),
    ((0.36, 0.37, 0.39), 0.17),
    ((0.88, 0.88, 0.87), 0.14),
    ((0.1, 0.14, 0.27), 0.1),
    ((0.46, 0.06, 0.07), 0.07),
    ((0.2, 0.22, 0.24), 0.05),
    ((0.28, 0.34, 0.46), 0.02),
    ((0.1, 0.22, 0.15), 0.02),
    ((0.62, 0.56, 0.44), 0.02),
    ((0.75, 0.58, 0.1), 0.01),
)
# body types of passenger cars and how common they are
CARS = {"sedan": 4, "hatchback": 5, "estate": 4, "suv": 3, "compact": 3, "mpv": 2, "coupe": 1}
# paints of buses and trams
LIVERIES = (
    (0.86, 0.72, 0.1),
    (0.8, 0.8, 0.8),
    (0.7, 0.1, 0.1),
    (0.2, 0.4, 0.7),
    (0.25, 0.5, 0.3),
)
KERB_HEIGHT = 0.12


@dataclass(frozen=True)
class Mix:
    """How full and of what a street is.

    Attributes:
        traffic: mean bumper-to-bumper gap of moving traffic in metres.
        parked: share of the parking places taken.
        walkers: people on foot for 100 m of street.
        riders: cyclists for 100 m of street.
        crossing: people who try to cross the street.
        heavy: share of lorries and buses in traffic.
        vans: share of vans.
    """

    traffic: float
    parked: float
    walkers: float
    riders: float
    crossing: int
    heavy: float
    vans: float


MIXES = {
    "urban": Mix(14.0, 0.66, 8.0, 2.5, 10, 0.09, 0.13),
    "residential": Mix(30.0, 0.5, 5.0, 1.5, 6, 0.05, 0.12),
    "arterial": Mix(18.0, 0.0, 2.5, 0.0, 6, 0.12, 0.14),
}


class Stock:
    """The assets that a drive draws from; each is built once and placed often."""

    def __init__(self, rng: np.random.Generator, people: int = 14) -> None:
        self.rng = rng
        self.cars = [(car(k, rng), w) for k, w in CARS.items()]
        self.vans = [car(k, rng) for k in BODIES if k not in CARS]
        self.trucks = [truck(rng, k) for k in ("box", "tarp", "flatbed", "artic", "tanker")]
        self.buses = [bus(rng)]
        self.trams: list[Asset] = []
        self.people = [pedestrian(rng) for _ in range(people)]
        self.riders = [cyclist(rng) for _ in range(4)]

    def vehicle(self, mix: Mix) -> Asset:
        """A vehicle of the mix."""
        draw = self.rng.random()
        if draw < mix.heavy:
            pool = self.trucks if self.rng.random() < 0.72 else self.buses
            return pool[self.rng.integers(len(pool))]
        if draw < mix.heavy + mix.vans:
            return self.vans[self.rng.integers(len(self.vans))]
        return self.parked()

    def parked(self) -> Asset:
        """A passenger car."""
        weights = np.array([w for _, w in self.cars], float)
        return self.cars[self.rng.choice(len(self.cars), p=weights / weights.sum())][0]

    def paint(self, asset: Asset) -> np.ndarray:
        """A colour for an asset."""
        if asset.category in ("pedestrian", "cyclist"):
            return np.ones(3)
        if asset.name in ("bus", "tram"):
            return np.array(LIVERIES[self.rng.integers(len(LIVERIES))])
        if asset.category == "van" and self.rng.random() < 0.5:
            return np.array((0.86, 0.86, 0.85))
        chance = np.array([w for _, w in PAINTS])
        tone = np.array(PAINTS[self.rng.choice(len(PAINTS), p=chance / chance.sum())][0])
        return np.clip(tone * self.rng.uniform(0.85, 1.15), 0.02, 0.95)


@dataclass(eq=False)
class Population:
    """Everybody of a drive and the ego vehicle's way."""

    actors: list[Actor]
    ego: Way


def populate(
    rng: np.random.Generator,
    street: Street,
    frames: int,
    period: float,
    mix: Mix,
    tint: Callable[[np.ndarray], np.ndarray],
) -> Population:
    """Place everybody, run the traffic, and drop who would touch somebody."""
    stock = Stock(rng)
    lanes = make_lanes(street)
    if street.tram:
        stock.trams = [tram(rng)]
    duration = frames * period
    ego = Driver(0, 0.0, rng.uniform(3, 9), rng.uniform(7, 12), 4.6, None)
    chosen = f"lane{rng.integers(street.lanes)}+"
    ego.lane = next(i for i, lane in enumerate(lanes) if lane.name == chosen)
    ego.p = -18.0
    drivers = [ego]
    for index, lane in enumerate(lanes):
        drivers += _fill_lane(rng, lane, index, ego, stock, mix, duration)
    traffic = Traffic(lanes, drivers)
    traffic.run(5.0, duration, period, frames)
    ego_way = drive_way(ego, lanes[ego.lane], 1.8)
    actors: list[Actor] = []
    ways: list[Way] = [ego_way]

    def admit(asset: Asset, way: Way, margin: float, z: float = 0.0) -> bool:
        if any(meets(way, other, margin) for other in ways):
            return False
        ways.append(way)
        paint, course = tint(stock.paint(asset)), (way.xy, way.yaw, way.travelled, way.speed)
        actors.append(Actor(len(actors) + 1, asset, paint, *course, way.braking, z))
        return True

    for driver in drivers[1:]:
        assert driver.asset is not None
        admit(driver.asset, drive_way(driver, lanes[driver.lane], driver.asset.size[1]), 0.02)
    crowd = _Crowd(rng, street, stock, mix, frames, period, admit)
    begin, end = (street.curve.nearest(*ego_way.xy[k]) for k in (0, -1))
    if street.parking:
        crowd.park(begin - 18.0, end + 125.0)
    crowd.walk(begin - 18.0, end + 125.0)
    crowd.cross(begin, end)
    return Population(actors, ego_way)


def _fill_lane(
    rng: np.random.Generator,
    lane: Lane,
    index: int,
    ego: Driver,
    stock: Stock,
    mix: Mix,
    duration: float,
) -> list[Driver]:
    """Vehicles along a lane with random gaps, none near the ego vehicle or in a closed junction."""
    cross = lane.name.startswith("cross")
    if cross:
        low, high = -90.0 - 9 * duration, 80.0
    elif lane.name.endswith("+"):
        low, high = -60.0, 190.0 + 9 * duration
    else:
        low, high = -(190.0 + 12 * duration), 60.0
    gap = {
        "cars": mix.traffic * (1.6 if cross else 1.0),
        "bikes": 100 / max(mix.riders, 0.3),
        "trams": 70.0,
    }[lane.what]
    made: list[Driver] = []
    p = low + rng.uniform(0, gap)
    while p < high:
        if lane.what == "bikes":
            asset = stock.riders[rng.integers(len(stock.riders))]
            wish = rng.uniform(3.5, 6.0)
        elif lane.what == "trams":
            asset, wish = stock.trams[0], rng.uniform(7, 11)
        else:
            asset = stock.vehicle(mix)
            wish = rng.uniform(7, 13) * (0.9 if asset.category == "truck" else 1.0)
        length = asset.size[0]
        middle = p + length / 2
        free = all(
            middle + length / 2 < low_ - 1 or middle - length / 2 > high_ + 1
            for low_, high_, junction in lane.boxes
            if not junction.signal.green(not cross, 0.0)
        )
        clash = index == ego.lane and abs(middle - ego.p) < (length + ego.length) / 2 + 6
        ahead = [
            stop - middle - length / 2
            for stop, j, main in lane.stops
            if not j.signal.green(main, 0.0)
        ]
        ahead = [a for a in ahead if a > -length - 2]
        if free and not clash and not any(a < 0.5 for a in ahead if a > -length - 2):
            brake = min((np.sqrt(2 * 1.8 * max(a - 0.5, 0)) for a in ahead), default=np.inf)
            speed = min(wish * rng.uniform(0.6, 0.95), brake, np.sqrt(2 * 1.5 * max(gap, 4)))
            made.append(Driver(index, middle, float(speed), wish, length, asset))
        p += length + max(3.0, rng.exponential(gap - 2.0) + 2.0)
    if lane.what == "cars" and rng.random() < 0.1 and not cross:
        return made[::2]
    return made


@dataclass(frozen=True, eq=False)
class _Crowd:
    """Who stands or walks in a street; `admit` places somebody who touches nobody."""

    rng: np.random.Generator
    street: Street
    stock: Stock
    mix: Mix
    frames: int
    period: float
    admit: Callable[..., bool]

    def park(self, low: float, high: float) -> None:
        """Vehicles in both parked rows between two s."""
        rng, street, zeros = self.rng, self.street, np.zeros(self.frames)
        for side in (1, -1):
            d = side * (street.kerb - street.parking / 2 + 0.05)
            s = low
            while s < high:
                asset = self.stock.vehicle(self.mix) if rng.random() < 0.25 else self.stock.parked()
                if asset.size[0] > 7:
                    asset = self.stock.parked()
                length, width, _ = asset.size
                s += length / 2
                if not street.near_junction(s, 11.0) and rng.random() < self.mix.parked:
                    x, y, heading = street.curve.at(s, d + rng.normal(0, 0.06))
                    turn = np.pi if (side > 0) != (rng.random() < 0.12) else 0.0
                    yaw = zeros + (float(heading) + (turn + rng.normal(0, 0.015)))
                    xy, phase = np.tile([float(x), float(y)], (self.frames, 1)), rng.uniform(0, 6)
                    way = Way(xy, yaw, zeros, zeros + phase, zeros, length, width)
                    self.admit(asset, way, 0.05)
                s += length / 2 + rng.uniform(0.5, 1.7)

    def walk(self, low: float, high: float) -> None:
        """People on the sidewalks between two s, some of them together, some standing."""
        rng, street = self.rng, self.street
        times = np.arange(self.frames) * self.period
        for side in (1, -1):
            for _ in range(rng.poisson(self.mix.walkers * (high - low) / 200)):
                s0 = rng.uniform(low, high)
                d = side * rng.uniform(street.kerb + 0.8, street.kerb + street.sidewalk - 0.4)
                speed = rng.uniform(0.9, 1.65)
                direction = rng.choice([-1.0, 1.0])
                company = int(rng.choice([1, 1, 1, 2, 2, 3]))
                if rng.random() < 0.12:
                    speed = 0.02
                s = s0 + direction * speed * times
                blocked = np.array([street.near_junction(v, -0.6) for v in s])
                if blocked[0]:
                    continue
                if blocked.any():  # waits at the corner
                    stop = int(np.argmax(blocked))
                    s[stop:] = s[stop - 1]
                moved = np.abs(np.diff(s, prepend=s[0]))
                pace = np.append(moved[1:], moved[-1]) / self.period
                for k in range(company):
                    asset = self.stock.people[rng.integers(len(self.stock.people))]
                    dd = d + 0.62 * k * -side
                    x, y, heading = street.curve.at(s + rng.normal(0, 0.1), dd)
                    yaw = heading + (0.0 if direction > 0 else np.pi)
                    yaw = np.unwrap(yaw + (rng.uniform(-1.5, 1.5) if speed < 0.1 else 0.0))
                    gone = np.cumsum(moved) + rng.uniform(0, 1.4)
                    xy, braking = np.stack([x, y], 1), np.zeros(self.frames)
                    way = Way(xy, yaw, pace, gone, braking, 0.6, 0.55)
                    self.admit(asset, way, 0.03, KERB_HEIGHT)

    def cross(self, start: float, end: float) -> None:
        """People who cross where nobody comes: at crossings and between parked cars."""
        rng, street = self.rng, self.street
        times = np.arange(self.frames) * self.period
        reach = street.kerb + 0.9
        crossings = [j.s + sign * (j.half + 2.6) for j in street.junctions for sign in (-1, 1)]
        crossings = [s for s in crossings if start + 5 < s < end + 60]
        made = 0
        for _ in range(self.mix.crossing * 6):
            if made >= self.mix.crossing:
                break
            if crossings and rng.random() < 0.65:
                s = crossings[rng.integers(len(crossings))] + rng.uniform(-1.3, 1.3)
            else:
                s = rng.uniform(start + 9, end + 45)
                if street.near_junction(s, 1.0):
                    continue
            side = rng.choice([-1, 1])
            a, b = (
                np.array([float(v) for v in street.curve.at(s + slant, d)[:2]])
                for slant, d in ((0.0, side * reach), (rng.normal(0, 0.8), -side * reach))
            )
            speed = rng.uniform(1.0, 1.7)
            begin = rng.uniform(-0.9 * 2 * reach / speed, 0.7 * self.frames * self.period)
            asset = self.stock.people[rng.integers(len(self.stock.people))]
            way = walk_way(a, b, begin, speed, times, rng.uniform(0, 1.4))
            made += self.admit(asset, way, 0.45)
