"""The class names of driving data sets."""

from __future__ import annotations

KINS_2019 = {1: "cyclist", 2: "pedestrian", 4: "car", 5: "tram", 6: "truck", 7: "van", 8: "misc"}
KINS_2020 = {1: "cyclist", 2: "pedestrian", 3: "rider", **{k: KINS_2019[k] for k in range(4, 9)}}

# AmodalSynthDrive's classes, Cityscapes' ids and a few more.
_ASD = """
unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road,
sidewalk, parking, rail track, building, wall, fence, guard rail, bridge, tunnel, polegroup,
pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus,
caravan, trailer, train, motor, bike, road line, other, water
"""
ASD = dict(enumerate(" ".join(_ASD.split()).split(", ")))
ASD_THINGS = tuple(range(24, 34))

_KITTI = ("car", "van", "truck", "pedestrian", "cyclist", "tram", "misc")
KITTI = {name: name.capitalize() for name in _KITTI}

# Names of recorded drives as classes of `recorded.CLASSES`; what is not listed is left out.
_NUSCENES = """
car: vehicle.car vehicle.emergency.police
truck: vehicle.truck vehicle.trailer vehicle.emergency.ambulance
bus: vehicle.bus.bendy vehicle.bus.rigid
other: vehicle.construction
cyclist: vehicle.bicycle vehicle.motorcycle
pedestrian: human.pedestrian.adult human.pedestrian.child human.pedestrian.construction_worker
 human.pedestrian.police_officer human.pedestrian.personal_mobility human.pedestrian.stroller
 human.pedestrian.wheelchair
"""
_ARGOVERSE = """
car: REGULAR_VEHICLE
truck: LARGE_VEHICLE BOX_TRUCK TRUCK TRUCK_CAB VEHICULAR_TRAILER
bus: BUS SCHOOL_BUS ARTICULATED_BUS
other: MESSAGE_BOARD_TRAILER TRAFFIC_LIGHT_TRAILER RAILED_VEHICLE
cyclist: BICYCLIST MOTORCYCLIST WHEELED_RIDER BICYCLE MOTORCYCLE
pedestrian: PEDESTRIAN OFFICIAL_SIGNALER STROLLER WHEELCHAIR
"""


def _by_name(table: str) -> dict[str, str]:
    """Class by name of the set's, of lines "class: names"."""
    classes: dict[str, str] = {}
    target = ""
    for word in table.split():
        if word.endswith(":"):
            target = word[:-1]
        else:
            classes[word] = target
    return classes


NUSCENES = _by_name(_NUSCENES)
# Neither rewarded nor punished: what nuScenes' own benchmark of detection leaves out of its class.
NUSCENES_IGNORED = frozenset(
    f"human.pedestrian.{name}" for name in ("personal_mobility", "stroller", "wheelchair")
)
ARGOVERSE = _by_name(_ARGOVERSE)
# A bicycle that nobody rides, or whose rider has a box of his own.
ARGOVERSE_IGNORED = frozenset({"BICYCLE", "MOTORCYCLE", "STROLLER", "WHEELCHAIR"})
WAYMO = {1: "car", 2: "pedestrian", 4: "cyclist"}  # 3 are signs; vehicles are of all kinds
