"""Write what FiftyOne imports as COCODetectionDataset: a file of amodal, one of visible masks.

The objects of both have the same ids, so that one data set holds both as two fields of a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from amodal_core.datasets.base import new_folder
from amodal_core.datasets.coco_like import xywh
from amodal_core.datasets.image_files import write_images
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.datasets.segmentation import to_dictionary
from amodal_core.frame import Sample

FILES = {"amodal": "labels.json", "visible": "visible.json"}


def write(root: str | Path, samples: Iterable[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Write `<root>/data`, `labels.json` and `visible.json`; yields each image's name.

    Annotations have, beside COCO's fields, `track_id`, `occlude_rate` and `depth` (metres, 0 where
    unknown), which FiftyOne takes as attributes, and the track once more as `index`, by which its
    App colours and names instances. An object that does not show is in `labels.json` alone.

    Args:
        root: a folder that is made.
        samples: frames with image and truth.
        classes: names of the truth's class ids.

    Raises:
        InputError: the folder is not empty, or a frame lacks its image.
    """
    root = new_folder(Path(root))
    last = 0
    with ExitStack() as stack:
        writers = {k: stack.enter_context(JsonWriter(root / name)) for k, name in FILES.items()}
        for writer in writers.values():
            writer.extend("images", [])
            writer.categories(dict(enumerate(classes, 1)))
        for sample, image in write_images(root / "data", samples):
            for writer in writers.values():
                writer.add("images", image)
            for annotations in _annotations(sample):
                last += 1
                for kind, annotation in annotations.items():
                    writers[kind].annotation({"id": last, "image_id": image["id"], **annotation})
            yield image["file_name"]


def _annotations(sample: Sample) -> Iterator[dict[str, dict[str, Any]]]:
    """Of each object the annotations by kind of mask."""
    if sample.truth is None:
        return
    truth = sample.truth.numpy()
    masks = {kind: getattr(truth, kind).rle() for kind in FILES}
    areas = {kind: rle.areas() for kind, rle in masks.items()}
    for k in range(len(truth)):
        same = {
            "category_id": int(truth.class_ids[k]) + 1,
            "iscrowd": 0 if truth.ignore is None else int(truth.ignore[k]),
            "track_id": int(truth.ids[k]),
            "index": int(truth.ids[k]),
            "occlude_rate": float(truth.occlusion_rates[k]),
            "depth": float(truth.depths[k]),
        }
        yield {
            kind: {
                **same,
                "segmentation": to_dictionary(rle.counts[k], rle.size),
                "bbox": xywh(rle[[k]]),
                "area": int(areas[kind][k]),
            }
            for kind, rle in masks.items()
            if areas[kind][k]
        }
