"""Ground truth from data sets and bags, with what result files refer to it by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from amodal_core.bags.messages import class_names, read_tracks
from amodal_core.bags.reader import BagReader, is_bag
from amodal_core.bags.sensors import stamp_of
from amodal_core.datasets.base import DERIVED_NOTE, Dataset
from amodal_core.drive.bag_drive import BagDrive
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import ARRAY_TYPE, NO_LIDAR
from amodal_core.errors import InputError, foreign
from amodal_core.evaluation.federated import Verified, with_ignored_regions
from amodal_core.evaluation.sets import AnnotationSet, ImageRecord, empty_set, from_tracks
from amodal_core.frame import Tracks
from amodal_core.progress import ProgressBar, no_bar
from amodal_core.yaml_texts import read_yaml


@dataclass
class Truth:
    """A ground truth with what result files refer to it by.

    Attributes:
        set: the annotations.
        category_ids: class index by category id of the result files.
        videos: video name by video id of the result files.
        path: where it was read from.
        images: the images of some image ids, RGB uint8, those that can be read.
        verified: classes that results are judged in, by image id, of sets where not every image is
            annotated with every class; see `evaluation.federated`.
        remark: what one should know of it, such as that nobody drew its masks.
    """

    set: AnnotationSet
    category_ids: dict[int, int]
    videos: dict[int, str] = field(default_factory=dict)
    path: Path = field(default_factory=Path)
    images: Callable[[Sequence[int]], dict[int, np.ndarray]] = field(default=lambda _: {})
    verified: dict[int, Verified] = field(default_factory=dict)
    remark: str = ""

    def frames(self, video: str) -> list[ImageRecord]:
        """A video's images in order: result lists count frames by place, not by number."""
        return sorted((i for i in self.set.images if i.video == video), key=lambda i: i.frame)


def read_truth(path: str | Path, progress: ProgressBar = no_bar) -> Truth:
    """Ground truth of a bag or of a data set, without its images.

    Args:
        path: a bag with a `ground_truth` topic, or what `amodal data check` recognises.
        progress: wraps an iterable of known length to show progress.

    Raises:
        InputError: nothing of the kind is there.
    """
    path = Path(path)
    if is_bag(path):
        annotations = read_bag(path, "ground_truth", progress)
        stamps = {i.stamp: i.id for i in annotations.images}
        return Truth(
            annotations,
            {k + 1: k for k in range(len(annotations.classes))},
            {1: path.stem},
            path,
            lambda wanted: bag_images(path, {s: i for s, i in stamps.items() if i in wanted}),
            remark=remark_of(path),
        )
    from amodal_core.datasets.coco_like import CocoLike
    from amodal_core.datasets.kitti import Kitti
    from amodal_core.datasets.registry import open_dataset

    dataset = open_dataset(path)
    if isinstance(dataset, Kitti):
        raise InputError(
            f"{dataset.name} annotates boxes, no masks",
            str(path),
            "for KITTI's benchmark of objects: `amodal eval kitti`",
        )
    n = len(dataset)
    index = index_of(dataset)
    ids = [i.id for i in index.set.images]

    def annotated() -> Iterable[tuple[ImageRecord, Tracks]]:
        for k in progress(range(n), n, "ground truth"):
            truth = dataset.truth(k)
            if truth is not None:
                yield index.set.images[k], truth

    def read_images(wanted: Sequence[int]) -> dict[int, np.ndarray]:
        images = {}
        places = {i: n for n, i in enumerate(ids)}
        for number in wanted:
            with suppress(InputError):
                image = dataset.frame(places[number]).image
                if image is not None:
                    images[number] = image
        return images

    annotations = from_tracks(annotated(), dataset.classes)
    remarks = [remark_of(dataset.path)]
    if isinstance(dataset, CocoLike) and (unusable := dataset.listed - len(annotations)) > 0:
        remarks.append(f"{unusable} of {dataset.listed} annotations break a rule and do not count;"
                       " `amodal data check` lists them")  # fmt: skip
    if not dataset.has_masks:
        none: list[bytes | None] = [None] * len(annotations)
        annotations = replace(annotations, amodal=none, visible=list(none), occluders=None)
    verified = {i: v for k, i in enumerate(ids) if (v := dataset.verified(k)) is not None}
    annotations = with_ignored_regions(annotations, verified)
    return replace(
        index,
        set=annotations,
        path=path,
        images=read_images,
        verified=verified,
        remark="; ".join(filter(None, remarks)),
    )


