"""A bag's camera and LiDAR as frames, in order, each with the scan of its moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from amodal_core import limits
from amodal_core.bags.reader import BagReader
from amodal_core.bags.sensors import stamp_of
from amodal_core.drive.assembler import Assembler, DriveFrame, Intake, Moment
from amodal_core.drive.calibrations import UncalibratedError
from amodal_core.drive.settings import DriveSettings
from amodal_core.drive.sync import estimate_offset
from amodal_core.drive.topics import IMAGE, NO_LIDAR, POINTS, TF, TF_STATIC, find_topics, unread
from amodal_core.errors import InputError
from amodal_core.frame import TIME_JUMP, FrameWarning
from amodal_core.geometry.camera import is_calibrated

# Moments that wait for their calibration or truth before they are read without.
_WAITING = 64
_LAG_FROM = 50  # first images and scans that the lag of their clocks is found from
# Seconds from a message's stamp to its recording where both are of one clock.
_DELAYS = (-0.01, 0.5)


class BagDrive:
    """Frames of a bag, one for each image that has a scan; nothing else is dropped.

    Where odometry or transforms tell how the vehicle moved, scans are moved to their image's time,
    and an image without a scan gets the newest one before it.

    Where the LiDAR is optional every image is a frame, and a bag with a camera alone will do.

    Args:
        path: the bag.
        image: the image topic, "" to find it.
        points: the point cloud topic, "" to find it, `NO_LIDAR` for the camera alone.
        settings: what belongs together, and where the LiDAR stands.
        odometry: the odometry topic, "" to find it.
        lidar_optional: an image without a scan is a frame, too.

    Raises:
        InputError: no bag, or no camera and LiDAR in it.
    """

    def __init__(
        self,
        path: str | Path,
        image: str = "",
        points: str = "",
        settings: DriveSettings | None = None,
        odometry: str = "",
        *,
        lidar_optional: bool = False,
    ) -> None:
        self.settings = settings or DriveSettings()
        self.lidar_optional = lidar_optional
        self._wanted = points
        self.bag = BagReader(path)
        try:
            self.topics = find_topics(
                self.bag,
                image,
                points,
                odometry,
                lidar_optional=lidar_optional,
                info_optional=bool(self.settings.calibration),
            )
        except InputError:
            self.bag.close()
            raise
        if self.settings.auto_points_offset and self.topics.points:
            lag = self.points_lag()
            self.settings = replace(self.settings, points_offset=lag, auto_points_offset=False)
        self.warnings: list[FrameWarning] = []  # of messages after the last frame, when all is read
        self._reset = False  # of a frame that was refused
        self._with_scan = 0  # frames that had a scan of their own

    def points_lag(self) -> float:
        """Seconds that the scans' stamps lag behind the images', from the first of both.

        It follows from the stamps, see `estimate_offset`. Where they are not of the recorder's
        clock, when they were recorded tells how far the clocks are apart, up to the sensors'
        delays; a scan is recorded up to a turn later than an image, which says nothing of clocks.
        """
        stamps: dict[str, list[int]] = {self.topics.image: [], self.topics.points: []}
        delays: dict[str, list[int]] = {self.topics.image: [], self.topics.points: []}
        for topic, recorded, message in self.bag.messages(stamps):
            stamp = stamp_of(message.header)
            if stamp > 0 and len(stamps[topic]) < _LAG_FROM:
                stamps[topic].append(stamp)
                delays[topic].append(recorded - stamp)
            elif min(map(len, stamps.values())) == _LAG_FROM:
                break
        if not all(stamps.values()):
            return 0.0
        image, points = (sorted(values)[len(values) // 2] for values in delays.values())
        one_clock = all(_DELAYS[0] <= delay * 1e-9 <= _DELAYS[1] for delay in (image, points))
        coarse = 0 if one_clock else image - points
        fine = estimate_offset(
            stamps[self.topics.image], [s - coarse for s in stamps[self.topics.points]]
        )
        return (coarse + fine) * 1e-9

    def lag_line(self) -> str:
        """What to do where the LiDAR's clock is off by more than the slop, "" where it is not."""
        lag = self.points_lag() if self.topics.points else 0.0
        if abs(lag - self.settings.points_offset) <= self.settings.sync_slop:
            return ""
        return f"scans are stamped {lag:+.6f} s off: give that as points_offset, or auto"

    @property
    def images(self) -> int:
        """Images in the bag: frames at most."""
        return self.bag.topics[self.topics.image].count

    def __iter__(self) -> Iterator[DriveFrame]:
        """Read the bag from its beginning.

        Raises:
            InputError: the bag is damaged, or no transform leads from the LiDAR to the camera.
        """
        self.warnings, self._reset, self._with_scan = [], False, 0
        if not self.topics.points and self._wanted != NO_LIDAR:
            other = unread(self.bag)
            if other:
                text = f"the camera alone is used; {other}"
                self.warnings.append(FrameWarning("no scan", text))
        if self.bag.lacks:
            self.warnings.append(FrameWarning("recording", f"{self.bag.path}: {self.bag.lacks}"))
        roles = self.topics.roles
        for recorded in self.bag.topics.values():
            if recorded.type == TF.type:
                roles[recorded.name] = (TF_STATIC if recorded.latched else TF).name
        lidar = (POINTS.name,) if self.topics.points else ()
        assembler = Assembler(
            (IMAGE.name, *lidar),
            self.settings,
            calibrated=self._calibrated(),
            optional=lidar if self.lidar_optional else (),
            roles=roles,
        )
        self._read_static(assembler, [n for n, role in roles.items() if role == TF_STATIC.name])
        # Truth and transforms may be recorded after their image: a moment waits for them.
        waiting: deque[Moment] = deque()
        for topic, _, message in self.bag.messages(roles):
            try:
                waiting.extend(self._noted(assembler.take(topic, message)))
            except InputError as error:
                self._refused(error)
            while waiting and (len(waiting) > _WAITING or assembler.ready(waiting[0])):
                yield from self._read(assembler, waiting.popleft())
        waiting.extend(self._noted(assembler.flush()))
        for moment in waiting:
            yield from self._read(assembler, moment)
        if not self._with_scan:
            line = self.lag_line()
            if line:
                self.warnings.append(FrameWarning("clocks", f"no image has a scan: {line}"))

    def _calibrated(self) -> bool:
        """Whether frames get a calibration; a camera alone, whose driver has none, does without."""
        topic = self.topics.camera_info
        if self.settings.calibration or not topic or self.topics.points:
            return bool(self.settings.calibration or topic)
        first = next((info for _, _, info in self.bag.messages([topic])), None)
        if first is None or is_calibrated(first):
            return True
        text = f"{topic}: K and P are zero, the camera is not calibrated: used without"
        cure = "record the camera_info of a calibrated camera, or give a calibration file"
        self.warnings.append(FrameWarning("camera_info", text, cure))
        return False

    def _read_static(self, assembler: Assembler, topics: list[str]) -> None:
        """Take in the static transforms first, wherever they stand in the bag.

        Where one is written anew later, the first holds until then.
        """
        first, named = [], set[str]()
        for topic, _, message in self.bag.messages(topics):
            # Of a recording that repeats them for hours the first ones alone are kept.
            children = {t.child_frame_id for t in message.transforms} - named
            if children and len(named) < limits.FRAMES:
                named |= children
                first.append((topic, message))
        for topic, message in reversed(first):
            with suppress(InputError):  # refused when it is read in its turn
                assembler.take(topic, message)

    def _noted(self, intake: Intake) -> list[Moment]:
        for drop in intake.drops:
            text = f"{drop.topic}: dropped, {drop.reason}"
            self.warnings.append(FrameWarning("dropped", text))
        if intake.reset:
            text = "time jumped back: the tracks begin anew"
            self.warnings.append(FrameWarning(TIME_JUMP, text))
        return intake.moments

    def _refused(self, error: InputError) -> None:
        self.warnings.append(FrameWarning("refused", f"{error.where}: {error.what}", error.cure))

    def _read(self, assembler: Assembler, moment: Moment) -> Iterator[DriveFrame]:
        self._reset |= moment.reset
        try:
            made = assembler.read(moment)
        except UncalibratedError as error:
            where = f"{self.bag.path} {error.where}"
            refused = [w.text for w in self.warnings if w.kind == "refused"]
            what = f"{error.what}; {refused[0]}" if refused else error.what
            raise InputError(what, where, error.cure) from None
        except InputError as error:
            self._refused(error)
            return
        if self.topics.points and made.frame.points is None:
            text = f"{self.topics.image}: answered without a scan of {self.topics.points}"
            self.warnings.append(FrameWarning("no scan", text))
        self._with_scan += POINTS.name in moment.messages
        made.reset, self._reset = self._reset, False
        made.warnings, self.warnings = self.warnings + made.warnings, []
        made.world_from_lidar = assembler.world_from_lidar(moment.stamp)
        yield made

    def close(self) -> None:
        """Close the bag."""
        self.bag.close()

    def __enter__(self) -> BagDrive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
