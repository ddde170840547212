"""Every kind of file that is known, and which of them a file is."""

from __future__ import annotations

from collections.abc import Sequence

from amodal_core.errors import InputError
from amodal_core.models.imports import (
    backbone_names,
    detectron2_names,
    eoras_names,
    mmdet_names,
    pointpillars_names,
    sam_names,
    torchvision_names,
)
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.imports.key_map import Layout

LAYOUTS: tuple[Layout, ...] = (
    *torchvision_names.LAYOUTS,
    *detectron2_names.LAYOUTS,
    *mmdet_names.LAYOUTS,
    *eoras_names.LAYOUTS,
    *sam_names.LAYOUTS,
    *pointpillars_names.LAYOUTS,
    *backbone_names.LAYOUTS,
)


def layout_of(file: WeightFile) -> Layout:
    """The kind of a file, by the names of its tensors.

    Raises:
        InputError: it is of no kind that is known.
    """
    names = list(file.tensors)
    for layout in LAYOUTS:
        if layout.fits(names):
            return layout
    raise InputError(
        f"weights of no kind that is known: {len(names)} tensors, such as {_some(names)}",
        str(file.path),
        f"there are: {'; '.join(dict.fromkeys(one.title for one in LAYOUTS if one.maps))}",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
