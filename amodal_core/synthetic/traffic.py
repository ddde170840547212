"""Who moves how: car following, signals, walkers, and the check that nobody touches anybody."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amodal_core.synthetic.assets import Asset
from amodal_core.synthetic.street import Junction, Lane

STEP = 0.05
# Intelligent driver model (Treiber, Hennecke, Helbing 2000): acceleration, comfortable braking,
# time gap, standstill gap.
ACCELERATION, BRAKING, HEADWAY, GAP = 1.6, 2.2, 1.2, 1.8


@dataclass(eq=False)
class Driver:
    """One vehicle in a lane.

    Attributes:
        lane: index of its lane.
        p: metres along it, of the vehicle's middle.
        v: metres a second.
        wish: the speed it would like.
        length: metres.
        asset: its shape; None for the ego vehicle.
        braking: how hard it brakes, 0-1.
        travelled: metres since the beginning.
    """

    lane: int
    p: float
    v: float
    wish: float
    length: float
    asset: Asset | None
    braking: float = 0.0
    travelled: float = 0.0
    log: list[tuple[float, float, float, float]] = field(default_factory=list)


class Traffic:
    """All vehicles of a street, stepped together.

    Args:
        lanes: the lines of traffic.
        drivers: vehicles at rest or in motion, not overlapping inside a lane.
    """

    def __init__(self, lanes: list[Lane], drivers: list[Driver]) -> None:
        self.lanes = lanes
        self.drivers = drivers

    def _crowd(self, t: float) -> dict[tuple[int, bool], bool]:
        """Whether some vehicle of each street is in each junction."""
        busy: dict[tuple[int, bool], bool] = {}
        for driver in self.drivers:
            lane = self.lanes[driver.lane]
            main = bool(lane.stops[0][2]) if lane.stops else True
            for low, high, junction in lane.boxes:
                if driver.p + driver.length / 2 > low and driver.p - driver.length / 2 < high:
                    busy[id(junction), main] = True
        return busy

    def step(self, t: float) -> None:
        """Move everything by STEP seconds."""
        busy = self._crowd(t)
        by_lane: dict[int, list[Driver]] = {}
        for driver in self.drivers:
            by_lane.setdefault(driver.lane, []).append(driver)
        for index, row in by_lane.items():
            row.sort(key=lambda d: -d.p)
            lane = self.lanes[index]
            leader: Driver | None = None
            for driver in row:
                gap, speed = np.inf, driver.v
                if leader is not None:
                    gap = leader.p - driver.p - (leader.length + driver.length) / 2
                    speed = leader.v
                acceleration = _follow(driver, gap, speed)
                for stop, junction, main in lane.stops:
                    ahead = stop - driver.p - driver.length / 2
                    if ahead < -0.6 or ahead > 90:
                        continue
                    free = junction.signal.green(main, t) and not busy.get(
                        (id(junction), not main), False
                    )
                    if not free and driver.v**2 / (2 * max(ahead, 0.1)) < 4.5:
                        acceleration = min(
                            acceleration, _follow(driver, max(ahead + GAP - 0.8, 0.05), 0.0)
                        )
                acceleration = max(acceleration, -8.0)
                speed = max(driver.v + acceleration * STEP, 0.0)
                moved = (driver.v + speed) / 2 * STEP
                driver.p += moved
                driver.travelled += moved
                driver.v = speed
                target = 1.0 if acceleration < -0.6 or speed < 0.15 else 0.0
                driver.braking += (target - driver.braking) * 0.35
                leader = driver

    def run(self, begin: float, duration: float, period: float, frames: int) -> None:
        """Warm up for `begin` seconds at the lights' first phase, then log `frames` states."""
        for _ in range(round(begin / STEP)):
            self.step(0.0)
        for driver in self.drivers:
            driver.travelled %= 7.0
        t, per = 0.0, round(period / STEP)
        for _ in range(frames):
            for driver in self.drivers:
                driver.log.append((driver.p, driver.v, driver.braking, driver.travelled))
            for _ in range(per):
                self.step(t)
                t += STEP
        del duration


def _follow(driver: Driver, gap: float, speed: float) -> float:
    """Acceleration of the intelligent driver model."""
    gap = max(gap, 0.05)
    desired = GAP + max(
        0.0,
        driver.v * HEADWAY + driver.v * (driver.v - speed) / (2 * np.sqrt(ACCELERATION * BRAKING)),
    )
    return float(ACCELERATION * (1 - (driver.v / driver.wish) ** 4 - (desired / gap) ** 2))


def footprint(xy: np.ndarray, yaw: float, length: float, width: float) -> np.ndarray:
    """(4, 2) corners of a rectangle."""
    c, s = np.cos(yaw), np.sin(yaw)
    local = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [length / 2, width / 2]
    return local @ np.array([[c, s], [-s, c]]) + xy


def touching(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two convex quadrilaterals (4, 2) overlap (separating axes)."""
    for quad in (a, b):
        edges = np.roll(quad, -1, axis=0) - quad
        for nx, ny in np.stack([-edges[:, 1], edges[:, 0]], axis=1):
            pa, pb = a @ (nx, ny), b @ (nx, ny)
            if pa.max() < pb.min() or pb.max() < pa.min():
                return False
    return True


@dataclass(eq=False)
class Way:
    """A finished way with its footprint, one row a frame.

    Attributes:
        xy: (F, 2).
        yaw: (F,).
        speed: (F,).
        travelled: (F,).
        braking: (F,).
        length, width: metres.
    """

    xy: np.ndarray
    yaw: np.ndarray
    speed: np.ndarray
    travelled: np.ndarray
    braking: np.ndarray
    length: float
    width: float


def drive_way(driver: Driver, lane: Lane, width: float) -> Way:
    """The logged way of a driver in the world."""
    log = np.array(driver.log)
    places = np.array([lane.place(p) for p in log[:, 0]])
    yaw = np.unwrap(places[:, 2])
    return Way(places[:, :2], yaw, log[:, 1], log[:, 3], log[:, 2], driver.length, width)


def walk_way(
    a: np.ndarray, b: np.ndarray, start: float, speed: float, times: np.ndarray, phase: float
) -> Way:
    """A walk from a to b that begins `start` seconds after the drive; stands before and after."""
    leg = b - a
    total = max(float(np.hypot(*leg)), 1e-6)
    done = np.clip((times - start) * speed, 0, total)
    moving = (done > 0) & (done < total)
    xy = a + leg * (done / total)[:, None]
    yaw = np.full(len(times), float(np.arctan2(leg[1], leg[0])))
    return Way(xy, yaw, np.where(moving, speed, 0.0), done + phase, np.zeros(len(times)), 0.7, 0.6)


def meets(way: Way, other: Way, margin: float) -> bool:
    """Whether two ways come closer than a margin at some frame."""
    reach = (np.hypot(way.length, way.width) + np.hypot(other.length, other.width)) / 2 + margin
    near = np.flatnonzero(np.hypot(*(way.xy - other.xy).T) < reach)
    for k in near:
        a = footprint(way.xy[k], way.yaw[k], way.length + 2 * margin, way.width + 2 * margin)
        if touching(a, footprint(other.xy[k], other.yaw[k], other.length, other.width)):
            return True
    return False


def signal_of(junction: Junction, t: float, main: bool) -> str:
    """What a lamp shows: red, amber or green."""
    if junction.signal.green(main, t):
        return "green"
    if (
        junction.signal.switch <= t < junction.signal.switch + 2
        and main == junction.signal.main_first
    ):
        return "amber"
    return "red"
