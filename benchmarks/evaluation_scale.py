"""Time and memory of a whole evaluation by the number of images.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/evaluation_scale.py 1000 3000 10000

Each size runs in a process of its own, so that the peak memory is its own. An image holds twelve
objects (8 classes, 1242x375 pixels) that hide each other, and about fourteen predictions.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np

from amodal_core.evaluation.protocols import IMAGE_PROTOCOLS
from amodal_core.evaluation.run import evaluate
from amodal_core.evaluation.sets import AnnotationSet, ImageRecord
from amodal_core.masks.mask_set import RleMasks

SIZE = 375, 1242
OBJECTS = 12
CLASSES = tuple(f"class {k}" for k in range(8))


def silhouettes(boxes: np.ndarray) -> list[np.ndarray]:
    """Ellipses with a notched edge: as many runs as real silhouettes of that size have."""
    crops = []
    for x0, y0, x1, y1 in boxes.tolist():
        v, u = np.mgrid[0 : y1 - y0, 0 : x1 - x0]
        radius = np.hypot((u + 0.5) / (x1 - x0) - 0.5, (v + 0.5) / (y1 - y0) - 0.5)
        crops.append(radius < 0.47 + 0.03 * np.sin((u + v) * 0.7))
    return crops


def drive(images: int, seed: int = 0) -> tuple[AnnotationSet, AnnotationSet]:
    """Truth and predictions of that many images."""
    rng = np.random.default_rng(seed)
    records = [ImageRecord(n + 1, *SIZE, f"{n:06d}", "", n) for n in range(images)]
    parts: list[dict[str, list]] = [{k: [] for k in FIELDS} for _ in range(2)]
    for record in records:
        extent = rng.integers(20, 180, (OBJECTS, 2)) * np.array([1.0, 0.7])
        corner = rng.uniform([-20, 60], [1200, 300], (OBJECTS, 2))
        boxes = np.concatenate([corner, corner + extent], 1).astype(int)
        depths = rng.uniform(4, 60, OBJECTS)
        classes = rng.integers(0, len(CLASSES), OBJECTS)
        found = rng.random(OBJECTS) < 0.9
        extra = rng.integers(0, OBJECTS, 3)
        chosen = np.concatenate([np.flatnonzero(found), extra])
        guessed = boxes[chosen] + rng.integers(-6, 7, (len(chosen), 4))
        guessed[:, 2:] = np.maximum(guessed[:, 2:], guessed[:, :2] + 4)
        rows = (
            (boxes, classes, np.ones(OBJECTS), depths),
            (
                guessed,
                classes[chosen],
                rng.random(len(chosen)),
                depths[chosen] * rng.normal(1, 0.05, len(chosen)),
            ),
        )
        for part, (b, c, s, d) in zip(parts, rows, strict=True):
            amodal = RleMasks.from_crops(silhouettes(b), b[:, :2], SIZE)
            visible = amodal.layered(np.argsort(d))
            areas = np.maximum(amodal.areas(), 1)
            part["image_ids"].append(np.full(len(b), record.id))
            part["class_ids"].append(c)
            part["scores"].append(s)
            part["depths"].append(d)
            part["boxes"].append(amodal.boxes())
            part["occlusion_rates"].append(1 - visible.areas() / areas)
            part["amodal"].extend(amodal.counts)
            part["visible"].extend(visible.counts)

    def joined(part: dict[str, list]) -> AnnotationSet:
        arrays = {k: np.concatenate(part[k]) for k in FIELDS[:6]}
        n = len(arrays["scores"])
        return AnnotationSet(
            images=records,
            classes=CLASSES,
            instance_ids=np.full(n, -1),
            crowd=np.zeros(n, bool),
            amodal=part["amodal"],
            visible=part["visible"],
            **arrays,
        )

    return joined(parts[0]), joined(parts[1])


FIELDS = (
    "image_ids",
    "class_ids",
    "scores",
    "boxes",
    "occlusion_rates",
    "depths",
    "amodal",
    "visible",
)


def measure(images: int) -> dict[str, object]:
    """One evaluation under the default protocol: box, visible and amodal, and all tables."""
    truth, predictions = drive(images)
    small = drive(3, seed=1)
    evaluate(*small, IMAGE_PROTOCOLS["default"], "image")  # compile first
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps: dict[str, float] = {}
    marks: list[tuple[str, float]] = []

    def step(what: str) -> None:
        marks.append((what, time.perf_counter()))

    cpu, begin = time.process_time(), time.perf_counter()
    result = evaluate(truth, predictions, IMAGE_PROTOCOLS["default"], "image", step=step)
    end, cpu = time.perf_counter(), time.process_time() - cpu
    for (name, at), after in zip(marks, [m[1] for m in marks[1:]] + [end], strict=True):
        steps[name] = round(after - at, 2)
    return {
        "images": images,
        "annotations": len(truth),
        "predictions": len(predictions),
        "seconds": round(end - begin, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "data_gb": round(base / 2**20, 2),
        "amodal_AP": round(result.scores["amodal"].values["AP"], 4),
        "steps": steps,
    }


def main() -> None:
    """Measure the sizes on the command line, each in its own process."""
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    for images in sys.argv[1:] or ("1000", "3000", "10000"):
        done = subprocess.run(
            [sys.executable, __file__, "--one", images], check=True, capture_output=True, text=True
        )
        print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
