"""Tracks as Foxglove draws them: masks' outlines on the image, boxes in the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from amodal_core.bags.factory import MessageFactory
from amodal_core.bags.foxglove_types import (
    ANNOTATIONS_TYPE,
    DELETE_ALL,
    LINE_LIST,
    LINE_LOOP,
    SCENE_TYPE,
    register,
)
from amodal_core.bags.sensors import pose_message, time_message, vector_message
from amodal_core.frame import Tracks
from amodal_core.views.labels import name_of, track_labels
from amodal_core.views.overlay import contours
from amodal_core.views.palette import track_colour

_FILL, _FAINT = 0.25, 0.2  # opacity of what is seen, and of boxes of tracks that are not
_DASH = 5  # points of an outline from dash to gap


def annotations_message(
    factory: MessageFactory, tracks: Tracks, classes: Sequence[str], stamp: int
) -> Any:
    """A foxglove_msgs/ImageAnnotations of the image of this stamp.

    Filled within a solid line: seen. Dashed: the whole object, where a part of it is hidden.

    Args:
        factory: makes the messages.
        tracks: of one frame.
        classes: names that class ids index into.
        stamp: the image's, nanoseconds.
    """
    register()
    host, time = tracks.numpy(), time_message(factory, stamp)
    amodal, visible = host.amodal.rle(), host.visible.rle()
    amodal_crops, amodal_at = amodal.crops()
    visible_crops, visible_at = visible.crops()
    hidden = (amodal - visible).areas() > 0
    none = _colour(factory, (0, 0, 0), 0.0)
    shapes, texts = [], []

    def shape(i: int, kind: int, pixels: np.ndarray, fill: Any, thickness: float) -> Any:
        return factory.create(
            "foxglove_msgs/msg/PointsAnnotation",
            timestamp=time,
            type=kind,
            # Of the pixels' middles.
            points=[
                factory.create("foxglove_msgs/msg/Point2", x=float(x) + 0.5, y=float(y) + 0.5)
                for x, y in pixels
            ],
            outline_color=_colour(factory, track_colour(int(host.ids[i])), 1.0),
            fill_color=fill,
            thickness=thickness,
            metadata=_metadata(factory, host, i, classes),
        )

    labels = track_labels(host, classes)
    for i in _far_first(host):
        colour = track_colour(int(host.ids[i]))
        if not host.coasted[i]:
            fill = _colour(factory, colour, _FILL)
            shapes += [
                shape(i, LINE_LOOP, line, fill, 2.0)
                for line in contours(visible_crops[i], visible_at[i], smooth=True)
            ]
        if hidden[i] or host.coasted[i]:
            shapes += [
                shape(i, LINE_LIST, _dashes(line), none, 2.0)
                for line in contours(amodal_crops[i], amodal_at[i])
            ]
        x, y = (float(v) for v in host.amodal_boxes[i, :2])
        texts.append(
            factory.create(
                "foxglove_msgs/msg/TextAnnotation",
                timestamp=time,
                position=factory.create("foxglove_msgs/msg/Point2", x=x, y=max(y, 12.0)),
                text=labels[i],
                font_size=12.0,
                text_color=_colour(factory, (255, 255, 255), 1.0),
                background_color=_colour(factory, tuple(c // 3 for c in colour), 0.8),
                metadata=_metadata(factory, host, i, classes),
            )
        )
    return factory.create(ANNOTATIONS_TYPE, points=shapes, texts=texts)


def scene_message(
    factory: MessageFactory, tracks: Tracks, classes: Sequence[str], stamp: int, lidar_frame: str
) -> Any:
    """A foxglove_msgs/SceneUpdate that replaces all boxes by those of this frame.

    Args:
        factory: makes the messages.
        tracks: of one frame; those without a 3D box are left out.
        classes: names that class ids index into.
        stamp: the image's, nanoseconds.
        lidar_frame: of the boxes.
    """
    register()
    host, time = tracks.numpy(), time_message(factory, stamp)
    boxes = np.full((len(host), 7), np.nan)
    if host.boxes3d is not None:
        boxes = np.asarray(host.boxes3d, np.float64)
    labels, entities = track_labels(host, classes), []
    for i in np.flatnonzero(np.isfinite(boxes).all(axis=1)).tolist():
        box, opacity = boxes[i], _FAINT if host.coasted[i] else 0.5
        cube = factory.create(
            "foxglove_msgs/msg/CubePrimitive",
            pose=pose_message(factory, box[:3], box[6]),
            size=vector_message(factory, np.maximum(box[3:6], 0.05)),
            color=_colour(factory, track_colour(int(host.ids[i])), opacity),
        )
        text = factory.create(
            "foxglove_msgs/msg/TextPrimitive",
            pose=pose_message(factory, np.add(box[:3], (0, 0, box[5] / 2 + 0.6)), 0.0),
            billboard=True,
            font_size=14.0,
            scale_invariant=True,
            color=_colour(factory, (255, 255, 255), 1.0),
            text=labels[i],
        )
        entities.append(
            factory.create(
                "foxglove_msgs/msg/SceneEntity",
                timestamp=time,
                frame_id=lidar_frame,
                id=str(int(host.ids[i])),
                frame_locked=True,
                metadata=_metadata(factory, host, i, classes),
                cubes=[cube],
                texts=[text],
            )
        )
    gone = factory.create(
        "foxglove_msgs/msg/SceneEntityDeletion", timestamp=time, type=DELETE_ALL, id=""
    )
    return factory.create(SCENE_TYPE, deletions=[gone], entities=entities)


def _far_first(tracks: Tracks) -> list[int]:
    depths = np.asarray(tracks.depths)
    order = np.argsort(np.where(depths > 0, depths, np.inf), kind="stable")[::-1]
    return [int(i) for i in order]


def _dashes(outline: np.ndarray) -> np.ndarray:
    """(2 M, 2) ends of the dashes of a closed outline (N, 2)."""
    ends = outline[::_DASH]
    return ends[: len(ends) // 2 * 2]


def _colour(factory: MessageFactory, colour: Sequence[int], opacity: float) -> Any:
    r, g, b = (c / 255 for c in colour)
    return factory.create("foxglove_msgs/msg/Color", r=r, g=g, b=b, a=opacity)


def _metadata(factory: MessageFactory, tracks: Tracks, i: int, classes: Sequence[str]) -> list[Any]:
    values = {
        "track": str(int(tracks.ids[i])),
        "class": name_of(classes, int(tracks.class_ids[i])),
        "score": f"{float(tracks.scores[i]):.2f}",
        "hidden": f"{float(tracks.occlusion_rates[i]):.2f}",
    }
    return [
        factory.create("foxglove_msgs/msg/KeyValuePair", key=key, value=value)
        for key, value in values.items()
    ]
