"""Which class a footprint's returns show: person, rider, truck, car, something else, or nothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from amodal_core.geometry.config import GeometricConfig, ShapeConfig
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.footprints import Footprint, grounded
from amodal_core.geometry.lshape import Rectangle
from amodal_core.geometry.scalars import within

CLASSES = ("car", "truck", "pedestrian", "cyclist", "other")
CAR, TRUCK, PEDESTRIAN, CYCLIST, OTHER = range(len(CLASSES))
NOTHING = -1
VEHICLES = ("car", "truck")


@njit(cache=True)
def classify(f: Footprint, xy: np.ndarray, heights: np.ndarray, v: GeometricConfig) -> int:
    """An index into CLASSES, or NOTHING where the footprint is no object's.

    Args:
        f: what is measured.
        xy: (N, 2) float32 metres, its returns.
        heights: (N,) float32 metres above the ground.
        v: what is decided by.
    """
    length, width = f.rectangle.length, f.rectangle.width
    if length > v.sizes.truck.length[2] or width > v.shape.widest:
        return NOTHING
    # What is narrower than any vehicle.
    if length < v.person.length and width < v.person.width:
        return _narrow(f, v)
    if _is_rider(f, xy, heights, v):
        return NOTHING if _hemmed_in(f.context, v.shape) else CYCLIST
    # Vehicles are smooth and rectangular.
    foliage = f.context.smooth < v.shape.foliage
    if foliage or f.rectangle.error > allowed_error(f.rectangle, f.context, v.shape):
        return NOTHING
    if _truck_votes(f, v) > 0:
        return TRUCK if _is_truck(f, xy, heights, v) else NOTHING
    sized = v.car.least_length < length < v.car.most_length and width < v.car.most_width
    if sized and f.top > v.car.least_top:
        return CAR if _is_car(f, v) else NOTHING
    return OTHER if length < v.shape.other_length else NOTHING


@njit(cache=True)
def allowed_error(r: Rectangle, context: ClusterContext, shape: ShapeConfig) -> float:
    """Metres off the rectangle's edges: foliage is, and a smooth body's inside behind its glass."""
    smoother = max(context.smooth - shape.foliage, 0.0)
    return (shape.error + shape.error_slope * r.width) * (1.0 + shape.error_smooth * smoother)


@njit(cache=True)
def hidden(context: ClusterContext) -> float:
    """Share of rows that something nearer ends, of the side with more of them."""
    return max(context.hidden_left, context.hidden_right)


@njit(cache=True)
def _hemmed_in(context: ClusterContext, shape: ShapeConfig) -> bool:
    """It shows only between nearer things, on both sides: a wall, a window."""
    return min(context.hidden_left, context.hidden_right) > shape.hemmed_in


@njit(cache=True)
def _narrow(f: Footprint, v: GeometricConfig) -> int:
    """A person, who is wider than a pole; or something low."""
    person = v.person
    if _hemmed_in(f.context, v.shape):
        return NOTHING
    # Clothes are less smooth than bodywork, and a few returns cannot tell them from leaves.
    if f.kept > person.smooth_returns and f.context.smooth < person.smooth:
        return NOTHING
    tall = person.least_top <= f.top <= person.most_top and not f.cut
    if tall and f.rectangle.length > person.least_width and f.lowest < v.shape.stands:
        return PEDESTRIAN
    low = f.top < person.least_top and f.context.smooth >= v.shape.foliage
    return OTHER if low else NOTHING


@njit(cache=True)
def _is_rider(f: Footprint, xy: np.ndarray, heights: np.ndarray, v: GeometricConfig) -> bool:
    """Long below, where the cycle is, and narrow above."""
    person, r = v.person, f.rectangle
    if r.length >= person.rider_length or r.width >= person.rider_width or f.cut:
        return False
    if not person.rider_least_top <= f.top <= person.rider_most_top:
        return False
    upper = np.float32(person.rider_upper * f.top)
    left = low = np.float32(np.inf)
    right = high = np.float32(-np.inf)
    for i in range(len(xy)):
        if heights[i] > upper:
            x, y = xy[i, 0], xy[i, 1]
            left, right, low, high = min(left, x), max(right, x), min(low, y), max(high, y)
    return left <= right and np.hypot(right - left, high - low) < person.rider_upper_width


@njit(cache=True)
def _is_truck(f: Footprint, xy: np.ndarray, heights: np.ndarray, v: GeometricConfig) -> bool:
    """Of what is large enough: no wall, fence or hoarding."""
    truck, shape, context = v.truck, v.shape, f.context
    length, width = f.rectangle.length, f.rectangle.width
    # A trailer's floor is higher than a car's, and its side longer and smoother.
    trailer = length > truck.trailer_length and context.smooth > truck.trailer_smooth
    if f.lowest >= (truck.trailer_floor if trailer else shape.stands):
        return False
    if f.top <= truck.least_top or length <= truck.least_length or width >= truck.most_width:
        return False
    # A flat piece between a nearer thing and the scan's upper end is more often a wall.
    small = length < truck.piece_length or width < truck.piece_width
    piece = f.cut and hidden(context) > truck.piece_hidden and small
    if piece or _hemmed_in(context, shape):
        return False
    # A long side without depth is a trailer's above the ground, and a wall's at the ground.
    flat = width < shape.flat and length > truck.panel_length
    free = _stands_free(f, v)
    if free and not flat:
        return True
    down = grounded(xy, heights, v.rectangle.directions, shape.grounded)
    if flat and down > truck.panel_grounded:
        return False
    # Nor is what shows only over the top of nearer things.
    both = context.hidden_left + context.hidden_right
    over = f.cut and down < truck.over_grounded and both > truck.over_hidden
    return free or (down < truck.wall_grounded and not over)


@njit(cache=True)
def _stands_free(f: Footprint, v: GeometricConfig) -> bool:
    """Whether it is as wide and long as a vehicle, and both its ends are its own.

    A wall goes on: behind what hides its end, or round its corner.
    """
    truck, context = v.truck, f.context
    length, width = f.rectangle.length, f.rectangle.width
    ends = context.hidden_left + context.hidden_right + truck.free_touching * context.touching
    rear = width < truck.free_width and truck.rear_least < length < truck.rear_most
    box = truck.free_least_width < width < truck.free_width and length < truck.free_length
    return ends < truck.free_ends and (rear or box)


@njit(cache=True)
def _truck_votes(f: Footprint, v: GeometricConfig) -> float:
    """Above 0 for a truck rather than a car; three sizes vote, so that none alone makes it flicker.

    Only what is seen counts: a short or narrow view is no evidence of a car.
    """
    t, r = v.truck, f.rectangle
    # What reaches above the scan higher than most cars' roofs is no car.
    height = within((f.top - t.top) / t.top_spread, -1.0, 1.0)
    if f.cut and f.top > t.cut_top:
        height = t.cut_vote
    longer = within((r.length - t.length) / t.length_spread, 0.0, 1.0)
    wider = within((r.width - t.width) / t.width_spread, 0.0, 1.0)
    return height + longer + wider


@njit(cache=True)
def _is_car(f: Footprint, v: GeometricConfig) -> bool:
    """Of what is of a car's size; cars' sides are rounded."""
    car, flat, length, width = v.car, v.shape.flat, f.rectangle.length, f.rectangle.width
    # What is as flat as a board is one, or a wall beyond a gap.
    board = width < flat and length > car.board_length and f.kept > car.board_returns
    large = length > car.board_length or f.top > car.beyond_top
    beyond = _hemmed_in(f.context, v.shape) and width < car.beyond_flat * flat and large
    aloft = f.lowest > car.aloft and hidden(f.context) < car.aloft_hidden
    return not (board or beyond or aloft)
