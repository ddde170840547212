"""Messages to frames, for live nodes and bags alike: matched, calibrated, read, checked.

`take` brings messages together and is quick; `read` makes a frame of what belongs together and may
run in another thread. What a missing part means is decided here:

- an image's scan: the newest one before it, where the vehicle's motion since then is known;
- the partner of a message else: no frame, and a `Drop` that names it, unless it is optional: a
  frame without;
- camera_info or the LiDAR's place: `UncalibratedError`; a bag ends with it, a node goes on and is
  in error until it is mended;
- what would have to be guessed of a message (encoding, size, stamp, frame): `InputError`; the
  message or its frame is refused, the next one follows;
- ground truth: nothing, the frame has none;
- a part that the model needs: nothing here, `Pipeline.segment` warns and gives an empty frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from amodal_core.bags.images import read_depth, read_image
from amodal_core.bags.messages import class_names, read_instances, read_tracks
from amodal_core.bags.sensors import stamp_of
from amodal_core.drive.calibrations import Calibrations, UncalibratedError, keep
from amodal_core.drive.scans import Scans, frame_of
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.shared import once
from amodal_core.drive.sync import Drop, MatchedSet, SyncConfig, Synchronizer, SyncResult
from amodal_core.drive.topics import (
    CAMERA_INFO,
    DEPTH,
    GROUND_TRUTH,
    IMAGE,
    INSTANCES,
    ODOM,
    POINTS,
    TF,
    TF_STATIC,
    TRACKS,
)
from amodal_core.drive.transforms import TransformTree
from amodal_core.drive.witness import JUMP_NS, STRAY, Judged, Witnesses
from amodal_core.errors import InputError
from amodal_core.frame import Calibration, Frame, FrameWarning, Instances, Report, Tracks
from amodal_core.geometry.camera import Camera

# A clock that is farther ahead than this is not the stream's.
_OTHER_CLOCK_NS = 60_000_000_000
# What 12 of 16 bits come to of 255, and less.
_DARK = 16
_DARK_TEXT = (
    f"no sample is brighter than {_DARK} of 255; 10 or 12 bits belong in the upper ones of 16"
)
# What stands for bytes that are no UTF-8 where a middleware passes them on.
_NO_LETTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Moment:
    """Messages that belong together.

    Attributes:
        stamp: of the reference message, nanoseconds.
        messages: by role, the names of `amodal_core.drive.topics`.
        stamps: of each message, nanoseconds.
        reset: time jumped back before it; whoever keeps a state of the stream clears it.
        substitute: the newest scan before it, where it has none of its own.
    """

    stamp: int
    messages: dict[str, Any]
    stamps: dict[str, int]
    reset: bool = False
    substitute: Any = None


@dataclass
class Intake:
    """What a message brought about: new moments in order, messages given up, a jump back."""

    moments: list[Moment] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    reset: bool = False


@dataclass
class DriveFrame:
    """A frame made of messages.

    Attributes:
        frame: what was asked for of image, points, depth and calibration.
        frame_id: the camera's optical frame.
        lidar_frame: that of the scans so far, or the one that instances name; "" where none is
            known.
        instances: objects of the `instances` or `tracks` message, None where none was asked for.
        classes: names of the class ids in `instances`.
        truth: the ground truth of the frame's stamp, None where there is none.
        truth_classes: names of the class ids in `truth`.
        reset: time jumped back before this frame; whoever keeps a state of the stream clears it.
        warnings: what was refused or dropped since the frame before, and of the frame's messages.
        world_from_lidar: (4, 4) float64, the LiDAR's pose in the fixed frame at the frame's stamp;
            None where nothing tells it. Frames of bags alone have it.
    """

    frame: Frame
    frame_id: str
    lidar_frame: str = ""
    instances: Instances | None = None
    classes: dict[int, str] = field(default_factory=dict)
    truth: Tracks | None = None
    truth_classes: dict[int, str] = field(default_factory=dict)
    reset: bool = False
    warnings: list[FrameWarning] = field(default_factory=list)
    world_from_lidar: np.ndarray | None = None


class Assembler:
    """Takes messages of a stream and makes its frames; thread-safe.

    Args:
        parts: roles of the messages that make a frame, the one that gives it its stamp first.
        settings: what belongs together, and where the LiDAR stands.
        calibrated: frames get a Calibration.
        optional: those of the parts that a frame may lack.
        roles: role by the name that `take` is called with; by default the roles themselves.
        label: a topic's full name for errors, by the name that `take` is called with.
        images: reads an image or compressed image of that full name: (H, W, 3) uint8 RGB.
    """

    def __init__(
        self,
        parts: Sequence[str],
        settings: DriveSettings,
        *,
        calibrated: bool = True,
        optional: Collection[str] = (),
        roles: Mapping[str, str] | None = None,
        label: Callable[[str], str] = str,
        images: Callable[[Any, str], np.ndarray] = read_image,
    ) -> None:
        self.settings = settings
        self.transforms = TransformTree()
        self.newest: int | None = None  # stamp of the newest message that makes frames
        self._calibrated = calibrated
        self._roles = roles
        self._label = label
        self._images = images
        self._named = {role: name for name, role in (roles or {}).items()}
        self._parts = [self._named.get(role, role) for role in parts]
        self.reference = self._parts[0]
        self._truth_expected = GROUND_TRUTH.name in self._named
        self._lidar_optional = POINTS.name not in parts or POINTS.name in optional
        self._calibrations = Calibrations(
            settings,
            self.transforms,
            self._where,
            needed=calibrated,
            lidar_optional=self._lidar_optional,
        )
        replaceable: set[str] = set()
        self._scans: Scans | None = None
        if POINTS.name in parts:
            moving = settings.motion == "auto" and parts[0] != POINTS.name
            self._scans = Scans(settings, self.transforms, self._where(POINTS.name), moving=moving)
            replaceable = {POINTS.name} - set(optional) if moving else set()
        self._witnesses: Witnesses[Any] = Witnesses(JUMP_NS)  # of messages without partners
        self._sync = _synchronizer(self._parts, parts, settings, optional, replaceable)
        self._truth_lock = threading.Lock()
        self._truths: dict[int, Any] = {}
        self._newest_truth: int | None = None
        self._reset = False  # to be told with the next moment
        self._now: int | None = None  # the newest clock that counted
        self._old_clock: int | None = None  # before a jump back
        self._waited_in_vain = False
        self._lidar_frame = ""  # of the newest scan, or as instances named it

    # Messages come in.

    def take(self, topic: str, message: Any) -> Intake:
        """Take a message in.

        Args:
            topic: its role, or the name that `roles` knows it by.
            message: of rosbags or of rclpy.

        Raises:
            InputError: it is refused.
        """
        role = self._roles[topic] if self._roles else topic
        if role in (TF.name, TF_STATIC.name, ODOM.name):
            if role != ODOM.name:
                self.transforms.add(message, topic, static=role == TF_STATIC.name)
            if self._scans is not None:
                self._scans.motion_came(message if role == ODOM.name else None, self._label(topic))
            return Intake()
        stamp = stamp_of(message.header)
        # The newest camera_info holds whatever its stamp, unless it gives the frame its own.
        if stamp <= 0 and (role != CAMERA_INFO.name or topic in self._parts):
            cure = "fill in header.stamp in the driver"
            raise InputError("the stamp is zero", self._label(topic), cure)
        if _NO_LETTER in message.header.frame_id:
            cure = "name the frame in ASCII in the driver"
            raise InputError("header.frame_id is no UTF-8", self._label(topic), cure)
        if role == CAMERA_INFO.name:
            self._calibrations.take(stamp, message)
        elif role == GROUND_TRUTH.name:
            with self._truth_lock:
                keep(self._truths, stamp, message)
                self._newest_truth = stamp
        if topic not in self._parts:
            return Intake()
        if role == POINTS.name and self._scans is not None:
            self._scans.take(stamp, message)
        if self._sync is not None:
            result = self._sync.push(topic, stamp, message)
            self.newest = self._sync.newest
        else:
            result = self._alone(self._witnesses.judge(topic, stamp, message, self.newest))
        return self._intake(result)

    def advance(self, now: int) -> Intake:
        """Let the stream's time pass without a message, so that what has no partner is given up.

        Args:
            now: nanoseconds. A clock that still shows the time before a jump back is not trusted.
        """
        newest = self.newest
        if self._sync is None:
            return self._intake(self._alone(self._witnesses.settle()))
        if newest is None:
            return Intake()
        before = self._old_clock is not None and now >= self._old_clock > newest
        if before or now - newest >= _OTHER_CLOCK_NS:
            now = newest
        else:
            self._old_clock, self._now = None, now
        result = self._sync.advance(now)
        self.newest = self._sync.newest
        return self._intake(result)

    def flush(self) -> Intake:
        """The stream has ended: what can be matched, and the rest as drops."""
        if self._sync is not None:
            return self._intake(self._sync.flush())
        return self._intake(self._alone(self._witnesses.end()))

    def _alone(self, judged: Judged[Any]) -> SyncResult:
        """What messages without partners bring about."""
        result = SyncResult(drops=[Drop(s.source, s.stamp, STRAY) for s in judged.strays])
        for topic, stamp, message, _ in judged.passed:
            behind = 0 if self.newest is None else self.newest - stamp
            if 0 < behind <= JUMP_NS:
                result.drops.append(Drop(topic, stamp, "late"))
                continue
            result.reset |= behind > 0
            result.sets.append(MatchedSet(stamp, {topic: stamp}, {topic: message}))
            self.newest = stamp
        return result

    def _intake(self, result: SyncResult) -> Intake:
        if result.reset:
            now = self.newest or 0
            self.transforms.reset(now)
            if self._scans is not None:
                self._scans.reset(now)
            self._reset = True
            self._old_clock = self._now
            with self._truth_lock:
                if self._newest_truth is not None and self._newest_truth > now:
                    self._newest_truth = None
        role = self._roles.__getitem__ if self._roles else str
        moments = []
        for matched in result.sets:
            messages = {role(t): m for t, m in matched.messages.items()}
            stamps = {role(t): s for t, s in matched.stamps.items()}
            moment = Moment(matched.stamp, messages, stamps, self._reset)
            if self._scans is not None and POINTS.name not in messages:
                substitute = self._scans.substitute(matched.stamp, self._lag())
                if substitute is not None:
                    moment = replace(moment, substitute=substitute)
                elif matched.lacks:
                    result.drops.append(Drop(self.reference, matched.stamp, matched.lacks))
                    continue
            moments.append(moment)
            self._reset = False
        return Intake(moments, result.drops, result.reset)

    def _lag(self) -> int:
        """Nanoseconds that the scans' stamps lag behind the reference's."""
        offsets = self._sync.offsets_ns if self._sync is not None else {}
        return offsets.get(self._named.get(POINTS.name, POINTS.name)) or 0

    # Frames go out.

    def ready(self, moment: Moment) -> bool:
        """Whether calibration and, where they are expected, truth and motion of a moment are here.

        Motion is waited for `sync_timeout` seconds of the stream.
        """
        with self._truth_lock:
            if self._truth_expected and (
                self._newest_truth is None or self._newest_truth < moment.stamp
            ):
                return False
        overdue = (self.newest or 0) - moment.stamp > self.settings.sync_timeout * 1e9
        cloud = moment.messages.get(POINTS.name, moment.substitute)
        try:
            camera = self._camera(moment, 0.0)
            if self._calibrated:
                # Of a file that tells no size it is that of the image, which is not read yet.
                self._calibration(moment, cloud, camera and camera.of_size(1, 1), 0.0)
            if self._scans is not None and cloud is not None and not overdue:
                return self._scans.motion_here(cloud, moment.stamp, self._lag())
        except UncalibratedError:
            return False
        except InputError:
            pass  # refused for another reason, when it is read
        return True

    def read(self, moment: Moment, *, wait: bool = False) -> DriveFrame:
        """The frame of a moment.

        Args:
            moment: what `take` gave.
            wait: give calibration that has not come `transform_timeout` seconds; once, not again
                for every frame that lacks it.

        Raises:
            UncalibratedError: no camera_info, or nothing connects the LiDAR with the camera.
            InputError: a message cannot be read, or they do not fit together.
        """
        frame, frame_id, report = Frame(moment.stamp), "", Report()
        messages = moment.messages
        timeout = 0.0 if not wait or self._waited_in_vain else self.settings.transform_timeout
        camera = self._camera(moment, timeout)
        self._waited_in_vain |= camera is None
        if IMAGE.name in messages:
            where = self._where(IMAGE.name)
            message = messages[IMAGE.name]
            frame.image = image = once(message, IMAGE.name, lambda m: self._images(m, where))
            if image[::16, ::16].max() <= _DARK and image.max() <= _DARK:
                report.warn("dark image", f"{where}: {_DARK_TEXT}")
            if camera is not None:
                self._calibrations.compare_frames(moment.stamp, message, report)
                camera = camera.of_size(image.shape[1], image.shape[0])
                raw = self._calibrations.rectifies(camera, where, report)
                if raw or self._calibrated:
                    _check_size(image, camera, where)
                if raw:
                    rectify = camera.rectify
                    frame.image = once(message, camera, lambda _: rectify(image))
        cloud, scans = messages.get(POINTS.name), self._scans
        at = moment.stamp, self._lag(), report, wait
        if scans is not None and moment.substitute is not None:
            needed = not self._lidar_optional
            cloud = scans.standing_in(moment.substitute, *at, needed=needed)
        if self._calibrated:
            try:
                frame.calibration, frame_id = self._calibration(moment, cloud, camera, timeout)
            except UncalibratedError:
                self._waited_in_vain = True
                raise
            self._waited_in_vain = False
        made = DriveFrame(frame, frame_id, reset=moment.reset, warnings=report.warnings)
        for role in messages:
            self._read_part(role, moment, made)
        if scans is not None and cloud is not None:
            again = cloud is moment.substitute
            frame.points, frame.points_stamp = scans.points(cloud, *at, again=again)
            self._lidar_frame = frame_of(cloud)
        made.lidar_frame = self._lidar_frame
        made.frame_id = frame_id or frame_of(messages[next(iter(messages))])
        self._add_truth(made)
        return made

    def world_from_lidar(self, stamp: int) -> np.ndarray | None:
        """(4, 4) float64 pose of the newest scan's frame at a stamp; None where it is not known."""
        if self._scans is None or not self._lidar_frame:
            return None
        return self._scans.pose(self._lidar_frame, stamp)

    def _read_part(self, role: str, moment: Moment, made: DriveFrame) -> None:
        """Read what a depth image, instances or tracks add to a frame."""
        message, where = moment.messages[role], self._where(role)
        if role == DEPTH.name:
            made.frame.depth = once(message, role, lambda m: read_depth(m, where))
        elif role in (INSTANCES.name, TRACKS.name):
            read = read_tracks if role == TRACKS.name else read_instances
            made.instances, made.classes, lidar_frame = once(
                message, role, lambda m: (read(m, where), class_names(m), _lidar_frame_of(m))
            )
            self._lidar_frame = lidar_frame or self._lidar_frame

    def _add_truth(self, made: DriveFrame) -> None:
        """The truth of a frame's stamp and camera; a broken one is told, and the frame has none."""
        truth = self._truths.get(made.frame.stamp)
        # A drive of several cameras may have the truth of one.
        if truth is None or len({frame_of(truth), made.frame_id} - {""}) > 1:
            return
        where, image = self._where(GROUND_TRUTH.name), made.frame.image
        try:
            tracks = read_tracks(truth, where)
            if image is not None and tracks.size != image.shape[:2]:
                height, width = tracks.size
                size = f"{image.shape[1]}x{image.shape[0]}"
                text = f"truth of {width}x{height} pixels, an image of {size}"
                raise InputError(text, where, "record the truth of this camera")
        except InputError as error:
            made.warnings.append(FrameWarning("refused", str(error)))
            return
        made.truth, made.truth_classes = tracks, class_names(truth)

    def _where(self, role: str) -> str:
        return self._label(self._named.get(role, role))

    def _camera(self, moment: Moment, timeout: float) -> Camera | None:
        return self._calibrations.camera(moment.stamp, IMAGE.name in moment.messages, timeout)

    def _calibration(
        self, moment: Moment, cloud: Any, camera: Camera | None, timeout: float
    ) -> tuple[Calibration | None, str]:
        image = moment.messages.get(IMAGE.name)
        return self._calibrations.calibration(moment.stamp, image, cloud, camera, timeout)


