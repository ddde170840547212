"""Every number that the geometric model decides by: one group a step, in the order of the steps.

Metres, degrees, pixels and shares of 1 as each setting says. The defaults are tuned on scans of
KITTI, 64 beams, and hold for finer and coarser ones; `config/geometric.yaml` lists them all.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import fields, is_dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from pydantic import Field

from amodal_core.settings import MINIMUM_RANGE, settings_type


def _number(default: Any, least: float, most: float, description: str) -> Any:
    """A setting with its range."""
    return Field(default, ge=least, le=most, description=description)


def _share(default: float, description: str) -> Any:
    return _number(default, 0, 1, description)


def _below(group: Any, low: str, high: str) -> None:
    if getattr(group, low) > getattr(group, high):
        raise ValueError(f"{low} must not be above {high}")


@settings_type
class RangeImageConfig:
    """How a scan is laid out by laser and azimuth."""

    fewest_points: int = _number(100, 10, 10**6, "points below which their order tells no lasers")
    turn_share: float = _share(0.98, "share of steps one way from which a scan is laser by laser")
    turn_jitter: float = _number(0.03, 0, 1, "radians back that are jitter, not the next laser")
    fewest_lasers: int = _number(8, 1, 1024, "lasers; fewer rows are no scanner's")
    most_lasers: int = _number(256, 8, 4096, "lasers; more rows are no scanner's")
    finest_columns: int = _number(1800, 90, 20000, "columns at most, what a 10 Hz turn fills")
    coarsest_columns: int = _number(180, 16, 20000, "columns at least")
    fill: float = _number(0.9, 0.1, 1, "columns a step of the scanner; below 1, no gaps of jitter")
    step_rows: int = _number(8, 1, 256, "fullest rows whose steps tell the scanner's")
    least_step: float = _number(3e-4, 0, 0.1, "radians; less is rounding in one place, no step")
    fewest_steps: int = _number(50, 1, 10**6, "steps below which the finest columns are taken")
    elevation_bin: float = _number(0.02, 0.001, 1, "degrees of a bin in the search for lasers")
    elevation_blur: float = _number(2.0, 0.1, 50, "bins over which a laser's returns spread")
    least_density: float = _number(0.1, 0, 100, "returns a bin of a laser's peak")
    laser_returns: int = _number(20, 1, 10**6, "returns a laser; fewer gather by chance")
    valley: float = _share(0.35, "density between lasers, over theirs, below which they are apart")
    apart: float = _share(0.8, "share of lasers that must be apart")
    even_rows: int = _number(64, 2, 4096, "rows of equal steps where no lasers are told")

    def __post_init__(self) -> None:
        _below(self, "coarsest_columns", "finest_columns")
        _below(self, "fewest_lasers", "most_lasers")


@settings_type
class GroundConfig:
    """What is ground, and how high it is around the vehicle."""

    nearest: float = _number(4.0, 0, 50, "metres; nearer is the vehicle itself")
    farthest: float = _number(25.0, 1, 100, "metres; farther the road's slope matters")
    lowest: float = _number(-4.0, -20, 0, "metres in the LiDAR's frame, the lowest road looked for")
    highest: float = _number(0.0, -20, 20, "metres in the LiDAR's frame, the highest one")
    bin: float = _number(0.1, 0.01, 1, "metres of a bin in which most returns are the road's")
    sensor_height: float = _number(1.73, 0, 20, "metres above a road of which nothing returns")
    plane_reaches: tuple[float, float, float] = Field(
        (0.4, 0.25, 0.15), description="metres off the last plane that the next fit uses, in turn"
    )
    plane_range: float = _number(30.0, 5, 200, "metres around the sensor, of the plane's fit")
    plane_returns: int = _number(50, 3, 10**6, "returns that a plane needs")
    off_plane: float = _number(0.2, 0, 2, "metres off the plane of a road, under the sensor")
    off_plane_slope: float = _number(0.02, 0, 1, "metres a metre of distance that are added to it")
    step_back: float = _number(0.3, 0, 5, "metres nearer than the last ground: an object's foot")
    step: float = _number(0.04, 0, 1, "metres up or down from the last ground: a kerb")
    step_slope: float = _number(0.1, 0, 1, "metres a metre between the two that are added to it")
    above: float = _number(0.05, 0, 1, "metres above the plane up to which a break is still ground")
    below: float = _number(0.4, 0, 5, "metres below the plane down to which it is")
    cell: float = _number(2.0, 0.1, 20, "metres, a cell of the map of heights")
    reach: float = _number(100.0, 10, 500, "metres, the map ends here")
    cell_returns: int = _number(2, 1, 1000, "returns of ground that make a cell's height")
    cell_weight: int = _number(20, 1, 10**6, "returns from which on a cell counts no more")
    rings: int = _number(4, 1, 20, "cells around an empty one, its own ring included, that fill it")
    ring_weight: int = _number(3, 1, 10**6, "returns that fill an empty cell")

    def __post_init__(self) -> None:
        _below(self, "nearest", "farthest")
        _below(self, "lowest", "highest")
        if not 2 <= int(2 * self.reach / self.cell) <= 1000:
            raise ValueError(f"a map of {2 * self.reach} m has 2 to 1000 cells of {self.cell} m")


@settings_type
class ClusterConfig:
    """Which returns belong to one thing."""

    lowest: float = _number(0.25, 0, 5, "metres above the ground, from here on objects are")
    highest: float = _number(4.2, 0.5, 20, "metres above the ground, up to here objects are")
    min_points: int = _number(12, 1, 10**6, "clusters of fewer returns make no object")
    min_inside: int = _number(3, 0, 10**6, "nor do those with fewer in the image")
    margin: float = _number(10.0, 0, 180, "degrees beside the image, in which things are joined")
    angle: float = _number(10.0, 0, 90, "degrees to the beam above which a line is one surface's")
    beside: float = _number(0.5, 0, 1, "share of its sine that does for the next cell in a row")
    glance: float = _number(0.8, 0, 30, "degrees of dark paint and glass, which return nothing")
    rows: int = _number(3, 1, 32, "lasers that a surface is followed up and down without a return")
    bridge: float = _number(1.0, 0, 20, "metres that a post or a person may hide of a surface")
    same_range: float = _number(0.25, 0, 5, "metres; across a bridge ranges differ by less")
    in_front: float = _number(0.5, 0, 20, "metres; what stands in front is nearer by more")
    joined: float = _number(0.25, 0, 5, "metres between returns that always belong together")
    joined_slope: float = _number(0.008, 0, 1, "metres a metre of distance that are added to it")
    apart: float = _number(0.6, 0, 20, "metres between returns that never belong together")
    apart_slope: float = _number(0.02, 0, 1, "metres a metre of distance that are added to it")
    strangers: int = _number(2, 1, 32, "cells of other things at which the search ends")
    same_cell: float = _number(1.0, 0, 20, "metres, along x and y in sum, to its cell's nearest")

    def __post_init__(self) -> None:
        _below(self, "lowest", "highest")


@settings_type
class ContextConfig:
    """What the scan says about a cluster's ends and surface."""

    above_horizon: float = _number(1.0, -90, 90, "degrees; a first row below is not the scanner's")
    look: int = _number(5, 1, 100, "cells beside a row's end in which its neighbour is looked for")
    nearer: float = _share(0.95, "share of a return's range below which a neighbour hides it")
    touching: float = _number(1.0, 0, 20, "metres; at the same range others differ by less")
    bare: int = _number(3, 1, 100, "columns without any return that end the field of view")
    straight: float = _number(0.05, 0, 1, "metres of bodywork off its neighbours' line, quiet scan")
    straight_most: float = _number(2.0, 1, 10, "times that in a noisy one")
    noise_nearest: float = _number(3.0, 0, 50, "metres from which on the road tells the noise")
    noise_farthest: float = _number(12.0, 1, 100, "metres up to which it does")
    noise_bin: float = _number(0.001, 1e-4, 0.1, "metres of a bin of deviations")
    noise_returns: int = _number(500, 1, 10**6, "returns of road that tell the noise")
    noise_share: float = _share(0.25, "share of deviations that is measured")
    noise_quantile: float = _number(0.32, 0.01, 5, "standard deviations that hold that share")
    noise_kept: float = _number(1.85, 0.1, 10, "standard deviations that bodywork may stray by")
    slant: float = _number(0.25, 0, 2, "metres a metre of a slanting side's steps that are added")
    slant_range: float = _number(20.0, 1, 200, "metres beyond which they count less")
    assumed: float = _number(3.0, 0, 100, "returns of bodywork that are assumed beforehand")
    assumed_smooth: float = _number(2.1, 0, 100, "of which this many are smooth")


