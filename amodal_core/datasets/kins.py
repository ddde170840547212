"""KINS: amodal annotations of KITTI's object images, of 2019 and of 2020.

`instances_{train,val}.json` (2019) and `update_{train,test}_2020.json` (2020) are joined to KITTI's
images, scans and calibration by file name alone: image ids and orders of files do not agree. KINS'
training images are KITTI's `training`, its test images KITTI's `testing`.

Qi, Jiang, Liu, Shen, Jia: Amodal Instance Segmentation with KINS Dataset, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.classes import ClassMap
from amodal_core.datasets.base import Finding, link, new_folder
from amodal_core.datasets.categories import KINS_2019, KINS_2020
from amodal_core.datasets.coco_like import CocoLike, Fields, xywh
from amodal_core.datasets.image_files import read_image
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.datasets.kitti_files import read_scan
from amodal_core.datasets.kitti_write import write_sensors
from amodal_core.datasets.segmentation import to_dictionary, to_polygons
from amodal_core.datasets.truth import layers
from amodal_core.errors import InputError
from amodal_core.frame import Frame, Sample
from amodal_core.geometry.calibration import read_kitti
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import hiding

_FIELDS_2019 = Fields("segmentation", "inmodal_seg", "bbox", "inmodal_bbox", "area", "inmodal_area")
_FIELDS_2020 = Fields("a_segm", "i_segm", "a_bbox", "i_bbox", "a_area", "i_area")
_FILES = {
    (2019, "training"): "instances_train.json",
    (2019, "testing"): "instances_val.json",
    (2020, "training"): "update_train_2020.json",
    (2020, "testing"): "update_test_2020.json",
}


# Folders of the training and the test images.
_LAYOUTS = (
    ("training/image_2", "testing/image_2"),
    ("image_2",),
    ("train_imgs", "test_imgs"),
    ("train2017", "val2017", "test2017"),
    ("images/train2017", "images/val2017", "images/test2017"),
    ("images",),
)


class Kins(CocoLike):
    """One JSON file of KINS with the KITTI images around it.

    Images are looked for beside the file and one folder above it, in the layouts that are in use:
    KITTI's (`training/image_2`), AISFormer's (`train_imgs`), that of COCO's tools
    (`train2017/000000000000.jpg`), and `images`.

    Args:
        path: the JSON file.
        images: where else they lie: the folder that holds them, or one of these layouts.
    """

    format = "kins"

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        self._base = None if images is None else Path(images)
        super().__init__(path)

    def _folders(self) -> Iterator[Path]:
        test = any(word in self.path.stem for word in ("test", "val"))
        order = slice(None, None, -1 if test else 1)
        near = [self.path.parent, self.path.parent.parent]
        for base in near if self._base is None else [self._base]:
            for names in _LAYOUTS:
                yield from (base / name for name in names[order])
            yield base
        if self._base is None:
            yield from super()._folders()

    def _probes(self) -> list[str]:
        return [name for n in super()._probes() for name in (n, *_other_names(n))]

    def image_path(self, index: int) -> Path:
        """The image's file, under the name that COCO's tools give it where it has that."""
        path = super().image_path(index)
        if path.exists():
            return path
        others = map(path.with_name, _other_names(path.name))
        return next((other for other in others if other.exists()), path)

    def fields(self, annotation: dict[str, Any]) -> Fields:
        """2019's or 2020's."""
        return _FIELDS_2020 if "a_segm" in annotation else _FIELDS_2019

    def occluders(
        self, annotations: list[dict[str, Any]], amodal: RleMasks, visible: RleMasks
    ) -> np.ndarray:
        """Those of the same cluster, nearer in its order, seen where the object is hidden."""
        hidden_by = hiding(amodal, visible)
        ranks = [(a.get("oco_id"), a.get("ico_id")) for a in annotations]
        numbered = [(c, o) for c, o in ranks if isinstance(c, int) and isinstance(o, int)]
        if len(numbered) != len(ranks):
            return hidden_by
        cluster, order = np.array(numbered, object).reshape(-1, 2).T
        nearer: np.ndarray = (cluster[:, None] == cluster) & (order[:, None] > order)
        return hidden_by & nearer.astype(bool)

    def _beside(self, index: int, folder: str, suffix: str) -> Path:
        """KITTI's file of the same stem in a folder beside image_2."""
        stem = Path(self.images[index]["file_name"]).stem
        return self.image_path(index).parent.parent / folder / f"{stem}{suffix}"

    def frame(self, index: int) -> Frame:
        """Image, scan and calibration of one stem; the last two are None where there is no file."""
        image = read_image(self.image_path(index), self.size(index))
        height, width = image.shape[:2]
        scan = self._beside(index, "velodyne", ".bin")
        calib = self._beside(index, "calib", ".txt")
        return Frame(
            self.stamp(index),
            image=image,
            points=read_scan(scan) if scan.exists() else None,
            calibration=read_kitti(calib).calibration(width, height) if calib.exists() else None,
        )

    def check_files(self, index: int) -> Iterator[Finding]:
        """The image, and scan and calibration where their folders exist."""
        yield from super().check_files(index)
        for folder, suffix, kind in (
            ("velodyne", ".bin", "scan"),
            ("calib", ".txt", "calibration"),
        ):
            path = self._beside(index, folder, suffix)
            if not path.parent.is_dir():
                continue
            if not path.exists():
                yield Finding(f"missing-{kind}", str(path), "", f"the {kind} is missing")
            elif kind == "scan" and (path.stat().st_size % 16 or not path.stat().st_size):
                yield Finding("broken-scan", str(path), "", "not whole points of 16 bytes")
            elif kind == "calibration":
                try:
                    read_kitti(path)
                except InputError as error:
                    yield Finding("broken-calibration", str(path), "", error.what)

    def _keep(self, index: int) -> bool:
        return not any("image" in f.rule or "size" in f.rule for f in self.check_files(index))

    def link_files(self, out: Path) -> None:
        """KITTI's folder, or the images where they lie outside one."""
        folder = self.folder.path
        if folder.name == "image_2":
            link(folder.parent, out / folder.parent.name)
        else:
            link(folder, out / "images")


