"""Where the whole masks of objects are that nothing shows any more.

A mask is moved by the points that were on its visible part before it was hidden, as long as they
are seen; points that came to lie on somebody else's visible mask, or that go another way than the
object did, are not. Without such points it goes on as before *relative to what is around it*, so
that a turning camera does not leave it behind; and without surroundings at constant velocity.

This follows S-AModal (Breitenstein et al. 2024), with the tracker's visibility respected, a time
limit, and the displacement limited by the motion that the visible mask's centre had while nothing
slid over it, instead of by that of random points on it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from amodal_core.masks.mask_set import RleMasks
from amodal_core.tracking.points import PointTracker

BORDER = 20  # pixels from the left and right border within which an object has left, not hidden
_POINTS = 16  # an object
_RIMS = (7, 3, 1)  # pixels that points keep from a mask's rim, as far as it is wide enough
_GRID = 20  # points along the image's longer side that tell how the surroundings move
_AROUND = 16  # of them that tell it at one place
_LEAST_AROUND = 4
_SIGHTS = 10  # displacements of an object that its speed is the mean of
_ODD_SHARE, _ODD_PIXELS = 0.5, 2.0  # from the expected step, beyond which a point is not ours
_WHOLE = 0.9  # share of the largest recent visible area from which on its centre tells motion
_ENOUGH = 0.5  # the same for its points
_NEWEST = 0.5  # weight of the newest displacement in the velocity


@dataclass(eq=False)
class _Remembered:
    """An object, as it was last seen and as it moved since.

    Velocities are (2,) x, y in pixels a second.
    """

    stamp: int
    amodal: RleMasks
    centre: np.ndarray  # of the visible mask
    areas: deque[int]  # of the visible mask at its last sights
    trail: list[np.ndarray]  # (P, 2) places of its points, at its last sight and ever since
    alive: np.ndarray  # (P,) bool
    speeds: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=_SIGHTS))
    velocity: np.ndarray | None = None
    relative: np.ndarray | None = None  # the same against the surroundings
    moved: np.ndarray = field(default_factory=lambda: np.zeros(2))
    next: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


class Carrier:
    """Carries the masks of a stream's hidden objects.

    For each image call `advance`, then `settle`. What is kept is bounded: the tracker's history of
    images, and the objects of the last `seconds`.

    Args:
        points: follows points.
        seconds: for which an object is carried; 0 for not at all.
        border: pixels from the left and right border of the image; an object that was last seen
            there is not carried.
    """

    def __init__(self, points: PointTracker, seconds: float = 3.0, border: int = BORDER) -> None:
        self.seconds, self.border = seconds, border
        self._tracker = points
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._images: deque[np.ndarray] = deque(maxlen=self._tracker.history + 1)
        self._known: dict[int, _Remembered] = {}
        self._grid = np.zeros((0, 2), np.float32)
        self._around = np.zeros((0, 2)), np.zeros((0, 2))  # places, steps
        self._stamp = self._before = 0

    @property
    def ids(self) -> list[int]:
        """The identities that are remembered."""
        return list(self._known)

    def advance(self, image: np.ndarray, stamp: int) -> RleMasks:
        """Look at the next image.

        An image of another size, time that goes back, and a gap of more than `seconds` begin a new
        stream.

        Args:
            image: (H, W, 3) uint8 RGB.
            stamp: nanoseconds.

        Returns:
            Where the whole masks of `ids` are expected.
        """
        size = image.shape[0], image.shape[1]
        if self._images:
            gap = (stamp - self._stamp) / 1e9
            if self._images[-1].shape != image.shape or not 0 < gap <= max(self.seconds, 1.0):
                self.reset()
        self._before, self._stamp = self._stamp, stamp
        self._images.append(image)
        if not self._known:
            self._around = np.zeros((0, 2)), np.zeros((0, 2))
            return RleMasks.empty(size)
        self._follow_points()
        moved = []
        for one in self._known.values():
            step = _median(one.next - one.trail[-1], one.seen)
            moved.append(one.moved + (self._expected(one) if step is None else step))
        return _shifted([one.amodal for one in self._known.values()], np.array(moved))

    def settle(
        self, ids: np.ndarray, amodal: RleMasks, visible: RleMasks
    ) -> tuple[np.ndarray, RleMasks]:
        """Say who is seen in the image; get who is carried.

        Args:
            ids: (N,) identities of those that are seen.
            amodal: their whole masks.
            visible: their visible masks.

        Returns:
            (M,) int64 identities of remembered objects that are not seen, and their whole masks.
        """
        present = visible.union().dense()[0] if len(visible) else np.zeros(visible.size, bool)
        seen = {int(k) for k in ids}
        for number in [k for k in self._known if k not in seen]:
            if not self._hide(self._known[number], present):
                del self._known[number]
        hidden = [k for k in self._known if k not in seen]
        masks = _shifted(
            [self._known[k].amodal for k in hidden],
            np.array([self._known[k].moved for k in hidden]).reshape(-1, 2),
            visible.size,
        )
        out = masks.areas() == 0
        for number in np.array(hidden, np.int64)[out].tolist():
            del self._known[number]
        hidden, masks = [k for k in hidden if k in self._known], masks[~out]
        if self.seconds > 0:
            self._remember(ids, amodal, visible)
        self._grid = _spread(present)
        return np.array(hidden, np.int64), masks

    def _follow_points(self) -> None:
        """Track the points of all objects, and those around them, into the newest image."""
        # Points are followed from as far back as the tracker makes use of, at most from the last
        # sight on; those that begin at the same image go together.
        groups: dict[int, list[_Remembered]] = {1: []}
        for one in self._known.values():
            back = min(len(one.trail), self._tracker.history, len(self._images) - 1)
            groups.setdefault(back, []).append(one)
        images = list(self._images)
        for back, members in groups.items():
            points = [one.trail[-back] for one in members]
            if back == 1:
                points.append(self._grid)
            found = self._tracker.track(images[-back - 1 :], np.concatenate(points))
            ends = np.cumsum([len(p) for p in points])[:-1]
            places, seen = np.split(found.places[-1], ends), np.split(found.seen[-1], ends)
            if back == 1:
                good = seen[-1]
                self._around = self._grid[good], (places[-1] - self._grid)[good]
            for one, place, good in zip(members, places, seen, strict=False):
                one.next, one.seen = place, good & one.alive

    def _surroundings(self, place: np.ndarray) -> np.ndarray | None:
        """(2,) step of what is around a place, None where too little is known."""
        places, steps = self._around
        if len(places) < _LEAST_AROUND:
            return None
        nearest = ((places - place) ** 2).sum(1).argsort(kind="stable")[:_AROUND]
        return np.median(steps[nearest], axis=0)

    def _expected(self, one: _Remembered) -> np.ndarray:
        """(2,) step of an object that goes on as before; with its surroundings where it was new."""
        around = self._surroundings(one.centre + one.moved)
        seconds = (self._stamp - self._before) / 1e9
        if one.relative is not None and around is not None:
            return one.relative * seconds + around
        if one.velocity is not None:
            return one.velocity * seconds
        return np.zeros(2) if around is None else around

    def _hide(self, one: _Remembered, present: np.ndarray) -> bool:
        """Move an object that is not seen; False where it is to be forgotten."""
        elapsed = (self._stamp - one.stamp) / 1e9
        if elapsed > self.seconds or self._left(one, present.shape[1]):
            return False
        steps, expected = one.next - one.trail[-1], self._expected(one)
        good = one.seen & ~_inside(present, one.next)
        if one.velocity is not None:
            odd = np.linalg.norm(steps - expected, axis=1)
            good &= odd <= max(_ODD_PIXELS, _ODD_SHARE * float(np.linalg.norm(expected)))
        step = _median(steps, good)
        step = expected if step is None else step
        moved = one.moved + step
        if one.speeds:
            most = np.mean(one.speeds, axis=0) * elapsed
            moved = np.clip(moved, -most, most)
        one.moved = moved
        one.trail.append(np.where(good[:, None], one.next, one.trail[-1] + step))
        del one.trail[: -self._tracker.history]
        if self._tracker.history == 1:
            one.alive &= good
        return True

    def _left(self, one: _Remembered, width: int) -> bool:
        """Whether an object was last seen at the left or right border."""
        x0, _, x1, _ = one.amodal.boxes()[0].tolist()
        first = one.centre[0]
        low, high = min(x0, first), max(x1, first)
        return low < self.border or high > width - self.border

    def _remember(self, ids: np.ndarray, amodal: RleMasks, visible: RleMasks) -> None:
        grey = cv2.cvtColor(self._images[-1], cv2.COLOR_RGB2GRAY)
        crops, offsets = visible.crops()
        for n, number in enumerate(ids.tolist()):
            crop, offset = crops[n], offsets[n]
            if not crop.any():
                continue
            centre = np.array(np.nonzero(crop))[::-1].mean(1) + offset
            points = _corners(grey, crop, offset)
            old = self._known.pop(number, None)
            alive = np.ones(len(points), bool)
            new = _Remembered(
                self._stamp, amodal[[n]], centre, deque(maxlen=_SIGHTS), [points], alive
            )
            if old is not None:
                new.speeds, new.velocity, new.relative = old.speeds, old.velocity, old.relative
                new.areas = old.areas
            new.areas.append(int(crop.sum()))
            if old is not None and old.stamp == self._before:
                self._learn(new, old, crop, offset)
            self._known[number] = new

    def _learn(
        self, new: _Remembered, old: _Remembered, crop: np.ndarray, offset: np.ndarray
    ) -> None:
        """How fast an object moves that was seen in the image before, too."""
        seconds = (self._stamp - self._before) / 1e9
        tracked = _median(old.next - old.trail[-1], old.seen & _inside(crop, old.next - offset))
        # The centre of a mask that something slides over moves though the object does not.
        share = new.areas[-1] / max(new.areas)
        whole = share >= _WHOLE
        centre = new.centre - old.centre if whole else None
        step = centre if tracked is None else tracked
        # What little shows beside an occluder moves half with it.
        if step is None or (share < _ENOUGH and new.velocity is not None):
            return
        if whole or not new.speeds:
            new.speeds.append(np.abs(step if centre is None else centre) / seconds)
        new.velocity = _smoothed(old.velocity, step / seconds)
        around = self._surroundings(old.centre)
        if around is not None:
            new.relative = _smoothed(old.relative, (step - around) / seconds)


def _median(steps: np.ndarray, good: np.ndarray) -> np.ndarray | None:
    return np.median(steps[good], axis=0) if good.any() else None


def _smoothed(old: np.ndarray | None, new: np.ndarray) -> np.ndarray:
    return new if old is None else _NEWEST * new + (1 - _NEWEST) * old


def _shifted(
    masks: list[RleMasks], moved: np.ndarray, size: tuple[int, int] | None = None
) -> RleMasks:
    """Single masks in one set, each moved by whole pixels (N, 2)."""
    if not masks:
        assert size is not None
        return RleMasks.empty(size)
    together = RleMasks.concatenated(masks)
    boxes = together.boxes().astype(np.float64)
    return together.moved(boxes, boxes + np.tile(np.rint(moved), 2))


def _inside(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) bool: whether points (N, 2) lie on a (H, W) bool mask."""
    height, width = mask.shape
    finite = np.nan_to_num(points, nan=-1.0, posinf=-1.0, neginf=-1.0)
    x, y = np.rint(finite[:, 0]).astype(np.int64), np.rint(finite[:, 1]).astype(np.int64)
    within = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return within & mask[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]


