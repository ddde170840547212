"""A bag's camera and LiDAR as Frames, in order, each with the scan of its moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amodal_core.bags.messages import class_names, read_tracks
from amodal_core.bags.reader import BagReader, Topic
from amodal_core.bags.sensors import read_camera_info, read_image, read_points, stamp_of
from amodal_core.bags.transforms import TransformTree
from amodal_core.errors import InputError
from amodal_core.frame import TIME_JUMP, Calibration, Frame, FrameWarning, Tracks
from amodal_core.sync import MatchedSet, SyncConfig, Synchronizer, SyncResult

IMAGE_TYPE = "sensor_msgs/msg/Image"
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
POINTS_TYPE = "sensor_msgs/msg/PointCloud2"
ARRAY_TYPE = "amodal_msgs/msg/AmodalInstanceArray"
TF_TYPE = "tf2_msgs/msg/TFMessage"
# Half the period of a 10 Hz LiDAR: the nearest scan is the image's own.
SYNC_SLOP_NS = 50_000_000
# A scan waits for its image no longer than the synchroniser does; so many calibrations are kept.
_KEPT = 64


@dataclass(frozen=True)
class DriveTopics:
    """Which topics of a bag to use.

    Attributes:
        image: sensor_msgs/Image, rectified colour or grey.
        camera_info: the image's sensor_msgs/CameraInfo.
        points: sensor_msgs/PointCloud2.
        ground_truth: amodal_msgs/AmodalInstanceArray, or "" where the bag holds none.
    """

    image: str
    camera_info: str
    points: str
    ground_truth: str = ""


def find_topics(bag: BagReader, image: str = "", points: str = "") -> DriveTopics:
    """Choose a bag's topics by their types; names are needed only where there are several.

    Args:
        bag: the bag.
        image: the image topic, "" to find it.
        points: the point cloud topic, "" to find it.

    Raises:
        InputError: a topic is missing, has no messages, or there are several to choose from.
    """
    topics = {name: t for name, t in bag.topics.items() if t.count}
    infos = {name for name, t in topics.items() if t.type == INFO_TYPE}

    def pick(kind: str, type_name: str, wanted: str, candidates: list[str]) -> str:
        if wanted:
            if wanted not in topics or topics[wanted].type != type_name:
                listed = ", ".join(candidates) or "none"
                raise InputError(
                    f"no {type_name} on '{wanted}'", str(bag.path), f"there are: {listed}"
                )
            return wanted
        if len(candidates) != 1:
            many = f"{len(candidates)} topics of {type_name}: {', '.join(candidates)}"
            cure = f"choose with --{kind}-topic" if candidates else "record cameras and LiDAR"
            raise InputError(many if candidates else f"no {type_name}", str(bag.path), cure)
        return candidates[0]

    def of_type(type_name: str) -> list[str]:
        return [t.name for t in _sorted(topics) if t.type == type_name]

    images = of_type(IMAGE_TYPE)
    if images and not infos:
        raise InputError(
            f"no {INFO_TYPE} for {', '.join(images)}", str(bag.path), "record camera_info, too"
        )
    # Depth, label and overlay images rarely have a camera_info beside them, cameras nearly always.
    cameras = [name for name in images if _info_of(name) in infos] or images
    chosen = pick("image", IMAGE_TYPE, image, cameras)
    info = _info_of(chosen)
    if info not in infos:
        info = pick("image", INFO_TYPE, "", sorted(infos))
    truth = [name for name in of_type(ARRAY_TYPE) if name.split("/")[-1] == "ground_truth"]
    return DriveTopics(
        image=chosen,
        camera_info=info,
        points=pick("points", POINTS_TYPE, points, of_type(POINTS_TYPE)),
        ground_truth=truth[0] if truth else "",
    )


def _sorted(topics: dict[str, Topic]) -> list[Topic]:
    return [topics[name] for name in sorted(topics)]


def _info_of(image: str) -> str:
    return f"{image.rpartition('/')[0]}/camera_info"


@dataclass
class DriveFrame:
    """A frame of a bag.

    Attributes:
        frame: image, points and calibration; depth is not filled in.
        frame_id: the camera's optical frame.
        truth: the ground truth of the image's stamp, None where there is none.
        truth_classes: names of the class ids in `truth`.
        reset: time jumped back before this frame; whoever keeps a state of the stream clears it.
        warnings: what was refused or dropped since the frame before.
    """

    frame: Frame
    frame_id: str
    truth: Tracks | None = None
    truth_classes: dict[int, str] = field(default_factory=dict)
    reset: bool = False
    warnings: list[FrameWarning] = field(default_factory=list)


class BagDrive:
    """Frames of a bag, one for each image that has a scan; nothing else is dropped.

    Args:
        path: the bag.
        image: the image topic, "" to find it.
        points: the point cloud topic, "" to find it.

    Raises:
        InputError: no bag, or no camera and LiDAR in it.
    """

    def __init__(self, path: str | Path, image: str = "", points: str = "") -> None:
        self.bag = BagReader(path)
        try:
            self.topics = find_topics(self.bag, image, points)
        except InputError:
            self.bag.close()
            raise
        self.warnings: list[FrameWarning] = []  # of messages after the last frame, when all is read

    @property
    def images(self) -> int:
        """Images in the bag: frames at most."""
        return self.bag.topics[self.topics.image].count

    def __iter__(self) -> Iterator[DriveFrame]:
        """Read the bag from its beginning.

        Raises:
            InputError: the bag is damaged, or no transform leads from the LiDAR to the camera.
        """
        self.warnings = []
        names = self.topics
        sync = Synchronizer(SyncConfig((names.image, names.points), slop_ns=SYNC_SLOP_NS))
        assembly = _Assembly(names, str(self.bag.path))
        tf = [t.name for t in self.bag.topics.values() if t.type == TF_TYPE]
        wanted = [names.image, names.camera_info, names.points, *tf]
        if names.ground_truth:
            wanted.append(names.ground_truth)
        # Ground truth may be recorded after its image: a set waits until it is there.
        waiting: deque[MatchedSet] = deque()
        reset = False
        for topic, _, message in self.bag.messages(wanted):
            if topic in (names.image, names.points):
                result = sync.push(topic, stamp_of(message.header), message)
                reset = self._note(result, reset)
                waiting.extend(result.sets)
            else:
                assembly.take(topic, message, self.warnings)
            while waiting and assembly.complete(waiting[0].stamp):
                yield from self._release(assembly, waiting.popleft(), reset)
                reset = False
        result = sync.flush()
        reset = self._note(result, reset)
        waiting.extend(result.sets)
        while waiting:
            yield from self._release(assembly, waiting.popleft(), reset)
            reset = False

    def _note(self, result: SyncResult, reset: bool) -> bool:
        self.warnings.extend(
            FrameWarning("dropped", f"{drop.topic}: dropped, {drop.reason}")
            for drop in result.drops
        )
        if result.reset:
            self.warnings.append(FrameWarning(TIME_JUMP, "time jumped back: the tracks begin anew"))
        return reset or result.reset

    def _release(
        self, assembly: _Assembly, matched: MatchedSet, reset: bool
    ) -> Iterator[DriveFrame]:
        try:
            made = assembly.frame(matched)
        except InputError as error:
            if isinstance(error, _NoPlaceError):
                raise
            self.warnings.append(FrameWarning("refused", str(error)))
            return
        made.reset = reset
        made.warnings, self.warnings = self.warnings, []
        yield made

    def close(self) -> None:
        """Close the bag."""
        self.bag.close()

    def __enter__(self) -> BagDrive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _NoPlaceError(InputError):
    """Without the LiDAR's place no frame of the bag can be made."""


