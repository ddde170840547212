"""Names of the classes of the data sets that weights are published for, in the files' order."""

from __future__ import annotations

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

_COCO = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
COCO_91: tuple[str, ...] = tuple(_COCO[1:])  # without background; some places hold no class
NO_CLASS = "N/A"
COCO: tuple[str, ...] = tuple(name for name in COCO_91 if name != NO_CLASS)
KINS = ("cyclist", "pedestrian", "car", "tram", "truck", "van", "misc")
KINS_2020 = ("cyclist", "pedestrian", "rider", "car", "tram", "truck", "van", "misc")
_SAILVOS = """
person, car, motorcycle, truck, bird, dog, handbag, suitcase, bottle, cup, bowl, chair,
potted plant, bed, dining table, tv, laptop, cell phone, bag, bin, box, door, road barrier, stick
"""
SAILVOS = tuple(" ".join(_SAILVOS.split()).split(", "))

BY_COUNT = {len(names): names for names in (COCO_91, COCO, KINS, SAILVOS)}
