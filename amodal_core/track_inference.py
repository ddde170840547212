"""Whole masks for given tracks: a YouTube-VIS (GenVIS) list of visible masks becomes another.

Each video is kept as soon as it is done, so that a killed run continues with the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from amodal_core.datasets.base import Dataset
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError
from amodal_core.evaluation.formats import read_predictions, write_json, write_video_results
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.evaluation.truth import Truth, index_of
from amodal_core.frame import Frame, Report, Tracks
from amodal_core.masks.mask_set import RleMasks

RESULTS = "amodal_tracks.json"
_PARTS = ".parts"
_COLUMNS = ("image_ids", "ids", "class_ids", "scores", "boxes", "coasted", "amodal")
Progress = Callable[[int, int], None]


class Follower(Protocol):
    """A model that completes tracks whose visible masks are given, frame by frame."""

    name: str

    def follow(self, frame: Frame, seen: Tracks, report: Report | None = None) -> Tracks:
        """The tracks of a stream's next frame with whole masks, carried ones `coasted`."""
        ...

    def reset(self) -> None:
        """Forget the stream."""
        ...


def complete_tracks(
    model: Follower,
    data: Dataset,
    path: str | Path,
    out: Path,
    settings: dict[str, Any],
    progress: Progress,
) -> tuple[Path, Report]:
    """Complete a list of tracks and write the result, ready for `amodal eval video`.

    The score of a track is the mean of its scores where it is seen.

    Args:
        model: completes them.
        data: videos that the list belongs to.
        path: the list: visible masks, one entry a track with one RLE or null a frame.
        out: folder of `amodal_tracks.json`, and of the parts while it runs.
        settings: what decides the result beside data and list, to refuse another run's parts.
        progress: is called with (frames done, frames in all).

    Returns:
        The file written, and what the model reported.

    Raises:
        InputError: the list does not fit the data, a frame has no image, or parts of another run
            lie in the folder.
    """
    index, report = index_of(data), Report()
    given = read_predictions(path, index, "visible")
    parts = _folder(out / _PARTS, {**settings, "data": str(data.path), "tracks": str(path)})
    total, done = sum(len(data.in_video(v)) for v in index.videos.values()), 0
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for number, video in index.videos.items():
        file = parts / f"{number}.json"
        frames = data.in_video(video)
        if not file.exists():
            model.reset()
            found: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
            for turn, k in enumerate(frames):
                seen = _tracks(given, index.set.images[k].id, data.size(k))
                frame = data.frame(k)
                if frame.image is None:
                    raise InputError(f"{model.name} needs image", data.place(k).name)
                _add(found, index.set.images[k].id, model.follow(frame, seen, report))
                progress(done + turn + 1, total)
            write_json(found, file)
        done += len(frames)
        progress(done, total)
        for name, column in json.loads(file.read_text()).items():
            rows[name] += column
    written = out / RESULTS
    write_video_results(_result(rows, index), written, "amodal", index)
    for part in sorted(parts.iterdir()):
        part.unlink()
    parts.rmdir()
    return written, report


def _folder(parts: Path, wanted: dict[str, Any]) -> Path:
    note = parts / "run.json"
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder: {error.strerror}", str(parts.parent)) from None
    if not note.exists():
        write_json(wanted, note)
    elif json.loads(note.read_text()) != json.loads(json.dumps(wanted)):
        raise InputError(
            "an unfinished run of another model or other settings",
            str(parts),
            "finish it with them or remove that folder",
        )
    return parts


def _tracks(given: AnnotationSet, image: int, size: tuple[int, int]) -> Tracks:
    """What the list says of one image; whole masks are not known yet."""
    places = np.flatnonzero(given.image_ids == image)
    visible = RleMasks(size, [given.visible[n] or b"" for n in places])
    tracks = make_truth(visible, visible, given.class_ids[places], given.instance_ids[places])
    return replace(tracks, scores=given.scores[places].astype(np.float32))


def _add(rows: dict[str, list[Any]], image: int, tracks: Tracks) -> None:
    kept = tracks[tracks.amodal.rle().areas() > 0]
    rows["image_ids"] += [image] * len(kept)
    for name in ("ids", "class_ids", "scores", "coasted"):
        rows[name] += np.asarray(getattr(kept, name)).tolist()
    rows["boxes"] += np.asarray(kept.amodal_boxes, float).tolist()
    rows["amodal"] += [c.decode() for c in kept.amodal.rle().counts]


def _result(rows: dict[str, list[Any]], index: Truth) -> AnnotationSet:
    n = len(rows["ids"])
    ids = np.array(rows["ids"], np.int64)
    scores, coasted = np.array(rows["scores"], float), np.array(rows["coasted"], bool)
    for number in np.unique(ids):
        mine = ids == number
        scores[mine] = scores[mine & ~coasted].mean()
    found = AnnotationSet(
        images=index.set.images,
        classes=index.set.classes,
        image_ids=np.array(rows["image_ids"]),
        class_ids=np.array(rows["class_ids"]),
        instance_ids=ids,
        scores=scores,
        amodal=[c.encode() for c in rows["amodal"]],
        visible=[None] * n,
        boxes=np.array(rows["boxes"]),
        occlusion_rates=np.full(n, np.nan),
        crowd=np.zeros(n, bool),
        depths=np.zeros(n),
    )
    return found.select(np.argsort(ids, kind="stable"))  # tracks in the order of the list
