"""Waymo's Open Dataset, perception, version 2 (Parquet): one camera with the top LiDAR, 10 Hz.

Images are distorted and read out line by line as recorded: they are rectified here, and the moment
of a sample is that of the image's middle column or row, to which the vehicle's pose is taken with
the recorded velocities. (What the vehicle moves during the readout itself stays.) A scan is the
first return of the top LiDAR, each pixel of its range image moved to the frame's time as the
development kit does; it is given with the vehicle's axes, from the LiDAR's place.

Sun et al.: Scalability in Perception for Autonomous Driving: Waymo Open Dataset, CVPR 2020.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from amodal_core import limits
from amodal_core.datasets.arrow_files import ParquetRows, read_columns
from amodal_core.datasets.base import Place, Rig
from amodal_core.datasets.categories import WAYMO
from amodal_core.datasets.image_files import decode_image
from amodal_core.datasets.recorded import CLASSES, Cuboid, Recorded
from amodal_core.errors import InputError, foreign
from amodal_core.geometry.camera import Camera, make_camera

CAMERAS = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")  # numbered from 1
SPLITS = ("training", "validation", "testing")
_TOP = 1  # the LiDAR's number
_FRAME, _CAMERA = "key.frame_timestamp_micros", "key.camera_name"
_LASER, _OBJECT = "key.laser_name", "key.laser_object_id"
_IMAGE = "[CameraImageComponent]."
_MOTION = tuple(f"{_IMAGE}velocity.{kind}_velocity.{axis}" for kind in ("linear", "angular")
                for axis in "xyz")  # fmt: skip
_SHUTTER = tuple(f"{_IMAGE}rolling_shutter_params.camera_{n}_time"
                 for n in ("trigger", "readout_done"))  # fmt: skip
_POSE = (f"{_IMAGE}pose.transform", f"{_IMAGE}pose_timestamp", *_MOTION, *_SHUTTER)
_RANGES = "[LiDARComponent].range_image_return1."
_PIXEL_POSES = "[LiDARPoseComponent].range_image_return1."
_BOX = tuple(f"[LiDARBoxComponent].box.{n}" for n in ("center.x", "center.y", "center.z", "size.x",
             "size.y", "size.z", "heading"))  # fmt: skip
_TYPE = "[LiDARBoxComponent].type"
_LENS = tuple(f"[CameraCalibrationComponent].intrinsic.{n}"
              for n in ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3"))  # fmt: skip
# Optical axes (x right, y down, z ahead) in Waymo's camera frame (x ahead, y left, z up).
_CAMERA_FROM_OPTICAL = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
_AGAIN = "download the segment again"


class _Segment:
    """The files of one segment."""

    def __init__(self, root: Path, name: str, camera: int) -> None:
        self.root, self.name, self._number = root, name, camera

    def file(self, component: str) -> Path:
        """A component's file."""
        return self.root / component / f"{self.name}.parquet"

    @cached_property
    def images(self) -> ParquetRows:
        """JPEGs."""
        return ParquetRows(self.file("camera_image"), (f"{_IMAGE}image",))

    @cached_property
    def _motion(self) -> dict[str, np.ndarray]:
        return read_columns(self.file("camera_image"), _POSE)

    def exposure(self, row: int) -> tuple[int, np.ndarray]:
        """Nanoseconds of the middle of an image's readout, and world_from_base (4, 4) then."""
        path, columns = self.file("camera_image"), self._motion
        with foreign(path, "a malformed pose", _AGAIN):
            times = [float(columns[name][row]) for name in (*_SHUTTER, _POSE[1])]
            middle = (times[0] + times[1]) / 2
            pose = _rigid(columns[_POSE[0]][row], path)
            velocity, turning = np.split(np.array([columns[n][row] for n in _MOTION], float), 2)
            numbers = np.array([*times, *velocity, *turning])
            apart = middle - times[2]
            if not np.isfinite(numbers).all() or abs(apart) > 1 or not 0 < middle < 9e9:
                raise ValueError("times that do not belong together")
            pose[:3, 3] += velocity * apart
            pose[:3, :3] = Rotation.from_rotvec(turning * apart).as_matrix() @ pose[:3, :3]
            return round(middle * 1e6) * 1000, pose

    @cached_property
    def camera(self) -> tuple[Camera, np.ndarray]:
        """The distorting camera, and base_from_camera (4, 4) of its optical frame."""
        path, at = self.file("camera_calibration"), "[CameraCalibrationComponent]."
        names = (_CAMERA, *_LENS, f"{at}extrinsic.transform", f"{at}width", f"{at}height")
        columns = read_columns(path, names)
        row = _row(columns[_CAMERA] == self._number, CAMERAS[self._number - 1], path)
        with foreign(path, "a malformed calibration", _AGAIN):
            fu, fv, cu, cv, k1, k2, p1, p2, k3 = (float(columns[n][row]) for n in _LENS)
            size = int(columns[f"{at}width"][row]), int(columns[f"{at}height"][row])
        limits.check_image(*size, str(path))
        # Waymo's pixel 0 is the left edge of the first one, ours its centre.
        K = (fu, 0, cu - 0.5, 0, fv, cv - 0.5, 0, 0, 1)
        camera = make_camera(K, (k1, k2, p1, p2, k3), "plumb_bob", (), (), size, str(path))
        return camera, _rigid(columns[names[-3]][row], path) @ _CAMERA_FROM_OPTICAL

    @cached_property
    def lidar(self) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """base_from_sensor (4, 4) of the top LiDAR, its beams' inclinations, or their range."""
        path, at = self.file("lidar_calibration"), "[LiDARCalibrationComponent]."
        names = [f"{at}beam_inclination.{n}" for n in ("values", "min", "max")]
        columns = read_columns(path, (_LASER, f"{at}extrinsic.transform", *names))
        row = _row(columns[_LASER] == _TOP, "TOP", path)
        with foreign(path, "a malformed calibration", _AGAIN):
            values = columns[names[0]][row]
            beams = np.asarray(() if values is None else values, np.float64).reshape(-1)
            if not np.isfinite(beams).all():
                raise ValueError("beams that are not finite")
            ends = float(columns[names[1]][row]), float(columns[names[2]][row])
        return _rigid(columns[f"{at}extrinsic.transform"][row], path), beams, ends

    @cached_property
    def base_from_lidar(self) -> np.ndarray:
        """The top LiDAR's place with the vehicle's axes."""
        moved = np.eye(4)
        moved[:3, 3] = self.lidar[0][:3, 3]
        return moved

    @cached_property
    def _poses(self) -> dict[int, np.ndarray]:
        name = "[VehiclePoseComponent].world_from_vehicle.transform"
        columns = read_columns(self.file("vehicle_pose"), (_FRAME, name))
        return dict(zip(columns[_FRAME].tolist(), columns[name], strict=True))

    def pose(self, micros: int) -> np.ndarray:
        """world_from_base (4, 4) at a frame's time."""
        path = self.file("vehicle_pose")
        if micros not in self._poses:
            raise InputError(f"no pose of the frame {micros}", str(path), _AGAIN)
        return _rigid(self._poses[micros], path)

    @cached_property
    def _scan_rows(self) -> tuple[dict[int, int], dict[int, int]]:
        """The row of each frame's top scan, and of its pixels' poses."""
        rows = []
        for component in ("lidar", "lidar_pose"):
            path = self.file(component)
            keys = read_columns(path, (_FRAME, _LASER)) if path.exists() else None
            top = [] if keys is None else np.flatnonzero(keys[_LASER] == _TOP).tolist()
            rows.append({} if keys is None else {int(keys[_FRAME][k]): k for k in top})
        return rows[0], rows[1]

    @cached_property
    def _streams(self) -> tuple[ParquetRows, ParquetRows]:
        lidar = ParquetRows(self.file("lidar"), (f"{_RANGES}values", f"{_RANGES}shape"))
        names = f"{_PIXEL_POSES}values", f"{_PIXEL_POSES}shape"
        return lidar, ParquetRows(self.file("lidar_pose"), names)

    def points(self, micros: int) -> np.ndarray | None:
        """(N, 4) points of a frame from the LiDAR's place; None where there is no scan."""
        rows, pose_rows = self._scan_rows
        if micros not in rows:
            return None
        if micros not in pose_rows:
            raise InputError(
                f"no poses of the scan of {micros}", str(self.file("lidar_pose")), _AGAIN
            )
        ranges = _image(self._streams[0], rows[micros], _RANGES, 4)
        poses = _image(self._streams[1], pose_rows[micros], _PIXEL_POSES, 6)
        if ranges.shape[:2] != poses.shape[:2]:
            where = str(self.file("lidar_pose"))
            raise InputError("poses of another size than the scan", where, _AGAIN)
        base_from_sensor, beams, ends = self.lidar
        height = len(ranges)
        if not len(beams):
            beams = ends[0] + (np.arange(height) + 0.5) / height * (ends[1] - ends[0])
        if len(beams) != height:
            where = str(self.file("lidar_calibration"))
            raise InputError(f"{len(beams)} beams, a scan of {height} rows", where, _AGAIN)
        base_from_world = np.linalg.inv(self.pose(micros))
        with np.errstate(all="ignore"):  # what is not finite is dropped
            points = scan_points(ranges, poses, base_from_sensor, beams[::-1], base_from_world)
            points[:, :3] -= self.base_from_lidar[:3, 3]
            points = points.astype(np.float32)
        return points[np.isfinite(points).all(axis=1)]

    @cached_property
    def boxes(self) -> dict[int, list[tuple[int, int, np.ndarray]]] | None:
        """Of each frame type, identity and box of its objects; None where nothing is annotated."""
        path = self.file("lidar_box")
        if not path.exists():
            return None
        columns = read_columns(path, (_FRAME, _OBJECT, _TYPE, *_BOX))
        with foreign(path, "malformed boxes", _AGAIN):
            rows = np.column_stack([np.asarray(columns[n], np.float64) for n in _BOX])
            if not np.isfinite(rows).all() or (rows[:, 3:6] <= 0).any():
                raise ValueError("a box without place or size")
            rows[:, :3] -= self.base_from_lidar[:3, 3]
            ids = np.unique(columns[_OBJECT].astype(str), return_inverse=True)[1]
            frames: dict[int, list[tuple[int, int, np.ndarray]]] = {}
            for k, (frame, kind) in enumerate(
                zip(columns[_FRAME].tolist(), columns[_TYPE].tolist(), strict=True)
            ):
                frames.setdefault(frame, []).append((int(kind), int(ids[k]), rows[k]))
        return frames