@settings_type
class RectangleConfig:
    """How a rectangle is laid around a footprint."""

    directions: int = _number(1800, 36, 36000, "directions a turn; of each one return faces us")
    on_edge: float = _number(0.08, 0.001, 1, "metres of noise: closer returns are on an edge")
    edge_starts: int = _number(40, 2, 1000, "returns between which lines are tried")
    edge_shortest: float = _number(0.4, 0, 10, "metres between the two of a line")
    edge_returns: int = _number(5, 2, 10**6, "returns on a line")
    edge_length: float = _number(1.0, 0, 20, "metres of a face that gives the heading")
    edge_share: float = _share(0.5, "share of the facing returns on it")
    step: float = _number(1.5, 0.1, 30, "degrees between the headings that are tried otherwise")
    forward: float = _number(7.0, 0.1, 90, "degrees that traffic strays from the sensor's heading")
    forward_bias: float = _number(0.25, 0, 10, "share by which such headings are preferred")
    sparse_bias: float = _number(0.35, 0, 10, "share at most that is added for few returns")
    sparse_returns: float = _number(8.0, 0, 1000, "over the facing returns: the share added")
    error_returns: int = _number(1000, 1, 10**6, "returns of which the median error is measured")


@settings_type
class ShapeConfig:
    """What every object's returns are asked first."""

    enough: int = _number(3000, 10, 10**6, "returns that tell a shape; more are thinned")
    top_quantile: float = _share(0.99, "share of returns below an object's top")
    lowest_top: float = _number(0.5, 0, 5, "metres; kerbs, cones and plants end lower")
    widest: float = _number(3.5, 0.5, 10, "metres across")
    cut: float = _share(0.3, "share of columns up to the scan's end: the top is above it")
    foliage: float = _share(0.52, "smooth returns: bodywork has 0.7 and more, leaves 0.2 to 0.45")
    hemmed_in: float = _share(0.6, "share of rows ended by nearer things on both sides: a wall")
    stands: float = _number(0.9, 0, 5, "metres above the ground: the lowest return is below")
    flat: float = _number(0.15, 0, 1, "metres; bumpers, lamps and wheels make faces deeper")
    grounded: float = _number(0.45, 0, 5, "metres above the ground, to which a side comes down")
    error: float = _number(0.15, 0, 5, "metres off the rectangle's edges, the median allowed")
    error_slope: float = _number(0.12, 0, 5, "metres a metre of width that are added to it")
    error_smooth: float = _number(3.0, 0, 20, "times what is smoother than foliage: allowed more")
    other_length: float = _number(3.0, 0, 20, "metres; longer things of no class are no objects")
    other_least: float = _number(0.3, 0, 5, "metres that things of no class measure at least")


