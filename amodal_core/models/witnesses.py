"""How likely an object of two witnesses is there, a network and the geometry of the scan.

Logistic regression on what speaks for and against an object, one for each kind of testimony: both
say so, the scan alone, the network alone. Scores of either witness are on scales of their own; what
comes out is on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from amodal_core.frame import BORDER, Calibration, Instances

BOTH, SCAN, NETWORK = range(3)
FEATURES = (
    "network",  # log-odds of the network's score
    "scan",  # the same of the geometry's
    "overlap",  # of both; of the network's with the best of the geometry's at its depth
    "area",  # log of pixels of the whole
    "height",  # times by which its height is off its class's, either way, as a log
    "hidden",  # share of the whole
    "person",  # 1 of a person, 0 of a vehicle
    "large",  # 1 of a truck, a bus or a tram
)
# An intercept and a weight a feature, as `benchmarks/fused_scores.py` fits them.
WEIGHTS = np.array(
    [
        [0.65, 1.57, 0.0, 4.86, 0.0, -2.47, 0.0, 0.0, -0.71],
        [4.56, 0.0, 1.00, 0.0, -1.06, -4.20, 1.54, -1.42, -1.70],
        [2.43, 2.58, 0.0, -4.00, 0.0, -1.51, 0.82, -0.26, 1.52],
    ]
)
# Drives to fit on are rendered, as those that the network learnt from were: real streets are
# stranger to it, and it invents more. The geometry does not care, and its walls are fewer there;
# but of people it knows no more than that something is as tall and as wide.
_NETWORK_SHIFT, _VEHICLE_SHIFT, _PERSON_SHIFT = -1.5, 1.0, -1.0
_SPREAD = 2 / 3  # exponent that brings what separates best to the usual threshold of 0.3
_HEIGHTS = {
    "car": 1.5,
    "van": 2.1,
    "truck": 3.2,
    "bus": 3.0,
    "tram": 3.4,
    "pedestrian": 1.7,
    "cyclist": 1.75,
}
PEOPLE = ("pedestrian", "cyclist")
_TALL = 2.5  # metres, of what is large


@dataclass(eq=False)
class Evidence:
    """What speaks for and against N objects.

    Attributes:
        kinds: (N,) int64, BOTH, SCAN or NETWORK.
        values: (N, F) float64, in the order of `FEATURES`.
        outweighed: (N,) bool, what the other witness explains better: a piece of its object, or
            its object and what stands around it in one.
    """

    kinds: np.ndarray
    values: np.ndarray
    outweighed: np.ndarray

    def scores(self) -> np.ndarray:
        """(N,) float64, 0-1."""
        weights = WEIGHTS[self.kinds]
        odds = weights[:, 0] + (weights[:, 1:] * self.values).sum(axis=1)
        person = self.values[:, FEATURES.index("person")] > 0
        odds += np.where(self.kinds == NETWORK, _NETWORK_SHIFT, 0.0)
        odds += np.where(self.kinds == SCAN, np.where(person, _PERSON_SHIFT, _VEHICLE_SHIFT), 0.0)
        return np.asarray((1 / (1 + np.exp(-odds))) ** _SPREAD)


def log_odds(scores: np.ndarray) -> np.ndarray:
    """(N,) float64 of scores 0-1."""
    bounded = np.clip(np.asarray(scores, np.float64), 1e-3, 1 - 1e-3)
    return np.asarray(np.log(bounded / (1 - bounded)))


def height_off(objects: Instances, classes: Sequence[str], calibration: Calibration) -> np.ndarray:
    """(N,) times by which each object's height is off its class's, either way, as a log.

    0 where the image cuts it off, and for classes whose height nobody knows.

    Args:
        objects: N, on the host.
        classes: names of their classes.
        calibration: of the camera.
    """
    depths = np.maximum(np.asarray(objects.depths, np.float64), 0.1)
    boxes = np.asarray(objects.amodal_boxes, np.float64)
    usual = _of_classes(tuple(classes))[0][objects.class_ids]
    metres = (boxes[:, 3] - boxes[:, 1]) * depths / calibration.K[1, 1]
    off = np.abs(np.log(np.maximum(metres, 0.05) / usual))
    cut = (boxes[:, 3] >= objects.size[0] - BORDER) | (boxes[:, 1] <= BORDER)
    return np.where(cut, 0.0, np.nan_to_num(off))


def measured_evidence(
    objects: Instances, classes: Sequence[str], calibration: Calibration
) -> dict[str, np.ndarray]:
    """What masks and sizes say, by feature, (N,) each.

    Args:
        objects: N, on the host.
        classes: names of their classes.
        calibration: of the camera.
    """
    areas, shown = objects.amodal.rle().areas(), objects.visible.rle().areas()
    _, people, large = _of_classes(tuple(classes))
    return {
        "area": np.log(np.maximum(areas, 1)),
        "height": height_off(objects, classes, calibration),
        "hidden": 1 - shown / np.maximum(areas, 1),
        "person": people[objects.class_ids],
        "large": large[objects.class_ids],
    }


@cache
def _of_classes(classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(C,) float64 each: a class's height in metres, NaN where unknown; 1 of people; of large."""
    heights = np.array([_HEIGHTS.get(name, np.nan) for name in classes])
    people = np.array([name in PEOPLE for name in classes], np.float64)
    return heights, people, np.array(heights > _TALL, np.float64)