def _corners(grey: np.ndarray, crop: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(P, 2) float32 places of a visible mask that can be found again, any where none can."""
    x, y = offset.tolist()
    part = np.ascontiguousarray(grey[y : y + crop.shape[0], x : x + crop.shape[1]])
    mask: np.ndarray = crop.astype(np.uint8)
    # What is around a point at the rim is half another thing's.
    for rim in _RIMS:
        kernel = np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
        inner = cv2.erode(np.pad(mask, rim), kernel)[rim:-rim, rim:-rim]
        if inner.any():
            mask = inner
            break
    found: Any = cv2.goodFeaturesToTrack(part, _POINTS, 0.05, 3, mask=mask)
    if found is None:
        rows, columns = np.nonzero(mask)
        chosen = np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(np.int64)
        found = np.column_stack([columns, rows])[chosen]
    return np.asarray(found, np.float32).reshape(-1, 2) + np.array([x, y], np.float32)


def _spread(present: np.ndarray) -> np.ndarray:
    """(P, 2) float32 points over an image, but for those on visible masks and beside them."""
    height, width = present.shape
    apart = max(max(height, width) / _GRID, 4.0)
    x, y = np.arange(apart / 2, width, apart), np.arange(apart / 2, height, apart)
    grid = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2).astype(np.float32)
    beside = np.ones((2 * _RIMS[0] + 1,) * 2, np.uint8)
    return grid[~_inside(cv2.dilate(present.astype(np.uint8), beside) > 0, grid)]
