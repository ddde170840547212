"""What nuScenes, Argoverse 2 and Waymo share: recorded drives with 3D boxes.

Camera and LiDAR measure at moments of their own, between which the vehicle moves: the calibration
of a sample takes points of the scan's moment to the camera of the image's moment. Axes become ours
(LiDAR: x forward, y left, z up; camera: optical), images are rectified, intensities 0-1.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core.datasets.base import Dataset, Finding, Rig
from amodal_core.datasets.box_masks import box_masks
from amodal_core.datasets.truth import make_truth
from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame, Tracks
from amodal_core.geometry.boxes3d import image_boxes
from amodal_core.geometry.camera import Camera
from amodal_core.geometry.projection import to_camera
from amodal_core.masks.mask_set import RleMasks

DERIVED = "derived"
APART = 50_000_000  # nanoseconds; an image further from a scan is not of its moment
# Classes that objects of these sets may have; the sets' own names map to them by tables.
CLASSES = ("car", "truck", "bus", "pedestrian", "cyclist", "other")


class Cuboid(NamedTuple):
    """An annotated object.

    Attributes:
        name: one of CLASSES.
        box: (7,) as in Instances.boxes3d, in the LiDAR frame at the scan's time.
        id: identity in its video, 0 and up.
        hidden: share of it that is said to be hidden, 0 where nothing is said.
        ignore: neither rewarded nor punished, such as a bicycle that nobody rides.
    """

    name: str
    box: np.ndarray
    id: int
    hidden: float = 0.0
    ignore: bool = False


class Recorded(Dataset):
    """Frames and truth of drives whose parts a subclass reads.

    Args:
        name: of the data set.
        masks: "" for boxes alone, "derived" for masks that are made of them, see `box_masks`.

    Raises:
        InputError: another kind of masks.
    """

    classes = CLASSES
    has_masks = False

    def __init__(self, name: str, masks: str = "") -> None:
        if masks not in ("", DERIVED):
            what = f"masks: '{masks}'"
            raise InputError(what, name, f"leave it out for boxes alone, or say {DERIVED}")
        self.derived = self.has_masks = masks == DERIVED
        self.name = f"{name}, masks derived from boxes" if self.derived else name

    @abstractmethod
    def stamps(self, index: int) -> tuple[int, int | None]:
        """Nanoseconds of the image, and of the scan where there is one."""

    @abstractmethod
    def camera(self, index: int) -> Camera:
        """The camera of a sample's raw image."""

    @abstractmethod
    def raw_image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB as recorded."""

    @abstractmethod
    def points(self, index: int) -> np.ndarray | None:
        """(N, 4) float32 in our LiDAR frame; None where there is no scan."""

    @abstractmethod
    def rig(self, index: int) -> Rig:
        """Where camera and LiDAR stood."""

    @abstractmethod
    def cuboids(self, index: int) -> list[Cuboid] | None:
        """The annotated objects, in the image or not; None where the sample is not annotated."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the rectified image."""
        camera = self.camera(index)
        return camera.height, camera.width

    def _frame(self, index: int, *, points: bool = True) -> Frame:
        """A sample without its image."""
        stamp, scan_stamp = self.stamps(index)
        calibration = self.camera(index).calibration(self.rig(index).camera_from_lidar)
        return Frame(
            stamp,
            points=self.points(index) if points else None,
            calibration=calibration,
            points_stamp=scan_stamp,
        )

    def frame(self, index: int) -> Frame:
        """Rectified image, scan, and calibration between their two moments."""
        frame, camera = self._frame(index), self.camera(index)
        image = self.raw_image(index)
        if image.shape[:2] != self.size(index):
            height, width = image.shape[:2]
            what = f"an image of {width}x{height}, a camera of {camera.width}x{camera.height}"
            raise InputError(what, self.place(index).name, "download it again")
        frame.image = camera.rectify(image) if camera.distorted else image
        return frame

    def truth(self, index: int) -> Tracks | None:
        """The objects that are in the image, with derived masks where they are asked for."""
        cuboids = self.cuboids(index)
        if cuboids is None:
            return None
        frame = self._frame(index, points=self.derived)
        assert isinstance(frame.calibration, Calibration)
        boxes = np.array([c.box for c in cuboids], np.float64).reshape(-1, 7)
        around = image_boxes(boxes, frame.calibration)
        shown = np.flatnonzero((around[:, 2:] > around[:, :2]).all(axis=1))
        boxes, around = boxes[shown], around[shown]
        cuboids = [cuboids[k] for k in shown]
        front = None
        if self.derived:
            amodal, visible, front = box_masks(boxes, [c.name for c in cuboids], frame)
        else:
            amodal = visible = RleMasks.empty(frame.size, len(cuboids))
        truth = make_truth(
            amodal,
            visible,
            [CLASSES.index(c.name) for c in cuboids],
            [c.id for c in cuboids],
            occluders=None if front is None else front & (amodal.intersections(amodal) > 0),
            depths=np.clip(to_camera(boxes, frame.calibration)[:, 2], 0, None),
            boxes3d=boxes.astype(np.float32),
            ignore=[c.ignore for c in cuboids],
        )
        if self.derived:
            return truth[amodal.areas() > 0]
        hidden = np.array([c.hidden for c in cuboids], np.float32)
        return replace(truth, amodal_boxes=around, occlusion_rates=hidden)

    def boxes(self, index: int) -> list[tuple[str, tuple[float, float, float, float]]]:
        """Class and box in the image of each object that is in it."""
        truth = self.truth(index)
        if truth is None or self.has_masks:
            return []
        pairs = zip(truth.class_ids.tolist(), truth.amodal_boxes.tolist(), strict=True)
        return [(CLASSES[k], (box[0], box[1], box[2], box[3])) for k, box in pairs]

    def check(self) -> Iterator[Finding | None]:
        """Images, scans and annotations that cannot be read."""
        for index in range(len(self)):
            name = self.place(index).name
            try:
                if self.raw_image(index).shape[:2] != self.size(index):
                    yield Finding("wrong-size", name, "", "the image is not of the camera's size")
            except InputError as error:
                rule = "missing-image" if "missing" in error.what else "broken-image"
                yield Finding(rule, error.where or name, "", error.what)
            yield from self._check_scan(index, name)
            try:
                self.cuboids(index)
                self.rig(index)
            except InputError as error:
                yield Finding("malformed-label", error.where or name, "", error.what)
            yield None

    def _check_scan(self, index: int, name: str) -> Iterator[Finding]:
        try:
            points = self.points(index)
            if points is None:
                yield Finding("missing-scan", name, "", "no scan within 50 ms of the image")
            elif not len(points):
                yield Finding("broken-scan", name, "", "no points")
        except InputError as error:
            yield Finding("broken-scan", error.where or name, "", error.what)


