"""TAO-Amodal: boxes of whole objects in videos, beyond the image's border where objects are.

`train.json` and its like hold `amodal_bbox` beside TAO's own `bbox`; `validation_lvis_v1.json` and
its like, for evaluation, the amodal box as `bbox`. Nothing has masks. Of an image only some classes
are annotated (LVIS' rule): `verified` names them.

Hsieh, Khurana, Dave, Ramanan: TAO-Amodal: A Benchmark for Tracking Any Object Amodally, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.datasets.base import BEGIN, Place
from amodal_core.datasets.coco_like import CocoLike
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import foreign
from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks

_PERIOD = 33_333_333  # nominal nanoseconds of a number in frame_index; videos have 30 Hz
_BOX_LIMIT = 1e6  # pixels; no box goes beyond


class TaoAmodal(CocoLike):
    """One JSON file of TAO-Amodal; identities last over a video.

    Args:
        path: the JSON file.
        images: the folder `frames`; looked for beside the file and one folder above when None.
    """

    format = "tao_amodal"
    has_masks = False

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        super().__init__(path, images)
        with foreign(self.path, "malformed categories or videos", "download the file again"):
            # Categories that the release merged into others.
            for category in self.json.elements("categories"):
                for merged in category.get("merged") or ():
                    kind = self.category_ids[int(category["id"])]
                    self.category_ids.setdefault(int(merged["id"]), kind)
            self._videos_of: dict[Any, str] = {
                int(v["id"]): str(v.get("name", "")) for v in self.json.elements("videos")
            }

    def _folders(self) -> Iterator[Path]:
        for base in (self.path.parent.parent, self.path.parent):
            yield base / "frames"
            yield base

    def place(self, index: int) -> Place:
        """By the video's name and the frame's number in it."""
        image = self.images[index]
        name, number = super().place(index).name, image.get("frame_index")
        video = image.get("video") or self._videos_of.get(image.get("video_id"), "")
        if not video or not isinstance(number, int) or not 0 <= number < 10**9:
            return Place(name, "", index)
        return Place(name, video, number)

    def stamp(self, index: int) -> int:
        """Nanoseconds; nominal."""
        place = self.place(index)
        return BEGIN + place.index * _PERIOD if place.video else super().stamp(index)

    def instance_id(self, annotation: dict[str, Any]) -> int:
        """The track's."""
        return int(annotation["track_id"])

    def truth(self, index: int) -> Tracks:
        """Amodal boxes, not cut to the image, and hidden shares; what is no box is left out."""
        size, ids = self.size(index), set()
        usable: list[tuple[dict[str, Any], int, np.ndarray]] = []
        for annotation in self.annotations(index):
            box, kind = _amodal_box(annotation), self.category(annotation)
            with suppress(KeyError, TypeError, ValueError, OverflowError):
                number = self.instance_id(annotation)
                if box is None or kind is None or number in ids or not 0 <= number < 2**62:
                    continue
                ids.add(number)
                usable.append((annotation, kind, box))
        nothing = RleMasks.empty(size, len(usable))
        truth = make_truth(
            nothing,
            nothing,
            [kind for _, kind, _ in usable],
            [self.instance_id(a) for a, _, _ in usable],
            ignore=[bool(a.get("iscrowd") or a.get("ignore")) for a, _, _ in usable],
        )
        boxes = np.array([box for _, _, box in usable], np.float32).reshape(-1, 4)
        rates = np.array([_hidden(a) for a, _, _ in usable], np.float32)
        return replace(truth, amodal_boxes=boxes, occlusion_rates=rates)

    def boxes(self, index: int) -> list[tuple[str, tuple[float, float, float, float]]]:
        """Class and amodal box of each object."""
        truth = self.truth(index)
        pairs = zip(truth.class_ids.tolist(), truth.amodal_boxes.tolist(), strict=True)
        return [(self.classes[k], (b[0], b[1], b[2], b[3])) for k, b in pairs]

    def verified(self, index: int) -> tuple[frozenset[int], frozenset[int]]:
        """Classes that are annotated or said to be absent, and those of which only some are."""
        image = self.images[index]
        present = {self.category(a) for a in self.annotations(index)}
        judged = present | self._classes_of(image.get("neg_category_ids"))
        partial = self._classes_of(image.get("not_exhaustive_category_ids"))
        return frozenset(k for k in judged if k is not None), frozenset(partial)

    def _classes_of(self, numbers: Any) -> set[int]:
        listed = numbers if isinstance(numbers, list) else []
        return {
            self.category_ids[n] for n in listed if isinstance(n, int) and n in self.category_ids
        }

    def problems(self, annotation: dict[str, Any], index: int) -> Iterator[tuple[str, str]]:
        """Of category, box and track; there are no masks."""
        if self.category(annotation) is None:
            what = f"category {annotation.get('category_id')!s:.20} is not in the file"
            yield "unknown-category", what
        if _amodal_box(annotation) is None:
            yield "box-mismatch", "no box of a positive size"
        if not isinstance(annotation.get("track_id"), int):
            yield "missing-field", "no track_id"


def _amodal_box(annotation: dict[str, Any]) -> np.ndarray | None:
    """(4,) xyxy pixels, None where there is no box of a positive size."""
    with suppress(TypeError, ValueError, OverflowError):
        values = annotation.get("amodal_bbox") or annotation.get("bbox")
        box = np.array(values, np.float64)
        if box.shape == (4,) and np.isfinite(box).all() and (np.abs(box) < _BOX_LIMIT).all():
            return np.array([*box[:2], *(box[:2] + box[2:])]) if (box[2:] > 0).all() else None
    return None


def _hidden(annotation: dict[str, Any]) -> float:
    """The hidden share, 0 where nothing is said."""
    share = annotation.get("visibility")
    number = isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
    return 1 - share if number and isinstance(share, int | float) else 0.0
