"""A camera as sensor_msgs/CameraInfo describes it, and the rectification of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np

from amodal_core.errors import InputError
from amodal_core.frame import Calibration
from amodal_core.limits import check_image

# Distortion models of image_geometry, and how many coefficients each may have.
_MODELS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (5, 8, 12, 14),
    "equidistant": (4,),
    "fisheye": (4,),
}
_FOCAL = (1e-3, 1e7)  # pixels: what any camera has
_FISHEYE = ("equidistant", "fisheye")
_CURE = "publish the camera_info of a calibrated camera, or give a calibration file"


@dataclass(frozen=True, eq=False)
class Camera:
    """Intrinsics of a raw image and of the rectified one, in pixels of the images as they come.

    Attributes:
        K: (3, 3) float64, of the raw image.
        D: (n,) float64, its distortion; all zero where there is none.
        model: of the distortion: plumb_bob, rational_polynomial or equidistant.
        R: (3, 3) float64, rotation from the camera's frame to the rectified one.
        P: (3, 3) float64, intrinsics of the rectified image.
        width: of both images; 0 where it is not known, as `of_size` gives it.
        height: as width.
        where: topic or file, for errors.
    """

    K: np.ndarray
    D: np.ndarray
    model: str
    R: np.ndarray
    P: np.ndarray
    width: int
    height: int
    where: str = "camera_info"

    @property
    def distorted(self) -> bool:
        """Whether the raw image differs from the rectified one by a distortion."""
        return bool(np.any(self.D))

    @cached_property
    def rectified(self) -> bool:
        """Whether the raw image is the rectified one: no distortion, no turn, the same focus."""
        same = np.allclose(self.K, self.P, rtol=1e-4, atol=0.1) and np.allclose(
            self.R, np.eye(3), atol=1e-4
        )
        return same and not self.distorted

    def calibration(self, camera_from_lidar: np.ndarray) -> Calibration:
        """The rectified camera with the LiDAR's place in its frame.

        Raises:
            InputError: numbers that are not finite, or no rigid transform.
        """
        try:
            return Calibration(self.P, camera_from_lidar, self.width, self.height)
        except ValueError as error:
            raise InputError(str(error), self.where, _CURE) from None

    def of_size(self, width: int, height: int) -> Camera:
        """The same camera; its size is that of an image where the calibration tells none."""
        if self.width:
            return self
        return Camera(self.K, self.D, self.model, self.R, self.P, width, height, self.where)

    @cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        size = self.width, self.height
        if not self.distorted:
            straight = np.zeros(5)
            return cv2.initUndistortRectifyMap(self.K, straight, self.R, self.P, size, cv2.CV_16SC2)
        counts = _MODELS.get(self.model)
        if counts is None or len(self.D) not in counts:
            raise InputError(
                f"distortion '{self.model}' with {len(self.D)} coefficients",
                self.where,
                f"known are {', '.join(_MODELS)}; publish a rectified image, or set rectify to "
                "never where it is one",
            )
        if self.model in _FISHEYE:
            return cv2.fisheye.initUndistortRectifyMap(
                self.K, self.D, self.R, self.P, size, cv2.CV_16SC2
            )
        return cv2.initUndistortRectifyMap(self.K, self.D, self.R, self.P, size, cv2.CV_16SC2)

    def rectify(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 rectified image of a raw one; black where the raw one has nothing.

        Raises:
            InputError: the distortion model is unknown, or has another number of coefficients.
        """
        return cv2.remap(image, *self._maps, cv2.INTER_LINEAR)


def read_camera(info: Any, where: str = "CameraInfo") -> Camera:
    """The camera of a sensor_msgs/CameraInfo (upper-case names of ROS 1 are known, too).

    K and D describe the raw image, R and P the rectified one. Where P is unset the rectified image
    keeps K; where K is unset it is P's. P's fourth column is not used: the transform tree places
    the camera. A region of interest and binning shift and scale K and P as in image_geometry.

    Raises:
        InputError: size or matrices are unset, not finite, or of another shape.
    """

    def numbers(name: str) -> bytes:
        value = getattr(info, name) if hasattr(info, name) else getattr(info, name.upper(), ())
        return np.asarray(value, np.float64).tobytes()

    roi = getattr(info, "roi", None)
    window = tuple(int(getattr(roi, n, 0)) for n in ("x_offset", "y_offset", "width", "height"))
    binning = tuple(max(1, int(getattr(info, f"binning_{n}", 1))) for n in "xy")
    size = int(info.width), int(info.height)
    model = str(getattr(info, "distortion_model", ""))
    matrices = [numbers(name) for name in "kdrp"]
    return _camera(*matrices, model, size, window, binning, where)