def rigid(
    translation: Sequence[float] | np.ndarray, quaternion: Sequence[float] | np.ndarray, where: str
) -> np.ndarray:
    """(4, 4) float64 of a translation in metres and a quaternion w, x, y, z.

    Raises:
        InputError: numbers that are not finite, too few of them, or a quaternion of no length.
    """
    with suppress(TypeError, ValueError):
        numbers = np.array([*translation, *quaternion], np.float64)
        if numbers.shape == (7,) and np.isfinite(numbers).all():
            w, x, y, z = numbers[3:]
            if abs(np.linalg.norm(numbers[3:]) - 1) < 0.1:
                matrix = np.eye(4)
                matrix[:3, :3] = Rotation.from_quat((x, y, z, w)).as_matrix()
                matrix[:3, 3] = numbers[:3]
                return matrix
    raise InputError("a pose that is none", where, "download the file again")


def box_in(target_from_box: np.ndarray, size: Sequence[float]) -> np.ndarray:
    """(7,) box, see `amodal_core.geometry.boxes3d`, in a frame whose z is about upwards.

    Args:
        target_from_box: (4, 4), the box's middle and heading, x ahead.
        size: length, width, height in metres.
    """
    ahead = target_from_box[:3, 0]
    yaw = np.arctan2(ahead[1], ahead[0])
    return np.array([*target_from_box[:3, 3], *size, yaw], np.float64)


def nearest(stamps: Sequence[int], stamp: int) -> int | None:
    """The position of the nearest of ascending stamps, None where none is within 50 ms."""
    at = bisect_left(stamps, stamp)
    near = [k for k in (at - 1, at) if 0 <= k < len(stamps)]
    best = min(near, key=lambda k: abs(stamps[k] - stamp), default=None)
    return best if best is not None and abs(stamps[best] - stamp) <= APART else None
