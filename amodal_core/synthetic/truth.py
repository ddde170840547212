"""What is exactly there: masks, boxes, depths, identities; and when an object counts as a track.

Amodal masks are clipped to the image: what lies beyond its border is in no mask; 3D boxes are
whole. A track begins in the first frame that shows enough of an object and lasts while its amodal
mask is large enough, through occlusions however complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.synthetic.scene import Actor, Scene

if TYPE_CHECKING:
    from amodal_core.synthetic.render import Rendered

CLASSES = ("car", "van", "truck", "bus", "tram", "pedestrian", "cyclist")
# Pixels of an amodal mask below which an object is not annotated, for an image of KITTI's width;
# KINS' smallest objects are of that size.
SMALLEST = 40
KITTI_WIDTH = 1242
# Share of an object that must have been in view once: nobody annotates what was never recognisable.
FIRST_SIGHT = 0.2


def frame_truth(scene: Scene, rendered: Rendered, frame: int) -> Tracks:
    """Every object whose amodal mask has a pixel in a rendered frame, seen or not, by actor id."""
    height, width = rendered.labels.shape
    actors = {a.id: a for a in scene.actors}
    ids = np.array(sorted(rendered.amodal), np.int64)
    amodal, visible, depths = [], [], []
    offsets = np.zeros((len(ids), 2), np.int64)
    for k, number in enumerate(ids.tolist()):
        x, y, patch = rendered.amodal[number]
        shown = rendered.labels[y : y + patch.shape[0], x : x + patch.shape[1]] == number
        offsets[k] = x, y
        amodal.append((patch > 0) | shown)
        visible.append(shown)
        depths.append(np.median(patch[patch > 0]))
    lidar_from_world = np.linalg.inv(scene.world_from_lidar[frame])
    boxes = [box_in_lidar(actors[n], frame, lidar_from_world) for n in ids.tolist()]
    return make_truth(
        RleMasks.from_crops(amodal, offsets, (height, width)),
        RleMasks.from_crops(visible, offsets, (height, width)),
        [CLASSES.index(actors[n].asset.category) for n in ids.tolist()],
        ids,
        depths=np.array(depths, np.float32),
        boxes3d=np.array(boxes, np.float32).reshape(-1, 7),
    )


def box_in_lidar(actor: Actor, frame: int, lidar_from_world: np.ndarray) -> np.ndarray:
    """(7,) centre, length, width, height and yaw of an actor in the LiDAR frame."""
    length, width, height = actor.asset.size
    centre = lidar_from_world @ np.array([*actor.xy[frame], actor.z + height / 2, 1.0])
    forward = lidar_from_world[:3, :3] @ [np.cos(actor.yaw[frame]), np.sin(actor.yaw[frame]), 0.0]
    return np.array([*centre[:3], length, width, height, np.arctan2(forward[1], forward[0])])


@dataclass
class Annotator:
    """Turns the truth of consecutive frames into tracks; keeps since when each has been annotated.

    Tracks that it made earlier are truth to it as well and stay what they are.
    """

    first: dict[int, int] = field(default_factory=dict)
    count: int = 0

    def tracks(self, truth: Tracks) -> Tracks:
        """The annotated objects of the next frame."""
        least = max(4.0, SMALLEST * (truth.size[1] / KITTI_WIDTH) ** 2)
        amodal, visible = truth.amodal.rle().areas(), truth.visible.rle().areas()
        for number in truth.ids[visible >= np.maximum(least, FIRST_SIGHT * amodal)].tolist():
            self.first.setdefault(number, self.count)
        ids = truth.ids.tolist()
        keep = np.array([k for k, i in enumerate(ids) if amodal[k] >= least and i in self.first])
        kept = truth[keep.astype(np.int64)]
        ages = [self.count - self.first[i] + 1 for i in kept.ids.tolist()]
        self.count += 1
        return replace(kept, ages=np.array(ages, np.int64))
