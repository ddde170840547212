"""All models on the same held-out drives: masks, identities, hidden parts, size and cost.

    amodal synth build/held_out --frames 240 --length 40 --seed 900001 --size 621x188
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/models_on_drives.py build/held_out \
        --out build/results geometric flagship blind=flagship,scans=no \
        vatrack=vatrack:runs/vatrack/final.safetensors,tracker=quasi_dense \
        eoras=eoras:runs/eoras/final.safetensors,detector=flagship

A model is NAME or LABEL=NAME, with :CHECKPOINT where it comes with none, and options after commas:
scans=no hides the scans from it, tracker=NAME is another than `motion`, given=yes tells a model
that completes masks the true visible ones, anything else is a setting of the model. The model
`truth` finds what can be seen of the true objects: what the tracker alone is worth. Tables go to
OUT/results.md, numbers to OUT/LABEL/metrics.json; a model that is there is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amodal_core import inference
from amodal_core.classes import ClassMap
from amodal_core.datasets.base import Dataset, Finding, Place
from amodal_core.datasets.registry import open_dataset
from amodal_core.evaluation import image_level, occluded_iou
from amodal_core.evaluation.formats import read_predictions
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS, VIDEO_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.sets import AnnotationSet, aligned
from amodal_core.evaluation.truth import Truth, read_truth
from amodal_core.frame import Frame, Instances, Report, Tracks
from amodal_core.models import registry
from amodal_core.models.checkpoint import read_info
from amodal_core.settings import parse_rules
from amodal_core.tracking.registry import make_tracker

# Kinds that every model can tell apart, the one without weights included.
KINDS = {"van": "car", "bus": "truck", "tram": "truck"}
# What no single image shows, and what is too small to have a shape, is not counted.
LEAST_VISIBLE, SMALLEST = 12, 30
_TIMED = 20

# Column of the table -> kind and column of the protocol "default".
IMAGE = {
    "amodal AP": ("amodal", "AP"),
    "AP50": ("amodal", "AP50"),
    "visible AP": ("visible", "AP"),
    "partial": ("amodal", "AP partial"),
    "medium": ("amodal", "AP medium"),
    "heavy": ("amodal", "AP heavy"),
}
VIDEO_SCORES = ("vAP", "vAP50", "vAP50 partial", "vAP50 medium", "vAP50 heavy")
# Column of the table -> table and value of a video evaluation.
VIDEO = {
    "HOTA": ("tracking amodal", "HOTA"),
    "AssA": ("tracking amodal", "AssA"),
    "IDF1": ("tracking amodal", "IDF1"),
    "id kept": ("identity", "kept"),
    "carried": ("identity", "carried on the true place"),
    "mIoU_full": ("mIoU skip-empty", "mIoU_full"),
    "mIoU_occ": ("mIoU skip-empty", "mIoU_occ"),
}
GIVEN = ("mIoU_full", "mIoU_occ", "half hidden", "wholly hidden")


class WithoutLidar(Dataset):
    """A data set whose frames have no scans."""

    def __init__(self, inner: Dataset) -> None:
        self._inner = inner
        self.name, self.path, self.classes = inner.name, inner.path, inner.classes

    def __len__(self) -> int:
        return len(self._inner)

    def place(self, index: int) -> Place:
        return self._inner.place(index)

    def frame(self, index: int) -> Frame:
        return replace(self._inner.frame(index), points=None, depth=None)

    def truth(self, index: int) -> Tracks | None:
        return self._inner.truth(index)

    def size(self, index: int) -> tuple[int, int]:
        return self._inner.size(index)

    def check(self) -> Iterator[Finding | None]:
        yield from self._inner.check()


class Told:
    """What can be seen of the true objects, as if a perfect model had found it: the tracker alone.

    Args:
        data: drives with truth, whose frames are called by their stamps.
    """

    name, inputs = "truth", frozenset({"image"})

    def __init__(self, data: Dataset) -> None:
        self.classes = data.classes
        stamps = [int(data.place(k).name.split("/")[-1]) for k in range(len(data))]
        self._truth = {stamp: data.truth(k) for k, stamp in enumerate(stamps)}

    def reset(self) -> None:
        """There is no stream to forget."""

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """See `Model.infer`."""
        results = []
        for frame in frames:
            truth = self._truth[frame.stamp]
            shown = truth[np.flatnonzero(truth.visible.rle().areas() >= LEAST_VISIBLE)]
            values = {f.name: getattr(shown, f.name) for f in fields(Instances)}
            values["scores"] = np.full(len(shown), 0.9, np.float32)
            results.append(Instances(**values))
        return results


class Once:
    """A model that looks at a frame once and remembers what it found, for models without memory."""

    def __init__(self, model: Any) -> None:
        self._model, self._instances = model, dict[tuple[str, int], Any]()
        self.name, self.classes, self.inputs = model.name, model.classes, model.inputs

    def reset(self) -> None:
        """There is no stream to forget."""

    def infer(self, frames: Sequence[Frame], report: Report | None = None) -> list[Instances]:
        """See `Model.infer`; a frame is known by what the camera saw."""
        results = []
        for frame in frames:
            key = hashlib.sha256(np.ascontiguousarray(frame.image)).hexdigest(), frame.stamp
            if key not in self._instances:
                self._instances[key] = self._model.infer([frame], report)[0].numpy()
            results.append(self._instances[key])
        return results


@dataclass(frozen=True)
class Entry:
    """A row of the tables."""

    label: str
    model: str
    checkpoint: str = ""
    scans: bool = True
    given: bool = False
    tracker: str = "motion"
    settings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Entry:
        name, *options = text.split(",")
        label, equals, rest = name.partition("=")
        model, _, checkpoint = (rest if equals else name).partition(":")
        chosen = {"scans": True, "given": False, "tracker": "motion"}
        settings = []
        for option in options:
            key, _, value = option.partition("=")
            if key not in chosen:
                settings.append(option)
            else:
                chosen[key] = value if key == "tracker" else value == "yes"
        return cls(label, model, checkpoint, **chosen, settings=tuple(settings))

    def weights(self) -> int:
        """Parameters as trained: norms that are folded for inference count as norms."""
        path = self.checkpoint or registry.shipped(self.model)
        if not path:
            return 0
        info = read_info(path)
        config = {k: v for k, v in info.config.items() if not k.endswith("_weights")}
        model = registry.learned(info.model).from_config(config)
        return sum(p.numel() for p in model.parameters())

    def made(self, device: str) -> Any:
        """The model, ready for inference."""
        options = parse_rules(self.settings, "--set")
        if self.checkpoint:
            options["checkpoint"] = self.checkpoint
        if self.given:
            options["detector"] = ""
        return registry.create(self.model, device, **options)


@dataclass(frozen=True)
class Options:
    """What all rows share."""

    out: Path
    device: str
    levels: list[str]

    @property
    def devices(self) -> list[str]:
        """Those that are timed."""
        return list(dict.fromkeys(["cpu", self.device]))


def merged(part: AnnotationSet) -> AnnotationSet:
    """The set with the classes of `KINDS`."""
    return part.mapped(ClassMap.renaming(part.classes, KINDS))


def counted(truth: AnnotationSet) -> AnnotationSet:
    """The truth with what does not count marked as such."""
    small = truth.areas("amodal") < SMALLEST
    return replace(truth, crowd=truth.crowd | small | (truth.areas("visible") < LEAST_VISIBLE))


def judged(entry: Entry, data: Dataset, truth: Truth, options: Options) -> dict[str, Any]:
    """Everything about a model; from the file of an earlier run where there is one."""
    file = options.out / entry.label / "metrics.json"
    if file.exists():
        return json.loads(file.read_text())
    data = data if entry.scans else WithoutLidar(data)
    results: dict[str, Any] = {}
    levels = ["given"] if entry.given else options.levels
    model: Any
    if entry.model == Told.name:
        model, levels = Told(data), ["video"]
    else:
        model = entry.made(options.device)
        results["parameters"] = entry.weights()
        if not entry.given:
            times = {f"ms {d}": milliseconds(entry.made(d), data, d) for d in options.devices}
            results |= times
        if not registry.completes(entry.model):
            model = Once(model)
    for level in levels:
        predictions = _results(entry, model, data, truth, file.parent / level)
        results |= JUDGES[level](merged(truth.set), predictions)
    file.write_text(json.dumps(results, indent=1))
    return results  # NaN where there is nothing to count


def _results(entry: Entry, model: Any, data: Dataset, truth: Truth, folder: Path) -> AnnotationSet:
    """What a model says at a level, the folder's name; from the folder where it is there."""
    if not (folder / "amodal.json").exists():
        work = inference.Inference(
            model,
            data,
            folder,
            inference.classes_in(model, data, _chosen(model.classes, data.classes)),
            {k: str(v) for k, v in asdict(entry).items()},
            batch=1,
            tracker=make_tracker(entry.tracker) if folder.name == "video" else None,
            given=entry.given,
        )
        inference.run(work, 0, lambda *_: None)
    return merged(read_predictions(folder, truth))


