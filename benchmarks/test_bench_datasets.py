"""Data sets: opening a KINS-size JSON, its memory, and frames a second for training.

Budget: 95,000 annotations indexed in under 10 s in bounded memory; the other way parses the
file whole, as pycocotools does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from amodal_core.datasets.json_write import JsonWriter
from amodal_core.datasets.kins import Kins
from amodal_core.datasets.segmentation import to_polygons
from amodal_core.masks.mask_set import RleMasks
from training.config import Augment
from training.data import Augmented, loader, usable
from training.sources import Samples

IMAGES, ANNOTATIONS = 7_474, 95_311
SIZE = (375, 1242)
# Private memory only: pages of the mapped file may be dropped by the kernel at any time.
_PRIVATE = """
import re
def private():
    text = open("/proc/self/smaps_rollup").read()
    return sum(int(v) for v in re.findall(r"Private_Dirty: +([0-9]+)", text)) / 1024
before = private()
{code}
print(private() - before)
"""


def _shapes() -> list[tuple[list, list, int]]:
    """Outlines of cars as annotators draw them, some 60 corners each."""
    rng = np.random.default_rng(0)
    shapes = []
    for _ in range(64):
        mask = np.zeros(SIZE, np.uint8)
        centre = int(rng.integers(80, 1160)), int(rng.integers(150, 300))
        axes = int(rng.integers(10, 70)), int(rng.integers(8, 45))
        cv2.ellipse(mask, centre, axes, float(rng.integers(0, 20)), 0, 360, 1, -1)
        line = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
        outline = line[:: max(1, len(line) // 60)].reshape(-1).astype(float)
        shapes.append(
            ([outline.tolist()], [outline[: len(outline) // 4 * 2].tolist()], int(mask.sum()))
        )
    return shapes


@pytest.fixture(scope="session")
def kins_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSON of KINS' size: as many images, annotations and corners."""
    path = tmp_path_factory.mktemp("kins") / "update_train_2020.json"
    shapes = _shapes()
    with JsonWriter(path) as writer:
        for k in range(IMAGES):
            image = {"id": k, "file_name": f"{k:06d}.png", "height": SIZE[0], "width": SIZE[1]}
            writer.add("images", image)
        for k in range(ANNOTATIONS):
            whole, seen, area = shapes[k % len(shapes)]
            writer.annotation(
                {
                    "id": k + 1,
                    "image_id": k % IMAGES,
                    "category_id": 1 + k % 8,
                    "iscrowd": 0,
                    "a_segm": whole,
                    "i_segm": seen,
                    "a_bbox": [1, 2, 3, 4],
                    "i_bbox": [1, 2, 3, 4],
                    "a_area": area,
                    "i_area": area,
                    "oco_id": 1,
                    "ico_id": 1,
                }
            )
        writer.extend("categories", [{"id": k, "name": f"class {k}"} for k in range(1, 9)])
    return path


def test_index_of_kins_size(benchmark: Any, kins_file: Path) -> None:
    Kins(kins_file)  # compiles
    data = benchmark.pedantic(Kins, (kins_file,), rounds=3)
    assert len(data) == IMAGES
    assert data.json.count("annotations") == ANNOTATIONS
    benchmark.extra_info["megabytes of JSON"] = round(kins_file.stat().st_size / 2**20)
    opened = f"data = Kins({str(kins_file)!r}); data.truth(0)"
    benchmark.extra_info["megabytes of memory"] = _held(
        "from amodal_core.datasets.kins import Kins", opened
    )


def test_index_of_kins_size_parsed_whole(benchmark: Any, kins_file: Path) -> None:
    """Parse it whole and group the annotations by image."""

    def whole() -> int:
        content = json.loads(kins_file.read_bytes())
        groups: dict[int, list] = {}
        for annotation in content["annotations"]:
            groups.setdefault(annotation["image_id"], []).append(annotation)
        return len(groups)

    assert benchmark.pedantic(whole, rounds=1) == IMAGES
    code = f"import json; x = json.load(open({str(kins_file)!r}))"
    benchmark.extra_info["megabytes of memory"] = _held("import json", code)


def _held(imports: str, code: str) -> int:
    """MiB that the code's result holds in a process of its own, imports not counted."""
    text = imports + _PRIVATE.replace("{code}", code)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return round(float(done.stdout))


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 frames of KITTI's size with 12 objects each."""
    from amodal_core.datasets import kins
    from amodal_core.datasets.truth import make_truth
    from amodal_core.frame import Frame, Sample

    rng = np.random.default_rng(1)
    root = tmp_path_factory.mktemp("frames") / "kins"

    def samples():  # type: ignore[no-untyped-def]
        for _ in range(64):
            masks = np.zeros((12, *SIZE), np.uint8)
            for mask in masks:
                centre = int(rng.integers(0, 1242)), int(rng.integers(150, 300))
                axes = int(rng.integers(10, 70)), int(rng.integers(8, 45))
                cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
            amodal = RleMasks.from_dense(masks.astype(bool))
            truth = make_truth(amodal, amodal.layered(np.arange(12)), [0] * 12, range(12))
            noise = rng.integers(0, 255, (47, 156, 3), np.uint8)
            image = cv2.resize(noise, (SIZE[1], SIZE[0])) + rng.integers(0, 8, (*SIZE, 3), np.uint8)
            yield Sample(Frame(0, image=image), truth)

    list(kins.write(root, samples(), ("car",)))
    return root / "update_train_2020.json"


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_for_training(benchmark: Any, frames: Path, workers: int) -> None:
    """Decode, truth as RLE, masks of the targets: one epoch of 64 frames in batches of 8."""
    data = Kins(frames)
    samples = Samples([(data, range(len(data)))], data.classes, {})
    unchanged = Augmented(samples, Augment(flip=0.0), 0, depth=False, points=False)
    steps = [[(0, k) for k in range(n, min(n + 8, len(data)))] for n in range(0, len(data), 8)]

    def epoch() -> int:
        return sum(len(usable(clips)) for clips in loader(unchanged, steps, workers))

    epoch()
    assert benchmark.pedantic(epoch, rounds=3) == 64
    benchmark.extra_info["frames a second"] = round(64 / benchmark.stats.stats.median, 1)


def test_truth_of_an_image(benchmark: Any, frames: Path) -> None:
    """Annotations of one image to masks, occlusion and occluders."""
    data = Kins(frames)
    data.truth(0)
    assert len(benchmark(data.truth, 1)) == 12


def test_exact_polygons(benchmark: Any) -> None:
    """Polygons of 12 masks that rasterise to the very masks."""
    masks = np.zeros((12, *SIZE), np.uint8)
    for k, mask in enumerate(masks):
        cv2.ellipse(mask, (100 * k, 200), (60, 40), 0, 0, 360, 1, -1)
    rle = RleMasks.from_dense(masks.astype(bool))
    to_polygons(rle)
    assert len(benchmark(to_polygons, rle)) == 12
