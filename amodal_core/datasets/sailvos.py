"""SAIL-VOS and SAIL-VOS-cut: game cut-scenes in CocoVID JSON, in each variant that is in use.

| variant | `segmentation` | `bbox` | the other mask and box |
|---|---|---|---|
| as released, or amodal | amodal | amodal | `visible_mask` or `segm_visible`, `bbox_visible` |
| visible | visible | visible | `segm_amodal`, `bbox_amodal` |
| joint | [amodal, visible] | amodal | `amodal_mask`, `visible_mask`, `bbox_visible` |
| both_bbox | [amodal, visible] | [amodal, visible] | `bbox_amodal`, `bbox_visible` as well |

Hu et al.: SAIL-VOS, CVPR 2019; Breitenstein et al.: End-to-end Amodal Video Instance Segmentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.datasets.base import BEGIN, PERIOD, Finding, Place, new_folder
from amodal_core.datasets.coco_like import CocoLike, Fields, xywh
from amodal_core.datasets.image_files import image_of, write_image
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.datasets.segmentation import to_dictionary
from amodal_core.errors import InputError
from amodal_core.files import inside
from amodal_core.frame import Sample
from amodal_core.masks.mask_set import RleMasks

KINDS = ("amodal", "visible", "joint", "both_bbox")


class SailVos(CocoLike):
    """A CocoVID JSON file; samples are ordered by video and frame.

    Args:
        path: the JSON file.
        images: the folder that holds the videos' folders.
    """

    format = "sailvos"

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        super().__init__(path, images)
        names: dict[str, str] = {}
        for k in range(self.json.count("videos")):
            with suppress(InputError):
                video = self.json.element("videos", k)
                names[str(video.get("id"))] = str(video.get("name", video.get("vid_name", k)))
        for image in self.images:
            first = image["file_name"].split("/")[0]
            # The released file's video ids are not unique: the path says where an image belongs.
            image["video"] = first if "/" in image["file_name"] else ""
            if not image["video"]:
                number = str(image.get("video_id", 0))
                image["video"] = names.get(number, number)
            if not isinstance(image.get("frame_id"), int):
                image["frame_id"] = image["id"]
        self._file_order = [(i["video"], i["frame_id"]) for i in self.images]
        self.images.sort(key=lambda i: (i["video"], i["frame_id"]))

    def _probes(self) -> list[str]:
        names = super()._probes()
        return [*names, *(str(Path(n).with_suffix(".png")) for n in names if n.endswith(".bmp"))]

    def place(self, index: int) -> Place:
        """The video is the first folder of the image's path."""
        image = self.images[index]
        name = str(Path(image["file_name"]).with_suffix(""))
        return Place(name, image["video"], image["frame_id"])

    def stamp(self, index: int) -> int:
        """Nanoseconds; nominal."""
        return BEGIN + int(self.images[index]["frame_id"]) * PERIOD

    def image_path(self, index: int) -> Path:
        """The image's file, .png where the JSON still says .bmp and the other way round."""
        path = super().image_path(index)
        other = path.with_suffix({".bmp": ".png", ".png": ".bmp"}.get(path.suffix, path.suffix))
        return other if not path.exists() and other.exists() else path

    def instance_id(self, annotation: dict[str, Any]) -> int:
        """Unique in its video."""
        return int(annotation.get("instance_id", annotation.get("obj_id", annotation["id"])))

    def fields(self, annotation: dict[str, Any]) -> Fields:
        """Those of the annotation's variant."""
        if "segm_amodal" in annotation:
            return Fields(
                "segm_amodal", "segmentation", "bbox_amodal", "bbox", "area_amodal", "area"
            )
        visible = "segm_visible" if "segm_visible" in annotation else "visible_mask"
        if _is_joint(annotation):
            box = "bbox_amodal" if "bbox_amodal" in annotation else "bbox"
            return Fields(
                "amodal_mask", visible, box, "bbox_visible", "area_amodal", "area_visible"
            )
        return Fields("segmentation", visible, "bbox", "bbox_visible", "area", "area_visible")

    def amodal(self, annotation: dict[str, Any]) -> Any:
        """An annotation's amodal segmentation."""
        if _is_joint(annotation):
            return annotation["segmentation"][0]
        return super().amodal(annotation)

    def visible(self, annotation: dict[str, Any]) -> Any:
        """An annotation's visible segmentation."""
        if _is_joint(annotation):
            return annotation["segmentation"][1]
        return super().visible(annotation)

    def mend(
        self, annotation: dict[str, Any], amodal: RleMasks, visible: RleMasks
    ) -> dict[str, Any]:
        """The masks, and the pairs of masks and boxes that the joint variants hold."""
        mended = super().mend(annotation, amodal, visible)
        if _is_joint(annotation):
            mended["segmentation"] = [to_dictionary(m.counts[0], m.size) for m in (amodal, visible)]
            box = annotation.get("bbox")
            if isinstance(box, list) and box and isinstance(box[0], list):
                mended["bbox"] = [xywh(amodal), xywh(visible)]
        return mended

    def check(self) -> Iterator[Finding | None]:
        """Also the order of frames, and objects that change their category."""
        last: dict[str, int] = {}
        for video, frame in self._file_order:
            if video in last and frame <= last[video]:
                what = f"frame {frame} after frame {last[video]}: time runs backwards"
                yield Finding("stamps-backwards", f"{self.path.name}: {video}", "", what)
            last[video] = frame
        yield from self._check_categories()
        yield from super().check()

    def _check_categories(self) -> Iterator[Finding]:
        category: dict[tuple[str, int], Any] = {}
        for index in range(len(self)):
            for annotation in self._readable(index):
                if not isinstance(annotation.get("instance_id"), int):
                    continue
                key = self.images[index]["video"], annotation["instance_id"]
                first = category.setdefault(key, annotation.get("category_id"))
                if first != annotation.get("category_id"):
                    what = (
                        f"object {key[1]} is of category {first} before and of "
                        f"{annotation.get('category_id')} here"
                    )
                    where = f"{self.path.name}: {self.images[index]['file_name']}"
                    yield Finding("identity-changes", where, str(annotation.get("id", "")), what)


