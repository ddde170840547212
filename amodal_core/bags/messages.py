"""Instances and Tracks to amodal_msgs and vision_msgs messages, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from amodal_core.bags.factory import MessageFactory
from amodal_core.bags.sensors import (
    header_message,
    image_message,
    pose_message,
    vector_message,
)
from amodal_core.classes import scores_of_classes
from amodal_core.errors import InputError
from amodal_core.frame import Instances, Tracks
from amodal_core.limits import check_instances
from amodal_core.masks.mask_set import RleMasks

UNTRACKED = -1
_PROBABLE = 0.05  # of a class, from which on a detection names it beside its own


def instances_message(
    factory: MessageFactory,
    instances: Instances,
    *,
    stamp: int,
    frame_id: str,
    classes: Sequence[str],
    lidar_frame: str = "",
) -> Any:
    """An amodal_msgs/AmodalInstanceArray of Instances, or of Tracks with their ids.

    Args:
        factory: makes the messages.
        instances: what to publish; is brought to the host.
        stamp: the image's, nanoseconds.
        frame_id: the camera's optical frame.
        classes: names that class ids index into.
        lidar_frame: of the 3D boxes and velocities, "" where none is known.

    Occluders are written nearest first, those of unknown depth last. An annotation that evaluation
    ignores is written with score 0.
    """
    host = instances.numpy()
    tracks = host if isinstance(host, Tracks) else None
    height, width = host.size
    visible, amodal = host.visible.rle().counts, host.amodal.rle().counts
    ids = tracks.ids if tracks is not None else np.arange(len(host))
    distance = np.where(np.asarray(host.depths) > 0, host.depths, np.inf)
    scores = np.asarray(host.scores, np.float32)
    if host.ignore is not None:
        scores = np.where(host.ignore, np.float32(0), scores)
    items = []
    for i in range(len(host)):
        hiders = np.flatnonzero(host.occluders[i])
        hiders = hiders[np.argsort(distance[hiders], kind="stable")]
        values: dict[str, Any] = {
            "track_id": UNTRACKED,
            "class_id": int(host.class_ids[i]),
            "class_name": classes[int(host.class_ids[i])],
            "score": float(scores[i]),
            "visible": _mask(factory, visible[i], height, width),
            "amodal": _mask(factory, amodal[i], height, width),
            "visible_box": np.asarray(host.visible_boxes[i], np.float32),
            "amodal_box": np.asarray(host.amodal_boxes[i], np.float32),
            "occlusion_rate": float(host.occlusion_rates[i]),
            "depth": float(host.depths[i]),
            "occluders": np.asarray(ids[hiders], np.int64),
        }
        if tracks is not None:
            values["track_id"] = int(tracks.ids[i])
            values["coasted"] = bool(tracks.coasted[i])
            values["age"] = int(tracks.ages[i])
            values |= _velocities(tracks, i)
        if host.boxes3d is not None and np.isfinite(host.boxes3d[i]).all():
            values["box3d"] = np.asarray(host.boxes3d[i], np.float32)
        if host.embeddings is not None:
            values["embedding"] = np.asarray(host.embeddings[i], np.float32)
        if host.class_probabilities is not None:
            values["class_probabilities"] = np.asarray(host.class_probabilities[i], np.float32)
        items.append(factory.create("amodal_msgs/msg/AmodalInstance", **values))
    return factory.create(
        "amodal_msgs/msg/AmodalInstanceArray",
        header=header_message(factory, stamp, frame_id),
        height=height,
        width=width,
        box3d_frame_id=lidar_frame,
        classes=list(classes),
        instances=items,
    )


def _velocities(tracks: Tracks, i: int) -> dict[str, np.ndarray]:
    """The known ones of a track's velocities, by their fields."""
    both = {"velocity": tracks.velocities, "image_velocity": tracks.image_velocities}
    rows = {name: np.asarray(v[i], np.float32) for name, v in both.items() if v is not None}
    return {name: row for name, row in rows.items() if np.isfinite(row).all()}


def _mask(factory: MessageFactory, counts: bytes, height: int, width: int) -> Any:
    text = counts.decode("ascii")
    return factory.create("amodal_msgs/msg/Mask", height=height, width=width, counts=text)


def read_instances(message: Any, where: str = "instances") -> Instances:
    """Instances of an AmodalInstanceArray whose ids are not needed; occluders are indices."""
    return _read(message, where, Instances)


def read_tracks(message: Any, where: str = "tracks") -> Tracks:
    """Tracks of an AmodalInstanceArray; ground truth is read the same way.

    `ignore` is set where the array holds instances of score 0.

    Raises:
        InputError: masks of another size than the array's or that are not COCO RLE, instances
            without an id, an id that occurs twice, boxes or numbers that are not finite.
    """
    return _read(message, where, Tracks)


def class_names(message: Any) -> dict[int, str]:
    """The names of the class ids of an AmodalInstanceArray, of those that occur at least."""
    # Recordings of earlier versions do not list them.
    listed = dict(enumerate(getattr(message, "classes", ())))
    return listed | {int(i.class_id): i.class_name for i in message.instances}


