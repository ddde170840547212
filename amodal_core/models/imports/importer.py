"""Published weights become a checkpoint, whole or, if asked, as a beginning for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from amodal_core.classes import ClassMap
from amodal_core.errors import InputError
from amodal_core.files import atomic
from amodal_core.models.checkpoint import CheckpointInfo, save_tensors
from amodal_core.models.imports.backbone_names import PARTS
from amodal_core.models.imports.backbone_names import expected as expected_part
from amodal_core.models.imports.class_names import NO_CLASS
from amodal_core.models.imports.files import read_file
from amodal_core.models.imports.key_map import KeyMap, Source
from amodal_core.models.imports.layouts import layout_of
from amodal_core.models.layers.weights import fitted, misfits
from amodal_core.models.registry import learned
from amodal_core.settings import merge


@dataclass(frozen=True)
class Imported:
    """What was done.

    Attributes:
        title: whose weights they were.
        taken: tensors of the model that were in the file.
        tensors: of the model.
        classes: of the checkpoint.
        rest: those of the model's tensors that the file does not have.
    """

    title: str
    taken: int
    tensors: int
    classes: tuple[str, ...]
    rest: tuple[str, ...] = ()


def import_weights(
    paths: Sequence[str | Path],
    model: str,
    out: str | Path,
    *,
    classes: Sequence[str] = (),
    style: str = "",
    partial: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Imported:
    """Write a checkpoint of published weights.

    Args:
        paths: the file of the network, and files that belong to it.
        model: name in the registry, or of a backbone (`backbone_names.PARTS`), which becomes a file
            for the setting `weights`.
        out: the checkpoint (.safetensors).
        classes: that the checkpoint is to have; () for the file's own. Where the file's classes are
            known by name, these are chosen among them, else they name them in order.
        style: "caffe" (stride in the 1x1 convolutions, bytes in blue, green, red) or "pytorch", ""
            for what the file says or its family usually is.
        partial: write what the file has, if that is not the whole model: for `amodal train init=`.
        settings: of the model, in the place of those that the file tells.

    Raises:
        InputError: the file is of no kind that is known or not of this model, or it does not fit.
    """
    file, *beside = (read_file(path) for path in paths)
    layout = layout_of(file)
    where = str(file.path)
    key_map = layout.map_to(model, where)
    if model in PARTS:
        return _import_part(key_map, Source(file, style or layout.style(file)), layout.title, out)
    own, rows = chosen_classes(layout.classes(file), classes, where, partial)
    source = Source(file, style or layout.style(file), own, rows, beside, settings or {})
    tensors, unknown = key_map.apply(source)
    values = {"classes": list(own)} | key_map.settings(tensors, source)
    merge(values, settings or {})
    with torch.device("meta"):  # names and shapes alone
        module = learned(model).from_config(values, f"settings of {model}")
    expected = module.state_dict()
    faults = misfits(tensors, expected)
    faults = replace(faults, foreign=tuple(sorted({*unknown, *faults.foreign})))
    unfit = faults.foreign or faults.wrong
    if unfit or (faults.missing and not partial):
        raise InputError(
            f"weights of {layout.title} do not fit '{model}': {faults.message()}",
            where,
            "is it the published file, and are the settings its own?"
            if unfit
            else "--partial writes what there is, for a training to begin with",
        )
    if not tensors:
        raise InputError(f"nothing in it is of '{model}'", where, "give another file")
    kept = fitted(tensors, {k: v for k, v in expected.items() if k in tensors}, where, "")
    info = CheckpointInfo(
        model,
        module.config_json(),
        tuple(own),
        f"weights of {layout.title}, {file.path.name}",
        partial=bool(faults.missing),
    )
    save_tensors(out, kept, info)
    total = len(kept) + len(faults.missing)  # counters of norms are in neither
    return Imported(layout.title, len(kept), total, tuple(own), tuple(faults.missing))


def _import_part(key_map: KeyMap, source: Source, title: str, out: str | Path) -> Imported:
    """Write the weights of a backbone, whole, under the names that settings ask for."""
    tensors, unknown = key_map.apply(source)
    wanted = expected_part(key_map.model)
    faults = misfits(tensors, wanted)
    faults = replace(faults, foreign=tuple(sorted({*unknown, *faults.foreign})))
    if faults:
        raise InputError(
            f"weights of {title} do not fit '{key_map.model}': {faults.message()}",
            str(source.file.path),
            "is it the published file?",
        )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as part:
        save_file({name: value.clone().contiguous() for name, value in tensors.items()}, part)
    return Imported(title, len(tensors), len(wanted), ())


def chosen_classes(
    names: Sequence[str] | int, wanted: Sequence[str], where: str, partial: bool
) -> tuple[tuple[str, ...], list[int] | None]:
    """The classes of a checkpoint, and for each its place among the file's.

    Args:
        names: of the file's classes, or how many there are.
        wanted: by the user, () for all.
        where: the file, for errors.
        partial: what depends on classes may stay out.

    Raises:
        InputError: the file does not have these classes, or nobody knows their names.
    """
    count = names if isinstance(names, int) else len(names)
    renamed = len(wanted) == count and (isinstance(names, int) or set(wanted) != set(names))
    if isinstance(names, int) or renamed:
        if renamed:
            return tuple(wanted), list(range(count))
        if partial and wanted:
            return tuple(wanted), None
        raise InputError(
            f"it has {count} classes, whose names it does not tell"
            + (f"; {len(wanted)} are given" if wanted else ""),
            where,
            "name them with --classes, in order, or give the data set's annotations (.json)",
        )
    if not wanted:
        kept = [k for k, name in enumerate(names) if name != NO_CLASS]
        return tuple(names[k] for k in kept), kept
    matched = ClassMap.between(wanted, names)
    if matched.missing and partial:
        return tuple(wanted), None
    if matched.missing:
        raise InputError(
            f"it has no class {', '.join(matched.missing)}",
            where,
            f"there are: {', '.join(n for n in names if n != NO_CLASS)}",
        )
    return tuple(wanted), [int(k) for k in matched.table]