class _Assembly:
    """Calibrations, transforms and ground truth met so far, and frames made from them."""

    def __init__(self, names: DriveTopics, where: str) -> None:
        self.names = names
        self.where = where
        self.tree = TransformTree()
        self.infos: dict[int, Any] = {}
        self.newest_info: Any = None
        self.truths: dict[int, Any] = {}

    def take(self, topic: str, message: Any, warnings: list[FrameWarning]) -> None:
        """Take in a message that is neither image nor points."""
        if topic == self.names.camera_info:
            self.newest_info = message
            _keep(self.infos, stamp_of(message.header), message)
        elif topic == self.names.ground_truth:
            _keep(self.truths, stamp_of(message.header), message)
        else:
            try:
                self.tree.add(message, topic)
            except InputError as error:
                warnings.append(FrameWarning("refused", str(error)))

    def complete(self, stamp: int) -> bool:
        """Whether calibration and, where the bag has it, ground truth of an image are here."""
        if self.newest_info is None:
            return False
        newest = max(self.truths, default=None)
        return not self.names.ground_truth or (newest is not None and newest >= stamp)

    def frame(self, matched: MatchedSet) -> DriveFrame:
        names = self.names
        image, cloud = matched.messages[names.image], matched.messages[names.points]
        info = self.infos.get(matched.stamp, self.newest_info)
        if info is None:
            raise _NoPlaceError(
                "no camera_info came", f"{self.where} {names.camera_info}", "record it"
            )
        frame_id = image.header.frame_id.lstrip("/") or info.header.frame_id.lstrip("/")
        try:
            placed = self.tree.lookup(frame_id, cloud.header.frame_id, self.where)
        except InputError as error:
            raise _NoPlaceError(error.what, error.where, error.cure) from None
        calibration = read_camera_info(info, placed, names.camera_info)
        pixels = read_image(image, names.image)
        _check_size(pixels, calibration, names)
        frame = Frame(
            stamp=matched.stamp,
            image=pixels,
            points=read_points(cloud, names.points),
            calibration=calibration,
            points_stamp=matched.stamps[names.points],
        )
        made = DriveFrame(frame, frame_id)
        truth = self.truths.get(matched.stamp)
        if truth is not None:
            made.truth = read_tracks(truth, names.ground_truth)
            made.truth_classes = class_names(truth)
        return made


def _keep(messages: dict[int, Any], stamp: int, message: Any) -> None:
    messages[stamp] = message
    if len(messages) > _KEPT:
        del messages[next(iter(messages))]


def _check_size(pixels: np.ndarray, calibration: Calibration, names: DriveTopics) -> None:
    height, width = pixels.shape[:2]
    if (width, height) != (calibration.width, calibration.height):
        raise InputError(
            f"the image is {width}x{height}, its camera_info says "
            f"{calibration.width}x{calibration.height}",
            names.image,
            "publish the camera_info of this image",
        )
