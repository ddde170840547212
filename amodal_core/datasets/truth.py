"""The one annotation schema: every reader hands its masks to `make_truth`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amodal_core.frame import Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import hiding, occlusion_rates


def make_truth(
    amodal: RleMasks,
    visible: RleMasks,
    class_ids: Sequence[int] | np.ndarray,
    ids: Sequence[int] | np.ndarray,
    *,
    occluders: np.ndarray | None = None,
    depths: np.ndarray | None = None,
    boxes3d: np.ndarray | None = None,
    ignore: Sequence[bool] | np.ndarray | None = None,
    ages: np.ndarray | None = None,
) -> Tracks:
    """Ground truth of one image.

    Visible masks are cut to their amodal ones: the amodal mask is what benchmarks are quoted on
    and is never changed.

    Args:
        amodal: N masks.
        visible: N masks, empty where an object is wholly hidden.
        class_ids: (N,) indices into the data set's classes.
        ids: (N,) unique in the image, stable over a video.
        occluders: (N, N) bool, [i, j] where j hides part of i; found from the masks when None.
        depths: (N,) metres, 0 where unknown.
        boxes3d: (N, 7) as in Instances.
        ignore: (N,) bool.
        ages: (N,) frames since the object appeared first, 1 when None.
    """
    n = len(amodal)
    if n and (visible - amodal).areas().any():
        visible = visible & amodal
    if occluders is None:
        occluders = hiding(amodal, visible)
    return Tracks(
        size=amodal.size,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.ones(n, np.float32),
        class_ids=np.asarray(class_ids, np.int64).reshape(n),
        amodal=amodal,
        visible=visible,
        occlusion_rates=occlusion_rates(amodal, visible),
        depths=np.zeros(n, np.float32) if depths is None else np.asarray(depths, np.float32),
        occluders=occluders,
        boxes3d=boxes3d,
        ignore=None if ignore is None or not np.any(ignore) else np.asarray(ignore, bool),
        ids=np.asarray(ids, np.int64).reshape(n),
        ages=np.ones(n, np.int64) if ages is None else np.asarray(ages, np.int64),
        coasted=np.zeros(n, bool),
    )


def layers(occluders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of objects that hide each other, and the order inside each, as KINS numbers them.

    Args:
        occluders: (N, N) bool.

    Returns:
        (N,) cluster from 1 on, and (N,) order: 0 where an object neither hides nor is hidden, else
        1 for those in front and one more than the farthest of its occluders for the others. In a
        circle of objects that hide each other the order is broken at the lowest index.
    """
    n = len(occluders)
    cluster = np.arange(n)
    linked = occluders | occluders.T
    for i in range(n):
        for j in np.flatnonzero(linked[i, :i]):
            cluster[cluster == cluster[i]] = cluster[j]
    order = np.zeros(n, np.int64)
    remaining = np.flatnonzero(linked.any(axis=1)).tolist()
    level = 1
    while remaining:
        front = [i for i in remaining if not occluders[i, remaining].any()] or remaining[:1]
        order[front] = level
        remaining = [i for i in remaining if i not in front]
        level += 1
    return np.unique(cluster, return_inverse=True)[1].reshape(n) + 1, order
