"""From the tracks' states to Tracks: what is matched, as detected; what coasts, as predicted."""

from __future__ import annotations

import numpy as np

from amodal_core.frame import Array, Instances, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates
from amodal_core.tracking.motion import Motion
from amodal_core.tracking.track_store import TrackStore, widened


def matched_tracks(
    detections: Instances, tracks: TrackStore, rows: np.ndarray, frame: int
) -> Tracks:
    """N detections with the identities of their tracks; the class is the track's.

    Those that show nothing coast.

    Args:
        detections: N, on the host.
        tracks: T tracks.
        rows: (N,) int64, which of them each detection is.
        frame: number of this frame.
    """
    motion = tracks.motion[rows]
    velocities, image_velocities = motion.velocities()
    return Tracks(
        size=detections.size,
        amodal_boxes=np.asarray(detections.amodal_boxes, np.float32),
        visible_boxes=np.asarray(detections.visible_boxes, np.float32),
        scores=np.asarray(detections.scores, np.float32),
        class_ids=tracks.class_ids[rows],
        amodal=detections.amodal.rle(),
        visible=detections.visible.rle(),
        occlusion_rates=np.asarray(detections.occlusion_rates, np.float32),
        depths=np.asarray(detections.depths, np.float32),
        occluders=np.asarray(detections.occluders, bool),
        embeddings=_float32(detections.embeddings),
        boxes3d=_boxes3d(tracks.boxes3d[rows], motion),
        ids=tracks.ids[rows],
        ages=frame - tracks.first_frame[rows] + 1,
        coasted=detections.visible.rle().areas() == 0,
        velocities=velocities,
        image_velocities=image_velocities,
    )


def with_coasting(
    matched: Tracks,
    tracks: TrackStore,
    masks: RleMasks,
    hidden: np.ndarray,
    fade: np.ndarray,
    frame: int,
) -> Tracks:
    """The matched tracks followed by those that coast.

    Args:
        matched: N tracks.
        tracks: C tracks that coast, predicted to this frame.
        masks: their C predicted amodal masks.
        hidden: (C,) bool, whether something nearer lies over them: then they show nothing, else
            what no matched track shows in their place.
        fade: (C,) factors of their scores.
        frame: number of this frame.
    """
    assert matched.velocities is not None
    assert matched.image_velocities is not None
    n, c = len(matched), len(tracks)
    shown = matched.visible.rle()
    unhidden = masks - shown.union()[np.zeros(c, np.int64)]
    unhidden = unhidden.picked(RleMasks.empty(matched.size, c), np.arange(c) + c * hidden)
    depths = np.nan_to_num(tracks.motion.ranges()).astype(np.float32)
    limits = [matched.size[1], matched.size[0]] * 2
    boxes = np.clip(tracks.motion.boxes(), 0, limits).astype(np.float32)
    boxes3d = _joined(
        _float32(matched.boxes3d), _boxes3d(tracks.boxes3d.copy(), tracks.motion), n, c
    )
    embeddings = None
    if matched.embeddings is not None:
        width = matched.embeddings.shape[1]
        carried = widened(tracks.embeddings, width)[:, :width]
        embeddings = np.concatenate([matched.embeddings, carried])
    elif not n and tracks.embeddings.shape[1]:
        embeddings = tracks.embeddings  # a frame without detections has none to tell their width
    amodal = RleMasks.concatenated([matched.amodal.rle(), masks])
    visible = RleMasks.concatenated([shown, unhidden])
    all_depths = np.concatenate([matched.depths, depths])
    occluders = occlusion_order(all_depths, amodal, visible)
    occluders[:n, :n] = matched.occluders
    rates = np.concatenate([matched.occlusion_rates, occlusion_rates(masks, unhidden)])
    scores = np.concatenate([matched.scores, (tracks.scores * fade).astype(np.float32)])
    velocities, image_velocities = tracks.motion.velocities()
    return Tracks(
        size=matched.size,
        amodal_boxes=np.concatenate([matched.amodal_boxes, boxes]),
        visible_boxes=np.concatenate([matched.visible_boxes, unhidden.boxes()]),
        scores=scores,
        class_ids=np.concatenate([matched.class_ids, tracks.class_ids]),
        amodal=amodal,
        visible=visible,
        occlusion_rates=rates,
        depths=all_depths,
        occluders=occluders,
        embeddings=embeddings,
        boxes3d=boxes3d,
        ids=np.concatenate([matched.ids, tracks.ids]),
        ages=np.concatenate([matched.ages, frame - tracks.first_frame + 1]),
        coasted=np.concatenate([matched.coasted, np.ones(c, bool)]),
        velocities=np.concatenate([matched.velocities, velocities]),
        image_velocities=np.concatenate([matched.image_velocities, image_velocities]),
    )


def _boxes3d(boxes: np.ndarray, motion: Motion) -> np.ndarray | None:
    """(T, 7) float32 boxes, moved to where the motion says; None where no track has one."""
    available = np.isfinite(boxes[:, 0])
    boxes[available, :3] = motion.values[available, 5:]
    return boxes if available.any() else None


def _joined(a: np.ndarray | None, b: np.ndarray | None, n: int, c: int) -> np.ndarray | None:
    """(n + c, 7) boxes of two sets either of which may have none."""
    if a is None and b is None:
        return None
    none = np.float32(np.nan)
    a = np.full((n, 7), none) if a is None else a
    return np.concatenate([a, np.full((c, 7), none) if b is None else b])


def _float32(values: Array | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float32)