def _synchronizer(
    names: Sequence[str],
    roles: Sequence[str],
    settings: DriveSettings,
    optional: Collection[str],
    replaceable: Collection[str],
) -> Synchronizer | None:
    if len(names) < 2:
        return None
    # Depth images and instances have exactly the image's stamp; only scans differ from it.
    scans = [name for name, role in zip(names, roles, strict=True) if role == POINTS.name]
    return Synchronizer(
        SyncConfig(
            tuple(names),
            slop_ns=round(settings.sync_slop * 1e9) if scans else 0,
            offsets_ns=dict.fromkeys(
                scans, None if settings.auto_points_offset else round(settings.points_offset * 1e9)
            ),
            timeout_ns=round(settings.sync_timeout * 1e9),
            optional=frozenset(n for n, r in zip(names, roles, strict=True) if r in optional),
            replaceable=frozenset(n for n, r in zip(names, roles, strict=True) if r in replaceable),
        )
    )


def _lidar_frame_of(message: Any) -> str:
    """The frame of 3D boxes; recordings of earlier versions do not name it."""
    return str(getattr(message, "box3d_frame_id", ""))


def _check_size(pixels: np.ndarray, camera: Camera, where: str) -> None:
    height, width = pixels.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise InputError(
            f"the image is {width}x{height}, its camera_info says {camera.width}x{camera.height}",
            where,
            "publish the camera_info of this image",
        )
