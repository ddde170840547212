"""LVIS' rule for sets of many classes, of which each image is annotated with some.

A result counts where its class is annotated in the image or said to be absent from it. Of classes
that are annotated in part, what matches nothing is neither rewarded nor punished: a region of the
class that is ignored, larger than any box, takes it.

Gupta, Dollar, Girshick: LVIS, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from amodal_core.evaluation.sets import AnnotationSet

# Classes that are judged in an image, and those of them of which only some objects are annotated.
Verified = tuple[frozenset[int], frozenset[int]]
_EVERYWHERE = (-1e7, -1e7, 1e7, 1e7)


def judged(predictions: AnnotationSet, verified: Mapping[int, Verified]) -> AnnotationSet:
    """The predictions of classes that their image is annotated with; all where nothing is said.

    Args:
        predictions: with the truth's classes.
        verified: by image id.
    """
    everything = frozenset(range(len(predictions.classes)))
    pairs = zip(predictions.image_ids.tolist(), predictions.class_ids.tolist(), strict=True)
    kept = [k in verified.get(i, (everything, everything))[0] for i, k in pairs]
    return predictions.select(np.array(kept, bool))


def with_ignored_regions(truth: AnnotationSet, verified: Mapping[int, Verified]) -> AnnotationSet:
    """The truth of boxes, and a region to ignore for each class that is annotated in part."""
    regions = [(i, k) for i, (_, partial) in verified.items() for k in sorted(partial)]
    n = len(regions)
    if not n:
        return truth
    images, classes = np.array(regions, np.int64).T
    return replace(
        truth,
        image_ids=np.concatenate([truth.image_ids, images]),
        class_ids=np.concatenate([truth.class_ids, classes]),
        instance_ids=np.concatenate([truth.instance_ids, np.full(n, -1)]),
        scores=np.concatenate([truth.scores, np.ones(n)]),
        amodal=[*truth.amodal, *[None] * n],
        visible=[*truth.visible, *[None] * n],
        boxes=np.concatenate([truth.boxes, np.tile(_EVERYWHERE, (n, 1))]),
        occlusion_rates=np.concatenate([truth.occlusion_rates, np.zeros(n)]),
        crowd=np.concatenate([truth.crowd, np.ones(n, bool)]),
        depths=np.concatenate([truth.depths, np.zeros(n)]),
        occluders=None,
    )
