"""Where the amodal masks of objects are that nothing shows any more.

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
_STEPS = 10  # displacements of an object that its speed is the mean of
_ODD_SHARE, _ODD_PIXELS = 0.5, 2.0  # from the expected step, beyond which a point is not ours
_UNCOVERED = 0.9  # share of the largest recent visible area from which on its centre tells motion
_PARTLY_COVERED = 0.5  # the same for its points
_NEWEST = 0.5  # weight of the newest displacement in the velocity


@dataclass(eq=False)
class _Object:
    """An object, as it was when last visible and as it moved since.

    Velocities are (2,) x, y in pixels a second.
    """

    stamp: int
    amodal: RleMasks
    centre: np.ndarray  # of the visible mask
    areas: deque[int]  # of the visible mask when last visible
    trail: list[np.ndarray]  # (P, 2) places of its points, when last visible and ever since
    alive: np.ndarray  # (P,) bool
    speeds: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=_STEPS))
    velocity: np.ndarray | None = None
    relative: np.ndarray | None = None  # the same against the surroundings
    moved: np.ndarray = field(default_factory=lambda: np.zeros(2))
    next: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    points_visible: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


class Carrier:
    """Carries the masks of a stream's hidden objects.

    For each image call `advance`, then `settle`. What is kept is bounded: the tracker's history of
    images, and the objects of the last `seconds`.

    Args:
        points: follows points.
        seconds: for which an object is carried; 0 for not at all.
        border: pixels from the left and right border of the image; an object that was last visible
            there is not carried.
    """

    def __init__(self, points: PointTracker, seconds: float = 3.0, border: int = BORDER) -> None:
        self.seconds, self.border = seconds, border
        self._tracker = points
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._images: deque[np.ndarray] = deque(maxlen=self._tracker.history + 1)
        self._objects: dict[int, _Object] = {}
        self._grid = np.zeros((0, 2), np.float32)
        self._surrounding = np.zeros((0, 2)), np.zeros((0, 2))  # places, steps
        self._stamp = self._before = 0

    @property
    def ids(self) -> list[int]:
        """The identities that are remembered."""
        return list(self._objects)

    def advance(self, image: np.ndarray, stamp: int) -> RleMasks:
        """Look at the next image.

        An image of another size, time that goes back, and a gap of more than `seconds` begin a new
        stream.

        Args:
            image: (H, W, 3) uint8 RGB.
            stamp: nanoseconds.

        Returns:
            Where the amodal masks of `ids` are expected.
        """
        size = image.shape[0], image.shape[1]
        if self._images:
            gap = (stamp - self._stamp) / 1e9
            if self._images[-1].shape != image.shape or not 0 < gap <= max(self.seconds, 1.0):
                self.reset()
        self._before, self._stamp = self._stamp, stamp
        self._images.append(image)
        if not self._objects:
            self._surrounding = np.zeros((0, 2)), np.zeros((0, 2))
            return RleMasks.empty(size)
        self._follow_points()
        moved = []
        for item in self._objects.values():
            step = _median(item.next - item.trail[-1], item.points_visible)
            moved.append(item.moved + (self._expected(item) if step is None else step))
        return _shifted([item.amodal for item in self._objects.values()], np.array(moved))

    def settle(
        self, ids: np.ndarray, amodal: RleMasks, visible: RleMasks
    ) -> tuple[np.ndarray, RleMasks]:
        """Say which objects are visible in the image; get those that are carried.

        Args:
            ids: (N,) identities of those that are visible.
            amodal: their amodal masks.
            visible: their visible masks.

        Returns:
            (M,) int64 identities of remembered objects that are not visible; their amodal masks.
        """
        detected = visible.union().dense()[0] if len(visible) else np.zeros(visible.size, bool)
        visible_ids = {int(k) for k in ids}
        for number in [k for k in self._objects if k not in visible_ids]:
            if not self._hide(self._objects[number], detected):
                del self._objects[number]
        hidden = [k for k in self._objects if k not in visible_ids]
        masks = _shifted(
            [self._objects[k].amodal for k in hidden],
            np.array([self._objects[k].moved for k in hidden]).reshape(-1, 2),
            visible.size,
        )
        out = masks.areas() == 0
        for number in np.array(hidden, np.int64)[out].tolist():
            del self._objects[number]
        hidden, masks = [k for k in hidden if k in self._objects], masks[~out]
        if self.seconds > 0:
            self._remember(ids, amodal, visible)
        self._grid = _spread(detected)
        return np.array(hidden, np.int64), masks

    def _follow_points(self) -> None:
        """Track the points of all objects, and those around them, into the newest image."""
        # Points are followed from as far back as the tracker makes use of, at most from the last
        # sight on; those that begin at the same image go together.
        groups: dict[int, list[_Object]] = {1: []}
        for item in self._objects.values():
            back = min(len(item.trail), self._tracker.history, len(self._images) - 1)
            groups.setdefault(back, []).append(item)
        images = list(self._images)
        for back, members in groups.items():
            points = [item.trail[-back] for item in members]
            if back == 1:
                points.append(self._grid)
            trajectories = self._tracker.track(images[-back - 1 :], np.concatenate(points))
            ends = np.cumsum([len(p) for p in points])[:-1]
            places, visible = (
                np.split(trajectories.places[-1], ends),
                np.split(trajectories.visible[-1], ends),
            )
            if back == 1:
                tracked = visible[-1]
                self._surrounding = self._grid[tracked], (places[-1] - self._grid)[tracked]
            for item, place, tracked in zip(members, places, visible, strict=False):
                item.next, item.points_visible = place, tracked & item.alive

    def _surroundings(self, place: np.ndarray) -> np.ndarray | None:
        """(2,) step of what is around a place, None where too little is known."""
        places, steps = self._surrounding
        if len(places) < _LEAST_AROUND:
            return None
        nearest = ((places - place) ** 2).sum(1).argsort(kind="stable")[:_AROUND]
        return np.median(steps[nearest], axis=0)

    def _expected(self, item: _Object) -> np.ndarray:
        """(2,) step of an object that goes on as before; with its surroundings where it was new."""
        surroundings = self._surroundings(item.centre + item.moved)
        seconds = (self._stamp - self._before) / 1e9
        if item.relative is not None and surroundings is not None:
            return item.relative * seconds + surroundings
        if item.velocity is not None:
            return item.velocity * seconds
        return np.zeros(2) if surroundings is None else surroundings

    def _hide(self, item: _Object, detected: np.ndarray) -> bool:
        """Move an object that is not visible; False where it is to be forgotten."""
        elapsed = (self._stamp - item.stamp) / 1e9
        if elapsed > self.seconds or self._left(item, detected.shape[1]):
            return False
        steps, expected = item.next - item.trail[-1], self._expected(item)
        tracked = item.points_visible & ~_inside(detected, item.next)
        if item.velocity is not None:
            odd = np.linalg.norm(steps - expected, axis=1)
            tracked &= odd <= max(_ODD_PIXELS, _ODD_SHARE * float(np.linalg.norm(expected)))
        step = _median(steps, tracked)
        step = expected if step is None else step
        moved = item.moved + step
        if item.speeds:
            most = np.mean(item.speeds, axis=0) * elapsed
            moved = np.clip(moved, -most, most)
        item.moved = moved
        item.trail.append(np.where(tracked[:, None], item.next, item.trail[-1] + step))
        del item.trail[: -self._tracker.history]
        if self._tracker.history == 1:
            item.alive &= tracked
        return True

    def _left(self, item: _Object, width: int) -> bool:
        """Whether an object was last visible at the left or right border."""
        x0, _, x1, _ = item.amodal.boxes()[0].tolist()
        first = item.centre[0]
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
            previous = self._objects.pop(number, None)
            alive = np.ones(len(points), bool)
            updated = _Object(
                self._stamp, amodal[[n]], centre, deque(maxlen=_STEPS), [points], alive
            )
            if previous is not None:
                updated.speeds, updated.velocity, updated.relative = (
                    previous.speeds,
                    previous.velocity,
                    previous.relative,
                )
                updated.areas = previous.areas
            updated.areas.append(int(crop.sum()))
            if previous is not None and previous.stamp == self._before:
                self._learn(updated, previous, crop, offset)
            self._objects[number] = updated

    def _learn(
        self, updated: _Object, previous: _Object, crop: np.ndarray, offset: np.ndarray
    ) -> None:
        """How fast an object moves that was seen in the image before, too."""
        seconds = (self._stamp - self._before) / 1e9
        tracked = _median(
            previous.next - previous.trail[-1],
            previous.points_visible & _inside(crop, previous.next - offset),
        )
        # The centre of a mask that something slides over moves though the object does not.
        share = updated.areas[-1] / max(updated.areas)
        uncovered = share >= _UNCOVERED
        centre = updated.centre - previous.centre if uncovered else None
        step = centre if tracked is None else tracked
        # What little shows beside an occluder moves half with it.
        if step is None or (share < _PARTLY_COVERED and updated.velocity is not None):
            return
        if uncovered or not updated.speeds:
            updated.speeds.append(np.abs(step if centre is None else centre) / seconds)
        updated.velocity = _smoothed(previous.velocity, step / seconds)
        surroundings = self._surroundings(previous.centre)
        if surroundings is not None:
            updated.relative = _smoothed(previous.relative, (step - surroundings) / seconds)


def _median(steps: np.ndarray, tracked: np.ndarray) -> np.ndarray | None:
    return np.median(steps[tracked], axis=0) if tracked.any() else None


def _smoothed(previous: np.ndarray | None, updated: np.ndarray) -> np.ndarray:
    return updated if previous is None else _NEWEST * updated + (1 - _NEWEST) * previous


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
    """(P, 2) float32 places of a visible mask that can be followed, any where none can."""
    x, y = offset.tolist()
    patch = np.ascontiguousarray(grey[y : y + crop.shape[0], x : x + crop.shape[1]])
    mask: np.ndarray = crop.astype(np.uint8)
    # What is around a point at the rim is half another thing's.
    for rim in _RIMS:
        kernel = np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
        inner = cv2.erode(np.pad(mask, rim), kernel)[rim:-rim, rim:-rim]
        if inner.any():
            mask = inner
            break
    corners: Any = cv2.goodFeaturesToTrack(patch, _POINTS, 0.05, 3, mask=mask)
    if corners is None:
        rows, columns = np.nonzero(mask)
        selected = np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(np.int64)
        corners = np.column_stack([columns, rows])[selected]
    return np.asarray(corners, np.float32).reshape(-1, 2) + np.array([x, y], np.float32)


def _spread(detected: np.ndarray) -> np.ndarray:
    """(P, 2) float32 points over an image, but for those on visible masks and beside them."""
    height, width = detected.shape
    apart = max(max(height, width) / _GRID, 4.0)
    x, y = np.arange(apart / 2, width, apart), np.arange(apart / 2, height, apart)
    grid = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2).astype(np.float32)
    beside = np.ones((2 * _RIMS[0] + 1,) * 2, np.uint8)
    return grid[~_inside(cv2.dilate(detected.astype(np.uint8), beside) > 0, grid)]
