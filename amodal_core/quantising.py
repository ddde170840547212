"""The flagship in int8: calibrated on the frames that a user gives, and what that costs, said."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from amodal_core.classes import ClassMap
from amodal_core.datasets.base import Dataset
from amodal_core.errors import InputError
from amodal_core.evaluation import image_level
from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.sets import AnnotationSet, ImageRecord, aligned, from_tracks
from amodal_core.extras import extra
from amodal_core.files import atomic
from amodal_core.frame import Report, Tracks
from amodal_core.inference import tracks_of
from amodal_core.models.export import beside_model
from amodal_core.models.flagship_config import graph_settings
from amodal_core.models.flagship_graph import FlagshipGraph
from amodal_core.models.onnx_export import export_onnx
from amodal_core.pipeline import Pipeline
from amodal_core.progress import Progress
from amodal_core.runtime import graphs
from amodal_core.runtime.int8 import Inputs, quantise
from amodal_core.runtime.parity import disagreement


@dataclass(frozen=True)
class Quantised:
    """What was written.

    Attributes:
        path: the graph.
        cost: in a sentence; the graph's metadata hold it as `int8`.
        apart: share of the objects that float32 does not have, see `parity.disagreement`.
        precision: amodal and visible AP, in float32 and in int8 each; none without truth.
    """

    path: Path
    cost: str
    apart: float
    precision: dict[str, tuple[float, float]]


def export_int8(
    checkpoint: str | Path,
    calibration: Dataset,
    frames: int = 100,
    measured: Dataset | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Quantised:
    """Write the int8 graph of a checkpoint beside it, which `precision` int8 and auto run.

    Args:
        checkpoint: of the flagship.
        calibration: whose frames give the ranges of numbers: at most `frames`, evenly spread.
        frames: see above; as many others are measured.
        measured: where the cost is measured; the frames of `calibration` that gave no ranges where
            it is None. With truth it is AP, else the share of objects that differ.
        progress: called with how many frames of how many have been read.

    Raises:
        InputError: another model, no frames to measure, a frame without an image, or a missing
            package.
    """
    model, path = beside_model(checkpoint), Path(checkpoint)
    used = _spread(range(len(calibration)), frames)
    others = calibration if measured is None else measured
    left = sorted(set(range(len(others))) - set(used if measured is None else ()))
    left = _spread(left, frames)
    if not used or not left:
        raise InputError(
            "no frames are left to measure the cost on",
            str(others.path),
            "take fewer (--frames), or give others (--measure)",
        )
    graph = graphs.beside(path, graph_settings(model.config), "int8")
    config = replace(model.config, runtime="auto")
    with tempfile.TemporaryDirectory() as folder:
        unrounded, rounded = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        export_onnx(model, unrounded)
        in_float32 = FlagshipGraph(replace(config, precision="float32"), unrounded)
        total = len(used) + len(left)
        inputs = _inputs(in_float32, calibration, used, total, progress)
        quantise(unrounded, inputs, rounded, [f"model.{layer}." for layer in model.exact])
        in_int8 = FlagshipGraph(replace(config, precision="int8"), rounded)
        sides: list[list[Tracks]] = [[], []]
        for done, k in enumerate(left, len(used) + 1):
            frame = others.frame(k)
            for side, one in zip(sides, (in_float32, in_int8), strict=True):
                side.extend(tracks_of(one, [frame], Report()))
            progress(done, total)
        apart = float(np.mean([_apart(*pair) for pair in zip(*sides, strict=True)]))
        truths = [others.truth(k) for k in left]
        scores = {}
        if any(t is not None and len(t) for t in truths):
            scores = _precision(others, in_int8.classes, truths, sides)
        where = f"{len(left)} measured frames ({Path(others.path).name})"
        cost = f"{apart:.0%} of the objects in {where} are not float32's"
        for kind, (float32, int8) in scores.items():
            cost += f"; {kind} AP {100 * int8:.1f} instead of {100 * float32:.1f}"
        if not scores:
            cost += "; there is no truth to tell AP"
        _save(rounded, graph, cost)
    return Quantised(graph, cost, apart, scores)


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """At most so many of some indices, evenly spread."""
    if len(indices) <= most:
        return list(indices)
    return [indices[int(k)] for k in np.linspace(0, len(indices) - 1, most)]


def _inputs(
    model: FlagshipGraph, data: Dataset, indices: Sequence[int], total: int, progress: Progress
) -> Iterator[Inputs]:
    """The network's inputs for some frames, read when they are asked for."""
    for done, k in enumerate(indices, 1):
        yield model.prepared(Pipeline.project(data.frame(k), Report()))[0]
        progress(done, total)


def _apart(ours: Tracks, theirs: Tracks) -> float:
    """The share of one frame's objects that the other side does not have."""
    names = ("amodal_boxes", "visible_boxes", "scores", "class_ids")
    expected, actual = ([np.asarray(getattr(x, n))[None] for n in names] for x in (ours, theirs))
    if not len(ours) or not len(theirs):
        return float(len(ours) != len(theirs))
    return disagreement(expected, actual)


def _precision(
    data: Dataset,
    classes: tuple[str, ...],
    truths: Sequence[Tracks | None],
    sides: Sequence[Sequence[Tracks]],
) -> dict[str, tuple[float, float]]:
    """AP by kind of mask, of float32 and of int8."""

    def collected(frames: Sequence[Tracks | None], names: tuple[str, ...]) -> AnnotationSet:
        return from_tracks(
            (
                (ImageRecord(k, *frame.size), frame)
                for k, (frame, truth) in enumerate(zip(frames, truths, strict=True))
                if frame is not None and truth is not None
            ),
            names,
        )

    truth = collected(truths, data.classes)
    own = ClassMap.between(classes, data.classes)
    found = [collected(side, classes).mapped(own) for side in sides]
    both = [aligned(truth, one.select(one.class_ids >= 0)) for one in found]
    result = {}
    for kind in ("amodal", "visible"):
        values = [
            image_level.evaluate(truth, one, kind, IMAGE_PROTOCOLS["default"]).values["AP"]
            for one in both
        ]
        result[kind] = values[0], values[1]
    return result


def _save(graph: Path, target: Path, cost: str) -> None:
    """Put a graph where it belongs, with what it costs in its metadata."""
    with extra("export", "export --int8"):
        import onnx
    model = onnx.load(str(graph))
    model.metadata_props.add(key="int8", value=cost)
    with atomic(target) as part:
        onnx.save(model, str(part))
