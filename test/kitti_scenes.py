"""Seeded labels and detections in KITTI's own text: random, ties, values on every limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

TYPES = ("Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "Misc", "DontCare")
_SIZES = {"Car": (1.5, 1.6, 3.9), "Van": (2.2, 1.9, 5.0)}  # height, width, length
CASES = ("random", "ties", "limits")


def scenes(case: str) -> Iterator[tuple[list[str], list[str]]]:
    """Lines of label_2 and of a result file, frame by frame; equal for equal names."""
    draw = np.random.default_rng(CASES.index(case))
    for number in range(60 if case != "limits" else 90):
        objects = int(draw.integers(0, 9))
        truth, detections = [], []
        for _ in range(objects):
            kind = str(draw.choice(TYPES, p=(0.4, 0.08, 0.2, 0.04, 0.16, 0.04, 0.08)))
            left, top = draw.uniform(0, 1000), draw.uniform(100, 250)
            tall = draw.uniform(15, 90)
            if case == "limits":
                tall = float(draw.choice((24.99, 25, 25.5, 39.99, 40, 40.5, 60)))
            box = np.array([left, top, left + draw.uniform(20, 120), top + tall])
            height, width, length = _SIZES.get(kind, (1.7, 0.6, 1.0))
            x, z = draw.uniform(-20, 20), draw.uniform(5, 60)
            turn = draw.uniform(-np.pi, np.pi)
            occluded = int(draw.choice(4, p=(0.5, 0.2, 0.2, 0.1)))
            truncated = float(draw.choice((0, 0.15, 0.16, 0.3, 0.31, 0.5, 0.51)))
            solid = np.array([height, width, length, x, 1.6, z, turn])
            if kind == "DontCare":
                truth.append(_line(kind, -1, -1, -10, box, [-1, -1, -1, -1000, -1000, -1000, -10]))
            else:
                truth.append(_line(kind, truncated, occluded, turn - 0.1, box, solid))
            for _ in range(int(draw.choice(3, p=(0.15, 0.6, 0.25)))):
                score = float(draw.random())
                if case != "random":
                    score = round(score, 1)
                noisy = box + draw.normal(0, 3, 4) * (draw.random() < 0.8)
                moved = solid + draw.normal(0, (0.1, 0.05, 0.1, 0.15, 0.1, 0.2, 0.1))
                if kind == "DontCare":
                    moved = solid
                own = kind if kind in ("Car", "Pedestrian", "Cyclist") else "Car"
                if draw.random() < 0.1:
                    own = str(draw.choice(("Car", "Pedestrian", "Cyclist")))
                alpha = moved[6] - 0.1 + np.pi * (draw.random() < 0.2)
                detections.append(_line(own, 0, 0, alpha, noisy, moved) + f" {score:.4f}")
        if number % 17 == 5:
            detections = []
        yield truth, detections


def _line(kind, truncated, occluded, alpha, box, solid) -> str:  # type: ignore[no-untyped-def]
    numbers = " ".join(f"{v:.2f}" for v in (alpha, *box, *solid))
    return f"{kind} {truncated:.2f} {occluded} {numbers}"


def write_scenes(case: str, root: Path) -> tuple[Path, Path]:
    """A folder of labels and one of results, one file a frame."""
    labels, results = root / "label_2", root / "results"
    labels.mkdir(parents=True)
    results.mkdir()
    for number, sides in enumerate(scenes(case)):
        for folder, lines in zip((labels, results), sides, strict=True):
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{number:06d}.txt").write_text(text)
    return labels, results
