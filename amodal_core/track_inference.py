"""Amodal masks for given tracks: a YouTube-VIS (GenVIS) list of visible masks becomes another.

Each video is kept as soon as it is done, so that a killed run continues with the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from amodal_core.datasets.base import Dataset
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError
from amodal_core.evaluation.formats import read_predictions, write_video_results
from amodal_core.evaluation.sets import AnnotationSet
from amodal_core.evaluation.truth import Truth, index_of
from amodal_core.frame import Frame, Report, Tracks
from amodal_core.journal import Journal
from amodal_core.masks.mask_set import RleMasks
from amodal_core.models.base import Completer
from amodal_core.progress import Progress

RESULTS = "amodal_tracks.json"
_HELD = 64  # frames of a video that stay in memory: a model reads some of them again
_COLUMNS = ("image_ids", "ids", "class_ids", "scores", "boxes", "coasted", "amodal")


def complete_tracks(
    model: Completer,
    data: Dataset,
    path: str | Path,
    out: Path,
    settings: dict[str, Any],
    progress: Progress,
) -> tuple[Path, Report]:
    """Complete a list of tracks and write the result, ready for `amodal eval video`.

    The score of a track is the mean of its scores where it is seen.

    Args:
        model: completes them; it gets all frames of a video at once.
        data: videos that the list belongs to.
        path: the list: visible masks, one entry a track with one RLE or null a frame.
        out: folder of `amodal_tracks.json`, and of the journal while it runs.
        settings: what decides the result beside data and list, to refuse another run's pieces.
        progress: is called with (frames done, frames in all).

    Returns:
        The file written, and what the model reported.

    Raises:
        InputError: the list does not fit the data, a frame has no image, or pieces of another run
            lie in the folder.
    """
    index, report = index_of(data), Report()
    given = read_predictions(path, index, "visible")
    journal = Journal(out, {**settings, "data": str(data.path.resolve()), "tracks": str(path)})
    total, done = sum(len(data.in_video(v)) for v in index.videos.values()), 0
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for number, video in index.videos.items():
        frames = data.in_video(video)
        if number not in journal:
            images = [index.set.images[k].id for k in frames]
            sizes = [data.size(k) for k in frames]
            visible = [_tracks(given, i, s) for i, s in zip(images, sizes, strict=True)]
            clip = _Clip(data, frames, model.name)
            piece: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
            for image, tracks in zip(images, model.complete(clip, visible, report), strict=True):
                _add(piece, image, tracks)
            journal.keep(number, piece)
        done += len(frames)
        progress(done, total)
        for name, column in journal.read(number).items():
            rows[name] += column
    written = out / RESULTS
    write_video_results(_result(rows, index), written, "amodal", index)
    journal.remove()
    return written, report


class _Clip(Sequence[Frame]):
    """The frames of a video, read when they are asked for; the last ones stay in memory."""

    def __init__(self, data: Dataset, indices: Sequence[int], model: str) -> None:
        self._data, self._indices, self._model = data, indices, model
        self._read = lru_cache(_HELD)(self._frame)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> Frame: ...

    @overload
    def __getitem__(self, place: slice) -> list[Frame]: ...

    def __getitem__(self, place: int | slice) -> Frame | list[Frame]:
        if isinstance(place, slice):
            return [self._read(k) for k in self._indices[place]]
        return self._read(self._indices[place])

    def _frame(self, index: int) -> Frame:
        frame = self._data.frame(index)
        if frame.image is None:
            raise InputError(f"{self._model} needs image", self._data.place(index).name)
        return frame


def _tracks(given: AnnotationSet, image: int, size: tuple[int, int]) -> Tracks:
    """What the list says of one image; amodal masks are not known yet."""
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
    results = AnnotationSet(
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
    return results.select(np.argsort(ids, kind="stable"))  # tracks in the order of the list