def _read(message: Any, where: str, kind: type[Any]) -> Any:
    check_instances(message, where)
    items = message.instances
    size = (int(message.height), int(message.width))
    n = len(items)
    ids = np.array([i.track_id for i in items], np.int64)
    tracked = kind is Tracks
    if tracked and (ids < 0).any():
        raise InputError("an instance without a track id", where, "publish tracks here")
    if tracked and len(np.unique(ids)) != n:
        raise InputError("a track id occurs twice in one array", where, "give each object its id")
    # Occluders name ids where an array is tracked, else places in it.
    places = (
        {int(t): k for k, t in enumerate(ids)} if (ids >= 0).all() else dict(enumerate(range(n)))
    )
    occluders = np.zeros((n, n), bool)
    for k, item in enumerate(items):
        for hider in item.occluders:
            if int(hider) in places:
                occluders[k, places[int(hider)]] = True

    def numbers(name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        values = np.array([getattr(i, name) for i in items], np.float32).reshape(n, *shape)
        if not np.isfinite(values).all():
            raise InputError(f"a {name} that is not finite", where)
        return values

    def rows_of(name: str, length: int) -> np.ndarray | None:
        # Recordings of earlier versions have no velocities.
        rows = [np.asarray(getattr(i, name, ()), np.float32) for i in items]
        if not any(map(len, rows)):
            return None
        return np.stack([r if len(r) == length else np.full(length, np.nan, "f4") for r in rows])

    def of_all(name: str) -> np.ndarray | None:
        # What one object lacks, or has of another length, none has.
        rows = [np.asarray(getattr(i, name, ()), np.float32) for i in items]
        same = len({len(r) for r in rows}) == 1 and len(rows[0]) > 0
        return np.stack(rows) if same else None

    scores = numbers("score")
    probabilities = of_all("class_probabilities")
    if probabilities is not None and not (np.isfinite(probabilities) & (probabilities >= 0)).all():
        raise InputError("a class probability that is negative or not finite", where)
    parts: dict[str, Any] = {
        "size": size,
        "amodal_boxes": numbers("amodal_box", (4,)),
        "visible_boxes": numbers("visible_box", (4,)),
        "scores": scores,
        "class_ids": np.array([i.class_id for i in items], np.int64),
        "amodal": _read_masks([i.amodal for i in items], size, where),
        "visible": _read_masks([i.visible for i in items], size, where),
        "occlusion_rates": numbers("occlusion_rate"),
        "depths": numbers("depth"),
        "occluders": occluders,
        "embeddings": of_all("embedding"),
        "boxes3d": rows_of("box3d", 7),
        "class_probabilities": probabilities,
    }
    if tracked:
        parts["ids"] = ids
        parts["ages"] = np.array([i.age for i in items], np.int64)
        parts["coasted"] = np.array([i.coasted for i in items], bool)
        parts["velocities"] = rows_of("velocity", 3)
        parts["image_velocities"] = rows_of("image_velocity", 2)
        parts["ignore"] = scores == 0 if (scores == 0).any() else None
    return kind(**parts)


def _read_masks(masks: Sequence[Any], size: tuple[int, int], where: str) -> RleMasks:
    empty = RleMasks.empty(size, 1).counts[0]
    for mask in masks:
        if (int(mask.height), int(mask.width)) != size:
            raise InputError(
                f"a mask of {mask.width}x{mask.height} in an array of {size[1]}x{size[0]}", where
            )
    runs = RleMasks(size, [mask.counts.encode("ascii", "replace") or empty for mask in masks])
    try:
        runs.check()
    except ValueError as error:
        raise InputError(f"a mask is not COCO RLE: {error}", where) from None
    return runs


def detections_message(
    factory: MessageFactory,
    tracks: Tracks,
    *,
    stamp: int,
    frame_id: str,
    classes: Sequence[str],
) -> Any:
    """A vision_msgs/Detection2DArray of the tracks seen in this frame.

    The box is the amodal one, the detection's id the track's. Hypotheses name their class in
    class_id, most probable first; another's score is less by as much as its class is less probable.
    Coasted tracks are not detections and are left out.
    """
    host = tracks.numpy()
    items = []
    for i in np.flatnonzero(~host.coasted):
        x0, y0, x1, y1 = (float(v) for v in host.amodal_boxes[i])
        middle = factory.create("vision_msgs/msg/Point2D", x=(x0 + x1) / 2, y=(y0 + y1) / 2)
        items.append(
            factory.create(
                "vision_msgs/msg/Detection2D",
                header=header_message(factory, stamp, frame_id),
                results=[_hypothesis(factory, *h) for h in _hypotheses(host, int(i), classes)],
                bbox=factory.create(
                    "vision_msgs/msg/BoundingBox2D",
                    center=factory.create("vision_msgs/msg/Pose2D", position=middle),
                    size_x=x1 - x0,
                    size_y=y1 - y0,
                ),
                id=str(int(host.ids[i])),
            )
        )
    return factory.create(
        "vision_msgs/msg/Detection2DArray",
        header=header_message(factory, stamp, frame_id),
        detections=items,
    )


def detections3d_message(
    factory: MessageFactory,
    tracks: Tracks,
    *,
    stamp: int,
    lidar_frame: str,
    classes: Sequence[str],
) -> Any:
    """A vision_msgs/Detection3DArray of the tracks seen in this frame that have a 3D box.

    Identities, classes and what is left out are those of `detections_message`; the box' x axis
    lies along its length, and the hypothesis' pose is the box'.

    Args:
        factory: makes the messages.
        tracks: of one frame.
        stamp: the image's, nanoseconds.
        lidar_frame: frame of the boxes.
        classes: names that class ids index into.
    """
    host = tracks.numpy()
    boxes = host.boxes3d if host.boxes3d is not None else np.full((len(host), 7), np.nan)
    header = header_message(factory, stamp, lidar_frame)
    items = [
        detection3d_message(
            factory,
            header,
            np.asarray(boxes[i]),
            _hypotheses(host, int(i), classes),
            int(host.ids[i]),
        )
        for i in np.flatnonzero(~host.coasted & np.isfinite(boxes).all(axis=1))
    ]
    return factory.create("vision_msgs/msg/Detection3DArray", header=header, detections=items)


def detection3d_message(
    factory: MessageFactory,
    header: Any,
    box: np.ndarray,
    hypotheses: Sequence[tuple[str, float]],
    number: int,
) -> Any:
    """A vision_msgs/Detection3D of a box (7,) as in Instances.boxes3d.

    Args:
        factory: makes the messages.
        header: its frame is the box'.
        box: finite.
        hypotheses: names of classes and their scores 0-1, most probable first.
        number: its identity, negative where there is none.
    """
    box = np.asarray(box, np.float64)
    pose = pose_message(factory, box[:3], box[6])
    results = [_hypothesis(factory, *one) for one in hypotheses]
    for result in results:
        result.pose.pose = pose
    return factory.create(
        "vision_msgs/msg/Detection3D",
        header=header,
        results=results,
        bbox=factory.create(
            "vision_msgs/msg/BoundingBox3D", center=pose, size=vector_message(factory, box[3:6])
        ),
        id=str(number) if number >= 0 else "",
    )


def _hypotheses(host: Instances, i: int, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Names of the classes that an object may be of, and their scores, most probable first."""
    own = int(host.class_ids[i])
    if host.class_probabilities is None:
        return [(classes[own], float(host.scores[i]))]
    one = slice(i, i + 1)
    probabilities = np.asarray(host.class_probabilities[one], np.float64)
    score, class_id = np.asarray(host.scores[one]), np.asarray(host.class_ids[one])
    (scores,) = scores_of_classes(score, class_id, probabilities)
    order = [k for k in np.argsort(-scores, kind="stable").tolist() if k != own]
    kept = [own, *(k for k in order if probabilities[0, k] >= _PROBABLE)]
    return [(classes[k], float(scores[k])) for k in kept]


def _hypothesis(factory: MessageFactory, name: str, score: float) -> Any:
    """A vision_msgs/ObjectHypothesisWithPose, without a pose."""
    return factory.create(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        hypothesis=factory.create("vision_msgs/msg/ObjectHypothesis", class_id=name, score=score),
    )


def visible_labels(instances: Instances) -> np.ndarray:
    """(H, W) uint16: class id + 1 where an object is visible, 0 elsewhere; the nearest one wins."""
    host = instances.numpy()
    labels = np.zeros(host.size, np.uint16)
    order = np.argsort(np.where(host.depths > 0, host.depths, np.inf), kind="stable")[::-1]
    crops, offsets = host.visible.rle().crops()
    for i in order:
        x, y = offsets[i]
        height, width = crops[i].shape
        labels[y : y + height, x : x + width][crops[i]] = int(host.class_ids[i]) + 1
    return labels


def visible_labels_message(
    factory: MessageFactory, instances: Instances, *, stamp: int, frame_id: str
) -> Any:
    """`visible_labels` as a mono16 image; label_info_message says what the labels mean."""
    return image_message(factory, visible_labels(instances), stamp, frame_id, "mono16")


def label_info_message(
    factory: MessageFactory,
    classes: Sequence[str] | Mapping[int, str],
    *,
    stamp: int,
    frame_id: str,
    threshold: float = 0.0,
) -> Any:
    """A vision_msgs/LabelInfo for `visible_labels`: 0 is the background, class id + 1 a class."""
    names = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes))
    entries = [(0, "background"), *((k + 1, names[k]) for k in sorted(names))]
    return factory.create(
        "vision_msgs/msg/LabelInfo",
        header=header_message(factory, stamp, frame_id),
        class_map=[
            factory.create("vision_msgs/msg/VisionClass", class_id=k, class_name=name)
            for k, name in entries
        ],
        threshold=threshold,
    )
