"""Counts, sizes and occlusion of a data set's objects, as numbers and as plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from amodal_core.datasets.base import Dataset
from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.files import atomic, make_folder

# Occlusion rates are counted in bins of this width; the field's splits lie on their borders.
BIN = 0.05
_EDGES = np.linspace(0, 1, round(1 / BIN) + 1)
_AREAS = np.logspace(0, 6.5, 53)
# COCO's small, medium and large, in pixels of the amodal area.
_SMALL, _MEDIUM = 32**2, 96**2


@dataclass
class Statistics:
    """What was counted.

    Attributes:
        samples: frames read.
        annotated: frames with truth.
        videos: frames by video.
        sizes: frames by (height, width).
        classes: objects by class name.
        occlusion: objects by occlusion rate, in bins of BIN.
        areas: objects by amodal area, in 53 bins from 1 to 10**6.5 pixels, log-spaced.
        per_image: frames by their number of objects.
        hidden: objects without a visible pixel.
        over: objects hidden by more than a quarter and by more than a half.
        size_groups: objects that are small, medium and large.
        tracks: identities, in data sets of videos.
        returns: identities that are seen again after annotated frames in which they were wholly
            hidden or gone.
        ignored: objects that evaluation ignores.
        broken: reason by name of frames that could not be read.
    """

    samples: int = 0
    annotated: int = 0
    videos: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    occlusion: np.ndarray = field(default_factory=lambda: np.zeros(len(_EDGES) - 1, np.int64))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(len(_AREAS) - 1, np.int64))
    per_image: Counter[int] = field(default_factory=Counter)
    hidden: int = 0
    over: tuple[int, int] = (0, 0)
    size_groups: tuple[int, int, int] = (0, 0, 0)
    tracks: int = 0
    returns: int = 0
    ignored: int = 0
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> int:
        """Objects in all."""
        return sum(self.classes.values())


def count(data: Dataset, into: Statistics) -> Iterator[None]:
    """Read every annotation, no image, and count it; yields after each sample."""
    # Of each identity the last annotated frame of its video: frames are numbered with gaps where
    # not all are annotated.
    last: dict[tuple[str, int], int] = {}
    turns: Counter[str] = Counter()
    gone: set[tuple[str, int]] = set()
    in_time = [i for video in data.videos for i in data.in_video(video)]
    for index in [*in_time, *sorted(set(range(len(data))).difference(in_time))]:
        place = data.place(index)
        into.samples += 1
        if place.video:
            into.videos[place.video] += 1
        try:
            truth = data.truth(index)
            boxes = data.boxes(index)
            truth = truth if data.has_masks else None
            into.sizes[truth.size if truth is not None else data.size(index)] += 1
        except InputError as error:
            into.broken[place.name] = f"{error.where}: {error.what}" if error.where else error.what
            yield None
            continue
        if boxes:
            into.annotated += 1
            into.per_image[len(boxes)] += 1
            into.classes.update(name for name, _ in boxes)
        if truth is not None:
            into.annotated += 1
            into.per_image[len(truth)] += 1
            into.classes.update(data.classes[c] for c in truth.class_ids.tolist())
            rates = np.asarray(truth.occlusion_rates, np.float64)
            areas, visible_areas = truth.amodal.rle().areas(), truth.visible.rle().areas()
            into.occlusion += np.histogram(rates, _EDGES)[0]
            into.areas += np.histogram(np.clip(areas, 1, 10**6), _AREAS)[0]
            into.hidden += int((visible_areas == 0).sum())
            into.over = (
                into.over[0] + int((rates > 0.25).sum()),
                into.over[1] + int((rates > 0.5).sum()),
            )
            groups = np.digitize(areas, [_SMALL, _MEDIUM])
            small, medium, large = (int((groups == g).sum()) for g in range(3))
            before = into.size_groups
            into.size_groups = before[0] + small, before[1] + medium, before[2] + large
            into.ignored += 0 if truth.ignore is None else int(np.sum(truth.ignore))
            if place.video:
                turn = turns[place.video] = turns[place.video] + 1
                for number, pixels in zip(truth.ids.tolist(), visible_areas.tolist(), strict=True):
                    key = place.video, number
                    if not pixels:
                        gone.add(key)
                        continue
                    if key in last and (turn - last[key] > 1 or key in gone):
                        into.returns += 1
                    gone.discard(key)
                    last[key] = turn
        yield None
    into.tracks = len(last)


def plot(statistics: Statistics, title: str, path: Path) -> None:
    """Write four plots as one PNG: classes, occlusion, areas, objects an image.

    Raises:
        InputError: matplotlib is not installed.
    """
    with extra("plots", "amodal data stats --out"):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 8), constrained_layout=True)
    figure.suptitle(title)
    names = [n for n, _ in statistics.classes.most_common(20)]
    rows = np.arange(len(names))
    axes[0, 0].barh(rows, [statistics.classes[n] for n in names], color="#3b6ea5")
    axes[0, 0].set_yticks(rows, names)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlabel("objects")
    axes[0, 0].set_title("classes" + (" (the 20 largest)" if len(statistics.classes) > 20 else ""))
    axes[0, 1].bar(_EDGES[:-1], statistics.occlusion, BIN * 0.92, align="edge", color="#b5533c")
    axes[0, 1].set_yscale("symlog")
    axes[0, 1].set_xlabel("hidden share of the amodal area")
    axes[0, 1].set_ylabel("objects")
    axes[0, 1].set_title("occlusion")
    axes[1, 0].stairs(statistics.areas, _AREAS, fill=True, color="#4f8a5b")
    axes[1, 0].set_xscale("log")
    for border in (_SMALL, _MEDIUM):
        axes[1, 0].axvline(border, color="black", linewidth=0.8, linestyle="--")
    axes[1, 0].set_xlabel("amodal area, pixels (dashed: COCO's small, medium, large)")
    axes[1, 0].set_ylabel("objects")
    axes[1, 0].set_title("sizes")
    most = max(statistics.per_image, default=0)
    counts = [statistics.per_image[k] for k in range(most + 1)]
    axes[1, 1].bar(range(most + 1), counts, color="#7a5fa0")
    axes[1, 1].set_xlabel("objects in an image")
    axes[1, 1].set_ylabel("images")
    axes[1, 1].set_title("objects an image")
    make_folder(path.parent)
    with atomic(path) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)