def remark_of(path: Path) -> str:
    """What a bag's metadata, or a note beside a converted set, says of its ground truth."""
    with suppress(InputError):
        if is_bag(path):
            metadata = read_yaml(path / "metadata.yaml")
            with foreign(path):
                return str(metadata["rosbag2_bagfile_information"]["custom_data"]["ground_truth"])
        folder = path if path.is_dir() else path.parent
        with foreign(path):
            return (folder / DERIVED_NOTE).read_text("utf-8").strip()
    return ""


def index_of(dataset: Dataset) -> Truth:
    """All frames of a data set, annotated or not, and what result files call them; no truth."""
    from amodal_core.datasets.coco_like import CocoLike

    ids = list(range(1, len(dataset) + 1))
    categories = {k + 1: k for k in range(len(dataset.classes))}
    videos = dict(enumerate(dataset.videos, start=1))
    if isinstance(dataset, CocoLike):
        ids = [int(image["id"]) for image in dataset.images]
        categories = dict(dataset.category_ids)
        # SAIL-VOS as released has one id for several videos; results then count them from 1.
        named = {image.get("video_id"): image.get("video", "") for image in dataset.images}
        if len(set(named.values())) == len(named) == len(videos):
            videos = {k: v for k, v in named.items() if k is not None}
    images = []
    for k, number in enumerate(ids):
        place, (height, width) = dataset.place(k), dataset.size(k)
        images.append(ImageRecord(number, height, width, place.name, place.video, place.index))
    return Truth(empty_set(images, dataset.classes), categories, videos, dataset.path)


def with_classes_of(truth: Truth, predictions: AnnotationSet) -> tuple[Truth, list[str]]:
    """A bag's truth with the classes added that only predictions have, and their names.

    A bag of an earlier version lists no classes: those that it never shows are no mistake of the
    predictions.
    """
    used = dict.fromkeys(predictions.classes[k] for k in np.unique(predictions.class_ids).tolist())
    new = [name for name in used if name not in truth.set.classes]
    return replace(truth, set=replace(truth.set, classes=(*truth.set.classes, *new))), new


def bag_images(
    path: Path, wanted: dict[int, int], topic: str = "", settings: DriveSettings | None = None
) -> dict[int, np.ndarray]:
    """Images of a bag that can be read, RGB uint8, rectified as in a replay.

    Args:
        path: the bag.
        wanted: image id by stamp in nanoseconds.
        topic: of the images, "" to find it.
        settings: of the drive, calibration and rectification among them.

    Returns:
        The images by their ids; none of a bag without a camera: truth and tracks alone make an
        evaluation, too.
    """
    images: dict[int, np.ndarray] = {}
    with (
        suppress(InputError),
        BagDrive(path, topic, NO_LIDAR, settings, lidar_optional=True) as drive,
    ):
        for made in drive:
            number = wanted.get(made.frame.stamp)
            if number is not None and number not in images and made.frame.image is not None:
                images[number] = made.frame.image
                if len(images) == len(wanted):
                    break
    return images


def array_topics(bag: BagReader, name: str = "") -> list[str]:
    """The AmodalInstanceArray topics of a bag, those of that last name where one is given."""
    topics = [t.name for t in bag.topics.values() if t.type == ARRAY_TYPE]
    return [t for t in topics if not name or t.rsplit("/", 1)[-1] == name]


def read_bag(path: Path, name: str, progress: ProgressBar) -> AnnotationSet:
    """The AmodalInstanceArray topic of that last name, one image a message, ids by order."""
    with BagReader(path) as bag:
        chosen = array_topics(bag, name)
        if len(chosen) != 1:
            raise InputError(
                f"{len(chosen)} topics named {name}",
                str(path),
                f"AmodalInstanceArray topics there: {', '.join(array_topics(bag)) or 'none'}",
            )
        names: dict[int, str] = {}
        frames: list[tuple[ImageRecord, Tracks]] = []
        count = bag.topics[chosen[0]].count
        for n, (_, _, message) in enumerate(progress(bag.messages(chosen), count, name)):
            names.update(class_names(message))
            record = ImageRecord(
                n + 1,
                message.height,
                message.width,
                f"{n:06d}",
                path.stem,
                n,
                stamp_of(message.header),
            )
            frames.append((record, read_tracks(message, f"{path} {chosen[0]} message {n}")))
    top = max(chain(names, [-1])) + 1
    return from_tracks(frames, [names.get(k, f"class {k}") for k in range(top)])
