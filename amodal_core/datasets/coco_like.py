"""What the formats share that are COCO's JSON with fields for what is hidden."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amodal_core.datasets.base import APART, BEGIN, Dataset, Finding, Place, link, new_folder
from amodal_core.datasets.image_files import ImageFolder, check_image, read_image
from amodal_core.datasets.json_index import JsonIndex
from amodal_core.datasets.json_write import JsonWriter
from amodal_core.datasets.segmentation import to_dictionary, to_polygons
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError, foreign
from amodal_core.files import inside
from amodal_core.frame import Frame, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.validate import SegmentationError, polygon_problem, to_rle

# Polygons of the visible and of the whole object are drawn separately: their borders differ by a
# pixel here and there. More than this share of the visible area outside is a mistake.
_BORDER_SHARE = 0.05
# COCO's tools count pixels in 32 bits; more than this in a row is a mistake.
LARGEST = 2**15


class Fields(NamedTuple):
    """The names under which a format keeps its masks, boxes and areas."""

    amodal: str
    visible: str
    amodal_box: str = ""
    visible_box: str = ""
    amodal_area: str = ""
    visible_area: str = ""


class CocoLike(Dataset):
    """Images and annotations of one JSON file; subclasses say where the masks are.

    Args:
        path: the JSON file.
        images: the folder that its file names are relative to; looked for near the file when None.

    Raises:
        InputError: the file is malformed, an entry of `categories` is, or all of `images` are.
    """

    format = "coco"

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        self.path = Path(path)
        self.name = f"{self.format} {self.path.stem}"
        self.json = JsonIndex(self.path)
        self._malformed: list[Finding] = []
        self.images = [i for k in range(self.json.count("images")) if (i := self._image(k))]
        if self._malformed and not self.images:
            cure = "give each image a whole id, height and width, and a file_name"
            raise InputError(f"no image: {self._malformed[0].what}", str(self.path), cure)
        categories = list(self.json.elements("categories"))
        with foreign(self.path, "a category without id or name", "export the file again"):
            self.category_ids = {int(c["id"]): k for k, c in enumerate(categories)}
            self.classes = tuple(str(c["name"]) for c in categories)
        folders = [Path(images)] if images is not None else list(self._folders())
        self.folder = ImageFolder(folders, self._probes())

    def _image(self, index: int) -> dict[str, Any] | None:
        """An entry of `images`; None, and a finding, where it is not one."""
        try:
            element = self.json.element("images", index)
            numbers = [element[field] for field in ("id", "height", "width")]
            integers = all(isinstance(n, int) and abs(n) < 2**62 for n in numbers)
            if not integers or not isinstance(element["file_name"], str):
                raise ValueError("an id, height, width or file_name of another type")
            if not (0 < numbers[1] <= LARGEST and 0 < numbers[2] <= LARGEST):
                raise ValueError(f"{numbers[2]}x{numbers[1]} pixels")
            inside(self.path.parent, element["file_name"])
            number, video = element.get("video_id"), element.get("video", "")
            if not (number is None or isinstance(number, int)) or not isinstance(video, str):
                raise ValueError("a video or video_id of another type")
            return element
        except (InputError, KeyError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            what = f"entry {index} of `images` cannot be used: {reason}"
            self._malformed.append(Finding("malformed-image", self.path.name, "", what))
            return None

    @cached_property
    def _occurring(self) -> set[int | None]:
        """The class ids of all annotations; one pass over the file."""
        ids: set[int | None] = set()
        for k in range(self.json.count("annotations")):
            with suppress(InputError):
                ids.add(self.category(self.json.element("annotations", k)))
        return ids

    @property
    def listed(self) -> int:
        """Objects of the file, those that break a rule and are in no truth among them."""
        return self.json.count("annotations")

    def has_class(self, class_id: int) -> bool:
        """Whether an annotation is of a class."""
        return class_id in self._occurring

    def category(self, annotation: dict[str, Any]) -> int | None:
        """The class id of an annotation, None for one that the file does not list."""
        number = annotation.get("category_id")
        return self.category_ids.get(number) if isinstance(number, int) else None

    def _folders(self) -> Iterator[Path]:
        """Where the images may lie, the likeliest first."""
        for base in (self.path.parent, self.path.parent.parent):
            yield base / "images"
            yield base

    def _probes(self) -> list[str]:
        """Some file names by which the right folder is known."""
        return [i["file_name"] for i in self.images[:20]]

    def fields(self, annotation: dict[str, Any]) -> Fields:
        """Where an annotation keeps what."""
        return Fields("segmentation", "visible_mask", "bbox", "", "area", "")

    def amodal(self, annotation: dict[str, Any]) -> Any:
        """An annotation's amodal segmentation."""
        return annotation.get(self.fields(annotation).amodal)

    def visible(self, annotation: dict[str, Any]) -> Any:
        """An annotation's visible segmentation."""
        return annotation.get(self.fields(annotation).visible)

    def instance_id(self, annotation: dict[str, Any]) -> int:
        """The identity of an annotation's object."""
        return int(annotation["id"])

    def identity(self, annotation: dict[str, Any]) -> int | None:
        """`instance_id` where it is one that a truth can hold, else None."""
        with suppress(KeyError, TypeError, ValueError, OverflowError):
            number = self.instance_id(annotation)
            return number if 0 <= number < 2**62 else None
        return None

    def occluders(
        self, annotations: list[dict[str, Any]], amodal: RleMasks, visible: RleMasks
    ) -> np.ndarray | None:
        """(N, N) who hides whom where the format says so; None to find it from the masks."""
        return None

    def __len__(self) -> int:
        return len(self.images)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) as the JSON says."""
        return self.images[index]["height"], self.images[index]["width"]

    def place(self, index: int) -> Place:
        """Named by the image's path; an order of its own, since single images have none in time."""
        return Place(str(Path(self.images[index]["file_name"]).with_suffix("")), "", index)

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self.folder / self.images[index]["file_name"]

    def stamp(self, index: int) -> int:
        """Nanoseconds; nominal."""
        return BEGIN + index * APART

    def frame(self, index: int) -> Frame:
        """The image."""
        image = read_image(self.image_path(index), self.size(index))
        return Frame(self.stamp(index), image=image)

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """The annotations of an image as the JSON has them."""
        indices = self.json.annotations_of(self.images[index]["id"]).tolist()
        return [self.json.element("annotations", k) for k in indices]

    def truth(self, index: int) -> Tracks:
        """Masks of an image; annotations that break a rule are left out, `check` lists them."""
        size = self.size(index)
        found: dict[int, tuple[dict[str, Any], bytes, bytes]] = {}
        for annotation in self.annotations(index):
            try:
                masks = self._masks(annotation, size)
            except (SegmentationError, KeyError, TypeError, ValueError, OverflowError):
                continue
            number = self.identity(annotation)
            if number is not None and self.category(annotation) is not None:
                found.setdefault(number, (annotation, *masks))
        amodal_masks = RleMasks(size, [amodal for _, amodal, _ in found.values()])
        visible_masks = RleMasks(size, [visible for _, _, visible in found.values()])
        drawn = np.flatnonzero(amodal_masks.areas())
        ids = np.array(list(found), np.int64)[drawn]
        usable = [list(found.values())[k][0] for k in drawn]
        amodal_masks, visible_masks = amodal_masks[drawn], visible_masks[drawn]
        if len(usable):
            visible_masks = visible_masks & amodal_masks
        return make_truth(
            amodal_masks,
            visible_masks,
            [self.category(a) or 0 for a in usable],
            ids,
            occluders=self.occluders(usable, amodal_masks, visible_masks),
            ignore=[bool(a.get("iscrowd", 0)) for a in usable],
        )

    def _masks(self, annotation: dict[str, Any], size: tuple[int, int]) -> tuple[bytes, bytes]:
        """Amodal and visible RLE; an empty visible mask means wholly hidden."""
        amodal = to_rle(self.amodal(annotation), size)
        visible = self.visible(annotation)
        if visible is None:
            return amodal, amodal
        try:
            return amodal, to_rle(visible, size)
        except SegmentationError as error:
            if error.rule != "empty-polygon":
                raise
            return amodal, RleMasks.empty(size, 1).counts[0]

    # Checking and mending ---------------------------------------------------------------------

    def check(self) -> Iterator[Finding | None]:
        """Files, sizes, ids, categories and masks of every image and annotation."""
        yield from self._malformed
        yield from self._check_ids()
        for index in range(len(self)):
            where = f"{self.path.name}: {self.images[index]['file_name']}"
            yield from self.check_files(index)
            try:
                annotations = self.annotations(index)
            except InputError as error:
                yield Finding("malformed-json", where, "", error.what)
                annotations = []
            earlier: dict[int, Any] = {}
            for annotation in annotations:
                problems = [
                    *self.problems(annotation, index),
                    *self._identity_findings(annotation, earlier),
                ]
                for rule, what in problems:
                    yield Finding(rule, where, str(annotation.get("id", "")), what)
            yield None

    def problems(self, annotation: dict[str, Any], index: int) -> Iterable[tuple[str, str]]:
        """What is wrong with an annotation of an image: rules, and what breaks them."""
        return self.inspect(annotation, self.size(index))[0]

    def _identity_findings(
        self, annotation: dict[str, Any], earlier: dict[int, Any]
    ) -> Iterator[tuple[str, str]]:
        """Of an annotation without identity, or with that of another one before it in its image."""
        own, number = annotation.get("id"), self.identity(annotation)
        if number is None:
            if isinstance(own, int):
                yield "missing-field", "no identity, or one that is no number from 0 on"
        elif earlier.setdefault(number, own) != own:  # equal ones are the whole file's affair
            what = f"identity {number} is annotation {earlier[number]}'s; the first counts"
            yield "duplicate-id", what

    def _check_ids(self) -> Iterator[Finding]:
        for field in ("id", "file_name"):
            earlier: set[Any] = set()
            for image in self.images:
                if image[field] in earlier:
                    rule = f"duplicate-image-{'id' if field == 'id' else 'file'}"
                    what = f"image {field} {image[field]} occurs twice"
                    yield Finding(rule, f"{self.path.name}: {image['file_name']}", "", what)
                earlier.add(image[field])
        image_ids = np.array([i["id"] for i in self.images], np.int64)
        for k in np.flatnonzero(~np.isin(self.json.owners, image_ids)).tolist():
            what = f"belongs to image id {self.json.owners[k]}, which is not in the file"
            try:
                annotation = self.json.element("annotations", k)
                if "image_id" not in annotation:
                    what = "has no image_id"
                yield Finding("unknown-image", self.path.name, str(annotation.get("id", "")), what)
            except InputError as error:
                yield Finding("malformed-json", self.path.name, "", error.what)
        yield from self._duplicate_ids()

    def _duplicate_ids(self) -> Iterator[Finding]:
        earlier: set[int] = set()
        for k in range(self.json.count("annotations")):
            try:
                number = int(self.json.element("annotations", k)["id"])
            except (InputError, KeyError, TypeError, ValueError, OverflowError):
                continue
            if number in earlier:
                what = "the annotation's id is not unique"
                yield Finding("duplicate-id", self.path.name, str(number), what)
            earlier.add(number)

    def check_files(self, index: int) -> Iterator[Finding]:
        """Findings about an image's files."""
        path = self.image_path(index)
        actual = yield from check_image(path)
        if actual is not None and actual != self.size(index):
            declared = self.size(index)
            what = (
                f"the image has {actual[1]}x{actual[0]} pixels, the file says "
                f"{declared[1]}x{declared[0]}"
            )
            yield Finding("wrong-size", str(path), "", what)

    def inspect(
        self, annotation: dict[str, Any], size: tuple[int, int]
    ) -> tuple[list[tuple[str, str]], dict[str, Any] | None]:
        """What is wrong with an annotation, and the annotation mended, None where it cannot be."""
        problems: list[tuple[str, str]] = []
        mended: dict[str, Any] | None = dict(annotation)
        if not isinstance(annotation.get("id"), int):
            problems.append(("missing-field", "no id, or one that is no number"))
            mended = None
        if self.category(annotation) is None:
            problems.append(
                ("unknown-category", f"category {annotation.get('category_id')} is not in the file")
            )
            mended = None
        wholly_hidden = annotation.get(self.fields(annotation).visible_area) == 0
        for segmentation, of in (
            (self.amodal(annotation), "amodal"),
            (self.visible(annotation), "visible"),
        ):
            if of == "visible" and wholly_hidden and segmentation == []:
                continue
            if isinstance(segmentation, list):
                problems += _polygon_findings(segmentation, of, size)
        masks: list[RleMasks] = []
        for segmentation, of in (
            (self.amodal(annotation), "amodal"),
            (self.visible(annotation), "visible"),
        ):
            if segmentation is None and of == "visible":
                masks.append(masks[0] if masks else RleMasks.empty(size, 1))
                continue
            try:
                masks.append(RleMasks(size, [to_rle(segmentation, size)]))
            except SegmentationError as error:
                entry = (error.rule, f"{of} mask: {error}")
                listed = any(p[0] == error.rule and p[1].startswith(of) for p in problems)
                if not listed and not (of == "visible" and wholly_hidden):
                    problems.append(entry)
                if of == "visible" and error.rule == "empty-polygon" and masks:
                    masks.append(RleMasks.empty(size, 1))
                    continue
                return problems, None
        amodal, visible = masks
        if not amodal.areas()[0]:
            problems.append(("empty-mask", "the amodal mask has no pixel"))
            return problems, None
        problems += self._inspect_pair(annotation, amodal, visible)
        if problems and mended is not None:
            mended = self.mend(mended, amodal, visible & amodal)
        return problems, mended

    def _inspect_pair(
        self, annotation: dict[str, Any], amodal: RleMasks, visible: RleMasks
    ) -> Iterator[tuple[str, str]]:
        names = self.fields(annotation)
        outside, area = int((visible - amodal).areas()[0]), int(visible.areas()[0])
        both = self.amodal(annotation), self.visible(annotation)
        drawn = any(isinstance(s, list) for s in both)
        if outside > (max(4.0, _BORDER_SHARE * area) if drawn else 0):
            yield (
                "visible-outside-amodal",
                f"{outside} of {area} visible pixels lie outside the amodal mask",
            )
        a, b = annotation.get(names.visible_area), annotation.get(names.amodal_area)
        if isinstance(a, (int, float)) and isinstance(b, (int, float)) and a > b:
            yield "visible-area-larger", f"visible area {a} above amodal area {b}"
        for name, mask in ((names.amodal_box, amodal), (names.visible_box, visible)):
            box = annotation.get(name)
            if box is None or not mask.areas()[0]:
                continue
            if not _is_box(box) or not _box_fits(box, mask.boxes()[0], mask.size):
                yield "box-mismatch", f"{name} {box} does not fit its mask"
        rate = annotation.get("occlude_rate")
        if isinstance(rate, (int, float)):
            actual = 1 - int((visible & amodal).areas()[0]) / int(amodal.areas()[0])
            if abs(rate - actual) > 0.1:
                yield "occlusion-rate", f"occlude_rate {rate:.2f} where the masks give {actual:.2f}"

    def mend(
        self, annotation: dict[str, Any], amodal: RleMasks, visible: RleMasks
    ) -> dict[str, Any]:
        """An annotation whose masks, boxes and areas are these; the kind of mask stays."""
        names = self.fields(annotation)
        for name, box, area, mask in (
            (names.amodal, names.amodal_box, names.amodal_area, amodal),
            (names.visible, names.visible_box, names.visible_area, visible),
        ):
            if name in annotation:
                annotation[name] = _as_before(annotation[name], mask)
            if box in annotation:
                annotation[box] = xywh(mask)
            if area in annotation:
                annotation[area] = int(mask.areas()[0])
        if "occlude_rate" in annotation:
            annotation["occlude_rate"] = 1 - int(visible.areas()[0]) / int(amodal.areas()[0])
        return annotation

    def fix(self, out: Path) -> Iterator[None]:
        """The JSON without what cannot be mended, and a link to the images."""
        new_folder(out)
        self.link_files(out)
        kept = {k for k in range(len(self)) if self._keep(k)}
        written: set[int] = set()
        with JsonWriter(out / self.path.name) as writer:
            for name in ("categories", "videos"):
                if name in self.json.top:
                    writer.extend(name, list(self.json.elements(name)))
            image_ids: set[Any] = set()
            for k in range(len(self)):
                image = self.images[k]
                if k in kept and image["id"] not in image_ids:
                    image_ids.add(image["id"])
                    writer.add("images", image)
                    identities: set[int | None] = {None}
                    for annotation in self._readable(k):
                        mended = self.inspect(annotation, self.size(k))[1]
                        identity = self.identity(annotation)
                        if mended is None or identity in identities or mended["id"] in written:
                            continue
                        identities.add(identity)
                        written.add(mended["id"])
                        writer.annotation(mended)
                yield None

    def _readable(self, index: int) -> Iterator[dict[str, Any]]:
        for k in self.json.annotations_of(self.images[index]["id"]).tolist():
            with suppress(InputError):
                yield self.json.element("annotations", k)

    def _keep(self, index: int) -> bool:
        return not any(self.check_files(index))

    def link_files(self, out: Path) -> None:
        """Make the images known to a cleaned copy."""
        link(self.folder.path, out / "images")


