"""Random and hand-made annotation sets for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pycocotools import mask as coco

from amodal_core.evaluation.sets import AnnotationSet, ImageRecord
from amodal_core.masks.mask_set import RleMasks

HEIGHT, WIDTH = 60, 80
CLASSES = ("car", "pedestrian", "cyclist")


def rectangles(boxes: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    """(H, W) bool mask with x, y, w, h boxes set."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for x, y, w, h in boxes:
        mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
    return mask


def counts(mask: np.ndarray) -> bytes:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def make_set(
    rows: Sequence[tuple],
    images: Sequence[ImageRecord] | None = None,
    classes: Sequence[str] = CLASSES,
) -> AnnotationSet:
    """Rows of (image id, class id, instance id, amodal[, score[, occlusion[, visible]]])."""
    full = [tuple(r) + (1.0, None, None)[len(r) - 4 :] for r in rows]
    amodal = [r[3] for r in full]
    visible = [r[6] if r[6] is not None else r[3] for r in full]
    rates = [
        r[5] if r[5] is not None else 1 - v.sum() / max(a.sum(), 1)
        for r, a, v in zip(full, amodal, visible, strict=True)
    ]
    if images is None:
        ids = sorted({r[0] for r in full})
        images = [ImageRecord(i, HEIGHT, WIDTH, str(i), "v", n) for n, i in enumerate(ids)]
    return AnnotationSet(
        images=list(images),
        classes=tuple(classes),
        image_ids=np.array([r[0] for r in full]),
        class_ids=np.array([r[1] for r in full]),
        instance_ids=np.array([r[2] for r in full]),
        scores=np.array([r[4] for r in full]),
        amodal=[counts(a) for a in amodal],
        visible=[counts(v) for v in visible],
        boxes=np.array([box(a) for a in amodal]),
        occlusion_rates=np.array(rates),
        crowd=np.zeros(len(full), bool),
        depths=np.zeros(len(full)),
    )


def random_pair(
    seed: int,
    images: int,
    crowd: float = 0.0,
    ties: bool = False,
    videos: int = 1,
    objects: int = 5,
) -> tuple[AnnotationSet, AnnotationSet]:
    """Truth with half hidden objects, and predictions that are shifted, missing or invented.

    Instances move from frame to frame and keep their ids; predictions now and then swap theirs.
    """
    rng = np.random.default_rng(seed)
    records = [
        ImageRecord(n + 1, HEIGHT, WIDTH, f"{n:06d}", f"video {n % videos}", n // videos)
        for n in range(images)
    ]
    kinds = rng.integers(0, len(CLASSES), (videos, objects * 2))
    start = rng.integers(-5, 55, (videos, objects * 2, 2))
    extent = rng.integers(6, 45, (videos, objects * 2, 2))
    speed = rng.integers(-2, 3, (videos, objects * 2, 2))
    true, predicted = [], []
    for record in records:
        v = int(record.video.split()[1])
        present = rng.permutation(objects * 2)[: rng.integers(0, objects * 2)]
        for k in present:
            x, y = (start[v, k] + speed[v, k] * (record.frame % 15)).tolist()
            w, h = extent[v, k].tolist()
            amodal = rectangles([(x, y, w, h)])
            if not amodal.any():
                continue
            cut = rng.random()
            visible = amodal & rectangles([(x, y, max(1, round(w * cut)), h)])
            if rng.random() < 0.1:
                visible = np.zeros_like(visible)
            c = int(kinds[v, k])
            true.append((record.id, c, int(k), amodal, 1.0, None, visible))
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.integers(-2, 3, 2).tolist()
                shown = cut + rng.uniform(-0.05, 0.05)
                moved = rectangles([(x + dx, y + dy, w, h)])
                score = rng.integers(0, 10) / 10 if ties else rng.random()
                kind = c if rng.random() < 0.85 else int(rng.integers(0, len(CLASSES)))
                remains = moved & rectangles([(x + dx, y + dy, max(1, round(w * shown)), h)])
                identity = int(k) if rng.random() < 0.9 else int(rng.integers(100, 120))
                predicted.append((record.id, kind, identity, moved, score, None, remains))
    # One prediction an id and frame, as a tracker gives them.
    taken: set[tuple[int, int]] = set()
    predicted = [
        p for p in predicted if p[3].any() and not (p[:3:2] in taken or taken.add(p[:3:2]))
    ]
    truth, predictions = make_set(true, records), make_set(predicted, records)
    truth.crowd = rng.random(len(truth)) < crowd
    truth.depths = rng.uniform(4, 60, len(truth))
    predictions.depths = rng.uniform(4, 60, len(predictions))
    return truth, predictions


def edge_pair() -> tuple[AnnotationSet, AnnotationSet]:
    """Objects whose occlusion, area or IoU lies on the bound of a bin, with tied scores.

    Ten frames: 20 x 20 pixels with 17, 15, 12, 10, 5 and 0 columns visible, 32 x 32 pixels, a tiny
    object, one in full view, and a frame without objects. Each is predicted exactly, by its half
    (IoU .5) and once more elsewhere as another class; some hidden parts are needless.
    """
    records = [
        ImageRecord(n, HEIGHT, WIDTH, str(n), "v" if n < 6 else "w", n % 6) for n in range(10)
    ]
    true, predicted = [], []
    boxes = [(20, 20, k) for k in (17, 15, 12, 10, 5, 0)] + [(32, 32, 24), (3, 3, 1), (20, 20, 20)]
    for n, (w, h, shown) in enumerate(boxes):
        x, y = 2 * n, n
        amodal, half = rectangles([(x, y, w, h)]), rectangles([(x, y, w, (h + 1) // 2)])
        visible = rectangles([(x, y, shown, h)])
        far = rectangles([(x + 35, y, w, h)])
        true.append((n, n % 3, n % 4, amodal, 1.0, None, visible))
        predicted.append((n, n % 3, n % 4, amodal, 0.5, None, visible))
        predicted.append((n, n % 3, 10 + n % 4, half, 0.5, None, half & visible))
        predicted.append(
            (n, (n + 1) % 3, 20 + n % 2, far, 0.5, None, far & rectangles([(x + 35, y, 9, h)]))
        )
    return make_set(true, records), make_set(predicted, records)


def layered(side: AnnotationSet) -> AnnotationSet:
    """The same set with visible masks that do not overlap: the first of an image lies on top."""
    visible = list(side.visible)
    for image in np.unique(side.image_ids):
        rows = np.flatnonzero(side.image_ids == image)
        masks = RleMasks((HEIGHT, WIDTH), [visible[n] for n in rows])
        for n, shown in zip(rows, masks.layered(np.arange(len(rows))).counts, strict=True):
            visible[n] = shown
    return replace(side, visible=visible)


# What the published evaluators were run on: test/fixtures/evaluators.json.
PAIRS = {
    "random": lambda: random_pair(31, images=40, videos=4),
    "ties and crowds": lambda: random_pair(32, images=40, videos=4, crowd=0.1, ties=True),
    "edges": edge_pair,
}


def dense(side, kind):
    """Masks of a side as arrays, by pycocotools."""
    return [coco.decode(m).astype(bool) for m in side.rle(kind)]
