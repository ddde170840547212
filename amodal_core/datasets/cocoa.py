"""COCOA and COCOA-cls: amodal annotations of COCO 2014 images.

COCOA (Zhu et al., CVPR 2017) holds one annotation an image: regions with free names, an order from
the nearest to the farthest, and `depth_constraint`, pairs "front-back" of those orders. COCOA-cls
(Follmann et al., WACV 2019) is the part with COCO's 80 classes in COCO's form: `segmentation` is
amodal, `visible_mask` and `invisible_mask` are RLE and missing where nothing hides the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.datasets.base import Finding, new_folder
from amodal_core.datasets.coco_like import CocoLike
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.errors import InputError, foreign
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import hiding

_SPLITS = ("train2014", "val2014", "test2014")
# Regions are numbered inside their annotation; ids of both together stay unique in an image.
_REGIONS = 1000


class CocoaCls(CocoLike):
    """One JSON file of COCOA-cls (`COCO_amodal_{train,val}2014_with_classes.json`)."""

    format = "cocoa_cls"

    def _folders(self) -> Iterator[Path]:
        for base in (self.path.parent, self.path.parent.parent):
            for split in sorted(_SPLITS, key=lambda s: s not in self.path.stem):
                yield base / split
                yield base / "images" / split
        yield from super()._folders()


class Cocoa(CocoaCls):
    """One JSON file of COCOA (`COCO_amodal_{train,val,test}2014.json`); classes: thing, stuff.

    Ids are 1000 times the annotation's plus the region's place in it.
    """

    format = "cocoa"

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        super().__init__(path, images)
        self.classes = ("thing", "stuff")
        self.category_ids = {0: 0, 1: 1}

    @property
    def listed(self) -> int:
        """Regions of all images."""
        return sum(len(self.annotations(k)) for k in range(len(self)))

    def has_class(self, class_id: int) -> bool:
        """Regions tell; they are not looked through."""
        return True

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """The regions of an image, each as an annotation of its own."""
        rows = []
        for annotation in super().annotations(index):
            pairs = _constraints(annotation.get("depth_constraint"))
            number = annotation.get("id", 0)
            with foreign(self.path, f"regions of annotation {number}", "export the file again"):
                for place, region in enumerate(annotation.get("regions", [])):
                    row = dict(region)
                    row["id"] = int(number) * _REGIONS + place if isinstance(number, int) else None
                    row["category_id"] = int(bool(region.get("isStuff", 0)))
                    row["image_id"] = annotation["image_id"]
                    row["_pairs"] = pairs
                    rows.append(row)
        return rows

    def occluders(
        self, annotations: list[dict[str, Any]], amodal: RleMasks, visible: RleMasks
    ) -> np.ndarray | None:
        """By depth_constraint, by order where there is none."""
        shared = hiding(amodal, visible)
        order = [int(o) for o in (a.get("order") for a in annotations) if isinstance(o, int)]
        if len(order) != len(annotations):
            return shared
        pairs = annotations[0]["_pairs"] if annotations else set()
        before = [[(j, i) in pairs if pairs else j < i for j in order] for i in order]
        return shared & np.array(before, bool).reshape(shared.shape)

    def _readable(self, index: int) -> Iterator[dict[str, Any]]:
        try:
            yield from self.annotations(index)
        except InputError:
            return

    def check(self) -> Iterator[Finding | None]:
        """Also depth constraints that name regions that are not there."""
        for index in range(len(self)):
            rows = list(self._readable(index))
            orders = {o for r in rows if isinstance(o := r.get("order"), int)}
            unknown = {o for r in rows for pair in r["_pairs"] for o in pair} - orders
            if unknown:
                where = f"{self.path.name}: {self.images[index]['file_name']}"
                what = f"depth_constraint names order {min(unknown)}, which no region has"
                yield Finding("unknown-order", where, "", what)
        yield from super().check()

    def fix(self, out: Path) -> Iterator[None]:
        """Regions that break a rule are mended or left out; the annotations around them stay."""
        new_folder(out)
        self.link_files(out)
        with JsonWriter(out / self.path.name) as writer:
            writer.extend("images", [])
            for index in range(len(self)):
                if self._keep(index):
                    writer.add("images", self.images[index])
                    for annotation in CocoLike._readable(self, index):
                        writer.annotation(self._mended(annotation, index))
                yield None

    def _mended(self, annotation: dict[str, Any], index: int) -> dict[str, Any]:
        regions = []
        for row in self._readable(index):
            if row["id"] is None or row["id"] // _REGIONS != annotation.get("id"):
                continue
            mended = self.inspect(row, self.size(index))[1]
            if mended is not None:
                added = ("id", "category_id", "image_id", "_pairs")
                regions.append({k: v for k, v in mended.items() if k not in added})
        return {**annotation, "regions": regions, "size": len(regions)}


def _constraints(text: Any) -> set[tuple[int, int]]:
    """Pairs (front, back) of orders of "1-2,1-3"."""
    pairs = set()
    for pair in str(text or "").split(","):
        front, _, back = pair.partition("-")
        if front.strip().isdigit() and back.strip().isdigit():
            pairs.add((int(front), int(back)))
    return pairs
