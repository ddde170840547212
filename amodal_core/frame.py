"""The few types that every room shares: Frame, Calibration, Instances, Tracks, Sample, Report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from amodal_core.arrays import host, positions
from amodal_core.errors import InputError
from amodal_core.extras import extra
from amodal_core.masks.mask_set import Masks, RleMasks, concatenated

if TYPE_CHECKING:
    # Importing torch takes seconds and 200 MB; a process that handles arrays alone never does.
    import torch

BORDER = 1.5  # pixels from the image's border; an object that reaches so far goes on outside
Array: TypeAlias = "np.ndarray | torch.Tensor"
_T = TypeVar("_T", bound="Instances")

# Arrays of N instances: kind of number, and what follows N in their shape.
_COLUMNS: dict[str, tuple[str, int | str | None]] = {
    "amodal_boxes": ("float", 4),
    "visible_boxes": ("float", 4),
    "scores": ("float", None),
    "class_ids": ("int", None),
    "class_probabilities": ("float", "D"),
    "occlusion_rates": ("float", None),
    "depths": ("float", None),
    "occluders": ("bool", "N"),
    "embeddings": ("float", "D"),
    "boxes3d": ("float", 7),
    "ignore": ("bool", None),
    "ids": ("int", None),
    "ages": ("int", None),
    "coasted": ("bool", None),
    "velocities": ("float", 3),
    "image_velocities": ("float", 2),
}


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rectified pinhole camera and the LiDAR's place in its optical frame.

    Attributes:
        K: (3, 3) float64, intrinsics of the *rectified* image in pixels; integer pixel coordinates
            are pixel centres (OpenCV).
        camera_from_lidar: (4, 4) float64, takes homogeneous LiDAR points in metres to the camera's
            optical frame (x right, y down, z forward).
        width: image width in pixels.
        height: image height in pixels.
    """

    K: np.ndarray
    camera_from_lidar: np.ndarray
    width: int
    height: int

    def __post_init__(self) -> None:
        K = np.ascontiguousarray(self.K, dtype=np.float64)
        T = np.ascontiguousarray(self.camera_from_lidar, dtype=np.float64)
        if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise ValueError(f"K must be a finite 3x3 matrix with positive focal lengths, got {K}")
        if T.shape != (4, 4) or not np.isfinite(T).all() or _off(T[3], (0, 0, 0, 1)) > 1e-5:
            raise ValueError(f"camera_from_lidar must be a finite 4x4 rigid transform, got {T}")
        if _off(T[:3, :3] @ T[:3, :3].T, np.eye(3)) > 1e-3:
            raise ValueError(f"the rotation in camera_from_lidar is not orthonormal: {T[:3, :3]}")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"image size must be positive, got {self.width}x{self.height}")
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "camera_from_lidar", T)


def _off(values: np.ndarray, wanted: Any) -> float:
    """The largest difference; `np.allclose` takes ten times as long."""
    return float(np.abs(values - wanted).max())