@settings_type
class PersonConfig:
    """What tells people from poles, riders from both."""

    length: float = _number(1.2, 0.1, 5, "metres; longer is no pedestrian")
    width: float = _number(1.0, 0.1, 5, "metres; wider is none")
    least_width: float = _number(0.35, 0, 2, "metres; narrower is a pole")
    least_top: float = _number(1.2, 0.1, 3, "metres; children are taller")
    most_top: float = _number(2.05, 0.5, 4, "metres; people are smaller")
    smooth: float = _share(0.4, "smooth returns of clothes")
    smooth_returns: int = _number(60, 0, 10**6, "returns that tell clothes from leaves")
    rider_length: float = _number(2.2, 0.1, 5, "metres; longer is no cyclist")
    rider_width: float = _number(1.0, 0.1, 5, "metres; wider is none")
    rider_least_top: float = _number(1.35, 0.1, 3, "metres; riders are taller")
    rider_most_top: float = _number(2.05, 0.5, 4, "metres; riders are smaller")
    rider_upper: float = _share(0.7, "share of the height above which only the rider is")
    rider_upper_width: float = _number(0.9, 0.1, 5, "metres of a rider's returns there")


@settings_type
class TruckConfig:
    """What tells trucks from cars, and from walls."""

    cut_top: float = _number(1.7, 0.5, 5, "metres; what reaches above the scan from here is no car")
    cut_vote: float = _number(0.5, -1, 1, "its vote")
    top: float = _number(2.0, 0.5, 5, "metres high at which votes change from car to truck")
    top_spread: float = _number(0.2, 0.01, 5, "metres over which they do")
    length: float = _number(5.2, 1, 20, "metres long from which on length votes")
    length_spread: float = _number(0.5, 0.01, 5, "metres over which it does")
    width: float = _number(2.1, 0.5, 5, "metres wide from which on width votes")
    width_spread: float = _number(0.2, 0.01, 5, "metres over which it does")
    least_top: float = _number(1.7, 0.5, 5, "metres; lower is no truck")
    least_length: float = _number(1.5, 0.1, 10, "metres; shorter shows none")
    most_width: float = _number(3.2, 1, 10, "metres; wider is none")
    trailer_length: float = _number(5.0, 1, 20, "metres of a trailer's side")
    trailer_smooth: float = _share(0.9, "its smooth returns")
    trailer_floor: float = _number(1.3, 0, 5, "metres above the ground, the highest of its floors")
    piece_hidden: float = _share(0.5, "share of rows ended by nearer things: a piece of a wall")
    piece_length: float = _number(2.2, 0, 10, "metres; shorter is such a piece")
    piece_width: float = _number(0.5, 0, 10, "metres; narrower is one")
    panel_length: float = _number(3.0, 0, 20, "metres; longer, flat and at the ground is a wall")
    panel_grounded: float = _share(0.1, "share of its side at the ground")
    over_hidden: float = _number(1.0, 0, 2, "both sides' shares: it shows over nearer things")
    over_grounded: float = _share(0.1, "share of the side at the ground, below which it may")
    wall_grounded: float = _share(0.85, "trucks stand on wheels (0.4 to 0.8), walls do not")
    free_ends: float = _number(0.4, 0, 4, "both sides' shares, below which it stands free")
    free_touching: float = _number(2.0, 0, 10, "times that touching others counts in them")
    free_width: float = _number(2.7, 1, 10, "metres wide at most where it stands free")
    free_least_width: float = _number(1.2, 0, 10, "metres wide at least, where a side shows too")
    free_length: float = _number(9.0, 1, 30, "metres long at most then")
    rear_least: float = _number(1.6, 0, 10, "metres across of a rear alone, at least")
    rear_most: float = _number(3.0, 0, 10, "metres across of a rear alone, at most")


