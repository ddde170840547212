"""From the book to Tracks: what was seen, as detected, and what coasts, as predicted."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Array, Instances, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates
from amodal_core.tracking.book import Book, widened


def seen_tracks(found: Instances, book: Book, frame: int) -> Tracks:
    """N instances (on the host) with the identities of their N tracks; the class is the track's.

    Those that show nothing are carried on, not seen.
    """
    return Tracks(
        size=found.size,
        amodal_boxes=np.asarray(found.amodal_boxes, np.float32),
        visible_boxes=np.asarray(found.visible_boxes, np.float32),
        scores=np.asarray(found.scores, np.float32),
        class_ids=book.class_ids,
        amodal=found.amodal.rle(),
        visible=found.visible.rle(),
        occlusion_rates=np.asarray(found.occlusion_rates, np.float32),
        depths=np.asarray(found.depths, np.float32),
        occluders=np.asarray(found.occluders, bool),
        embeddings=_float32(found.embeddings),
        boxes3d=_float32(found.boxes3d),
        ids=book.ids,
        ages=frame - book.born + 1,
        coasted=found.visible.rle().areas() == 0,
    )


def with_coasting(
    seen: Tracks, book: Book, masks: RleMasks, hidden: np.ndarray, fade: np.ndarray, frame: int
) -> Tracks:
    """The seen tracks followed by those that coast.

    Args:
        seen: N tracks.
        book: C tracks that coast, predicted to this frame.
        masks: their C predicted amodal masks.
        hidden: (C,) bool, whether something nearer lies over them: then they show nothing, else
            what no seen track shows in their place.
        fade: (C,) factors of their scores.
        frame: number of this frame.
    """
    n, c = len(seen), len(book)
    nothing = RleMasks.empty(seen.size, c)
    shown = seen.visible.rle()
    rest = masks - shown.union()[np.zeros(c, np.int64)]
    rest = RleMasks.concatenated([rest, nothing])[np.arange(c) + c * hidden]
    depths = np.nan_to_num(book.motion.ranges()).astype(np.float32)
    limits = [seen.size[1], seen.size[0]] * 2
    boxes = np.clip(book.motion.boxes(), 0, limits).astype(np.float32)
    boxes3d = embeddings = None
    if seen.boxes3d is not None:
        place = book.boxes3d.copy()
        known = np.isfinite(place[:, 0])
        place[known, :3] = book.motion.values[known, 5:]
        boxes3d = np.concatenate([seen.boxes3d, place])
    if seen.embeddings is not None:
        width = seen.embeddings.shape[1]
        looks = widened(book.embeddings, width)[:, :width]
        embeddings = np.concatenate([seen.embeddings, looks])
    amodal = RleMasks.concatenated([seen.amodal.rle(), masks])
    visible = RleMasks.concatenated([shown, rest])
    all_depths = np.concatenate([seen.depths, depths])
    occluders = occlusion_order(all_depths, amodal, visible)
    occluders[:n, :n] = seen.occluders
    rates = np.concatenate([seen.occlusion_rates, occlusion_rates(masks, rest)])
    scores = np.concatenate([seen.scores, (book.scores * fade).astype(np.float32)])
    return Tracks(
        size=seen.size,
        amodal_boxes=np.concatenate([seen.amodal_boxes, boxes]),
        visible_boxes=np.concatenate([seen.visible_boxes, rest.boxes()]),
        scores=scores,
        class_ids=np.concatenate([seen.class_ids, book.class_ids]),
        amodal=amodal,
        visible=visible,
        occlusion_rates=rates,
        depths=all_depths,
        occluders=occluders,
        embeddings=embeddings,
        boxes3d=boxes3d,
        ids=np.concatenate([seen.ids, book.ids]),
        ages=np.concatenate([seen.ages, frame - book.born + 1]),
        coasted=np.concatenate([seen.coasted, np.ones(c, bool)]),
    )


def _float32(values: Array | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float32)