class Waymo(Recorded):
    """Segments of Waymo's Open Dataset, one video each.

    Args:
        path: a split's folder, which holds `camera_image` and the other components, or the folder
            that holds the splits.
        camera: one of CAMERAS.
        segment: the only one that is read; "" for all.
        masks: "" for boxes, "derived" for masks that are made of them.

    Raises:
        InputError: no segment, files of version 1, or a component is missing or malformed; pyarrow
            is not installed.
    """

    def __init__(
        self, path: str | Path, camera: str = CAMERAS[0], segment: str = "", masks: str = ""
    ) -> None:
        self.path = Path(path)
        super().__init__(f"waymo {self.path.name} {camera}", masks)
        if is_version_1(self.path):
            raise InputError(
                "these are files of version 1 (tfrecord), which only TensorFlow reads",
                str(path),
                "download the same segments in version 2: folders of .parquet files",
            )
        if camera not in CAMERAS:
            raise InputError(f"no camera '{camera}'", str(path), f"there are: {', '.join(CAMERAS)}")
        self._camera = CAMERAS.index(camera) + 1
        files = [f for f in segments_in(self.path) if segment in ("", f.stem)]
        if not files:
            what = f"no segment '{segment}'" if segment else "no segment"
            raise InputError(what, str(path), "give the folder that holds camera_image")
        self._segments = [(f.parent.parent, f.stem) for f in files]
        self._frames: list[tuple[int, int, int]] = []  # segment, frame in us, row of its image
        self._places: list[Place] = []
        for number, file in enumerate(files):
            keys = read_columns(file, (_FRAME, _CAMERA))
            rows = np.flatnonzero(keys[_CAMERA] == self._camera)
            rows = rows[np.argsort(keys[_FRAME][rows], kind="stable")]
            for turn, row in enumerate(rows.tolist()):
                micros = int(keys[_FRAME][row])
                if not 0 < micros < 2**53:
                    raise InputError(f"a frame at {micros} us", str(file), _AGAIN)
                self._frames.append((number, micros, row))
                self._places.append(Place(f"{file.stem}/{micros}", file.stem, turn))
        self._open: tuple[int, _Segment] | None = None

    def _of(self, index: int) -> tuple[_Segment, int, int]:
        number, micros, row = self._frames[index]
        if self._open is None or self._open[0] != number:
            self._open = number, _Segment(*self._segments[number], self._camera)
        return self._open[1], micros, row

    def __len__(self) -> int:
        return len(self._frames)

    def place(self, index: int) -> Place:
        """Named by segment and the frame's time."""
        return self._places[index]

    def stamps(self, index: int) -> tuple[int, int | None]:
        """The middle of the readout; the frame's time, to which scans are compensated."""
        segment, micros, row = self._of(index)
        return segment.exposure(row)[0], micros * 1000

    def camera(self, index: int) -> Camera:
        """One for a segment, with its distortion."""
        return self._of(index)[0].camera[0]

    def raw_image(self, index: int) -> np.ndarray:
        """The JPEG, distorted."""
        segment, _, row = self._of(index)
        where = f"{segment.file('camera_image')} row {row}"
        with foreign(where, "no image", _AGAIN):
            data = segment.images.row(row)[f"{_IMAGE}image"]
            if not isinstance(data, bytes):
                raise ValueError("an empty row")
        return decode_image(data, where)

    def points(self, index: int) -> np.ndarray | None:
        """First returns; intensities, which have no bound, as their tanh."""
        segment, micros, _ = self._of(index)
        return segment.points(micros)

    def rig(self, index: int) -> Rig:
        """With the poses of the middle of the readout and of the frame."""
        segment, micros, row = self._of(index)
        at_image = segment.exposure(row)[1]
        return Rig(segment.camera[1], segment.base_from_lidar, at_image, segment.pose(micros))

    def cuboids(self, index: int) -> list[Cuboid] | None:
        """The boxes at the frame's time, signs left out."""
        segment, micros, _ = self._of(index)
        if segment.boxes is None:
            return None
        objects = segment.boxes.get(micros, [])
        return [Cuboid(WAYMO[kind], box, i) for kind, i, box in objects if kind in WAYMO]

    def has_class(self, class_id: int) -> bool:
        """Whether Waymo has a class at all."""
        return CLASSES[class_id] in WAYMO.values()