def xywh(mask: RleMasks) -> list[float]:
    """The box of a set's first mask as COCO writes it: x, y, width, height."""
    x1, y1, x2, y2 = mask.boxes()[0].tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def _as_before(segmentation: Any, mask: RleMasks) -> Any:
    if isinstance(segmentation, list) and not any(isinstance(s, dict) for s in segmentation):
        return to_polygons(mask)[0]
    return to_dictionary(mask.counts[0], mask.size)


def _polygon_findings(
    polygons: list[Any], of: str, size: tuple[int, int]
) -> Iterable[tuple[str, str]]:
    if not polygons:
        return [("empty-polygon", f"{of} mask: no polygon")]
    listed = polygons if isinstance(polygons[0], list) else [polygons]
    if any(isinstance(p, dict) for p in listed):
        return []
    problems = [polygon_problem(p, size) for p in listed]
    return [(f[0], f"{of} mask: {f[1]}") for f in problems if f is not None]


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, (int, float)) and abs(v) < 2**31 for v in box)
    )


def _box_fits(box: list[float], around: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether an xywh box is the mask's within some pixels: annotators' boxes are rounded."""
    corners = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    # Amodal boxes may go on beyond the border, where masks end.
    corners = np.clip(corners, 0, (size[1], size[0], size[1], size[0]))
    side = max(around[2] - around[0], around[3] - around[1])
    return bool(np.abs(corners - around).max() <= max(4.0, 0.1 * side))
