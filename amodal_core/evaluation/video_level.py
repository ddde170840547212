"""Video average precision: whole tracks compared by spatio-temporal IoU.

The frames of a video are laid side by side in one wide image. A track is then one mask in it, the
IoU of two such masks *is* the spatio-temporal IoU (intersections and unions summed over frames, a
frame on one side only adding its whole area to the union), and COCO's matching does the rest.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil
from typing import Any

import numpy as np

from amodal_core.errors import InputError
from amodal_core.evaluation import overlaps
from amodal_core.evaluation.image_level import Scores, Subjects, tabulate
from amodal_core.evaluation.matching import Entries
from amodal_core.evaluation.protocols import Protocol
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.masks import rle

# COCO RLE counts are 32 bit in every implementation.
_MOST_PIXELS = 2**32 - 1


def evaluate(
    truth: AnnotationSet, predictions: AnnotationSet, kind: str, protocol: Protocol
) -> Scores:
    """All numbers of a video protocol for visible or amodal masks.

    Args:
        truth: with instance ids and videos.
        predictions: aligned with it (`sets.aligned`), with instance ids.
        kind: "visible" or "amodal".
        protocol: see `protocols.VIDEO_PROTOCOLS`.

    Raises:
        InputError: no masks of that kind, no ids, frames of different sizes in one video, or a
            video of more pixels than COCO's RLE can count.
    """
    if kind not in ("visible", "amodal"):
        raise InputError(
            f"videos are compared by masks, not by {kind}", "--kind", "visible or amodal"
        )
    parts = subjects(truth, predictions, kind)
    matcher = parts.matcher(protocol)
    scores = tabulate(parts, protocol, matcher)
    scores.kind = kind
    scores.best_ious = matcher.best_ious()[~parts.truth.crowd]
    if not len(predictions):
        scores.warnings.append("there are no predictions: every vAP is 0 by right")
    return scores


def subjects(truth: AnnotationSet, predictions: AnnotationSet, kind: str) -> Subjects:
    """Tracks of both sides as single masks over their videos laid out as wide images."""
    places: dict[int, tuple[int, int]] = {}  # image id -> (video id, offset in pixels)
    videos: dict[str, list[int]] = {}  # video -> [id, height, width of one frame, frames]
    for image in sorted(truth.images, key=lambda i: (i.video, i.frame)):
        video = videos.setdefault(image.video, [len(videos) + 1, image.height, image.width, 0])
        if (image.height, image.width) != (video[1], video[2]):
            raise InputError(
                f"a frame of {image.width}x{image.height} among {video[2]}x{video[1]}",
                f"video '{image.video}', {image.name or image.id}",
                "the frames of a video have one size",
            )
        places[image.id] = video[0], image.height * image.width * video[3]
        video[3] += 1
    for name, (_, height, width, frames) in videos.items():
        if height * width * frames > _MOST_PIXELS:
            raise InputError(
                f"{frames} frames of {width}x{height} are more pixels than COCO's RLE can count",
                f"video '{name}'",
                "evaluate it in shorter parts",
            )
    sizes = {n: (height, width * frames) for n, height, width, frames in videos.values()}
    true, true_area, true_occlusion = _tracks(truth, kind, places, sizes, "ground truth")
    seen, seen_area, seen_occlusion = _tracks(predictions, kind, places, sizes, "predictions")
    return Subjects(
        images=np.array(list(sizes), np.int64),
        classes=truth.classes,
        truth=true,
        detections=seen,
        truth_area=true_area,
        truth_occlusion=true_occlusion,
        detection_area=seen_area,
        detection_occlusion=seen_occlusion,
    )


def _tracks(
    part: AnnotationSet,
    kind: str,
    places: dict[int, tuple[int, int]],
    sizes: dict[int, tuple[int, int]],
    where: str,
) -> tuple[Entries, np.ndarray, np.ndarray]:
    """Entries with their mean area in pixels and their occlusion, one a track."""
    if len(part) and (part.instance_ids < 0).any():
        missing = int((part.instance_ids < 0).sum())
        raise InputError(
            f"{missing} of {len(part)} entries have no instance id",
            where,
            "evaluate them as images",
        )
    rles, areas = part.rle(kind), part.areas(kind)
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for n in np.flatnonzero(areas > 0):
        members[places[int(part.image_ids[n])][0], int(part.instance_ids[n])].append(int(n))
    masks, area, occlusion, score, classes, crowd = [], [], [], [], [], []
    for (video, _), chosen in members.items():
        chosen.sort(key=lambda n: places[int(part.image_ids[n])][1])
        offsets = [places[int(part.image_ids[n])][1] for n in chosen]
        masks.append(_side_by_side([rles[n] for n in chosen], offsets, sizes[video]))
        area.append(float(areas[chosen].mean()))
        known = part.occlusion_rates[chosen]
        known = np.sort(known[~np.isnan(known)])[::-1]
        occlusion.append(float(known[: ceil(len(known) / 2)].mean()) if len(known) else np.nan)
        score.append(float(part.scores[chosen].mean()))
        classes.append(int(np.bincount(part.class_ids[chosen]).argmax()))
        crowd.append(bool(part.crowd[chosen].any()))
    videos = np.array([video for video, _ in members], np.int64)
    extent = np.array([sizes[int(v)] for v in videos], np.int64).reshape(-1, 2)
    entries = Entries(
        videos - 1,
        np.array(classes, np.int64),
        overlaps.parse(masks, extent[:, 0], extent[:, 1]),
        np.array(score, np.float64),
        np.array(crowd, bool),
    )
    return entries, np.array(area, np.float64), np.array(occlusion, np.float64)


def _side_by_side(masks: list[dict[str, Any]], offsets: list[int], size: tuple[int, int]) -> bytes:
    """One COCO RLE of an image of `size` from the masks of frames that begin at pixel offsets."""
    height, width = masks[0]["size"]
    runs, first = rle.parse([m["counts"] for m in masks], height * width)
    runs = runs + np.repeat(offsets, np.diff(first))[:, None]
    # A run that ends with its frame may meet one that begins with the next.
    meet = np.flatnonzero(runs[1:, 0] == runs[:-1, 1])
    begin, end = np.delete(runs[:, 0], meet + 1), np.delete(runs[:, 1], meet)
    joined = np.stack([begin, end], axis=1)
    return rle.pack(joined, np.array([0, len(joined)], np.int64), size[0] * size[1])[0]
