"""The class names of driving data sets."""

from __future__ import annotations

KINS_2019 = {
    1: "cyclist",
    2: "pedestrian",
    4: "car",
    5: "tram",
    6: "truck",
    7: "van",
    8: "misc",
}
KINS_2020 = {1: "cyclist", 2: "pedestrian", 3: "rider", **{k: KINS_2019[k] for k in range(4, 9)}}

# AmodalSynthDrive's classes, Cityscapes' ids and a few more.
ASD = {
    0: "unlabeled",
    1: "ego vehicle",
    2: "rectification border",
    3: "out of roi",
    4: "static",
    5: "dynamic",
    6: "ground",
    7: "road",
    8: "sidewalk",
    9: "parking",
    10: "rail track",
    11: "building",
    12: "wall",
    13: "fence",
    14: "guard rail",
    15: "bridge",
    16: "tunnel",
    17: "polegroup",
    18: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    29: "caravan",
    30: "trailer",
    31: "train",
    32: "motor",
    33: "bike",
    34: "road line",
    35: "other",
    36: "water",
}
ASD_THINGS = tuple(range(24, 34))

KITTI = {
    "car": "Car",
    "van": "Van",
    "truck": "Truck",
    "pedestrian": "Pedestrian",
    "cyclist": "Cyclist",
    "tram": "Tram",
    "misc": "Misc",
}