def scan_points(
    ranges: np.ndarray,
    poses: np.ndarray,
    base_from_sensor: np.ndarray,
    inclinations: np.ndarray,
    base_from_world: np.ndarray,
) -> np.ndarray:
    """Points of a range image in the vehicle's frame at the frame's time.

    Args:
        ranges: (H, W, 4) metres, intensity, elongation, no-label zone; no return where metres <= 0.
        poses: (H, W, 6) roll, pitch, yaw and x, y, z of the vehicle in the world at each pixel.
        base_from_sensor: (4, 4).
        inclinations: (H,) radians of each row's beam.
        base_from_world: (4, 4) of the frame's time.

    Returns:
        (N, 4) float64 x, y, z in metres, and the intensity's tanh.
    """
    row, column = np.nonzero(ranges[..., 0] > 0)
    distance = ranges[row, column, 0].astype(np.float64)
    width = ranges.shape[1]
    # The middle column looks along the vehicle's x; columns go clockwise, whatever the mounting.
    turn = np.arctan2(base_from_sensor[1, 0], base_from_sensor[0, 0])
    azimuth = ((width - column - 0.5) / width * 2 - 1) * np.pi - turn
    elevation = inclinations[row]
    ahead = np.stack(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ],
        axis=1,
    )
    own = ahead * distance[:, None] @ base_from_sensor[:3, :3].T + base_from_sensor[:3, 3]
    pose = poses[row, column].astype(np.float64)
    turns = Rotation.from_euler("ZYX", pose[:, 2::-1])
    world = turns.apply(own) + pose[:, 3:]
    points = world @ base_from_world[:3, :3].T + base_from_world[:3, 3]
    return np.column_stack([points, np.tanh(ranges[row, column, 1].astype(np.float64))])


