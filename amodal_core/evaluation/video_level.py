"""Video average precision: whole tracks compared by spatio-temporal IoU.

The frames of a video are laid side by side in one wide image. A track is then one mask in it, the
IoU of two such masks *is* the spatio-temporal IoU (intersections and unions summed over frames, a
frame on one side only adding its whole area to the union), and COCO's matching does the rest.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil

import numpy as np

from amodal_core.errors import InputError
from amodal_core.evaluation.image_level import Scores, Subjects, tabulate
from amodal_core.evaluation.matching import Entries
from amodal_core.evaluation.protocols import Protocol
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.masks.runs import Runs


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
        InputError: no masks of that kind, no ids, or frames of different sizes in one video.
    """
    if kind not in ("visible", "amodal"):
        raise InputError(
            f"videos are compared by masks, not by {kind}", "--kind", "visible or amodal"
        )
    sides = subjects(truth, predictions, kind)
    matcher = sides.matcher(protocol)
    scores = tabulate(sides, protocol, matcher)
    scores.kind = kind
    scores.best_ious = matcher.best_ious()[~sides.truth.crowd]
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
    heights = {n: height for n, height, _, _ in videos.values()}
    true, true_area, true_occlusion = _tracks(truth, kind, places, heights, "ground truth")
    predicted, predicted_area, predicted_occlusion = _tracks(
        predictions, kind, places, heights, "predictions"
    )
    return Subjects(
        images=np.array(list(heights), np.int64),
        classes=truth.classes,
        truth=true,
        detections=predicted,
        truth_area=true_area,
        truth_occlusion=true_occlusion,
        detection_area=predicted_area,
        detection_occlusion=predicted_occlusion,
        crowd_union=False,  # YouTube-VIS: the IoU with a crowd is that with any other track
    )


def _tracks(
    side: AnnotationSet,
    kind: str,
    places: dict[int, tuple[int, int]],
    heights: dict[int, int],
    where: str,
) -> tuple[Entries, np.ndarray, np.ndarray]:
    """Entries with their mean area in pixels and their occlusion, one a track."""
    if len(side) and (side.instance_ids < 0).any():
        missing = int((side.instance_ids < 0).sum())
        raise InputError(
            f"{missing} of {len(side)} entries have no instance id",
            where,
            "evaluate them as images",
        )
    areas = side.areas(kind)
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for n in np.flatnonzero(areas > 0):
        members[places[int(side.image_ids[n])][0], int(side.instance_ids[n])].append(int(n))
    area, occlusion, score, classes, crowd = [], [], [], [], []
    for chosen in members.values():
        chosen.sort(key=lambda n: places[int(side.image_ids[n])][1])
        area.append(float(areas[chosen].mean()))
        rates = side.occlusion_rates[chosen]
        rates = np.sort(rates[~np.isnan(rates)])[::-1]
        occlusion.append(float(rates[: ceil(len(rates) / 2)].mean()) if len(rates) else np.nan)
        score.append(float(side.scores[chosen].mean()))
        classes.append(int(np.bincount(side.class_ids[chosen]).argmax()))
        crowd.append(bool(side.crowd[chosen].any()))
    videos = np.array([video for video, _ in members], np.int64)
    offsets = [places[int(side.image_ids[n])][1] for chosen in members.values() for n in chosen]
    masks = _side_by_side(side.runs(kind), list(members.values()), np.array(offsets, np.int64))
    entries = Entries(
        videos - 1,
        np.array(classes, np.int64),
        Runs(*masks, np.array([heights[v] for v in videos.tolist()], np.int64)),
        np.array(score, np.float64),
        np.array(crowd, bool),
    )
    return entries, np.array(area, np.float64), np.array(occlusion, np.float64)


def _side_by_side(
    masks: Runs, tracks: list[list[int]], offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Runs and first of one mask a track, in images in which its frames lie side by side.

    Args:
        masks: of frames.
        tracks: positions of each one's masks, in the order of frames.
        offsets: pixel at which the frame of each of these masks begins.
    """
    frames = masks[[n for track in tracks for n in track]]
    runs = frames.runs + np.repeat(offsets, np.diff(frames.first))[:, None]
    first = frames.first[np.cumsum([0, *map(len, tracks)])]
    # A run that ends with its frame may meet one that begins with the next.
    meets = np.zeros(len(runs), bool)
    meets[1:] = runs[1:, 0] == runs[:-1, 1]
    meets[first[:-1]] = False
    starts, ends = np.flatnonzero(~meets), np.flatnonzero(~np.roll(meets, -1))
    joined = np.stack([runs[starts, 0], runs[ends, 1]], axis=1)
    return joined, np.searchsorted(starts, first)
