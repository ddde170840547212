"""Hand-made scenes whose true identities are known: boxes at depths that hide each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amodal_core.frame import Frame, Instances, Tracks
from amodal_core.masks.mask_set import RleMasks
from amodal_core.masks.occluders import occlusion_order, occlusion_rates, visible_from_order
from amodal_core.tracking import CoastingTracker, Tracker

SIZE = (120, 400)
STEP = 100_000_000  # 10 Hz
BACKGROUND = 60.0


@dataclass(frozen=True)
class Thing:
    """A box in the image at a depth.

    Attributes:
        name: its true identity.
        x: left edge, pixels.
        y: upper edge.
        w: width.
        h: height.
        depth: metres.
        kind: class index.
        score: of its detection.
        embedding: its vector.
        detected: whether the detector finds it.
    """

    name: str
    x: float
    y: float
    w: float
    h: float
    depth: float
    kind: int = 0
    score: float = 0.9
    embedding: tuple[float, ...] | None = None
    detected: bool = True

    @property
    def box(self) -> tuple[float, float, float, float]:
        """xyxy in pixels."""
        return self.x, self.y, self.x + self.w, self.y + self.h


def view(
    things: Sequence[Thing], stamp: int = 0, most_hidden: float = 0.85
) -> tuple[list[str], Instances, Frame]:
    """What a perfect detector sees: names, instances, and a frame with the true depth.

    Things that are hidden to `most_hidden` or more are not found.
    """
    n = len(things)
    depths = np.array([t.depth for t in things], np.float32)
    amodal = RleMasks.from_boxes(np.array([t.box for t in things]).reshape(-1, 4), SIZE)
    visible = visible_from_order(amodal, depths)
    rates = occlusion_rates(amodal, visible)
    embeddings = [t.embedding for t in things]
    instances = Instances(
        size=SIZE,
        amodal_boxes=amodal.boxes(),
        visible_boxes=visible.boxes(),
        scores=np.array([t.score for t in things], np.float32),
        class_ids=np.array([t.kind for t in things], np.int64),
        amodal=amodal,
        visible=visible,
        occlusion_rates=rates,
        depths=depths,
        occluders=occlusion_order(depths, amodal, visible),
        embeddings=np.array(embeddings, np.float32) if n and None not in embeddings else None,
    )
    indices = np.flatnonzero((rates < most_hidden) & np.array([t.detected for t in things], bool))
    depth = np.full(SIZE, BACKGROUND, np.float32)
    for mask, thing in zip(visible.dense(), things, strict=True):
        depth[mask] = thing.depth
    # A LiDAR's lines, not every pixel.
    sparse = np.zeros(SIZE, np.float32)
    sparse[::4, ::2] = depth[::4, ::2]
    return [things[i].name for i in indices], instances[indices], Frame(stamp=stamp, depth=sparse)


Scene = Callable[[int], Sequence[Thing]]  # what is there in a frame


def id_at(tracks: Tracks, thing: Thing) -> int:
    """Id of the track whose amodal mask is the thing's (IoU over one half), -1 where none is."""
    truth = RleMasks.from_boxes(np.array([thing.box]), SIZE)
    overlap = tracks.amodal.rle().iou(truth)[:, 0] if len(tracks) else np.zeros(0)
    return int(tracks.ids[overlap.argmax()]) if overlap.max(initial=0) > 0.5 else -1


def car(x: float, depth: float = 20.0, name: str = "car", **more: Any) -> Thing:
    return Thing(name, x, 50, 40, 30, depth, **more)


def lorry(x: float, w: float = 150, depth: float = 10.0) -> Thing:
    return Thing("lorry", x, 20, w, 90, depth, 1)


def play(
    scene: Scene,
    frames: range | int,
    tracker: CoastingTracker | None = None,
    with_depth: bool = True,
) -> list[Tracks]:
    """Step a tracker through a scene at 10 Hz, the usual one where none is given."""
    tracker = tracker or Tracker()
    out = []
    for k in range(frames) if isinstance(frames, int) else frames:
        _, instances, frame = view(scene(k), k * STEP)
        out.append(tracker.step(instances, k * STEP, frame if with_depth else None))
    return out


def random_instances(rng: np.random.Generator, n: int) -> Instances:
    """Anything that a bad model may say."""
    corner = rng.uniform(-20, 110, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 60, (n, 2))], 1)
    boxes[rng.random(n) < 0.05] = np.nan
    amodal = RleMasks.from_boxes(boxes, (90, 120))
    visible = amodal.layered(rng.permutation(n))
    return Instances(
        (90, 120),
        boxes.astype(np.float32),
        visible.boxes(),
        rng.random(n).astype(np.float32),
        rng.integers(0, 5, n),
        amodal,
        visible,
        rng.random(n).astype(np.float32),
        rng.choice([0, 5, 20, np.nan], n).astype(np.float32),
        rng.random((n, n)) < 0.2,
        rng.normal(size=(n, 4)).astype(np.float32) if rng.random() < 0.5 else None,
        rng.choice([1.0, np.nan], (n, 7)).astype(np.float32) if rng.random() < 0.5 else None,
    )