def _image(rows: ParquetRows, index: int, prefix: str, channels: int) -> np.ndarray:
    """(H, W, channels) of a row."""
    with foreign(rows.path, "a malformed range image", _AGAIN):
        row = rows.row(index)
        shape = tuple(int(n) for n in row[f"{prefix}shape"])
        if len(shape) != 3 or min(shape) < 1 or shape[2] != channels:
            raise ValueError(f"a shape of {shape}")
        limits.check_points(shape[0] * shape[1], str(rows.path))
        return np.asarray(row[f"{prefix}values"], np.float32).reshape(shape)


def _rigid(values: np.ndarray, path: Path) -> np.ndarray:
    """(4, 4) float64 of 16 numbers; rotations of single precision are made orthonormal."""
    with foreign(path, "a malformed transform", _AGAIN):
        matrix = np.array(values, np.float64).reshape(4, 4)
        if not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise ValueError("no rigid transform")
        if not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3):
            raise ValueError("no rotation")
        matrix[:3, :3] = Rotation.from_matrix(matrix[:3, :3]).as_matrix()
        return matrix


def _row(matches: np.ndarray, name: str, path: Path) -> int:
    rows = np.flatnonzero(matches)
    if len(rows) != 1:
        raise InputError(f"{len(rows)} calibrations of {name}", str(path), _AGAIN)
    return int(rows[0])


def segments_in(path: Path) -> list[Path]:
    """The files of images, one a segment, that a path means."""
    folders = (path, *(path / split for split in SPLITS))
    return sorted(f for folder in folders for f in folder.glob("camera_image/*.parquet"))


def is_version_1(path: Path) -> bool:
    """Whether a path holds version 1's files."""
    return path.suffix == ".tfrecord" or next(path.glob("*.tfrecord"), None) is not None
