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