def _is_joint(annotation: dict[str, Any]) -> bool:
    pair = annotation.get("segmentation")
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, dict) for p in pair)


def annotation_of(kind: str, amodal: RleMasks, visible: RleMasks) -> dict[str, Any]:
    """The masks, boxes and areas of one object in one variant.

    Args:
        kind: one of KINDS.
        amodal: its mask.
        visible: its mask.
    """
    boxes, pair = (xywh(amodal), xywh(visible)), (amodal, visible)
    rles = [to_dictionary(m.counts[0], m.size) for m in pair]
    areas = [int(m.areas()[0]) for m in pair]
    shared = {"occlude_rate": 1 - areas[1] / areas[0] if areas[0] else 0.0}
    if kind in ("amodal", "visible"):
        first, second = (0, 1) if kind == "amodal" else (1, 0)
        other = KINDS[second]
        return shared | {
            "segmentation": rles[first],
            "bbox": boxes[first],
            "area": areas[first],
            f"segm_{other}": rles[second],
            f"bbox_{other}": boxes[second],
            f"area_{other}": areas[second],
        }
    joint = shared | {
        "segmentation": rles,
        "amodal_mask": rles[0],
        "visible_mask": rles[1],
        "bbox": boxes[0],
        "bbox_visible": boxes[1],
        "area": areas[0],
        "area_amodal": areas[0],
        "area_visible": areas[1],
    }
    if kind == "both_bbox":
        joint |= {"bbox": list(boxes), "bbox_amodal": boxes[0]}
    return joint


def write(
    root: str | Path,
    samples: Iterable[Sample],
    classes: Sequence[str],
    *,
    kind: str = "joint",
) -> Iterator[str]:
    """Write `<root>/<kind>.json` in CocoVID form and the images; yields each image's name.

    Masks are exact.

    Args:
        root: a folder that is made.
        samples: frames with image and truth, those of a video one after the other.
        classes: names of the truth's class ids.
        kind: one of KINDS.

    Raises:
        InputError: the folder is not empty, there is no such kind, a frame lacks its image.
    """
    if kind not in KINDS:
        raise InputError(f"no variant '{kind}'", str(root), f"choose one of {', '.join(KINDS)}")
    root = new_folder(Path(root))
    videos: dict[str, dict[str, Any]] = {}
    instances: dict[tuple[str, int], int] = {}
    image_id, last = 0, 0
    with JsonWriter(root / f"{kind}.json") as writer:
        writer.extend("images", [])
        writer.categories(dict(enumerate(classes, 1)))
        for sample in samples:
            name = (sample.video or "images").replace("/", "_")
            height, width = sample.frame.size
            entry = {"id": len(videos) + 1, "name": name, "width": width, "height": height}
            video = videos.setdefault(name, {**entry, "num_frames": 0})
            file = f"{name}/images/{video['num_frames']:06d}.png"
            write_image(inside(root, file), image_of(sample))
            image = {"file_name": file, "height": height, "width": width}
            order = {"id": image_id, "video_id": video["id"], "frame_id": video["num_frames"]}
            writer.add("images", {**order, **image})
            video["num_frames"] += 1
            truth = sample.truth
            for k in range(0 if truth is None else len(truth)):
                assert truth is not None
                key = name, int(truth.ids[k])
                last += 1
                head = {
                    "id": last,
                    "video_id": video["id"],
                    "image_id": image_id,
                    "category_id": int(truth.class_ids[k]) + 1,
                    "instance_id": instances.setdefault(key, len(instances) + 1),
                    "obj_id": int(truth.ids[k]),
                    "iscrowd": 0 if truth.ignore is None else int(truth.ignore[k]),
                    "occlu_depth": int(np.asarray(truth.occluders)[k].sum()),
                }
                masks = truth.amodal.rle()[[k]], truth.visible.rle()[[k]]
                writer.annotation(head | annotation_of(kind, *masks))
            image_id += 1
            yield file
        writer.extend("videos", list(videos.values()))
