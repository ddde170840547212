"""Plain COCO, with `visible_mask` where a set has it, and a writer that keeps everything.

An annotation without `visible_mask` has no amodal truth of its own: its mask counts as both, and
the object as not hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.datasets.base import BEGIN, PERIOD, Place, new_folder
from amodal_core.datasets.coco_like import CocoLike, xywh
from amodal_core.datasets.image_files import write_images
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.datasets.segmentation import to_dictionary
from amodal_core.frame import Sample
from amodal_core.masks.mask_set import RleMasks

NAME = "annotations.json"


class Coco(CocoLike):
    """One JSON file in COCO's form; reads `track_id`, `occluders`, `video` and `frame_id` too."""

    format = "coco"

    def place(self, index: int) -> Place:
        """With video and turn where the image has them."""
        image = self.images[index]
        single = super().place(index)
        if not isinstance(image.get("video"), str) or not isinstance(image.get("frame_id"), int):
            return single
        return Place(single.name, image["video"], image["frame_id"])

    def stamp(self, index: int) -> int:
        """Nanoseconds; nominal where the image has none."""
        image = self.images[index]
        if isinstance(image.get("stamp"), int):
            return int(image["stamp"])
        place = self.place(index)
        return BEGIN + place.index * PERIOD if place.video else super().stamp(index)

    def instance_id(self, annotation: dict[str, Any]) -> int:
        """The track's where there is one; tools write -1 or null where there is none."""
        track = annotation.get("track_id")
        return track if isinstance(track, int) and track >= 0 else int(annotation["id"])

    def occluders(
        self, annotations: list[dict[str, Any]], amodal: RleMasks, visible: RleMasks
    ) -> np.ndarray | None:
        """As listed, by instance id."""
        if any(not isinstance(a.get("occluders"), list) for a in annotations):
            return None
        places = {self.instance_id(a): k for k, a in enumerate(annotations)}
        hidden_by = np.zeros((len(annotations), len(annotations)), bool)
        for k, annotation in enumerate(annotations):
            for hider in annotation["occluders"]:
                if isinstance(hider, int) and places.get(hider, k) != k:
                    hidden_by[k, places[hider]] = True
        return hidden_by


def write(root: str | Path, samples: Iterable[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Write `<root>/annotations.json` and `<root>/images`; yields each image's name.

    `segmentation` is the amodal mask as RLE, exact; `visible_mask`, `occlude_rate`, `track_id` and
    `occluders` (track ids) stand beside it, `video`, `frame_id` and `stamp` in the images.
    Datumaro, by which CVAT reads, takes the fields of COCO and `attributes`: the track is in both.

    Args:
        root: a folder that is made.
        samples: frames with image and truth.
        classes: names of the truth's class ids.

    Raises:
        InputError: the folder is not empty, or a frame lacks its image.
    """
    root = new_folder(Path(root))
    last = 0
    with JsonWriter(root / NAME) as writer:
        writer.extend("images", [])
        writer.categories(dict(enumerate(classes, 1)))
        for sample, image in write_images(root / "images", samples):
            image["stamp"] = sample.frame.stamp
            if sample.video:
                image |= {"video": sample.video, "frame_id": sample.index}
            writer.add("images", image)
            for annotation in _annotations(sample):
                last += 1
                writer.annotation({"id": last, "image_id": image["id"], **annotation})
            yield image["file_name"]


def _annotations(sample: Sample) -> Iterator[dict[str, Any]]:
    if sample.truth is None:
        return
    truth = sample.truth.numpy()
    amodal, visible = truth.amodal.rle(), truth.visible.rle()
    occluders = np.asarray(truth.occluders)
    for k in range(len(truth)):
        yield {
            "category_id": int(truth.class_ids[k]) + 1,
            "track_id": int(truth.ids[k]),
            "attributes": {"track_id": int(truth.ids[k])},
            "iscrowd": 0 if truth.ignore is None else int(truth.ignore[k]),
            "segmentation": to_dictionary(amodal.counts[k], amodal.size),
            "bbox": xywh(amodal[[k]]),
            "area": int(amodal.areas()[k]),
            "visible_mask": to_dictionary(visible.counts[k], visible.size),
            "occlude_rate": float(truth.occlusion_rates[k]),
            "occluders": [int(truth.ids[j]) for j in np.flatnonzero(occluders[k])],
        }
