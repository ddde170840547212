"""Identities through full occlusion: does an object that comes back keep its id?

An occlusion is a run of frames in which an instance of the truth has no visible pixel but an amodal
mask, between two frames in which it is visible; leaving the image is none. The id before it is the
last one paired with the object while it was visible, the id after it the first one paired from its
return on, before it hides again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby, zip_longest

import numpy as np

from amodal_core.evaluation.assignment import assign
from amodal_core.evaluation.sets import AnnotationSet

LENGTHS = ((1, 5), (6, 10), (11, 20), (21, 30), (31, None))


@dataclass
class Occlusion:
    """One full occlusion of one instance: frames `first` to `last` of a video are without it.

    Attributes:
        video: its video.
        instance: id in the truth.
        first: place in the video, among its frames, at which it is first hidden.
        last: place at which it is last hidden.
        before: predicted id before, -1 if it was not tracked.
        after: predicted id after, -1 if it was not found again.
        carried: share of the hidden frames in which the id before has a mask at IoU >= .5 with
            the true amodal mask; NaN where the truth has no amodal mask there.
    """

    video: str
    instance: int
    first: int
    last: int
    before: int
    after: int
    carried: float = float("nan")

    @property
    def frames(self) -> int:
        """Length in frames."""
        return self.last - self.first + 1

    @property
    def kept(self) -> bool:
        """The same id before and after."""
        return self.before >= 0 and self.before == self.after


@dataclass
class IdentityKept:
    """Identities through full occlusion.

    Attributes:
        reappearances: occlusions whose object was tracked before them.
        kept: share of these with the same id afterwards.
        switched: share with another id.
        lost: share not found again while visible.
        untracked: occlusions whose object was not tracked before them; in no share.
        carried: mean share of hidden frames with a carried mask on the true place.
        by_length: (reappearances, share kept) by length of the occlusion.
        occlusions: all of them.
    """

    reappearances: int
    kept: float
    switched: float
    lost: float
    untracked: int
    carried: float
    by_length: dict[str, tuple[int, float]] = field(default_factory=dict)
    occlusions: list[Occlusion] = field(default_factory=list)


def evaluate(
    truth: AnnotationSet, predictions: AnnotationSet, threshold: float = 0.5
) -> IdentityKept:
    """Share of reappearances that keep their id.

    Args:
        truth: with visible and amodal masks, instance ids and videos.
        predictions: aligned with it, with amodal masks and instance ids.
        threshold: amodal IoU from which a prediction is the object.

    Raises:
        InputError: a side lacks the masks.
    """
    # What every annotation was matched with, and the annotations of every object in time.
    truth = truth.select(~truth.crowd)
    visible, amodal = truth.areas("visible") > 0, truth.areas("amodal") > 0
    matched = assign(truth, predictions, "amodal", threshold, class_agnostic=True)
    matched_ids = np.where(
        matched >= 0, predictions.instance_ids[matched] if len(predictions) else -1, -1
    )
    images = {i.id: i for i in truth.images}
    # Frames count by their place in the video: sets number them with gaps.
    places: dict[int, int] = {}
    in_time = sorted(truth.images, key=lambda image: (image.video, image.frame))
    for _, of_video in groupby(in_time, lambda image: image.video):
        places |= {image.id: place for place, image in enumerate(of_video)}
    frame_of = np.array([places[int(i)] for i in truth.image_ids], np.int64)
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for n, image in enumerate(truth.image_ids):
        rows[images[int(image)].video, int(truth.instance_ids[n])].append(n)
    by_image_and_id: dict[tuple[int, int], int] = {
        (int(i), int(k)): n
        for n, (i, k) in enumerate(
            zip(predictions.image_ids, predictions.instance_ids, strict=True)
        )
    }
    # Gaps between frames in which an object is visible: the id before, the id after.
    occlusions: list[Occlusion] = []
    hidden_rows: list[tuple[int, int, int]] = []  # occlusion, annotation, prediction or -1
    for (video, instance), chosen in rows.items():
        chosen.sort(key=lambda n: frame_of[n])
        visible_rows = [n for n in chosen if visible[n]]
        hidden = {int(frame_of[n]): n for n in chosen if not visible[n]}
        before = -1
        for n, following in zip_longest(visible_rows, visible_rows[1:]):
            if matched_ids[n] >= 0:
                before = int(matched_ids[n])
            if following is None or frame_of[following] == frame_of[n] + 1:
                continue
            back = _run_after(visible_rows, following, frame_of)
            after = next((int(matched_ids[m]) for m in back if matched_ids[m] >= 0), -1)
            gap = range(int(frame_of[n]) + 1, int(frame_of[following]))
            if not any(t in hidden and amodal[hidden[t]] for t in gap):
                before = -1
                continue
            for t in gap:
                if t in hidden and amodal[hidden[t]]:
                    m = hidden[t]
                    key = int(truth.image_ids[m]), before
                    prediction = by_image_and_id.get(key, -1) if before >= 0 else -1
                    hidden_rows.append((len(occlusions), m, prediction))
            occlusions.append(Occlusion(video, instance, gap.start, gap.stop - 1, before, after))
            # What was found after the gap is what the next gap starts from.
            before = -1
    # Hidden frames in which the id before is carried.
    _carry(
        occlusions, np.array(hidden_rows, np.int64).reshape(-1, 3), truth, predictions, threshold
    )
    return _summary(occlusions)


def _run_after(visible_rows: list[int], start: int, frame_of: np.ndarray) -> list[int]:
    run = [start]
    for n in visible_rows[visible_rows.index(start) + 1 :]:
        if frame_of[n] != frame_of[run[-1]] + 1:
            break
        run.append(n)
    return run


def _carry(
    occlusions: list[Occlusion],
    rows: np.ndarray,
    truth: AnnotationSet,
    predictions: AnnotationSet,
    threshold: float,
) -> None:
    """Fill in in how many hidden frames the id before lies on the true place.

    Args:
        occlusions: to be filled in.
        rows: (H, 3) occlusion, annotation, and prediction with the id before, or -1.
        truth: what is there.
        predictions: aligned with it.
        threshold: least amodal IoU.
    """
    if not len(rows):
        return
    true_masks = truth.select(rows[:, 1]).runs("amodal")
    prediction = predictions.runs("amodal")[rows[:, 2]]
    both = true_masks.shared(prediction)
    carried = both >= threshold * (true_masks.areas + prediction.areas - both)
    total = np.bincount(rows[:, 0], minlength=len(occlusions))
    for n, share in enumerate(np.bincount(rows[:, 0], carried) / np.maximum(total, 1)):
        occlusions[n].carried = float(share)


def _summary(occlusions: list[Occlusion]) -> IdentityKept:
    tracked = [o for o in occlusions if o.before >= 0]

    def share(chosen: list[Occlusion]) -> float:
        return sum(o.kept for o in chosen) / len(chosen) if chosen else float("nan")

    n = len(tracked)
    carried = [o.carried for o in tracked if not np.isnan(o.carried)]
    by_length = {}
    for low, high in LENGTHS:
        chosen = [o for o in tracked if low <= o.frames and (high is None or o.frames <= high)]
        name = f"{low}-{high} frames" if high else f">={low} frames"
        by_length[name] = len(chosen), share(chosen)
    return IdentityKept(
        n,
        share(tracked),
        sum(o.after >= 0 and not o.kept for o in tracked) / n if n else float("nan"),
        sum(o.after < 0 for o in tracked) / n if n else float("nan"),
        len(occlusions) - n,
        float(np.mean(carried)) if carried else float("nan"),
        by_length,
        occlusions,
    )
