"""Write "CVAT for images 1.1": masks of the whole object and of what shows, to be corrected there.

An object is two masks, labelled `car` and `car_visible`, with its track id as the attribute
`object`: the convention by which docs/your_data.md reads CVAT's exports. Run lengths are those of
the mask's box, row by row, zeros first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from amodal_core.datasets.base import new_folder
from amodal_core.datasets.image_files import write_images
from amodal_core.files import atomic
from amodal_core.frame import Sample

NAME = "annotations.xml"
VISIBLE = "_visible"  # what the label of a visible mask ends in
_MOST = 1_000_000_000  # of the attribute `object`


def write(root: str | Path, samples: Iterable[Sample], classes: Sequence[str]) -> Iterator[str]:
    """Write `<root>/annotations.xml` and `<root>/images`; yields each image's name.

    Args:
        root: a folder that is made.
        samples: frames with image and truth.
        classes: names of the truth's class ids.

    Raises:
        InputError: the folder is not empty, or a frame lacks its image.
    """
    root = new_folder(Path(root))
    with atomic(root / NAME) as part, part.open("w", encoding="utf-8") as file:
        file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        )
        file.write("<meta><task><mode>annotation</mode><labels>\n")
        for name in classes:
            file.writelines(_label(label) for label in (name, name + VISIBLE))
        file.write("</labels></task></meta>\n")
        for sample, image in write_images(root / "images", samples):
            size = f'width="{image["width"]}" height="{image["height"]}"'
            file.write(f'<image id="{image["id"]}" name="{image["file_name"]}" {size}>\n')
            file.writelines(_masks(sample, classes))
            file.write("</image>\n")
            yield image["file_name"]
        file.write("</annotations>\n")


def _label(name: str) -> str:
    """The declaration of a label with its attribute."""
    values = f"0\n{_MOST}\n1"
    attribute = (
        "<attribute><name>object</name><mutable>False</mutable><input_type>number</input_type>"
        f"<default_value>0</default_value><values>{values}</values></attribute>"
    )
    attributes = f"<attributes>{attribute}</attributes>"
    return f"<label><name>{escape(name)}</name><type>mask</type>{attributes}</label>\n"


def _masks(sample: Sample, classes: Sequence[str]) -> Iterator[str]:
    """The elements of an image's masks, far ones first; nearer ones lie higher."""
    if sample.truth is None:
        return
    truth = sample.truth.numpy()
    depths = np.asarray(truth.depths)
    far_first = np.argsort(np.where(depths > 0, depths, np.inf), kind="stable")[::-1]
    sets = [("", *truth.amodal.rle().crops()), (VISIBLE, *truth.visible.rle().crops())]
    for order, k in enumerate(far_first.tolist()):
        hidden = int(truth.occlusion_rates[k] > 0)
        for ending, crops, offsets in sets:
            if not crops[k].any():
                continue
            label = quoteattr(classes[int(truth.class_ids[k])] + ending)
            (x, y), (height, width) = offsets[k].tolist(), crops[k].shape
            runs = ", ".join(map(str, row_runs(crops[k])))
            yield (
                f'<mask label={label} source="manual" occluded="{hidden}" rle="{runs}" '
                f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="{order}">'
                f'<attribute name="object">{int(truth.ids[k])}</attribute></mask>\n'
            )


def row_runs(crop: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask (h, w) row by row: zeros, ones, zeros and so on."""
    flat = np.ascontiguousarray(crop).reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    ends = [*edges, len(flat)]
    return [b - a for a, b in zip([0, *edges], ends, strict=True)]
