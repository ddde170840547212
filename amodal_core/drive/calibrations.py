"""The camera of a stream and where its LiDAR stands: from messages, a file or the settings."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from amodal_core.drive.scans import frame_of
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.topics import CAMERA_INFO, IMAGE, POINTS
from amodal_core.drive.transforms import TransformTree
from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Report
from amodal_core.geometry.calibration_files import FileCalibration, read_calibration
from amodal_core.geometry.camera import Camera, read_camera

_RECTIFICATION = "rectification"  # kind of the warning that says whether images are rectified here
# Names of topics whose images are rectified: image_rect, image_rect_color, rect/image.
_RECTIFIED = re.compile(r"(?:^|[/_])rect(?:ified)?(?:[/_]|$)")
# Names that kitti2bag gives to KITTI's rectified images, beside the raw camera's K and D.
_KITTI2BAG = re.compile(r"^/kitti/camera_(?:gray|color)_(?:left|right)/image")
# What is kept for images that are still on their way.
_KEPT = 64


class UncalibratedError(InputError):
    """Without camera_info or the LiDAR's place no frame can be made."""


class Calibrations:
    """What is known of the calibration of a stream's frames; thread-safe.

    Args:
        settings: where the LiDAR stands, a calibration file, whether images are rectified.
        transforms: of the stream.
        where: a topic's full name for errors, by its role.
        needed: frames get a Calibration; else the camera alone may rectify their images.
        lidar_optional: a frame may do without a scan.

    Raises:
        InputError: the calibration file cannot be read.
    """

    def __init__(
        self,
        settings: DriveSettings,
        transforms: TransformTree,
        where: Callable[[str], str],
        *,
        needed: bool,
        lidar_optional: bool,
    ) -> None:
        self._rectify = settings.rectify
        self._transforms = transforms
        self._where = where
        self._needed = needed
        self._lidar_optional = lidar_optional
        self._file: FileCalibration | None = None
        self._camera_from_lidar = settings.camera_from_lidar
        if settings.calibration:
            self._file = read_calibration(settings.calibration, where(IMAGE.name))
            if self._camera_from_lidar is None:
                self._camera_from_lidar = self._file.camera_from_lidar
        self._strange = False  # whether a camera_info of another frame has been told
        self._raw: bool | None = None  # whether images are rectified here, once that is decided
        self._changed = threading.Condition()
        self._infos: dict[int, Any] = {}

    def take(self, stamp: int, info: Any) -> None:
        """Take a camera_info in."""
        with self._changed:
            keep(self._infos, stamp, info)
            self._changed.notify_all()

    def camera(self, stamp: int, with_image: bool, timeout: float) -> Camera | None:
        """A frame's camera, None where none has come in time; that of the file where there is one.

        Frames without a calibration need it for the rectification of their image alone.
        """
        if self._file is not None:
            return self._file.camera
        if not self._needed and (not with_image or self._rectify == "never"):
            return None
        with self._changed:
            self._changed.wait_for(lambda: bool(self._infos), timeout)
            if not self._infos:
                return None
        try:
            return read_camera(self._info(stamp), self._where(CAMERA_INFO.name))
        except InputError:
            if self._needed:
                raise
            return None

    def rectifies(self, camera: Camera, where: str, report: Report) -> bool:
        """Whether images of this camera are rectified here; said once, and when it changes."""
        if camera.rectified:
            return False
        mode, named = self._rectify, _RECTIFIED.search(where) is not None
        kitti = _KITTI2BAG.search(where) is not None
        bent = camera.distorted and not named and not kitti
        raw = mode == "always" or (mode == "auto" and bent)
        if raw != self._raw:
            self._raw = raw
            why = f"rectify is {mode}"
            if mode == "auto" and raw:
                why = "not named image_rect, and its camera distorts; if it is rectified already, "
                why += "set rectify to never"
            elif mode == "auto":
                why = "kitti2bag's are" if kitti else "its D is zero, though K is not P, or R turns"
                why = "by its name" if named else f"{why}; if it is raw, rectify: always"
            does = "rectified here" if raw else "taken as rectified"
            report.warn(_RECTIFICATION, f"{where}: {does} ({why})")
        return raw

    def compare_frames(self, stamp: int, image: Any, report: Report) -> None:
        """Say once where a camera_info names another frame than its image: it may be another's."""
        info = None if self._file is not None or self._strange else self._info(stamp)
        frames = [frame_of(message) for message in (image, info) if message is not None]
        if len(set(frames) - {""}) > 1:
            self._strange = True
            text = f"{self._where(CAMERA_INFO.name)}: of frame '{frames[1]}', its image of"
            report.warn("camera_info", f"{text} '{frames[0]}'; is it this camera's?")

    def calibration(
        self, stamp: int, image: Any, cloud: Any, intrinsics: Camera | None, timeout: float
    ) -> tuple[Calibration | None, str]:
        """A frame's calibration, None where no scan says which LiDAR; its camera's frame.

        Args:
            stamp: of the frame, nanoseconds.
            image: its message or None.
            cloud: its scan's message or None.
            intrinsics: what `camera` gave.
            timeout: seconds that a transform may still take.

        Raises:
            UncalibratedError: no camera_info, or nothing connects the LiDAR with the camera.
            InputError: a message names no frame.
        """
        where = self._where(CAMERA_INFO.name)
        if intrinsics is None:
            cure = "record it, remap camera_info to the camera's, or give a calibration file"
            raise UncalibratedError("no camera_info has come", where, cure)
        info = self._info(stamp)
        camera = frame_of(image) if image is not None else ""
        camera = camera or (frame_of(info) if info is not None else "")
        camera_from_lidar = self._camera_from_lidar
        if self._file is None or camera_from_lidar is None:
            camera = _named(camera, where)
        if camera_from_lidar is None:
            source = self._where(POINTS.name)
            if cloud is None and self._lidar_optional:
                return None, camera
            lidar = _named("" if cloud is None else frame_of(cloud), source)
            if lidar == camera:
                raise UncalibratedError(
                    f"image and scan are in the same frame '{lidar}'",
                    source,
                    "name the camera's optical frame in the image's header.frame_id, or give the "
                    "extrinsics",
                )
            try:
                camera_from_lidar = self._transforms.lookup(camera, lidar, timeout=timeout)
            except InputError as error:
                raise UncalibratedError(error.what, error.where, error.cure) from None
        return intrinsics.calibration(camera_from_lidar), camera

    def _info(self, stamp: int) -> Any:
        """The camera_info of a stamp, or the newest, or None."""
        with self._changed:
            newest = next(reversed(self._infos.values()), None)
            return self._infos.get(stamp) or newest


def keep(messages: dict[int, Any], stamp: int, message: Any) -> None:
    """Keep a message as the newest, whatever its stamp."""
    messages.pop(stamp, None)
    messages[stamp] = message
    if len(messages) > _KEPT:
        del messages[next(iter(messages))]


def _named(frame_id: str, where: str) -> str:
    if not frame_id:
        raise InputError("header.frame_id is empty", where, "fill it in, in the driver")
    return frame_id