def _chosen(model: tuple[str, ...], data: tuple[str, ...]) -> dict[str, str]:
    """Where the data lacks a class of the model, the one of the same kind."""
    return {
        name: next(d for d in data if KINDS.get(d, d) == KINDS[name])
        for name in model
        if name not in data and name in KINDS
    }


def milliseconds(model: Any, data: Dataset, device: str) -> float:
    """A frame from image and scan to masks as RLE, the median: of one core, or on a GPU of all."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    frames = [data.frame(k) for k in range(min(_TIMED, len(data)))]
    took = []
    for frame in [frames[0], *frames]:
        begin = clock()
        inference.tracks_of(model, [frame], Report())
        took.append((clock() - begin) * 1e3)
    model.reset()
    return float(np.median(took[1:]))


def of_images(truth: AnnotationSet, predictions: AnnotationSet) -> dict[str, float]:
    """Every frame by itself, hidden and tiny objects not counted."""
    protocol, truth = IMAGE_PROTOCOLS["default"], counted(truth)
    ready = aligned(truth, predictions)
    scores = {k: image_level.evaluate(truth, ready, k, protocol) for k in ("amodal", "visible")}
    values = {name: scores[kind].values[column] for name, (kind, column) in IMAGE.items()}
    anything = aligned(truth, predictions, class_agnostic=True)
    alone = image_level.evaluate(
        truth, anything, "amodal", replace(protocol, class_agnostic=True)
    ).values
    return values | {"AP any class": alone["AP"], "AP50 any class": alone["AP50"]}


def of_videos(truth: AnnotationSet, predictions: AnnotationSet) -> dict[str, float]:
    """Tracks, all objects counted, hidden ones included."""
    result = evaluate(
        truth, predictions, VIDEO_PROTOCOLS["default"], "video", ("visible", "amodal")
    )
    scores = result.scores["amodal"].values
    values = {name: scores[name] for name in VIDEO_SCORES}
    for name, (table, value) in VIDEO.items():
        values[name] = result.tables[table].values[value] if table in result.tables else math.nan
    kept = result.tables["identity"].values if "identity" in result.tables else {}
    return values | {k: v for k, v in kept.items() if k.startswith("kept, ")}


def of_given(truth: AnnotationSet, predictions: AnnotationSet) -> dict[str, float]:
    """Whole masks around true visible ones, paired by identity."""
    predictions = aligned(truth, predictions)
    pixels = occluded_iou.count_pixels(truth, predictions, "id")
    protocol = replace(occluded_iou.PROTOCOLS["eoras"], skip_empty=True)
    both = occluded_iou.tabulate(pixels, protocol)
    values = {"mIoU_full": both.full, "mIoU_occ": both.occluded}
    shares = truth.areas("visible") / np.maximum(truth.areas("amodal"), 1)
    for name, chosen in {
        "half hidden": (shares < 0.5) & (shares > 0),
        "wholly hidden": shares == 0,
    }.items():
        part = replace(truth, crowd=truth.crowd | ~chosen)
        values[name] = occluded_iou.evaluate(part, predictions, protocol).full
    return values


JUDGES = {"image": of_images, "video": of_videos, "given": of_given}


def table(rows: dict[str, dict[str, float]], columns: list[str]) -> str:
    """Markdown; shares in percent."""
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label, values in rows.items():
        cells = [_cell(name, values.get(name, math.nan)) for name in columns]
        lines.append("| " + " | ".join([f"`{label}`", *cells]) + " |")
    return "\n".join(lines)


def _kept(row: tuple[str, dict[str, float]]) -> str:
    """A line: how many occlusions of tracked objects there were differs between models."""
    label, values = row
    shares = [f"{k[6:]} {100 * v:.0f} %" for k, v in values.items() if k.startswith("kept, ")]
    return f"`{label}`: {'; '.join(shares) or 'none'}"


def _cell(name: str, value: float) -> str:
    if value is None or math.isnan(value):
        return "-"
    if name == "parameters":
        return f"{value / 1e6:.1f} M" if value else "none"
    return f"{value:.0f}" if name.startswith("ms ") else f"{100 * value:.1f}"


def main() -> None:
    """Run what is not there yet and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of bags with truth")
    parser.add_argument("models", nargs="+", help="[LABEL=]NAME[:CHECKPOINT][,option=value...]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="that computes the results")
    parser.add_argument(
        "--levels", nargs="+", choices=["image", "video"], default=["image", "video"]
    )
    arguments = parser.parse_args()
    options = Options(arguments.out, arguments.device, arguments.levels)
    torch.set_num_threads(1)
    data, truth = open_dataset(arguments.data), read_truth(arguments.data)
    results: dict[str, dict[str, float]] = {}
    given: dict[str, dict[str, float]] = {}
    for entry in map(Entry.parse, arguments.models):
        print(f"{entry.label} ...", flush=True)
        rows = given if entry.given else results
        rows[entry.label] = judged(entry, data, truth, options)
    times = [f"ms {d}" for d in options.devices]
    parts = []
    if results:
        image = ["parameters", *times, *IMAGE, "AP any class", "AP50 any class"]
        if "image" in options.levels:
            parts += ["Images", table(results, image)]
        if "video" in options.levels:
            parts += ["Tracks", table(results, [*VIDEO_SCORES, *VIDEO])]
            parts.append("Identity kept through full occlusion, by its length")
            parts += map(_kept, results.items())
    if given:
        true = merged(truth.set)
        visible = replace(true, amodal=true.visible, scores=np.ones(len(true)))
        given = {"visible masks alone": of_given(true, visible), **given}
        parts += ["True visible masks completed", table(given, ["parameters", *GIVEN])]
    text = "\n\n".join(parts)
    (options.out / "results.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
