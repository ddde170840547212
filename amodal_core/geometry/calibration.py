"""Camera and LiDAR calibration from KITTI's text files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amodal_core.errors import InputError, foreign
from amodal_core.frame import Calibration

_RECT_KEYS = ("R0_rect", "R_rect")
_VELO_KEYS = ("Tr_velo_to_cam", "Tr_velo_cam")


@dataclass(frozen=True, eq=False)
class KittiCalibration:
    """What KITTI's files say about one camera and the LiDAR.

    Attributes:
        P: (3, 4) float64, from rectified camera-0 coordinates to this camera's pixels.
        rect_from_cam: (4, 4) float64, the rectifying rotation of camera 0.
        cam_from_lidar: (4, 4) float64, from the LiDAR frame to unrectified camera 0.
        size: (height, width) of the rectified image where the file tells it.
    """

    P: np.ndarray
    rect_from_cam: np.ndarray
    cam_from_lidar: np.ndarray
    size: tuple[int, int] | None = None

    @property
    def camera_from_rect(self) -> np.ndarray:
        """(4, 4), from rectified camera 0, the frame of KITTI's labels, to this camera's frame.

        P = K [I | t], so that the fourth column of P is K t: an offset of the camera, never to be
        applied a second time when points are already in this camera's frame.
        """
        T = np.eye(4)
        T[:3, 3] = np.linalg.solve(self.P[:, :3], self.P[:, 3])
        return T

    @property
    def camera_from_lidar(self) -> np.ndarray:
        """(4, 4), from the LiDAR frame to this camera's optical frame."""
        return self.camera_from_rect @ self.rect_from_cam @ self.cam_from_lidar

    def calibration(self, width: int, height: int) -> Calibration:
        """The camera for an image of `width` x `height` pixels."""
        return Calibration(self.P[:, :3], self.camera_from_lidar, width, height)


def read_kitti(path: str | Path, camera: int = 2) -> KittiCalibration:
    """Read a calibration file of KITTI's object or tracking benchmark; both key styles are known.

    Args:
        path: such as `training/calib/000000.txt` (object) or `training/calib/0000.txt` (tracking).
        camera: 0 and 1 are grey, 2 and 3 colour; 0 and 2 are left.

    Raises:
        InputError: the file is missing or unreadable, a key is absent, a value is malformed.
    """
    path = Path(path)
    values = _read_keys(path)
    calibration = KittiCalibration(
        P=_matrix(path, values, (f"P{camera}",), (3, 4)),
        rect_from_cam=_homogeneous(_matrix(path, values, _RECT_KEYS, (3, 3))),
        cam_from_lidar=_homogeneous(_matrix(path, values, _VELO_KEYS, (3, 4))),
    )
    return _checked(calibration, path)


def read_kitti_raw(folder: str | Path, camera: int = 2) -> KittiCalibration:
    """Read `calib_cam_to_cam.txt` and `calib_velo_to_cam.txt` of a KITTI raw date.

    Args:
        folder: the date's folder, such as `2011_09_26`, or a drive's folder inside it.
        camera: 0 and 1 are grey, 2 and 3 colour; 0 and 2 are left.

    Raises:
        InputError: a file is missing or unreadable, a key is absent, a value is malformed.
    """
    folder = Path(folder)
    if not (folder / "calib_cam_to_cam.txt").exists():
        parent = folder.resolve().parent
        if (parent / "calib_cam_to_cam.txt").exists():
            folder = parent
    cameras = folder / "calib_cam_to_cam.txt"
    values = _read_keys(cameras)
    width, height = _matrix(cameras, values, (f"S_rect_{camera:02d}",), (2,))
    lidar = folder / "calib_velo_to_cam.txt"
    pose = _read_keys(lidar)
    T = np.eye(4)
    T[:3, :3] = _matrix(lidar, pose, ("R",), (3, 3))
    T[:3, 3] = _matrix(lidar, pose, ("T",), (3,))
    calibration = KittiCalibration(
        P=_matrix(cameras, values, (f"P_rect_{camera:02d}",), (3, 4)),
        rect_from_cam=_homogeneous(_matrix(cameras, values, ("R_rect_00",), (3, 3))),
        cam_from_lidar=T,
        size=(int(height), int(width)),
    )
    return _checked(calibration, cameras)


def _checked(calibration: KittiCalibration, path: Path) -> KittiCalibration:
    """A calibration whose numbers make a camera of some size."""
    with foreign(path, "numbers that make no camera", "download KITTI's calib files again"):
        calibration.calibration(1, 1)
    return calibration


def _read_keys(path: Path) -> dict[str, str]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise InputError(
            f"cannot read the calibration: {reason}", str(path), "download KITTI's calib files"
        ) from None
    values = {}
    for line in text.splitlines():
        # The tracking benchmark writes "R_rect 9.9e-01 ..." without a colon, the others with one.
        key, _, rest = line.strip().partition(" ")
        if key:
            values[key.rstrip(":")] = rest
    return values


def _matrix(
    path: Path, values: dict[str, str], keys: tuple[str, ...], shape: tuple[int, ...]
) -> np.ndarray:
    key = next((k for k in keys if k in values), None)
    if key is None:
        existing = ", ".join(sorted(values)) or "nothing"
        raise InputError(
            f"no key {' or '.join(keys)}; the file has {existing}",
            str(path),
            "check that it is a KITTI calibration file of the kind asked for",
        )
    count = int(np.prod(shape))
    cure = f"'{key}:' must be followed by {count} finite numbers; download the file again"
    try:
        numbers = np.array([float(v) for v in values[key].split()], np.float64)
    except ValueError as error:
        raise InputError(f"'{key}' is malformed: {error}", str(path), cure) from None
    if numbers.size != count or not np.isfinite(numbers).all():
        raise InputError(f"'{key}' is malformed: {values[key][:60]!r}", str(path), cure)
    return numbers.reshape(shape)


def _homogeneous(matrix: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[: matrix.shape[0], : matrix.shape[1]] = matrix
    return T