@settings_type
class CarConfig:
    """What tells cars from boards, and from walls beyond gaps."""

    least_top: float = _number(0.8, 0.1, 3, "metres; lower is no car")
    least_length: float = _number(1.2, 0.1, 5, "metres; shorter shows none")
    most_length: float = _number(5.8, 1, 20, "metres; longer is none")
    most_width: float = _number(2.4, 0.5, 10, "metres; wider is none")
    board_length: float = _number(2.4, 0, 20, "metres; longer and flat is a board")
    board_returns: int = _number(40, 0, 10**6, "returns that tell how flat it is")
    beyond_flat: float = _number(2.0, 0, 10, "times flat: what shows in a gap is thinner")
    beyond_top: float = _number(1.75, 0.5, 5, "metres; higher is, too, a wall beyond a gap")
    aloft: float = _number(1.0, 0, 5, "metres above the ground with nothing below: no vehicle")
    aloft_hidden: float = _share(0.4, "share of rows ended by nearer things that may hide the rest")


@settings_type
class GrowthConfig:
    """How a footprint is grown to its class's size."""

    end_width: float = _number(1.15, 0.5, 5, "times a class's widest: shorter sides are ends")
    alike: float = _share(0.6, "share of the longer side from which both may be the length")
    hidden: float = _share(0.45, "share of rows ended by nearer things: the size is not all seen")
    end_on: float = _number(8.0, 0, 45, "degrees off the sensor's axis: no length shows")
    van_hidden: float = _share(0.3, "share of hidden rows below which a whole width shows")
    van_width: float = _number(2.1, 1, 5, "metres; narrower trucks measure what vans do")
    mirrors: float = _number(0.015, 0, 0.49, "share of returns on each side that mirrors may have")
    beyond: float = _share(0.5, "share of rows that the field of view ends")


@settings_type
class Size:
    """What a class measures."""

    length: tuple[float, float, float] = Field(description="metres: usual, least, greatest")
    width: tuple[float, float, float] = Field(description="metres: usual, least, greatest")
    height: tuple[float, float, float] = Field(description="metres: usual, least, greatest")

    def __post_init__(self) -> None:
        for usual, least, most in (self.length, self.width, self.height):
            if not 0 < least <= usual <= most:
                raise ValueError(f"{usual, least, most} are no usual, least and greatest metres")


