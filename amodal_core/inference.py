"""Any model over any data set: results in COCO's format, written as they come, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from amodal_core.classes import ClassMap, check_renames, renamed
from amodal_core.datasets.base import Dataset
from amodal_core.datasets.coco_like import CocoLike
from amodal_core.datasets.kitti import KittiObject
from amodal_core.errors import InputError
from amodal_core.evaluation import kitti_files
from amodal_core.evaluation.formats import write_results
from amodal_core.evaluation.hypotheses import by_class
from amodal_core.evaluation.sets import AnnotationSet, ImageRecord
from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.geometry.lifting import lift
from amodal_core.journal import Journal
from amodal_core.models.base import Completer, Model
from amodal_core.parallel import cores
from amodal_core.pipeline import Pipeline
from amodal_core.progress import Progress
from amodal_core.tracking import CoastingTracker

_COLUMNS = ("class_ids", "ids", "scores", "boxes", "rates", "depths", "amodal", "visible")
_Row = dict[str, list[Any]]


def tracks_of(model: Model, frames: Sequence[Frame], report: Report) -> list[Tracks]:
    """What a model finds in frames, on the host; ids count from 0 in each, as nothing is tracked.

    Raises:
        InputError: a frame lacks a part.
    """
    return [_untracked(one) for one in model.infer(_ready(model, frames, report), report)]


def _untracked(detections: Instances) -> Tracks:
    host, n = detections.numpy(), len(detections)
    values = {f.name: getattr(host, f.name) for f in fields(Instances)}
    return Tracks(**values, ids=np.arange(n), ages=np.ones(n, np.int64), coasted=np.zeros(n, bool))


def _ready(model: Model, frames: Sequence[Frame], report: Report) -> list[Frame]:
    """Frames with the depth of their points.

    A frame without a part that the model needs is an error here: results with holes are none.
    """
    ready = [Pipeline.project(frame, report) for frame in frames]
    for frame in ready:
        absent = sorted(name for name in model.inputs if getattr(frame, name) is None)
        if absent:
            raise InputError(
                f"{model.name} needs {', '.join(absent)}", f"frame {frame.stamp}", "give other data"
            )
    return ready


def classes_in(model: Model, data: Dataset, renames: dict[str, str]) -> ClassMap:
    """Match a model's class names with a data set's.

    Args:
        model: whose classes are matched.
        data: whose names are wanted.
        renames: class of the model -> class of the data set, before equal and synonymous names.

    Raises:
        InputError: no class of the model is in the data set, or a renamed one is unknown in either.
    """
    check_renames(renames, model.classes, model.name, "--map")
    classes = ClassMap.between(model.classes, data.classes, renames)
    listed = f"the data has: {', '.join(data.classes)}"
    for name in classes.missing:
        target = renamed(name, renames)
        if target != name:
            raise InputError(f"no class {target} for {name} in the data", "--map", listed)
    if len(classes.missing) == len(model.classes):
        raise InputError(
            f"no class of {model.name} ({', '.join(model.classes)}) is in the data",
            str(data.path),
            f"name one with --map; {listed}",
        )
    return classes


class Inference:
    """A model over a data set, piece by piece; every piece is kept as soon as it is done.

    What a piece is depends on where objects and identities come from: frames by themselves are
    kept batch by batch, tracked ones video by video. Where the truth gives visible masks, the model
    completes a video at once, or single images one by one.

    Args:
        model: any.
        data: any.
        out: folder of visible.json and amodal.json, and of the journal while it runs.
        classes: see `classes_in`.
        settings: what decides the results beside model and data, to refuse another run's pieces.
        batch: frames that the model gets at once.
        frames: how many of the data, from the first on; None for all.
        tracker: gives the objects of a video identities, hidden ones included; None: every frame
            stands alone.
        given: the model is given the true visible masks and identities; results keep both.
        every_class: objects without an identity stand once for each class that they may be of, as
            AP takes detections (`evaluation.hypotheses`); else once, of the likeliest.

    Raises:
        InputError: pieces of another run lie in the folder, or it cannot be made; or the data has
            no videos to track through; or the model cannot be given anything.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        out: Path,
        classes: ClassMap,
        settings: dict[str, Any],
        *,
        batch: int = 4,
        frames: int | None = None,
        tracker: CoastingTracker | None = None,
        given: bool = False,
        every_class: bool = False,
    ) -> None:
        self.model, self.data, self.classes, self.tracker = model, data, classes, tracker
        self.out, self.report, self.inferred = out, Report(), 0
        self.count = min(len(data), frames) if frames else len(data)
        self._has_ids = given or tracker is not None
        self._every_class = every_class and not self._has_ids
        self._infer: Callable[[Sequence[int], list[Frame]], list[Tracks]] = self._alone
        if given:
            if not isinstance(model, Completer):
                what = f"{model.name} finds its objects by itself"
                raise InputError(what, "given masks", "give another model")
            self._pieces = self._videos() if data.sequential else _runs(range(self.count), 1)
            self._batches = [[piece] for piece in self._pieces]
            self._infer = self._completed
        elif tracker is not None:
            self._pieces = self._videos()
            self._batches = [_runs(piece, batch) for piece in self._pieces]
            self._infer = self._tracked
        else:
            self._pieces = _runs(range(self.count), batch)
            self._batches = [[piece] for piece in self._pieces]
        self._unfinished: list[_Row] = []
        wanted = {**settings, "data": str(data.path.resolve()), "batch": batch}
        wanted["tracker"] = None if tracker is None else repr(tracker.config)
        wanted |= {"given": given, "every_class": self._every_class}
        self._journal = Journal(out, wanted)

    def _videos(self) -> list[list[int]]:
        if not self.data.sequential:
            raise InputError("single images, no video", str(self.data.path), "infer without tracks")
        videos = [[k for k in self.data.in_video(v) if k < self.count] for v in self.data.videos]
        return [video for video in videos if video]

    def left(self) -> list[list[int]]:
        """Samples of each batch that is not done."""
        rows = zip(self._pieces, self._batches, strict=True)
        return [batch for piece, own in rows if piece[0] not in self._journal for batch in own]

    def done(self) -> int:
        """Frames that are done."""
        return self.count - sum(len(b) for b in self.left())

    def step(self, indices: Sequence[int], frames: Sequence[Frame]) -> None:
        """Infer a batch of `left()`, in their order, and keep it."""
        piece = next(p for p in self._pieces if indices[0] in p)
        if indices[0] == piece[0]:
            self._unfinished.clear()
            self.model.reset()
            if self.tracker is not None:
                self.tracker.reset()
        tracks = self._infer(indices, _ready(self.model, frames, self.report))
        self._unfinished += [self._row(k, one) for k, one in zip(indices, tracks, strict=True)]
        if indices[-1] == piece[-1]:
            self._journal.keep(piece[0], self._unfinished)
            self._unfinished = []
        self.inferred += len(indices)

    def _alone(self, _: Sequence[int], ready: list[Frame]) -> list[Tracks]:
        """Every frame by itself."""
        return [_untracked(one) for one in self.model.infer(ready, self.report)]

    def _tracked(self, _: Sequence[int], ready: list[Frame]) -> list[Tracks]:
        """The next frames of a video, through the tracker."""
        assert self.tracker is not None
        detections = self.model.infer(ready, self.report)
        tracks = []
        for one, frame in zip(detections, ready, strict=True):
            lifted = lift(one, frame, self.model.classes, self.report)
            with self.report.time("tracking"):
                tracks.append(self.tracker.step(lifted, frame.stamp, frame, self.report))
        return tracks

    def _completed(self, indices: Sequence[int], ready: list[Frame]) -> list[Tracks]:
        """A video (or an image) whose visible masks the truth gives."""
        assert isinstance(self.model, Completer)
        truths = [self.data.truth(k) for k in indices]
        visible = [
            Tracks.empty(frame.size) if truth is None else truth
            for frame, truth in zip(ready, truths, strict=True)
        ]
        return self.model.complete(ready, visible, self.report)

    def _row(self, index: int, tracks: Tracks) -> _Row:
        height, width = tracks.size
        if self._every_class:
            kept = by_class(tracks, self.classes)
        else:
            ids = self.classes.ids(tracks.class_ids)
            kept = replace(tracks[ids >= 0], class_ids=ids[ids >= 0])
        if isinstance(self.data, KittiObject) and kept.boxes3d is not None:
            names = [self.data.classes[c] for c in kept.class_ids.tolist()]
            stem = Path(self.data.place(index).name).name
            file = self.out / "kitti" / f"{stem}.txt"
            kitti_files.write_results(file, kept, names, self.data.calibration(index))
        return {
            "image": [index, height, width],
            "class_ids": kept.class_ids.tolist(),
            "ids": (kept.ids if self._has_ids else np.full(len(kept), -1)).tolist(),
            "scores": np.asarray(kept.scores, float).tolist(),
            "boxes": np.asarray(kept.amodal_boxes, float).tolist(),
            "rates": np.asarray(kept.occlusion_rates, float).tolist(),
            "depths": np.asarray(kept.depths, float).tolist(),
            "amodal": [c.decode() for c in kept.amodal.rle().counts],
            "visible": [c.decode() for c in kept.visible.rle().counts],
        }

    def finish(self) -> list[Path]:
        """Write visible.json and amodal.json from all pieces, then remove the journal.

        Raises:
            InputError: a piece is broken.
        """
        rows = [row for piece in self._pieces for row in self._journal.read(piece[0])]
        ids = image_ids(self.data)
        images = [ImageRecord(ids[k], height, width) for k, height, width in _column(rows, "image")]
        columns = {name: [v for row in rows for v in row[name]] for name in _COLUMNS}
        n = len(columns["scores"])
        results = AnnotationSet(
            images=images,
            classes=self.data.classes,
            image_ids=np.repeat([i.id for i in images], [len(r["scores"]) for r in rows]),
            class_ids=np.array(columns["class_ids"], np.int64),
            instance_ids=np.array(columns["ids"], np.int64),
            scores=np.array(columns["scores"]),
            amodal=[c.encode() for c in columns["amodal"]],
            visible=[c.encode() for c in columns["visible"]],
            boxes=np.array(columns["boxes"]).reshape(-1, 4),
            occlusion_rates=np.array(columns["rates"]),
            crowd=np.zeros(n, bool),
            depths=np.array(columns["depths"]),
        )
        written = write_results(results, self.out, category_ids(self.data))
        self._journal.remove()
        return written


