"""The plan of a street: its curve, cross-section, junctions, lanes and signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Place = tuple[float, float, float]  # x, y, yaw


class Curve:
    """A smooth centre line, given by s metres along it and d metres to its left.

    Args:
        rng: chooses the bends.
        low, high: range of s.
        bend: largest heading change in radians.
    """

    def __init__(self, rng: np.random.Generator, low: float, high: float, bend: float) -> None:
        self.s = np.arange(low, high + 1.0, 1.0)
        heading = np.zeros_like(self.s)
        for wave in (240.0, 130.0):
            share, phase = rng.uniform(-0.5, 0.5), rng.uniform(0, 6.28)
            heading += bend * share * np.sin(2 * np.pi * self.s / wave + phase)
        self.heading = heading - np.interp(0.0, self.s, heading)
        x, y = np.cumsum(np.cos(self.heading)), np.cumsum(np.sin(self.heading))
        self.x = x - np.interp(0.0, self.s, x)
        self.y = y - np.interp(0.0, self.s, y)

    def at(
        self, s: np.ndarray | float, d: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World x, y and heading of points (s, d)."""
        heading = np.interp(s, self.s, self.heading)
        x = np.interp(s, self.s, self.x) - np.sin(heading) * d
        y = np.interp(s, self.s, self.y) + np.cos(heading) * d
        return x, y, heading

    def nearest(self, x: float, y: float) -> float:
        """The s of a point beside the line."""
        return float(self.s[np.argmin(np.hypot(self.x - x, self.y - y))])


@dataclass(frozen=True)
class Signal:
    """Lights of one junction: one street is green until `switch`, then none, then the other.

    Attributes:
        main_first: which street begins.
        switch: seconds; infinite where nothing changes.
    """

    main_first: bool
    switch: float
    clearance: float = 4.0

    def green(self, main: bool, t: float) -> bool:
        """Whether a street has green at a time."""
        if t < self.switch:
            return main == self.main_first
        if t < self.switch + self.clearance:
            return False
        return main != self.main_first


@dataclass(frozen=True)
class Junction:
    """A crossing street at s, straight, along the normal of the main one."""

    s: float
    half: float
    signal: Signal


@dataclass(frozen=True, eq=False)
class Street:
    """A street's plan; d is positive to the left, traffic keeps to the right.

    Attributes:
        kind: urban, residential or arterial.
        curve: the centre line.
        lanes: driving lanes a direction.
        lane_width: metres.
        median: width of the strip between the directions, 0 where there is only a line.
        tram: tram tracks run in the median.
        cycle: width of the cycle strip at each side, 0 where there is none.
        parking: width of the parked row at each side, 0 where there is none.
        sidewalk: metres.
        setback: from the sidewalk to the house fronts.
        junctions: by s.
    """

    kind: str
    curve: Curve
    lanes: int
    lane_width: float
    median: float
    tram: bool
    cycle: float
    parking: float
    sidewalk: float
    setback: float
    junctions: tuple[Junction, ...]

    @property
    def kerb(self) -> float:
        """|d| of the kerb."""
        return self.median / 2 + self.lanes * self.lane_width + self.cycle + self.parking

    @property
    def front(self) -> float:
        """|d| of the house fronts."""
        return self.kerb + self.sidewalk + self.setback

    def lane(self, index: int) -> float:
        """|d| of the middle of a lane, counted from the middle of the street."""
        return self.median / 2 + (index + 0.5) * self.lane_width

    def near_junction(self, s: float, margin: float) -> bool:
        """Whether s lies in a junction or within a margin of one."""
        return any(abs(s - j.s) < j.half + margin for j in self.junctions)


@dataclass(frozen=True, eq=False)
class Lane:
    """One line of traffic; p grows in the direction of travel.

    Attributes:
        name: for reports.
        place: (x, y, yaw) of a p.
        stops: p of a stop line and its junction, with whether the lane belongs to the main street.
        boxes: p where the lane enters and leaves each junction.
        what: cars, bikes or trams.
    """

    name: str
    place: Callable[[float], Place]
    stops: tuple[tuple[float, Junction, bool], ...]
    boxes: tuple[tuple[float, float, Junction], ...]
    what: str = "cars"