@dataclass(eq=False)
class Frame:
    """One moment of a drive as the sensors saw it; any part may be absent.

    Attributes:
        stamp: nanoseconds since the epoch, the image's stamp where there is an image.
        image: (H, W, 3) uint8 RGB, rectified.
        points: (N, 4) float32 x, y, z in metres and intensity 0-1, in the LiDAR frame.
        depth: (H, W) float32, metres along the optical axis, 0 where no return falls.
        calibration: the camera and the LiDAR's place in it.
        points_stamp: nanoseconds, the scan's own stamp, where it is known.
    """

    stamp: int
    image: np.ndarray | None = None
    points: np.ndarray | None = None
    depth: np.ndarray | None = None
    calibration: Calibration | None = None
    points_stamp: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, from whatever part knows it."""
        if self.image is not None:
            return self.image.shape[0], self.image.shape[1]
        if self.calibration is not None:
            return self.calibration.height, self.calibration.width
        if self.depth is not None:
            return self.depth.shape[0], self.depth.shape[1]
        raise ValueError("a frame without image, calibration and depth has no size")


@dataclass(eq=False)
class Instances:
    """The objects of one image, as a structure of arrays of N entries.

    Arrays are NumPy arrays or tensors on the model's device; `numpy()` brings all to the host.
    Boxes are xyxy in pixels with the origin at the outer corner of the top left pixel and an
    exclusive maximum: a mask of the single pixel (u, v) has the box (u, v, u + 1, v + 1).

    Attributes:
        size: (height, width) of the image in pixels.
        amodal_boxes: (N, 4) float32.
        visible_boxes: (N, 4) float32, zeros where nothing is visible.
        scores: (N,) float32, 0-1.
        class_ids: (N,) int64, indices into the model's or data set's `classes`.
        amodal: N amodal masks.
        visible: N visible masks, each a subset of its amodal mask.
        occlusion_rates: (N,) float32, hidden share of the amodal area, 0-1.
        depths: (N,) float32, metres along the optical axis, 0 where unknown.
        occluders: (N, N) bool, `occluders[i, j]` where j hides part of i.
        embeddings: (N, D) float32 or None; the nearer two are in direction, the more alike are the
            looks. Their length is the model's own.
        boxes3d: (N, 7) float32 or None: centre x, y, z, length, width, height in metres and yaw
            about +z in radians, LiDAR frame (x forward, y left, z up); NaN rows where unknown.
        ignore: (N,) bool or None, annotations that evaluation neither rewards nor punishes
            (COCO's iscrowd); None in predictions.
        class_probabilities: (N, C) float32 or None: for each of the C `classes` the probability
            that the object, if it is one, is of that class. Rows add up to 1, and `class_ids` are
            their largest.
    """

    size: tuple[int, int]
    amodal_boxes: Array
    visible_boxes: Array
    scores: Array
    class_ids: Array
    amodal: Masks
    visible: Masks
    occlusion_rates: Array
    depths: Array
    occluders: Array
    embeddings: Array | None = None
    boxes3d: Array | None = None
    ignore: Array | None = None
    class_probabilities: Array | None = None

    def __post_init__(self) -> None:
        """Lengths, shapes and kinds of numbers; microseconds, and no wait for a device.

        Raises:
            ValueError: a field is not what it should be; names it.
        """
        n, values = len(self.scores), vars(self)
        for name, masks in (("amodal", self.amodal), ("visible", self.visible)):
            if len(masks) != n or masks.size != tuple(self.size):
                raise ValueError(f"{name}: {len(masks)} of {masks.size}, wanted {n} of {self.size}")
        for name, (kind, tail) in _COLUMNS.items():
            value = values.get(name)
            if value is None:
                continue
            shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
            width = shape[-1] if tail == "D" and shape else n if tail == "N" else tail
            wanted = (n,) if tail is None else (n, width)
            if shape != wanted or _kind(dtype) != kind:
                text = f"{dtype or type(value).__name__} of the shape {tuple(shape)}"
                raise ValueError(f"{name}: {text}, wanted {kind} of the shape {wanted}")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self: _T, index: Any) -> _T:
        """Select instances by an index array, a boolean mask or a slice (never a bare int)."""
        numbers = not hasattr(index, "detach")  # else it may lie on a device
        if numbers:
            index = positions(index, len(self))
        parts: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name == "size" or value is None:
                parts[name] = value
            elif not numbers or not isinstance(value, np.ndarray):
                parts[name] = value[index][:, index] if name == "occluders" else value[index]
            else:  # what NumPy does in a fifth of the time of indexing
                part = value.take(index, 0)
                parts[name] = part.take(index, 1) if name == "occluders" else part
        return type(self)(**parts)

    def numpy(self: _T) -> _T:
        """The same on the host: NumPy arrays, and masks as COCO RLE; itself where it is that."""
        parts: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name in ("amodal", "visible"):
                own = value.rle()
            else:
                own = host(value) if hasattr(value, "detach") else value
            if own is not value:
                parts[name] = own
        return replace(self, **parts) if parts else self

    @classmethod
    def empty(cls: type[_T], size: tuple[int, int]) -> _T:
        """No objects in an image of (height, width) pixels."""
        parts: dict[str, Any] = {
            "size": size,
            "amodal_boxes": np.zeros((0, 4), np.float32),
            "visible_boxes": np.zeros((0, 4), np.float32),
            "scores": np.zeros(0, np.float32),
            "class_ids": np.zeros(0, np.int64),
            "amodal": RleMasks.empty(size),
            "visible": RleMasks.empty(size),
            "occlusion_rates": np.zeros(0, np.float32),
            "depths": np.zeros(0, np.float32),
            "occluders": np.zeros((0, 0), bool),
        }
        return cls(**parts)


@dataclass(eq=False)
class Tracks(Instances):
    """Instances with an identity. Ground truth is the same type: scores 1, nothing coasted.

    Attributes:
        ids: (N,) int64, unique in the frame, stable over the stream, 0 and up.
        ages: (N,) int64, frames since the track began, this one included.
        coasted: (N,) bool, carried through an occlusion, not seen in this frame.
        velocities: (N, 3) float32 or None, metres a second of the 3D boxes' centres in the LiDAR
            frame, relative to the LiDAR; NaN rows where unknown.
        image_velocities: (N, 2) float32 or None, pixels a second of the amodal boxes' centres; NaN
            rows where unknown.
    """

    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ages: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    coasted: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    velocities: np.ndarray | None = None
    image_velocities: np.ndarray | None = None

    def to_supervision(self, classes: Sequence[str] = (), masks: str = "amodal") -> Any:
        """These tracks as `supervision.Detections`; needs the extra `supervision`.

        Args:
            classes: names that class ids index into, for `data["class_name"]`; () leaves it out.
            masks: "amodal" or "visible", whose masks and boxes are meant.

        Returns:
            Detections with xyxy (N, 4) float32, mask (N, H, W) bool, confidence, class_id,
            tracker_id, and in `data` arrays of N: occlusion_rate, depth, coasted, age,
            occluder_ids (a tuple of track ids each), and class_name.

        Raises:
            InputError: supervision is not installed, or there are no such masks.
        """
        if masks not in ("amodal", "visible"):
            raise InputError(f"no masks '{masks}'", "to_supervision", "choose amodal or visible")
        with extra("supervision", "to_supervision"):
            from supervision import Detections
        host = self.numpy()
        hiders = np.empty(len(host), object)
        for i, row in enumerate(np.asarray(host.occluders)):
            hiders[i] = tuple(int(track) for track in host.ids[row])
        data: dict[str, Any] = {
            "occlusion_rate": np.asarray(host.occlusion_rates, np.float32),
            "depth": np.asarray(host.depths, np.float32),
            "coasted": np.asarray(host.coasted, bool),
            "age": np.asarray(host.ages, np.int64),
            "occluder_ids": hiders,
        }
        if classes:
            data["class_name"] = np.array([classes[int(k)] for k in host.class_ids], str)
        return Detections(
            xyxy=np.asarray(getattr(host, f"{masks}_boxes"), np.float32),
            mask=getattr(host, masks).rle().dense(),
            confidence=np.asarray(host.scores, np.float32),
            class_id=np.asarray(host.class_ids, np.int64),
            tracker_id=np.asarray(host.ids, np.int64),
            data=data,
        )


@cache
def _kind(dtype: Any) -> str:
    """Kind of number of a dtype of NumPy or torch."""
    return next((kind for kind in ("float", "int", "bool") if kind in str(dtype)), "none")


def joined(parts: Sequence[_T]) -> _T:
    """Objects of several sets of one image, on the host, one after the other.

    Nobody hides anybody in the result; what one of the sets lacks, all lack.

    Args:
        parts: one at least; the result is of the first one's type.
    """
    n = sum(len(p) for p in parts)
    values: dict[str, Any] = {}
    for name in parts[0].__dataclass_fields__:
        column = [getattr(p, name) for p in parts]
        if name == "size":
            values[name] = column[0]
        elif name == "occluders":
            values[name] = np.zeros((n, n), bool)
        elif name in ("amodal", "visible"):
            values[name] = concatenated(column)
        elif any(c is None for c in column):
            values[name] = None
        else:
            values[name] = np.concatenate([host(c) for c in column])
    return type(parts[0])(**values)


@dataclass(eq=False)
class Sample:
    """A frame of a data set with its truth.

    Attributes:
        frame: what the sensors saw.
        truth: what is there, None where the frame is not annotated.
        name: the frame's name in its data set, usually the image's path without suffix.
        video: the sequence that it belongs to, "" for single images.
        index: place in that sequence, from 0.
    """

    frame: Frame
    truth: Tracks | None = None
    name: str = ""
    video: str = ""
    index: int = 0


TIME_JUMP = "time jump"
# What a network runs in; that it cannot run in what was asked for.
RUNTIME, RUNTIME_FAULT = "runtime", "runtime fault"
# Kinds that tell what was decided, not that something is wrong.
NOTES = frozenset({"rectification", "motion", RUNTIME})


@dataclass(frozen=True)
class FrameWarning:
    """Something that went wrong and did not end the run; equal ones are counted, not repeated.

    Attributes:
        kind: what sort of thing, the same words each time: programs decide by it.
        text: one line for people.
        cure: what they can do about it, "" where that is part of the text.
    """

    kind: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.cure})" if self.cure else self.text


def counted(warnings: Counter[FrameWarning]) -> list[dict[str, Any]]:
    """Warnings and how often each came, as metrics.json holds them."""
    return [{"kind": w.kind, "text": str(w), "count": n} for w, n in warnings.items()]


@dataclass
class Report:
    """What happened while a frame was processed, as data; the caller decides how to log it.

    Attributes:
        timings: milliseconds by stage name.
        warnings: in order.
    """

    timings: dict[str, float] = field(default_factory=dict)
    warnings: list[FrameWarning] = field(default_factory=list)

    def warn(self, kind: str, text: str) -> None:
        """Add a warning."""
        self.warnings.append(FrameWarning(kind, text))

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the wall time of a `with` block to `timings[stage]`."""
        begin = perf_counter()
        try:
            yield
        finally:
            took = (perf_counter() - begin) * 1e3
            self.timings[stage] = self.timings.get(stage, 0.0) + took

    def merge(self, others: Sequence[Report]) -> None:
        """Add other reports' timings and warnings to this one."""
        for other in others:
            for stage, ms in other.timings.items():
                self.timings[stage] = self.timings.get(stage, 0.0) + ms
            self.warnings.extend(other.warnings)
