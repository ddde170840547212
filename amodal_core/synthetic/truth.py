"""What is exactly there: masks, boxes, depths, identities; and when an object counts as a track.

Amodal masks are clipped to the image: what lies beyond its border is in no mask; 3D boxes are
whole. A track begins in the first frame that shows enough of an object and lasts while its amodal
mask is large enough, through occlusions however complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amodal_core.datasets.truth import make_truth
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.synthetic.render import Rendered
from amodal_core.synthetic.scene import Actor, Scene

CLASSES = ("car", "van", "truck", "bus", "tram", "pedestrian", "cyclist")
# Pixels of an amodal mask below which an object is not annotated, for an image of KITTI's width;
# KINS' smallest objects are of that size.
SMALLEST = 40
KITTI_WIDTH = 1242
# Share of an object that must have been in view once: nobody annotates what was never recognisable.
FIRST_SIGHT = 0.2


@dataclass(eq=False)
class FrameTruth:
    """Every object whose amodal mask has a pixel in the image, seen or not.

    Attributes:
        size: (height, width).
        ids: (N,) int64 actor ids, ascending.
        class_ids: (N,) into CLASSES.
        amodal, visible: N masks.
        depths: (N,) float32 metres, the median depth of the object's own surface.
        boxes3d: (N, 7) float32, LiDAR frame.
    """

    size: tuple[int, int]
    ids: np.ndarray
    class_ids: np.ndarray
    amodal: RleMasks
    visible: RleMasks
    depths: np.ndarray
    boxes3d: np.ndarray


def frame_truth(scene: Scene, rendered: Rendered, frame: int) -> FrameTruth:
    """The truth of one rendered frame."""
    height, width = rendered.labels.shape
    actors = {a.id: a for a in scene.actors}
    ids = np.array(sorted(rendered.amodal), np.int64)
    amodal, visible, depths = [], [], []
    offsets = np.zeros((len(ids), 2), np.int64)
    for k, number in enumerate(ids.tolist()):
        x, y, patch = rendered.amodal[number]
        seen = rendered.labels[y : y + patch.shape[0], x : x + patch.shape[1]] == number
        offsets[k] = x, y
        amodal.append((patch > 0) | seen)
        visible.append(seen)
        depths.append(np.median(patch[patch > 0]))
    lidar_from_world = np.linalg.inv(scene.world_from_lidar[frame])
    boxes = [box_in_lidar(actors[n], frame, lidar_from_world) for n in ids.tolist()]
    return FrameTruth(
        (height, width),
        ids,
        np.array([CLASSES.index(actors[n].asset.category) for n in ids.tolist()], np.int64),
        RleMasks.from_crops(amodal, offsets, (height, width)),
        RleMasks.from_crops(visible, offsets, (height, width)),
        np.array(depths, np.float32),
        np.array(boxes, np.float32).reshape(-1, 7),
    )


def box_in_lidar(actor: Actor, frame: int, lidar_from_world: np.ndarray) -> np.ndarray:
    """(7,) centre, length, width, height and yaw of an actor in the LiDAR frame."""
    length, width, height = actor.asset.size
    centre = lidar_from_world @ np.array([*actor.xy[frame], actor.z + height / 2, 1.0])
    forward = lidar_from_world[:3, :3] @ [np.cos(actor.yaw[frame]), np.sin(actor.yaw[frame]), 0.0]
    return np.array([*centre[:3], length, width, height, np.arctan2(forward[1], forward[0])])


@dataclass
class TrackBook:
    """Turns the truth of consecutive frames into tracks; keeps who has been seen since when."""

    first: dict[int, int] = field(default_factory=dict)
    count: int = 0

    def tracks(self, truth: FrameTruth) -> Tracks:
        """The annotated objects of the next frame."""
        least = max(4.0, SMALLEST * (truth.size[1] / KITTI_WIDTH) ** 2)
        whole, seen = truth.amodal.areas(), truth.visible.areas()
        keep = []
        for k, number in enumerate(truth.ids.tolist()):
            if whole[k] < least:
                continue
            if seen[k] >= max(least, FIRST_SIGHT * whole[k]):
                self.first.setdefault(number, self.count)
            if number in self.first:
                keep.append(k)
        ages = np.array([self.count - self.first[int(truth.ids[k])] + 1 for k in keep], np.int64)
        self.count += 1
        chosen = np.array(keep, np.int64)
        return make_truth(
            truth.amodal[chosen],
            truth.visible[chosen],
            truth.class_ids[chosen],
            truth.ids[chosen],
            depths=truth.depths[chosen],
            boxes3d=truth.boxes3d[chosen],
            ages=ages,
        )