@settings_type
class SizesConfig:
    """Means and spreads of KITTI's labels of vehicles; people from anthropometric tables."""

    car: Size = Size((4.2, 3.3, 5.4), (1.75, 1.5, 2.1), (1.52, 1.3, 1.95))
    truck: Size = Size((7.0, 4.6, 18.0), (2.3, 1.9, 3.2), (3.3, 1.95, 4.2))
    van: Size = Size((4.9, 4.2, 6.0), (1.95, 1.7, 2.2), (2.05, 1.9, 2.8))
    pedestrian: Size = Size((0.7, 0.4, 1.2), (0.6, 0.35, 1.0), (1.72, 1.1, 2.05))
    cyclist: Size = Size((1.75, 1.4, 2.2), (0.6, 0.4, 0.95), (1.72, 1.4, 2.05))


@settings_type
class ScoreConfig:
    """How sure an object is, 0.01 to 0.99."""

    returns: float = _number(60.0, 1, 10**6, "returns that bring it to 63 % of what they can")
    unproved: float = _share(0.25, "what is left of it with hardly any return")
    error: float = _number(0.7, 0, 10, "how fast it falls with the error over the allowed one")
    smooth: float = _number(0.7, 0.01, 1, "smooth returns below which a vehicle's falls")
    other: float = _share(0.6, "times, for things of no class")


@settings_type
class AssemblyConfig:
    """Which clusters are one object."""

    inside: float = _share(0.6, "share of a cluster's returns inside a vehicle: its own")
    margin: float = _number(0.2, 0, 2, "metres by which the vehicle is grown for that")
    column: float = _number(20.0, 1, 100, "metres high; seats and roofs are inside at any height")
    coupling: float = _number(1.3, 0, 10, "metres from tractor to trailer; a queue keeps more")
    coupled_width: float = _number(1.25, 1, 5, "times the narrower's width: the joined one's most")
    coupled_least: float = _number(2.4, 0.5, 5, "metres that the narrower is taken for at least")
    thinned: int = _number(300, 10, 10**6, "returns of each between which the gap is measured")
    overlap: float = _share(0.4, "share of the smaller footprint from which two are one")


@settings_type
class TopEdgeConfig:
    """Where the image is asked how high something is that is taller than the scan."""

    longest: float = _number(9.0, 1, 50, "metres; longer are tractors with trailers, not level")
    other_highest: float = _number(2.5, 0.5, 10, "metres to look up to for things of no class")
    columns: int = _number(8, 1, 10**4, "columns of returns that an edge needs")
    near_top: float = _number(0.4, 0, 5, "metres below the top; lower columns are a bonnet's")
    below: float = _number(0.1, 0, 5, "metres below the highest returns at which the search begins")
    step: float = _number(0.05, 0.005, 1, "metres between the heights tried")
    reach: float = _number(0.06, 0, 1, "metres above and below the edge that are compared")
    reach_least: float = _number(2.0, 1, 50, "pixels at least")
    reach_most: float = _number(6.0, 1, 50, "pixels at most")
    inside: float = _share(0.6, "share of the columns that must lie in the image")
    contrast: float = _number(14.0, 0, 255, "grey levels, mean over the columns; weaker is texture")
    fade: float = _number(1.0, 0.01, 100, "metres up over which an edge is believed less")


@settings_type
class MasksConfig:
    """What objects cover in the image."""

    min_pixels: int = _number(60, 0, 10**8, "pixels; objects of smaller amodal masks are dropped")
    directions: int = _number(512, 16, 16384, "lines of sight along which objects are ordered")
    before: float = _number(0.5, 0, 20, "metres that a return of no object is nearer to hide one")
    clutter: int = _number(3, 1, 10**4, "such returns that hide anything")
    splat: tuple[int, int] = Field(
        (5, 9),
        description="pixels across and down that such a return stands for, to its neighbours",
    )
    unhidden: float = _share(0.4, "share of hidden rows up to which returns are an outline")
    envelope_lasers: int = _number(4, 2, 256, "lasers that tell it")
    hull: int = _number(3, 1, 10**6, "returns whose hull is added to the silhouette")


@settings_type
class Shape:
    """Slices from the bottom up, each a rounded rectangle: height, half length, half width."""

    corner: float = Field(ge=0, le=0.5, description="share cut off a slice's corners")
    slices: tuple[tuple[float, float, float], ...] = Field(
        min_length=2, description="height, half length and half width, shares of the box"
    )


