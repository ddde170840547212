"""Weights of `fused`'s scores, from drives with truth that nothing else is measured on.

    amodal synth build/scores --frames 120 --length 20 --seed 410007 --size 621x188
    amodal synth build/scores2 --frames 120 --length 20 --seed 520031 --size 621x188
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/fused_scores.py build/scores build/scores2

Prints `WEIGHTS` for `amodal_core/models/witnesses.py`. An object counts as there when its whole
mask overlaps one of its kind by half, best score first; true objects that are tiny or hidden count
neither way. Fit again when the network has other weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from models_on_drives import KINDS, LEAST_VISIBLE, SMALLEST
from scipy.optimize import minimize

from amodal_core.datasets.registry import open_dataset
from amodal_core.frame import Instances, Report, Tracks
from amodal_core.models import registry
from amodal_core.models.fused import Fused
from amodal_core.models.witnesses import BOTH, FEATURES, NETWORK, SCAN
from amodal_core.pipeline import Pipeline

USED = {
    BOTH: ("network", "overlap", "height", "large"),
    SCAN: ("scan", "area", "height", "hidden", "person", "large"),
    NETWORK: ("network", "overlap", "height", "hidden", "person", "large"),
}
_OVERLAP = 0.5
_DECAY = 1.0  # of weights of features of unit variance


def labels(
    objects: Instances, kinds: np.ndarray, scores: np.ndarray, truth: Tracks, true: np.ndarray
) -> np.ndarray:
    """(N,) 1 for what is there, 0 for what is not, NaN for what does not count.

    Args:
        objects: N found.
        kinds: (N,) str, the kind of each.
        scores: (N,) of each.
        truth: M objects.
        true: (M,) str, the kind of each.
    """
    result = np.zeros(len(objects))
    areas, shown = truth.amodal.rle().areas(), truth.visible.rle().areas()
    counts = (areas >= SMALLEST) & (shown >= LEAST_VISIBLE)
    overlap = objects.amodal.rle().iou(truth.amodal.rle())
    for n in np.argsort(-scores, kind="stable"):
        best = int(overlap[n].argmax()) if len(truth) else 0
        if len(truth) and overlap[n, best] >= _OVERLAP:
            result[n] = (kinds[n] == true[best]) if counts[best] else np.nan
            overlap[:, best] = 0
    return result


def fitted(values: np.ndarray, there: np.ndarray, used: tuple[str, ...]) -> np.ndarray:
    """(1 + F,) intercept and weights, zero for features that are not used."""
    columns = [FEATURES.index(name) for name in used]
    x = values[:, columns]
    mean, spread = x.mean(0), x.std(0) + 1e-6
    z = np.column_stack([np.ones(len(x)), (x - mean) / spread])

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        odds = z @ w
        error = 1 / (1 + np.exp(-odds)) - there
        decay = np.append(0.0, _DECAY * w[1:])
        value = (np.logaddexp(0, odds) - there * odds).sum() + decay @ w / 2
        return float(value), z.T @ error + decay

    w = minimize(loss, np.zeros(z.shape[1]), jac=True).x
    result = np.zeros(1 + len(FEATURES))
    result[1 + np.array(columns)] = w[1:] / spread
    result[0] = w[0] - (w[1:] * mean / spread).sum()
    return result


def main(folders: list[str]) -> None:
    """Print a row of weights a kind."""
    torch.set_num_threads(1)
    model = registry.create("fused", "cpu")
    assert isinstance(model, Fused)
    kinds, values, there = [], [], []
    found = np.array([KINDS.get(name, name) for name in model.classes])
    for data in map(open_dataset, map(Path, folders)):
        true = np.array([KINDS.get(name, name) for name in data.classes])
        for k in range(len(data)):
            truth = data.truth(k)
            if truth is None:
                continue
            frame = Pipeline.project(data.frame(k), Report())
            (learned,) = model.views.infer([frame], Report())
            (geometric,) = model.geometric.infer([frame])
            objects, evidence = model.heard(learned.numpy(), geometric.numpy(), frame)
            kinds.append(evidence.kinds)
            values.append(evidence.values)
            named, names = found[objects.class_ids], true[truth.class_ids]
            there.append(labels(objects, named, evidence.scores(), truth, names))
    kind, value, label = np.concatenate(kinds), np.concatenate(values), np.concatenate(there)
    for k, used in USED.items():
        chosen = (kind == k) & np.isfinite(label)
        print([round(float(w), 3) for w in fitted(value[chosen], label[chosen], used)], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