def make_street(rng: np.random.Generator, kind: str, reach: float, duration: float) -> Street:
    """A random street of a kind; `reach` is how far ahead of s = 0 it is needed."""
    bend = {"urban": 0.25, "residential": 0.5, "arterial": 0.3}[kind]
    curve = Curve(rng, -260.0, reach + 420.0, bend * rng.uniform(0.2, 1.0))
    junctions = []
    s = rng.uniform(32, 85) if kind != "residential" else rng.uniform(45, 110)
    while s < reach + 160:
        main_first = bool(rng.random() < 0.5)
        switch = float(rng.uniform(0.2, 0.9) * duration) if rng.random() < 0.45 else float("inf")
        half = 4.4 if kind == "residential" else float(rng.choice([4.4, 7.6]))
        junctions.append(Junction(float(s), half, Signal(main_first, switch)))
        s += rng.uniform(75, 150)
    row: tuple[Any, ...]  # of the street's numbers from `lanes` to `setback`, drawn in this order
    tram = kind != "residential" and bool(rng.random() < {"urban": 0.3}.get(kind, 0.4))
    if kind == "urban":
        lanes, median = int(rng.choice([1, 1, 2])), 7.0 if tram else 0.0
        cycle = 1.7 if rng.random() < 0.7 else 0.0
        parking = 2.2 if rng.random() < 0.9 else 0.0
        row = lanes, 3.3, median, tram, cycle, parking, rng.uniform(2.6, 4.5), rng.uniform(0, 1.5)
    elif kind == "residential":
        width, cycle = rng.uniform(2.9, 3.3), 1.6 if rng.random() < 0.4 else 0.0
        row = 1, width, 0.0, False, cycle, 2.1, rng.uniform(1.8, 2.6), rng.uniform(3.5, 8.0)
    else:
        lanes, median = int(rng.choice([2, 3])), 7.4 if tram else rng.uniform(1.2, 4.0)
        row = lanes, 3.4, median, tram, 0.0, 0.0, rng.uniform(1.8, 3.0), rng.uniform(8.0, 16.0)
    return Street(kind, curve, *row, tuple(junctions))


def make_lanes(street: Street) -> list[Lane]:
    """All lines of traffic of a street and its crossings."""
    lanes = []
    lines: list[tuple[str, float, str]] = [
        (f"lane{k}", street.lane(k), "cars") for k in range(street.lanes)
    ]
    if street.cycle:
        edge = street.median / 2 + street.lanes * street.lane_width
        lines.append(("cycle", edge + street.cycle * 0.45, "bikes"))
    if street.tram:
        lines.append(("tram", 1.75, "trams"))
    for name, d, what in lines:
        lanes += [_main_lane(street, name, d, forward, what) for forward in (True, False)]
    for j in street.junctions:
        for k in range(2 if j.half > 6 else 1):
            lanes += [
                _cross_lane(street, j, 1.65 + 3.3 * k, up, f"cross{k}") for up in (True, False)
            ]
    return lanes


def _main_lane(street: Street, name: str, d: float, forward: bool, what: str) -> Lane:
    sign = 1.0 if forward else -1.0

    def place(p: float) -> Place:
        x, y, heading = street.curve.at(sign * p, -sign * d)
        return float(x), float(y), float(heading) + (0.0 if forward else np.pi)

    stops = tuple((sign * j.s - j.half - 4.6, j, True) for j in street.junctions)
    boxes = tuple(
        (sign * j.s - j.half - 1.0, sign * j.s + j.half + 1.0, j) for j in street.junctions
    )
    return Lane(f"{name}{'+' if forward else '-'}", place, stops, boxes, what)


def _cross_lane(street: Street, j: Junction, off: float, up: bool, name: str) -> Lane:
    sign = 1.0 if up else -1.0
    x0, y0, heading = (float(v) for v in street.curve.at(j.s, 0.0))
    along = np.array([np.cos(heading), np.sin(heading)])
    normal = np.array([-along[1], along[0]])

    def place(p: float) -> Place:
        # travelling along +normal keeps to the right, which is +s
        at = np.array([x0, y0]) + along * off * sign + normal * sign * p
        return float(at[0]), float(at[1]), heading + sign * np.pi / 2

    stop = -street.kerb - 4.6
    return Lane(
        f"{name}{'+' if up else '-'}@{j.s:.0f}",
        place,
        ((stop, j, False),),
        ((-street.kerb - 1.0, street.kerb + 1.0, j),),
    )
