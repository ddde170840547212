"""Which class a footprint's returns show: person, rider, truck, car, something else, or nothing."""

from __future__ import annotations

import numpy as np

from amodal_core.geometry.config import ShapeConfig
from amodal_core.geometry.context import ClusterContext
from amodal_core.geometry.footprints import Footprint
from amodal_core.geometry.lshape import Rectangle
from amodal_core.geometry.scalars import within

CLASSES = ("car", "truck", "pedestrian", "cyclist", "other")
VEHICLES = ("car", "truck")


def classify(f: Footprint) -> str | None:
    """One of CLASSES, or None where the footprint is no object's."""
    shape, person, sizes = f.config.shape, f.config.person, f.config.sizes
    if f.length > sizes.truck.length[2] or f.width > shape.widest:
        return None
    # What is narrower than any vehicle.
    if f.length < person.length and f.width < person.width:
        return _narrow(f)
    if _is_rider(f):
        return None if f.hemmed_in else "cyclist"
    # Vehicles are smooth and rectangular.
    if f.foliage or f.rectangle.error > allowed_error(f.rectangle, f.context, shape):
        return None
    if _truck_votes(f) > 0:
        return "truck" if _is_truck(f) else None
    car = f.config.car
    sized = car.least_length < f.length < car.most_length and f.width < car.most_width
    if sized and f.top > car.least_top:
        return "car" if _is_car(f) else None
    return "other" if f.length < shape.other_length else None


def allowed_error(r: Rectangle, context: ClusterContext, config: ShapeConfig) -> float:
    """Metres off the rectangle's edges: foliage is, and a smooth body's inside behind its glass."""
    smoother = max(context.smooth - config.foliage, 0.0)
    return (config.error + config.error_slope * r.width) * (1.0 + config.error_smooth * smoother)


def _narrow(f: Footprint) -> str | None:
    """A person, who is wider than a pole; or something low."""
    person = f.config.person
    if f.hemmed_in:
        return None
    # Clothes are less smooth than bodywork, and a few returns cannot tell them from leaves.
    if len(f.xy) > person.smooth_returns and f.context.smooth < person.smooth:
        return None
    tall = person.least_top <= f.top <= person.most_top and not f.cut
    if tall and f.length > person.least_width and f.lowest < f.config.shape.stands:
        return "pedestrian"
    return "other" if f.top < person.least_top and not f.foliage else None


def _is_rider(f: Footprint) -> bool:
    """Long below, where the cycle is, and narrow above."""
    person = f.config.person
    if f.length >= person.rider_length or f.width >= person.rider_width or f.cut:
        return False
    if not person.rider_least_top <= f.top <= person.rider_most_top:
        return False
    upper = f.xy[f.heights > person.rider_upper * f.top]
    if not len(upper):
        return False
    return float(np.hypot(*(upper.max(axis=0) - upper.min(axis=0)))) < person.rider_upper_width


def _is_truck(f: Footprint) -> bool:
    """Of what is large enough: no wall, fence or hoarding."""
    truck, shape = f.config.truck, f.config.shape
    # A trailer's floor is higher than a car's, and its side longer and smoother.
    trailer = f.length > truck.trailer_length and f.context.smooth > truck.trailer_smooth
    if f.lowest >= (truck.trailer_floor if trailer else shape.stands):
        return False
    if f.top <= truck.least_top or f.length <= truck.least_length or f.width >= truck.most_width:
        return False
    # A long side without depth is a trailer's above the ground, and a wall's at the ground.
    flat = f.width < shape.flat and f.length > truck.panel_length
    if f.hemmed_in or (flat and f.grounded > truck.panel_grounded):
        return False
    # A flat piece between a nearer thing and the scan's upper end is more often a wall.
    small = f.length < truck.piece_length or f.width < truck.piece_width
    if f.cut and f.hidden > truck.piece_hidden and small:
        return False
    if _stands_free(f):
        return True
    # Nor is what shows only over the top of nearer things.
    both = f.context.hidden_left + f.context.hidden_right
    over = f.cut and f.grounded < truck.over_grounded and both > truck.over_hidden
    return f.grounded < truck.wall_grounded and not over


def _stands_free(f: Footprint) -> bool:
    """Whether it is as wide and long as a vehicle, and both its ends are its own.

    A wall goes on: behind what hides its end, or round its corner.
    """
    truck, context = f.config.truck, f.context
    ends = context.hidden_left + context.hidden_right + truck.free_touching * context.touching
    rear = f.width < truck.free_width and truck.rear_least < f.length < truck.rear_most
    box = truck.free_least_width < f.width < truck.free_width and f.length < truck.free_length
    return ends < truck.free_ends and (rear or box)


def _truck_votes(f: Footprint) -> float:
    """Above 0 for a truck rather than a car; three sizes vote, so that none alone makes it flicker.

    Only what is seen counts: a short or narrow view is no evidence of a car.
    """
    t = f.config.truck
    # What reaches above the scan higher than most cars' roofs is no car.
    height = within((f.top - t.top) / t.top_spread, -1.0, 1.0)
    if f.cut and f.top > t.cut_top:
        height = t.cut_vote
    longer = within((f.length - t.length) / t.length_spread, 0.0, 1.0)
    wider = within((f.width - t.width) / t.width_spread, 0.0, 1.0)
    return float(height + longer + wider)


def _is_car(f: Footprint) -> bool:
    """Of what is of a car's size; cars' sides are rounded."""
    car, flat = f.config.car, f.config.shape.flat
    # What is as flat as a board is one, or a wall beyond a gap.
    board = f.width < flat and f.length > car.board_length and len(f.xy) > car.board_returns
    large = f.length > car.board_length or f.top > car.beyond_top
    beyond = f.hemmed_in and f.width < car.beyond_flat * flat and large
    aloft = f.lowest > car.aloft and f.hidden < car.aloft_hidden
    return not (board or beyond or aloft)