_CAR = (
    (0.00, 0.40, 0.46),
    (0.14, 0.48, 0.49),
    (0.32, 0.50, 0.50),
    (0.56, 0.48, 0.50),
    (0.68, 0.43, 0.46),
    (0.92, 0.31, 0.38),
    (1.00, 0.25, 0.30),
)
_TRUCK = ((0.0, 0.44, 0.46), (0.1, 0.49, 0.5), (0.3, 0.5, 0.5), (0.97, 0.5, 0.5), (1.0, 0.49, 0.48))
_PEDESTRIAN = (
    (0.00, 0.42, 0.34),
    (0.08, 0.42, 0.34),
    (0.45, 0.40, 0.42),
    (0.55, 0.44, 0.46),
    (0.78, 0.40, 0.46),
    (0.84, 0.24, 0.22),
    (0.94, 0.22, 0.20),
    (1.00, 0.12, 0.12),
)
_CYCLIST = (
    (0.00, 0.36, 0.10),
    (0.18, 0.50, 0.16),
    (0.36, 0.44, 0.30),
    (0.52, 0.30, 0.42),
    (0.80, 0.24, 0.48),
    (0.87, 0.12, 0.24),
    (1.00, 0.09, 0.16),
)
_OTHER = ((0.0, 0.48, 0.48), (0.05, 0.5, 0.5), (0.95, 0.5, 0.5), (1.0, 0.48, 0.48))


@settings_type
class ShapesConfig:
    """Silhouettes, in shares of the box's height, length and width.

    Cars are symmetric front to back, since a scan rarely tells which end is which.
    """

    car: Shape = Shape(0.12, _CAR)
    truck: Shape = Shape(0.02, _TRUCK)
    pedestrian: Shape = Shape(0.3, _PEDESTRIAN)
    cyclist: Shape = Shape(0.2, _CYCLIST)
    other: Shape = Shape(0.05, _OTHER)


@settings_type
class GeometricConfig:
    """Settings of the model `geometric`, one group a step."""

    min_score: float = _share(0.25, "objects that score less are dropped")
    minimum_range: float = _number(
        MINIMUM_RANGE, 0, 50, "metres; nearer returns of scans that no reader has cleaned"
    )
    range_image: RangeImageConfig = RangeImageConfig()
    ground: GroundConfig = GroundConfig()
    cluster: ClusterConfig = ClusterConfig()
    context: ContextConfig = ContextConfig()
    rectangle: RectangleConfig = RectangleConfig()
    shape: ShapeConfig = ShapeConfig()
    person: PersonConfig = PersonConfig()
    truck: TruckConfig = TruckConfig()
    car: CarConfig = CarConfig()
    growth: GrowthConfig = GrowthConfig()
    sizes: SizesConfig = SizesConfig()
    score: ScoreConfig = ScoreConfig()
    assembly: AssemblyConfig = AssemblyConfig()
    top_edge: TopEdgeConfig = TopEdgeConfig()
    masks: MasksConfig = MasksConfig()
    shapes: ShapesConfig = ShapesConfig()

    @cached_property
    def objects(self) -> np.ndarray:
        """(1,) the groups that say what an object is, under their names.

        Compiled kernels take a record in a tenth of the time of as many values.
        """
        groups = ("rectangle", "shape", "person", "truck", "car", "growth", "sizes", "score")
        return _record([(name, getattr(self, name)) for name in groups])


def _record(values: list[tuple[str, Any]]) -> np.ndarray:
    """(1,) of a type with these fields: numbers, tuples of them, settings of them."""
    arrays = [
        (name, _record([(f.name, getattr(v, f.name)) for f in fields(v)]))
        if is_dataclass(v)
        else (name, np.array([v]))
        for name, v in values
    ]
    out = np.zeros(1, [(name, array.dtype, array.shape[1:]) for name, array in arrays])
    for name, array in arrays:
        out[name] = array
    return out


def _values_of(kind: type) -> Any:
    name = kind.__name__.removesuffix("Config") + "Values"
    return namedtuple(name, [f.name for f in fields(kind)], module=__name__)


# What compiled kernels take of a group; compiled code is cached under these names.
GroundValues = _values_of(GroundConfig)
ClusterValues = _values_of(ClusterConfig)
ContextValues = _values_of(ContextConfig)


@lru_cache(maxsize=64)
def kernel_values(group: Any) -> Any:
    """A group's values as a named tuple, which compiled kernels take."""
    kind = globals()[type(group).__name__.removesuffix("Config") + "Values"]
    return kind(*(getattr(group, f.name) for f in fields(group)))


DEFAULTS = GeometricConfig()
