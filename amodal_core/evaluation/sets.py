"""What evaluation compares: all annotations, or all predictions, of a data set as columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from amodal_core.classes import ClassMap
from amodal_core.errors import InputError
from amodal_core.evaluation.overlaps import grouped
from amodal_core.frame import Tracks
from amodal_core.masks.runs import Runs

KINDS = ("box", "visible", "amodal")
_MOST_KEPT = 2**29  # bytes of parsed masks of one kind that a set keeps


class ImageRecord(NamedTuple):
    """One image: id, size in pixels, name, place in a video ("" and 0 for single images), ns."""

    id: int
    height: int
    width: int
    name: str = ""
    video: str = ""
    frame: int = 0
    stamp: int = 0


@dataclass
class AnnotationSet:
    """N annotations or predictions over a list of images.

    Attributes:
        images: the images; an image without annotations is listed too.
        classes: class names.
        image_ids: (N,) int64.
        class_ids: (N,) int64, indices into `classes`.
        instance_ids: (N,) int64, identity within the video, -1 where there is none.
        scores: (N,) float64, 1 for truth.
        amodal: N COCO RLE counts, None where there is no amodal mask.
        visible: N COCO RLE counts, None where there is no visible mask.
        boxes: (N, 4) float64 xyxy in pixels, the amodal box.
        occlusion_rates: (N,) float64, hidden share of the amodal area; NaN where unknown.
        crowd: (N,) bool, neither rewarded nor punished.
        depths: (N,) float64 metres along the optical axis, 0 where unknown.
        occluders: N tuples of positions in this set, None where the set knows no order.
    """

    images: list[ImageRecord]
    classes: tuple[str, ...]
    image_ids: np.ndarray
    class_ids: np.ndarray
    instance_ids: np.ndarray
    scores: np.ndarray
    amodal: list[bytes | None]
    visible: list[bytes | None]
    boxes: np.ndarray
    occlusion_rates: np.ndarray
    crowd: np.ndarray
    depths: np.ndarray
    occluders: list[tuple[int, ...]] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __post_init__(self) -> None:
        self._parsed: dict[str, Runs] = {}
        self.image_ids = np.asarray(self.image_ids, np.int64)
        self.class_ids = np.asarray(self.class_ids, np.int64)
        self.instance_ids = np.asarray(self.instance_ids, np.int64)
        self.scores = np.asarray(self.scores, np.float64)
        self.boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        self.occlusion_rates = np.asarray(self.occlusion_rates, np.float64)
        self.crowd = np.asarray(self.crowd, bool)
        self.depths = np.asarray(self.depths, np.float64)
        for f in fields(self):
            value = getattr(self, f.name)
            if (
                f.name not in ("images", "classes")
                and value is not None
                and len(value) != len(self)
            ):
                raise ValueError(f"{f.name} has {len(value)} entries, image_ids has {len(self)}")

    def sizes(self) -> dict[int, tuple[int, int]]:
        """(height, width) by image id."""
        return {i.id: (i.height, i.width) for i in self.images}

    def has(self, kind: str) -> bool:
        """Whether every entry has what `kind` of evaluation needs."""
        if kind == "box":
            return bool(np.isfinite(self.boxes).all())
        return all(m is not None for m in (self.amodal if kind == "amodal" else self.visible))

    def rle(self, kind: str) -> list[dict[str, Any]]:
        """The masks of one kind as pycocotools' dictionaries."""
        return [
            {"size": size, "counts": c}
            for size, c in zip(self._sizes().tolist(), self._counts(kind), strict=True)
        ]

    def _sizes(self) -> np.ndarray:
        """(N, 2) int64 height, width of each entry's image."""
        ids, places = np.unique(self.image_ids, return_inverse=True)
        sizes = self.sizes()
        table = np.array([sizes[i] for i in ids.tolist()], np.int64).reshape(-1, 2)
        return table[places]

    def _counts(self, kind: str) -> list[bytes]:
        counts = self.amodal if kind == "amodal" else self.visible
        missing = [n for n, c in enumerate(counts) if c is None]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(self)} entries have no {kind} mask",
                f"entry {missing[0]}",
                f"give a file with {kind} masks, or evaluate another kind",
            )
        return [c for c in counts if c is not None]

    def areas(self, kind: str) -> np.ndarray:
        """(N,) float64 areas in pixels: of the masks, or of the boxes."""
        if kind == "box":
            return np.prod(np.clip(self.boxes[:, 2:] - self.boxes[:, :2], 0, None), axis=1)
        return self.runs(kind).areas.astype(np.float64)

    def runs(self, kind: str) -> Runs:
        """The masks of one kind as runs; kept for the next call unless they are very large.

        Raises:
            InputError: an entry has no such mask, or one that is no RLE of its image's size.
        """
        if kind in self._parsed:
            return self._parsed[kind]
        heights, widths = self._sizes().T
        counts = self._counts(kind)
        try:
            parsed = Runs.parse(counts, heights, widths)
        except ValueError as error:
            raise InputError(
                f"a broken {kind} mask: {error}", "", "write the file again"
            ) from error
        if parsed.runs.nbytes < _MOST_KEPT:
            self._parsed[kind] = parsed
        return parsed

    def check_identities(self, where: str) -> None:
        """Each identity at most once an image; entries without one are not looked at.

        Raises:
            InputError: one is there twice.
        """
        keys = np.stack([self.image_ids, self.instance_ids], axis=1)[self.instance_ids >= 0]
        values, counts = np.unique(keys, axis=0, return_counts=True)
        if (counts > 1).any():
            image, identity = values[counts > 1][0]
            name = next((i.name for i in self.images if i.id == image), "")
            raise InputError(
                f"identity {identity} stands {counts.max()} times in image {image} {name}".rstrip(),
                where,
                "an object is in an image once: keep one entry, or give each an id of its own",
            )

    def release(self) -> None:
        """Give back the memory of parsed masks."""
        self._parsed.clear()

    def shapes(self, kind: str) -> Runs | np.ndarray:
        """What `kind` of evaluation compares: masks, or boxes (N, 4) float64 xyxy."""
        return self.boxes if kind == "box" else self.runs(kind)

    def by_image(self, images: Sequence[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Positions sorted by image, and where each of `images` begins, see `overlaps.grouped`."""
        places = {image.id: n for n, image in enumerate(images)}
        mine = np.array([places[i] for i in self.image_ids.tolist()], np.int64)
        return grouped(mine, len(images))

    def select(self, index: np.ndarray) -> AnnotationSet:
        """The entries at `index` (boolean mask or positions); the list of images stays."""
        chosen = np.arange(len(self))[index]
        new_position = {int(old): new for new, old in enumerate(chosen)}
        values: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("images", "classes") or value is None:
                continue
            if f.name == "occluders":
                values[f.name] = [
                    tuple(new_position[j] for j in value[i] if j in new_position) for i in chosen
                ]
            elif isinstance(value, np.ndarray):
                values[f.name] = value[chosen]
            else:
                values[f.name] = [value[i] for i in chosen]
        selected_set = replace(self, **values)
        selected_set._parsed = {kind: parsed[chosen] for kind, parsed in self._parsed.items()}
        return selected_set

    def with_classes(self, classes: Sequence[str], where: str) -> AnnotationSet:
        """The same entries with ids of another class list, matched by name.

        Raises:
            InputError: an entry's class is not in that list.
        """
        used = {self.classes[c] for c in np.unique(self.class_ids)}
        unknown = sorted(used - set(classes))
        if unknown:
            raise InputError(
                f"predicts classes that the ground truth does not have: {', '.join(unknown)}",
                where,
                f"the ground truth has: {', '.join(classes)}; map the names with --map old=new, "
                "or compare with --class-agnostic",
            )
        return self.mapped(ClassMap.exact(self.classes, classes))

    def mapped(self, classes: ClassMap) -> AnnotationSet:
        """The same entries under the targets of a class map."""
        return replace(self, classes=classes.targets, class_ids=classes.ids(self.class_ids))


def empty_set(images: Sequence[ImageRecord], classes: Sequence[str]) -> AnnotationSet:
    """No entries over the given images."""
    zero = np.zeros(0)
    return AnnotationSet(
        list(images), tuple(classes), zero, zero, zero, zero, [], [], zero, zero, zero, zero, []
    )


def from_tracks(
    frames: Iterable[tuple[ImageRecord, Tracks]], classes: Sequence[str]
) -> AnnotationSet:
    """Collect frames of tracks (or of truth) into one set.

    Args:
        frames: each image with what is in it.
        classes: what `Tracks.class_ids` index into.
    """
    images: list[ImageRecord] = []
    columns: dict[str, list[np.ndarray]] = defaultdict(list)
    amodal: list[bytes | None] = []
    visible: list[bytes | None] = []
    occluders: list[tuple[int, ...]] = []
    for image, tracks in frames:
        images.append(image)
        host = tracks.numpy()
        n, start = len(host), len(amodal)
        columns["image_ids"].append(np.full(n, image.id, np.int64))
        columns["class_ids"].append(np.asarray(host.class_ids))
        columns["instance_ids"].append(np.asarray(host.ids))
        columns["scores"].append(np.asarray(host.scores))
        columns["boxes"].append(np.asarray(host.amodal_boxes).reshape(-1, 4))
        columns["rates"].append(_exact_rates(host))
        columns["depths"].append(np.asarray(host.depths))
        crowd = host.ignore if host.ignore is not None else np.zeros(n, bool)
        columns["crowd"].append(np.asarray(crowd))
        amodal.extend(host.amodal.rle().counts)
        visible.extend(host.visible.rle().counts)
        hides = np.asarray(host.occluders)
        occluders.extend(tuple(int(j) + start for j in np.flatnonzero(row)) for row in hides)

    def joined(key: str) -> np.ndarray:
        return np.concatenate(columns[key]) if columns[key] else np.zeros(0)

    return AnnotationSet(
        images=images,
        classes=tuple(classes),
        image_ids=joined("image_ids"),
        class_ids=joined("class_ids"),
        instance_ids=joined("instance_ids"),
        scores=joined("scores"),
        amodal=amodal,
        visible=visible,
        boxes=joined("boxes"),
        occlusion_rates=joined("rates"),
        crowd=joined("crowd"),
        depths=joined("depths"),
        occluders=occluders,
    )


def _exact_rates(tracks: Tracks) -> np.ndarray:
    """(N,) float64 hidden shares: of the masks, where they say what the float32 rates say.

    A share at the edge of a bin would leave it by the rounding of float32.
    """
    rates = np.asarray(tracks.occlusion_rates, np.float64)
    amodal, visible = tracks.amodal.rle().areas(), tracks.visible.rle().areas()
    exact = 1 - visible / np.maximum(amodal, 1)
    return np.where(np.abs(exact - rates) < 1e-6, exact, rates)


def aligned(
    truth: AnnotationSet,
    predictions: AnnotationSet,
    class_agnostic: bool = False,
    where: str = "predictions",
) -> AnnotationSet:
    """The predictions, checked against the truth that they are to be compared with.

    Checks that every predicted image is known, that sizes agree and that classes have the same
    names; brings class ids into the truth's order.

    Raises:
        InputError: unknown image ids, other sizes, classes that the truth does not have, or nothing
            in the truth.
    """
    if not len(truth):
        raise InputError("the ground truth holds no annotation", where, "nothing to compare with")
    sizes = truth.sizes()
    unknown = sorted(set(predictions.image_ids.tolist()) - set(sizes))
    if unknown:
        raise InputError(
            f"{len(unknown)} image ids are not in the ground truth, the first is {unknown[0]}",
            where,
            "use the images of the ground truth, joined by file name",
        )
    for image in predictions.images:
        if image.id in sizes and (image.height, image.width) != sizes[image.id]:
            height, width = sizes[image.id]
            raise InputError(
                f"masks of image {image.id} are {image.width}x{image.height}, "
                f"the ground truth's are {width}x{height}",
                where,
                "predict at the image's own size",
            )
    classes = truth.classes
    if class_agnostic:  # classes still break ties, those that the truth does not have come last
        classes = tuple(dict.fromkeys((*classes, *predictions.classes)))
    return replace(predictions.with_classes(classes, where), images=truth.images)
