"""Any data set to any format that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from amodal_core.datasets import (
    amodal_synth_drive_write,
    coco,
    cvat,
    fiftyone,
    kins,
    kitti_write,
    labelme,
    sailvos,
    sailvos_cut,
    to_bag,
)
from amodal_core.datasets.base import DERIVED, DERIVED_NOTE, Dataset
from amodal_core.datasets.registry import TARGETS
from amodal_core.datasets.sailvos import SailVos
from amodal_core.errors import InputError
from amodal_core.files import filled, inside, write_text
from amodal_core.frame import Sample

# What only some targets take, by the name of its option.
_TAKEN_BY = {
    "kind": ("cocovid", "video-truth"),
    "class": ("kins", "kins2019", "asd", "kitti"),
    "structure": ("sailvos-cut",),
}


def convert(
    data: Dataset,
    out: str | Path,
    to: str,
    *,
    broken: dict[str, str],
    kind: str | None = None,
    class_map: Mapping[str, str] | None = None,
    structure: str | Path | None = None,
    limit: int | None = None,
) -> Iterator[str]:
    """Write a data set in another format; yields the name of each thing written.

    Args:
        data: what to write.
        out: the folder to make (the JSON file for "video-truth").
        to: one of TARGETS.
        broken: takes the reason by name of each sample that cannot be read; they are left out.
        kind: the variant of "cocovid" (joint when None) and "video-truth" (amodal).
        class_map: names of the target's classes for names of the data set's.
        structure: the clips of "sailvos-cut".
        limit: write so many samples at most, of each video where it becomes a bag.

    Raises:
        InputError: there is no such target, it cannot hold the data set, or what is given is not
            for it.
    """
    if to not in TARGETS:
        raise InputError(f"no format '{to}' to write", str(out), f"there are: {', '.join(TARGETS)}")
    given = {"kind": kind is not None, "class": bool(class_map), "structure": structure is not None}
    for name, takers in _TAKEN_BY.items():
        if given[name] and to not in takers:
            what, cure = f"{to} takes none", f"leave it out; it is for {', '.join(takers)}"
            raise InputError(what, f"--{name}", cure)
    if to == "bag":
        yield from _bags(data, Path(out), limit)
        return
    if limit is not None and to in ("sailvos-cut", "video-truth"):
        raise InputError(f"{to} is written whole", "--limit", "leave it out")
    if to == "sailvos-cut":
        if not isinstance(data, SailVos):
            raise InputError("only SAIL-VOS is cut", str(data.path))
        clips = sailvos_cut.read_structure(structure) if structure is not None else None
        yield from sailvos_cut.cut(data, out, clips)
        return
    if to == "video-truth":
        if kind not in (None, "amodal", "visible"):
            raise InputError(f"no variant '{kind}'", "--kind", "choose amodal or visible")
        yield from sailvos_cut.write_video_truth(out, data, kind or "amodal")
        return
    samples = readable(data, broken, limit)
    if not data.has_masks and to != "kitti":
        samples = (replace(sample, truth=None) for sample in samples)
    writers: dict[str, Callable[[Path], Iterator[str]]] = {
        "kins": lambda folder: kins.write(folder, samples, data.classes, class_map=class_map),
        "kins2019": lambda folder: kins.write(
            folder, samples, data.classes, version=2019, class_map=class_map
        ),
        "cocovid": lambda folder: sailvos.write(
            folder, samples, data.classes, kind=kind or "joint"
        ),
        "coco": lambda folder: coco.write(folder, samples, data.classes),
        "asd": lambda folder: amodal_synth_drive_write.write(
            folder, samples, data.classes, class_map=class_map
        ),
        "kitti": lambda folder: kitti_write.write(
            folder, samples, data.classes, class_map=class_map
        ),
        "labelme": lambda folder: labelme.write(folder, samples, data.classes),
        "cvat": lambda folder: cvat.write(folder, samples, data.classes),
        "fiftyone": lambda folder: fiftyone.write(folder, samples, data.classes),
    }
    with filled(out) as folder:
        yield from writers[to](folder)
        if data.derived:
            write_text(folder / DERIVED_NOTE, f"{data.name}: {DERIVED}\n")


def readable(data: Dataset, broken: dict[str, str], limit: int | None = None) -> Iterator[Sample]:
    """The samples in the order of their videos; those that cannot be read go into `broken`."""
    order = [i for v in data.videos for i in data.in_video(v)] if data.sequential else None
    indices = list(range(len(data))) if order is None else order
    for index in indices[:limit]:
        sample = _read(data, index, broken)
        if sample is not None:
            yield sample


def _read(data: Dataset, index: int, broken: dict[str, str]) -> Sample | None:
    try:
        return data[index]
    except InputError as error:
        broken[data.place(index).name] = f"{error.where}: {error.what}"
        return None


def _bags(data: Dataset, out: Path, limit: int | None) -> Iterator[str]:
    if not data.sequential:
        raise InputError("single images make no bag", str(data.path), "use `amodal convert`")
    if len(data.videos) == 1:
        yield from to_bag.write_video(data, data.videos[0], out, limit=limit)
        return
    with filled(out) as folder:
        for video in data.videos:
            place = inside(folder, video.replace("/", "_"))
            yield from to_bag.write_video(data, video, place, limit=limit)