def _other_names(name: str) -> list[str]:
    """What an image of KITTI is called in COCO's layout."""
    stem = Path(name).stem
    stems = [stem, f"{int(stem):012d}"] if stem.isdecimal() and len(stem) < 12 else [stem]
    return [f"{s}{suffix}" for s in stems for suffix in (".png", ".jpg") if f"{s}{suffix}" != name]


def write(
    root: str | Path,
    samples: Iterable[Sample],
    classes: Sequence[str],
    *,
    split: str = "training",
    version: int = 2020,
    class_map: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Write frames as KINS and KITTI have them; yields each sample's stem.

    Polygons run along pixel borders, so that they rasterise to the very masks. KINS knows no
    videos: identities over time are lost.

    Args:
        root: a folder that is made: `<split>/{image_2,velodyne,calib}` and the JSON.
        samples: frames with image and truth.
        classes: names of the truth's class ids.
        split: "training" or "testing".
        version: 2019 or 2020, the release whose fields are written.
        class_map: names of KINS for names of `classes` where they are not the same.

    Raises:
        InputError: the folder is not empty, a class has no name in KINS, a frame lacks its image.
    """
    root = new_folder(Path(root))
    names = KINS_2020 if version == 2020 else KINS_2019
    index = ClassMap.between(classes, list(names.values()), class_map).complete()
    numbers = list(names)
    last = 0
    with JsonWriter(root / _FILES[version, split]) as writer:
        writer.extend("images", [])
        writer.categories(names)
        for number, sample in enumerate(samples):
            stem = f"{number:06d}"
            write_sensors(root / split, stem, sample.frame)
            height, width = sample.frame.size
            image = {"file_name": f"{stem}.png", "height": height, "width": width, "id": number}
            writer.add("images", image)
            if sample.truth is not None:
                for annotation in _annotations(sample, version):
                    last += 1
                    category = numbers[index[annotation.pop("class")]]
                    head = {"id": last, "image_id": number, "category_id": category}
                    writer.annotation({**head, **annotation})
            yield stem


def _annotations(sample: Sample, version: int) -> Iterator[dict[str, Any]]:
    assert sample.truth is not None
    truth = sample.truth.numpy()
    amodal, visible = truth.amodal.rle(), truth.visible.rle()
    names = _FIELDS_2020 if version == 2020 else _FIELDS_2019
    amodal_polygons, visible_polygons = to_polygons(amodal), to_polygons(visible)
    clusters, order = layers(np.asarray(truth.occluders))
    for k in range(len(truth)):
        annotation: dict[str, Any] = {
            "class": int(truth.class_ids[k]),
            "iscrowd": 0 if truth.ignore is None else int(truth.ignore[k]),
            names.amodal: amodal_polygons[k],
            names.amodal_box: xywh(amodal[[k]]),
            names.amodal_area: int(amodal.areas()[k]),
            names.visible_box: xywh(visible[[k]]),
        }
        if version == 2020:
            annotation[names.visible] = visible_polygons[k]
            annotation[names.visible_area] = int(visible.areas()[k])
            annotation["oco_id"], annotation["ico_id"] = int(clusters[k]), int(order[k])
        else:
            annotation[names.visible] = to_dictionary(visible.counts[k], visible.size)
        yield annotation