def _runs(indices: Sequence[int], size: int) -> list[list[int]]:
    return [list(indices[k : k + size]) for k in range(0, len(indices), size)]


def _column(rows: Sequence[_Row], name: str) -> list[Any]:
    return [row[name] for row in rows]


def image_ids(data: Dataset) -> list[int]:
    """What result files call the samples: COCO's ids where there are any, else 1, 2, ..."""
    if isinstance(data, CocoLike):
        return [int(image["id"]) for image in data.images]
    return list(range(1, len(data) + 1))


def category_ids(data: Dataset) -> list[int]:
    """What result files call the classes: COCO's ids where there are any, else 1, 2, ..."""
    if isinstance(data, CocoLike):
        ids = {k: number for number, k in reversed(data.category_ids.items())}
        return [ids[k] for k in range(len(data.classes))]
    return list(range(1, len(data.classes) + 1))


class _Frames(TorchDataset["Frame | InputError"]):
    """Frames of a data set for reading processes; errors are returned, which would bury them."""

    def __init__(self, data: Dataset) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Frame | InputError:
        try:
            return self._data.frame(index)
        except InputError as error:
            return error


def run(work: Inference, workers: int, progress: Progress) -> list[Path]:
    """Infer what is left and write the results.

    Args:
        work: what is to be done.
        workers: processes that read frames, at most one a core; 0 for this one.
        progress: is called with (frames done, frames in all).

    Raises:
        InputError: a frame that cannot be read, or lacks what the model needs.
    """
    batches = work.left()
    done = work.done()
    progress(done, work.count)
    reading = DataLoader(
        _Frames(work.data),
        batch_sampler=batches,
        num_workers=min(workers, cores()),
        collate_fn=_as_they_are,
        worker_init_fn=_one_thread,
    )
    for indices, frames in zip(batches, reading, strict=True):
        broken = [f for f in frames if isinstance(f, InputError)]
        if broken:
            raise broken[0]
        work.step(indices, frames)
        done += len(indices)
        progress(done, work.count)
    return work.finish()


def _as_they_are(frames: list[Frame | InputError]) -> list[Frame | InputError]:
    return frames


def _one_thread(_: int) -> None:
    """Readers run beside each other; threads of OpenCV and torch in each would only wait."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