def is_calibrated(info: Any) -> bool:
    """Whether a sensor_msgs/CameraInfo has intrinsics at all; drivers send K and P of zeros."""
    values = [getattr(info, n, getattr(info, n.upper(), ())) for n in "kp"]
    return any(np.any(np.asarray(matrix, np.float64)) for matrix in values)


@lru_cache(maxsize=16)
def _camera(
    k: bytes,
    d: bytes,
    r: bytes,
    p: bytes,
    model: str,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    binning: tuple[int, int],
    where: str,
) -> Camera:
    """The camera of these numbers; made once, since a stream repeats them with every image."""
    K, D, R, P = (np.frombuffer(values, np.float64) for values in (k, d, r, p))
    x, y, width, height = window
    if not width or not height:
        width, height = size[0] - x, size[1] - y
    width, height = width // binning[0], height // binning[1]
    check_image(max(size[0], width), max(size[1], height), where)
    if (width <= 0 or height <= 0) and size != (0, 0):
        raise InputError(f"image size is {width}x{height}", where, _CURE)
    return make_camera(K, D, model, R, P, (width, height), where, (x, y), binning)


def make_camera(
    K: Sequence[float] | np.ndarray,
    D: Sequence[float] | np.ndarray,
    model: str,
    R: Sequence[float] | np.ndarray,
    P: Sequence[float] | np.ndarray,
    size: tuple[int, int],
    where: str,
    offset: tuple[int, int] = (0, 0),
    binning: tuple[int, int] = (1, 1),
) -> Camera:
    """A camera of numbers as messages and files hold them.

    Args:
        K: 9 numbers, D any number, R 9, P 12; all zero or empty where they are unset.
        D: see K.
        model: of the distortion; "" says it by the number of coefficients.
        R: see K.
        P: see K.
        size: (width, height) of the images that come, (0, 0) where it is not known.
        where: topic or file, for errors.
        offset: first column and row of the region of interest, in pixels of the full image.
        binning: columns and rows of the full image that make one of the images that come.

    Raises:
        InputError: neither K nor P is set, a number is not finite, or one makes no camera.
    """
    K, D, R, P = (np.asarray(values, np.float64).ravel() for values in (K, D, R, P))
    if not all(np.isfinite(values).all() for values in (K, D, R, P)):
        raise InputError("K, D, R and P must be finite", where, _CURE)
    projection = P.reshape(3, 4)[:, :3].copy() if P.size == 12 and P[0] != 0 else None
    raw = K.reshape(3, 3).copy() if K.size == 9 and K[0] != 0 else projection
    if raw is None:
        raise InputError("neither P nor K is set: the camera is not calibrated", where, _CURE)
    for name, matrix in (("P", projection), ("K", raw)):
        _check_matrix(name, raw if matrix is None else matrix, where)
    rotation = R.reshape(3, 3) if R.size == 9 and np.any(R) else np.eye(3)
    scale = np.diag([1 / binning[0], 1 / binning[1], 1.0])
    shift = np.array([[1.0, 0, -offset[0]], [0, 1, -offset[1]], [0, 0, 1]])
    changed = scale @ shift
    projection = raw if projection is None else projection
    if not model:
        model = "rational_polynomial" if D.size > 5 else "plumb_bob"
    return Camera(changed @ raw, D, model, rotation, changed @ projection, *size, where)


def _check_matrix(name: str, matrix: np.ndarray, where: str) -> None:
    """Refuse a (3, 3) matrix that projects nothing, or every point to infinity."""
    if not np.allclose(matrix[2], (0, 0, 1), atol=1e-6):
        text = " ".join(f"{v:g}" for v in matrix[2])
        raise InputError(f"the last row of {name} is {text}, not 0 0 1", where, _CURE)
    lengths = matrix[0, 0], matrix[1, 1]
    if not all(_FOCAL[0] <= length <= _FOCAL[1] for length in lengths):
        text = f"focal lengths of {lengths[0]:g} and {lengths[1]:g} pixels in {name}"
        raise InputError(f"{text} are no camera's", where, _CURE)
