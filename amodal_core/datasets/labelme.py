"""labelme: one JSON beside each image, drawn by hand.

Shapes of one label and one `group_id` are one object. Those flagged `visible`, or whose label ends
in "_visible", draw what is seen of it, the others the whole; without the former it is not hidden,
unless the whole is flagged `hidden`: then nothing of it is seen. Polygons, rectangles, circles and
the masks that labelme's AI draws count; points and lines have no area.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core import limits
from amodal_core.datasets.base import APART, BEGIN, Dataset, Finding, Place, link, new_folder
from amodal_core.datasets.coco_like import LARGEST
from amodal_core.datasets.image_files import (
    check_image,
    decode_image,
    image_of,
    read_image,
    write_bytes,
    write_image,
)
from amodal_core.datasets.json_write import dumps
from amodal_core.datasets.segmentation import to_polygons
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError, foreign
from amodal_core.files import inside
from amodal_core.frame import Frame, Sample, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.validate import SegmentationError, to_rle

_VISIBLE = "_visible"
_CIRCLE = 48  # corners of the polygon that stands for a circle


class Labelme(Dataset):
    """The labelme files of a folder, those below it included.

    Args:
        path: the folder, or one file.

    Raises:
        InputError: there is no labelme file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = f"labelme {self.path.name}"
        files = [self.path] if self.path.is_file() else sorted(self.path.rglob("*.json"))
        self._root = self.path.parent if self.path.is_file() else self.path
        self._files: list[Path] = []
        self._broken: list[InputError] = []
        labels: set[str] = set()
        for file in files:
            try:
                content = _read(file)
            except InputError as error:
                self._broken.append(error)
                continue
            if content is not None:
                self._files.append(file)
                labels |= {_label(s)[0] for s in content["shapes"]}
        if not self._files:
            raise InputError("no labelme JSON", str(path), "give a folder that labelme wrote to")
        self.classes = tuple(sorted(labels))

    def __len__(self) -> int:
        return len(self._files)

    def _content(self, index: int) -> dict[str, Any]:
        content = _read(self._files[index])
        if content is None:
            raise InputError("no labelme JSON any more", str(self._files[index]))
        return content

    def place(self, index: int) -> Place:
        """Named by the file's path below the folder."""
        name = self._files[index].relative_to(self._root).with_suffix("")
        return Place(str(name), "", index)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) as the file says."""
        content = self._content(index)
        return content["imageHeight"], content["imageWidth"]

    def image_path(self, index: int) -> Path:
        """The image that the file names, else the one beside it; never one outside the folder.

        Raises:
            InputError: the name leads out of the folder, and no such image lies beside the file.
        """
        # labelme on Windows writes backslashes.
        name = str(self._content(index)["imagePath"]).replace("\\", "/")
        folder = self._files[index].parent
        beside = folder / Path(name).name
        try:
            path = inside(self._root, name, folder.relative_to(self._root))
        except InputError:
            if not isfile(beside):  # which a name of any length may be asked
                raise
            return beside
        return beside if not path.exists() and beside.exists() else path

    def frame(self, index: int) -> Frame:
        """The image."""
        image = read_image(self.image_path(index), self.size(index))
        return Frame(BEGIN + index * APART, image=image)

    def truth(self, index: int) -> Tracks:
        """Objects of an image; shapes that cannot be read are left out. Ids are their numbers."""
        content = self._content(index)
        size = content["imageHeight"], content["imageWidth"]
        classes, amodal, visible = [], [], []
        for label, shapes in _objects(content["shapes"]):
            masks = _object_masks(shapes, size)[0]
            if masks is not None:
                classes.append(self.classes.index(label))
                amodal.append(masks[0])
                visible.append(masks[1])
        amodal_masks, visible_masks = RleMasks(size, amodal), RleMasks(size, visible)
        return make_truth(amodal_masks, visible_masks, classes, range(len(classes)))

    def check(self) -> Iterator[Finding | None]:
        """Files, images, sizes and shapes."""
        for error in self._broken:
            yield Finding("malformed-json", error.where, "", error.what)
        for index in range(len(self)):
            content, file = self._content(index), str(self._files[index])
            size = content["imageHeight"], content["imageWidth"]
            try:
                actual = yield from check_image(self.image_path(index))
            except InputError as error:
                actual = None
                yield Finding("missing-image", error.where, "", error.what)
            if actual is not None and actual != size:
                what = f"the image is {actual}, the file says {size} (height, width)"
                yield Finding("wrong-size", file, "", what)
            for number, (label, shapes) in enumerate(_objects(content["shapes"])):
                for rule, what in _object_masks(shapes, size)[1]:
                    yield Finding(rule, file, str(number), f"{label}: {what}")
            yield None

    def fix(self, out: Path) -> Iterator[None]:
        """Files without the shapes that cannot be read; images are linked."""
        new_folder(out)
        for index in range(len(self)):
            content, source = self._content(index), self.image_path(index)
            size = content["imageHeight"], content["imageWidth"]
            sound = not any(isinstance(f, Finding) for f in check_image(source))
            if sound:
                kept = []
                for _, shapes in _objects(content["shapes"]):
                    if _object_masks(shapes, size)[0] is not None:
                        kept += [s for s in shapes if _shape_problem(s, size) is None]
                target = out / self._files[index].relative_to(self._root)
                content |= {"shapes": kept, "imagePath": source.name, "imageData": None}
                write_bytes(target, dumps(content).encode())
                link(source, target.parent / source.name)
            yield None


def write(root: str | Path, samples: Iterable[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Write one labelme JSON and one PNG a sample; yields each one's stem.

    Polygons run along pixel borders, so that they rasterise to the very masks; `group_id` is the
    object's id.

    Args:
        root: a folder that is made.
        samples: frames with image and truth.
        classes: names of the truth's class ids.

    Raises:
        InputError: the folder is not empty, or a frame lacks its image.
    """
    root = new_folder(Path(root))
    for number, sample in enumerate(samples):
        stem = f"{number:06d}"
        write_image(root / f"{stem}.png", image_of(sample))
        height, width = sample.frame.size
        content: dict[str, Any] = {
            "version": "5.0.1",
            "flags": {},
            "shapes": [] if sample.truth is None else list(_shapes(sample.truth, classes)),
            "imagePath": f"{stem}.png",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_bytes(root / f"{stem}.json", dumps(content).encode())
        yield stem


def _shapes(truth: Tracks, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    amodal, visible = to_polygons(truth.amodal.rle()), to_polygons(truth.visible.rle())
    for k in range(len(truth)):
        occluded = float(truth.occlusion_rates[k]) > 0
        for polygons, draws_visible in ((amodal[k], False), (visible[k] if occluded else [], True)):
            for polygon in polygons:
                yield {
                    "label": classes[int(truth.class_ids[k])],
                    "points": np.asarray(polygon, np.float64).reshape(-1, 2).tolist(),
                    "group_id": int(truth.ids[k]),
                    "shape_type": "polygon",
                    "flags": _flags(draws_visible, not visible[k]),
                }


def _flags(visible: bool, hidden: bool) -> dict[str, bool]:
    if visible:
        return {"visible": True}
    return {"hidden": True} if hidden else {}


def _read(path: Path) -> dict[str, Any] | None:
    """A labelme file's content, None if the JSON is something else."""
    with foreign(path, "malformed JSON", "save it again"):
        content = json.loads(path.read_bytes())
    if not isinstance(content, dict) or not {"shapes", "imagePath"} <= content.keys():
        return None
    with foreign(path, "no image size or shapes", "save it again"):
        for side in ("imageHeight", "imageWidth"):
            content[side] = int(content[side])
        content["shapes"] = [dict(s) for s in content["shapes"]]
    limits.check_image(content["imageWidth"], content["imageHeight"], str(path))
    return content


def _label(shape: dict[str, Any]) -> tuple[str, bool]:
    """The class of a shape, and whether it draws what is seen only."""
    label = str(shape.get("label", ""))
    if label.endswith(_VISIBLE):
        return label.removesuffix(_VISIBLE), True
    return label, _flagged(shape, "visible")


def _flagged(shape: dict[str, Any], name: str) -> bool:
    """Whether a shape has a flag; what is no table of flags has none."""
    flags = shape.get("flags")
    return isinstance(flags, dict) and bool(flags.get(name))


def _objects(shapes: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The shapes of each object: those of one label and group, else each its own."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for number, shape in enumerate(shapes):
        group, label = shape.get("group_id"), _label(shape)[0]
        key = (label, "shape", number) if group is None else (label, "group", str(group))
        groups.setdefault(key, []).append(shape)
    for (label, _, _), members in groups.items():
        yield label, members


def _object_masks(
    shapes: list[dict[str, Any]], size: tuple[int, int]
) -> tuple[tuple[bytes, bytes] | None, list[tuple[str, str]]]:
    """Amodal and visible RLE of an object, None without a mask, and what is wrong with it."""
    problems = [p for p in (_shape_problem(s, size) for s in shapes) if p is not None]
    sound = [s for s in shapes if _shape_problem(s, size) is None]
    wholes = [_shape_mask(s, size) for s in sound if not _label(s)[1]]
    parts = [_shape_mask(s, size) for s in sound if _label(s)[1]]
    if not wholes and not parts:
        return None, problems or [("empty-polygon", "no polygon")]
    if not wholes:
        problems.append(("missing-amodal", "a visible part without the whole"))
    amodal = RleMasks(size, wholes or parts).union()
    visible = RleMasks(size, parts or wholes).union()
    if not parts and any(_flagged(s, "hidden") for s in sound):
        visible = RleMasks.empty(size, 1)
    if not amodal.areas()[0]:
        return None, [*problems, ("empty-mask", "the mask has no pixel")]
    outside, area = int((visible - amodal).areas()[0]), int(visible.areas()[0])
    if outside > max(4, 0.05 * area):
        what = f"{outside} of {area} visible pixels lie outside the whole object"
        problems.append(("visible-outside-amodal", what))
    return (amodal.counts[0], (visible & amodal).counts[0]), problems


def _shape_problem(shape: dict[str, Any], size: tuple[int, int]) -> tuple[str, str] | None:
    kind = shape.get("shape_type", "polygon")
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        return "unsupported-shape", f"a {kind} has no area"
    try:
        _shape_mask(shape, size)
    except SegmentationError as error:
        return error.rule, str(error)
    except (KeyError, TypeError, ValueError):
        return "segmentation-unreadable", "points that are not pairs of numbers"
    return None


def _shape_mask(shape: dict[str, Any], size: tuple[int, int]) -> bytes:
    """A shape's RLE.

    A shape of the kind "mask", as labelme's AI draws, is a picture of the box between its points.
    """
    if shape.get("shape_type") != "mask":
        return to_rle([_polygon(shape)], size)
    corner = np.asarray(shape["points"], np.float64).reshape(-1, 2)[:1]
    if not len(corner) or not (np.abs(corner) < LARGEST).all():
        raise SegmentationError("outside-image", "a mask without a place in the image")
    try:
        picture = decode_image(b64decode(shape["mask"]), "mask")
    except (InputError, ValueError):
        raise SegmentationError("segmentation-unreadable", "a mask that is no picture") from None
    return RleMasks.from_crops([picture[..., 0] > 0], corner.astype(int), size).counts[0]


def _polygon(shape: dict[str, Any]) -> list[float]:
    points = np.asarray(shape["points"], np.float64)
    if points.size == 0:
        return []
    points = points.reshape(-1, 2)
    kind = shape.get("shape_type", "polygon")
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    elif kind == "circle" and len(points) == 2:
        turn = np.linspace(0, 2 * np.pi, _CIRCLE, endpoint=False)
        radius = np.linalg.norm(points[1] - points[0])
        points = points[0] + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    flat: list[float] = points.reshape(-1).tolist()
    return flat
